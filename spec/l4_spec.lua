--- Layer 4: connections carried to peers of an upstream, and Lua layers that decide on them.
local t = require "spec.support"

local SITE = [[
   local ml = require "monolake"
   local origin = ml.upstream { "${origin}", name = "origin", protocol = "tcp" }
   ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy(origin) }
]]

t.on_both_backends("layer 4", function(backend)
   local origin, proxy = t.proxied(backend, { site = SITE })

   --- Both ends of a tunnel.
   local function tunnel()
      local client = proxy():connect()
      return client, origin:accept()
   end

   t.it("lets the server speak first", function()
      local client, peer = tunnel()
      peer:send "220 hello\r\n"
      assert.equal("220 hello\r\n", client:read_until "\r\n")
      client:send "QUIT\r\n"
      assert.equal("QUIT\r\n", peer:read_until "\r\n")
      peer:send("bye"):close()
      assert.equal("bye", client:read_all())
   end)

   t.it("carries the end of either side", function()
      local client, peer = tunnel()
      client:send("question"):half_close()
      assert.equal("question", peer:read_all())
      peer:send("answer"):close()
      assert.equal("answer", client:read_all())

      client, peer = tunnel()
      peer:send("greeting"):half_close()
      assert.equal("greeting", client:read_all())
      client:send("thanks"):close()
      assert.equal("thanks", peer:read_all())
   end)

   t.it("carries what was sent and ended before the peer was connected", function()
      local client = proxy():connect()
      client:send("all at once"):half_close()
      local peer = origin:accept()
      assert.equal("all at once", peer:read_all())
      peer:send("done"):close()
      assert.equal("done", client:read_all())
   end)

   t.it("carries a reset of either side", function()
      local client, peer = tunnel()
      client:reset()
      assert.equal("reset", peer:expect_close())
      client, peer = tunnel()
      peer:reset()
      assert.equal("reset", client:expect_close())
   end)
end)
