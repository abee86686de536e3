--- Layer 4 over a network that is as networks are, between the program and the peer: slow, in pieces, cut,
--- silent; for datagrams, one that loses them and changes their order.
local t = require "spec.support"

local process, program, relay, socket, udp = t.process, t.program, t.relay, t.socket, t.udp

local MIB = 1048576
local SPLICED_BYTES = 16 * MIB -- by then a direction is spliced (tunnel_splice.c), whatever sockets hold

local SITE = [[
   local ml = require "monolake"
   ml.listen { address = "127.0.0.1:0", l4 = {
      ml.access_log { path = "lines.json", format = "json" },
      ml.tcp_proxy({ "${peer}", name = "peer" }, { idle_timeout = "${idle}" }),
   } }
]]

t.on_both_backends("layer 4 over a bad network", function(backend)
   --- Both ends of a tunnel by way of a relay, and what is between them.
   local function tunnel(options, idle)
      local origin = socket.listen()
      local between = relay.start(origin.address, options)
      local running = program.start { io = backend, site = SITE,
         values = { peer = between.address, idle = idle or "1h" } }
      local client = running:connect()
      client:send "hello"
      local peer = origin:accept()
      assert.equal("hello", peer:read(5))
      return client, peer, between, running
   end

   --- The line that the access log has for it, when it has ended.
   local function line_of(running)
      local text = t.eventually("a line", function()
         return process.read_file(running:path "lines.json"):match "[^\n]+\n"
      end)
      return require("cjson").decode(text)
   end

   local function read_until_reset(from)
      local bytes = 0
      while true do
         local ok, why = from:try_fill()
         bytes = bytes + #from.buffer
         from.buffer = ""
         if not ok then
            return bytes, why
         end
      end
   end

   t.it("carries all that comes slowly and in pieces", function()
      local client, peer, _, running = tunnel { delay = 0.001, piece = 301 }
      local bytes = ("0123456789abcdef"):rep(2000)
      local sending = t.start_task(function() client:send(bytes):half_close() end)
      peer:send(bytes)
      assert.is_true(client:read(#bytes) == bytes)
      assert.is_true(peer:read_all() == bytes)
      sending:join()
      peer:close()
      assert.equal("", client:read_all())
      local line = line_of(running)
      assert.same({ "ended", #bytes + 5, #bytes }, { line.reason, line.client_bytes, line.peer_bytes })
      client:close()
      running:stop()
   end)

   for _, way in ipairs { "to", "from" } do
      t.it(("tells of a reset while bulk %s the peer is spliced"):format(way), function()
         local client, peer, _, running = tunnel { reset_after = SPLICED_BYTES }
         local sender, reader = client, peer
         if way == "from" then
            sender, reader = peer, client
         end
         t.start_task(function()
            while sender.fd and sender:try_send(("x"):rep(256 * 1024), 10) do end
         end)
         local bytes, why = read_until_reset(reader)
         assert.equal("reset", why)
         assert.is_true(bytes <= SPLICED_BYTES + 256 * 1024)
         client:expect_close()
         local line = line_of(running)
         assert.equal("peer_failed", line.reason)
         local counted = way == "to" and line.client_bytes or line.peer_bytes
         assert.is_true(counted >= MIB, counted .. " bytes counted")
         assert.is_true(counted >= (way == "from" and bytes or 0))
         running:stop()
      end)
   end

   t.it("waits for a network that stands still, and loses nothing", function()
      local client, peer, between, running = tunnel()
      local bytes = ("0123456789abcdef"):rep(4 * MIB / 16)
      between:stall()
      local sending = t.start_task(function() client:send(bytes) end)
      t.tasks.sleep(0.2)
      between:go_on()
      assert.is_true(peer:read(#bytes) == bytes)
      sending:join()
      client:reset()
      running:stop()
   end)

   t.it("gives up a peer that is dead and says nothing of it", function()
      local client, peer, between, running = tunnel({}, "200ms")
      between:lose()
      client:send "lost"
      peer:send "lost, too"
      local bytes, why = read_until_reset(client)
      assert.equal(0, bytes)
      assert.equal("reset", why)
      local line = line_of(running)
      assert.equal("idle_timeout", line.reason)
      assert.equal(9, line.client_bytes)
      running:stop()
   end)

   t.it("tells of a reset behind the client's end", function()
      local client, peer, between, running = tunnel()
      client:half_close()
      assert.equal("", peer:read_all())
      between:reset()
      client:expect_close()
      assert.equal("peer_failed", line_of(running).reason)
      running:stop()
   end)

   t.it("carries the datagrams that are left, in the order that is left, each to its own client", function()
      local COUNT, LOST = 60, 5
      local origin = udp.bind():serve(function(bytes) return "re " .. bytes end)
      local between = udp.relay(origin.address, { lose = LOST, swap = true })
      local running = program.start { io = backend, values = { peer = between.address }, site = [[
         local ml = require "monolake"
         ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy "${peer}" }
      ]] }
      local clients = {}
      for i = 1, 8 do
         clients[i] = udp.connect(running.address)
      end
      for number = 1, COUNT do
         for i, client in ipairs(clients) do
            client:send(("%d of %d"):format(number, i))
         end
         t.eventually("the relay to have them", function()
            return between.taken == number * #clients
         end)
      end
      for i, client in ipairs(clients) do
         for _, number in ipairs(between.expected(COUNT)) do
            assert.equal(("re %d of %d"):format(number, i), (client:receive()))
         end
         assert.is_true(client:silent(0.01))
      end
      running:stop()
   end)
end)
