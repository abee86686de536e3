--- Bulk of layer 4, which the kernel hands on through pipes: whatever happens meanwhile, all arrives or
--- the connection is reset, and nothing is left behind.
local t = require "spec.support"

local process, program, socket, sys = t.process, t.program, t.socket, t.sys

local MIB = 1048576
local PATTERN = ("0123456789abcde"):rep(MIB / 15 + 1) -- its length is no power of two

local SITE = [[
   local ml = require "monolake"
   ml.options { grace = "${grace}" }
   ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy { "${origin}", name = "origin", protocol = "tcp" } }
]]

t.on_both_backends("bulk of layer 4", function(backend)
   local origin

   setup(function()
      origin = socket.listen()
   end)
   teardown(function()
      origin:close()
   end)
   before_each(function()
      origin:drop_pending()
   end)

   local function start(grace)
      return program.start { io = backend, site = SITE,
         values = { origin = origin.address, grace = grace or "30s" } }
   end

   local function tunnel(running, options)
      local client = running:connect(options)
      return client, origin:accept()
   end

   --- Sends for as long as the other side reads; returns how much went off.
   local function flood(from)
      local total = 0
      return t.start_task(function()
         while true do
            local ok, _, offset = from:try_send(PATTERN, 0.3)
            total = total + (ok and #PATTERN or offset)
            if not ok then
               return total
            end
         end
      end)
   end

   --- Reads so much of what a flood sends, in pieces of its pattern.
   local function read_flood(from, pieces)
      for _ = 1, pieces do
         assert.is_true(from:read(#PATTERN) == PATTERN, "other bytes than were sent")
      end
   end

   --- Reads on until the connection is reset.
   local function expect_reset(client)
      local ok, why
      repeat
         client.buffer = ""
         ok, why = client:try_fill()
      until not ok
      assert.equal("reset", why)
   end

   local function finish(client, peer)
      client:half_close()
      peer:read_all()
      peer:close()
      client:read_all()
   end

   t.it("flows while the site is loaded anew", function()
      local running = start()
      local client, peer = tunnel(running)
      t.start_task(function()
         for _ = 1, 16 do
            peer:send(PATTERN)
         end
         peer:half_close()
      end)
      read_flood(client, 4)
      running:reload()
      read_flood(client, 12)
      assert.equal("", client:read_all())
      client:close()
      running:stop()
   end)

   t.it("goes on behind urgent data, which get lost", function()
      local running = start()
      local client, peer = tunnel(running)
      t.start_task(function()
         peer:send(PATTERN):send(PATTERN):send_urgent():send(PATTERN):half_close()
      end)
      read_flood(client, 3)
      assert.equal("", client:read_all())
      client:close()
      running:stop()
   end)

   t.it("is reset at the end of the grace period", function()
      local running = start "200ms"
      local client, peer = tunnel(running)
      local sent = flood(peer)
      read_flood(client, 2)
      running.process:signal(sys.SIGTERM)
      expect_reset(client)
      running:expect_end()
      sent:join()
   end)

   t.it("that nobody reads costs a pipe at most, and is forgotten with its connection", function()
      local count, tunnels = 30, {}
      local running = start()
      local worker = running:workers()[1]
      local first, first_peer = tunnel(running)
      for i = 1, count do
         local client, peer = tunnel(running, { receive_buffer = 8192 })
         tunnels[i] = { client = client, peer = peer, sent = flood(peer) }
      end
      for _, one in ipairs(tunnels) do
         assert.is_true(one.sent:join() > MIB)
      end
      first:send "others are served"
      assert.equal("others are served", first_peer:read(17))
      local open = process.descriptors(worker)
      for i, one in ipairs(tunnels) do
         if i % 2 == 0 then
            one.client:reset()
         else
            one.peer:reset()
            expect_reset(one.client)
         end
      end
      t.eventually("the end of all but one", function()
         return process.descriptors(worker) <= open - 4 * count
      end)
      local client, peer = tunnel(running)
      local sent = flood(peer)
      read_flood(client, 3) -- and nothing that was left in a pipe
      client:reset()
      sent:join()
      finish(first, first_peer)
      running:stop()
   end)

   t.it("is copied where descriptors have run out", function()
      local running = start()
      local client, peer = tunnel(running)
      process.run { "prlimit", "--pid", tostring(running:workers()[1]), "--nofile=3:3" }
      local sent = flood(peer)
      read_flood(client, 3)
      running:await_log "no pipe to be had: Too many open files"
      client:reset()
      sent:join()
      running:stop()
   end)
end)
