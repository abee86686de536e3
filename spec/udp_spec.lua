--- UDP: flows of datagrams carried to peers of an upstream.
local t = require "spec.support"

local program, udp = t.program, t.udp

local PROXY = [[
   local ml = require "monolake"
   ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy("${origin}") }
]]

t.on_both_backends("udp", function(backend)
   local function start(site, values, options)
      options = options or {}
      options.io, options.site, options.values = backend, site, values
      return program.start(options)
   end

   local function echo(prefix)
      return udp.bind():serve(function(bytes) return (prefix or "") .. bytes end)
   end

   t.it("carries datagrams both ways, empty and large ones too", function()
      local origin = echo()
      local running = start(PROXY, { origin = origin.address })
      assert.matches("^udp:127%.0%.0%.1:[1-9]%d*$", running.address)
      local client = udp.connect(running.address)
      for _, bytes in ipairs { "hello", "", "x", ("y"):rep(1400), ("z"):rep(65507), "", "bye" } do
         assert.equal(bytes, (client:ask(bytes)))
      end
   end)

   t.it("gives each client a flow with a socket of its own", function()
      local origin, seen = udp.bind(), {}
      origin:serve(function(bytes, from)
         seen[from] = (seen[from] or 0) + 1
         return bytes
      end)
      local running = start(PROXY, { origin = origin.address }, { workers = 2 })
      local clients = {}
      for i = 1, 200 do
         clients[i] = udp.connect(running.address)
      end
      for round = 1, 3 do
         for i, client in ipairs(clients) do
            client:send(("%d of %d"):format(round, i))
         end
         for i, client in ipairs(clients) do
            assert.equal(("%d of %d"):format(round, i), (client:receive()))
         end
      end
      local flows = 0
      for _, count in pairs(seen) do
         assert.equal(3, count)
         flows = flows + 1
      end
      assert.equal(200, flows)
   end)

   t.it("carries what the peer sends unasked, but to nobody who has not sent first", function()
      local origin = udp.bind()
      local running = start(PROXY, { origin = origin.address })
      local client = udp.connect(running.address):send "subscribe"
      local _, flow = origin:receive()
      for i = 1, 5 do
         origin:send("news " .. i, flow)
         assert.equal("news " .. i, (client:receive()))
      end
      local stranger = udp.bind()
      stranger:send("forged", flow)
      assert.is_true(client:silent(0.05))
   end)
end)
