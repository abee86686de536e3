--- The end: TERM and QUIT let requests finish, within a grace period; INT does not.
local t = require "spec.support"

local program, socket, sys = t.program, t.socket, t.sys

local SITE = [[
local ml = require "monolake"
ml.options { grace = "${grace}" }
ml.listen { address = "127.0.0.1:0", chain = { ml.proxy "${origin}" } }
]]

local UPGRADE = [[
   GET /chat HTTP/1.1
   Host: a
   Connection: Upgrade
   Upgrade: websocket
]]

t.on_both_backends("the end", function(backend)
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

   local function start(grace, workers)
      return program.start { io = backend, site = SITE, workers = workers,
         values = { origin = origin.address, grace = grace or "30s" } }
   end

   --- A request that the origin has received and not answered.
   local function under_way(running)
      local client = running:connect()
      client:send_head "GET /slow HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      upstream:read_request()
      return client, upstream
   end

   --- A connection on which a request was answered and another may follow.
   local function idle(running)
      local client = running:connect()
      client:send_head "GET / HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      upstream:read_request()
      upstream:respond(200, "first")
      assert.is_false(client:read_response():has("connection", "close"))
      return client, upstream
   end

   local function tunnel(running)
      local client = running:connect()
      client:send_head(UPGRADE)
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:send_head "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket"
      assert.equal(101, client:read_response_head().status)
      return client, upstream
   end

   local function signal(running, number)
      running.process:signal(number)
      running:await_log "stopping"
      t.eventually("the listener to close", function()
         local late = socket.try_connect(running.address)
         if late then
            late:reset()
         end
         return not late
      end)
   end

   --- It must have ended well within so many seconds.
   local function expect_end(running, seconds)
      assert.is_true(running.process:wait(seconds * t.tasks.patience), "it did not end in time")
      assert.equal(0, running.process.status)
      assert.is_nil(running:alarm())
      program.running[running] = nil
   end

   for name, number in pairs { TERM = sys.SIGTERM, QUIT = sys.SIGQUIT } do
      t.it("lets requests under way finish at " .. name, function()
         local running = start(nil, 2)
         local client, upstream = under_way(running)
         local streaming, source = under_way(running)
         source:send_head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", t.chunk "a")
         assert.is_false(streaming:read_response_head():has("connection", "close"))
         signal(running, number)
         assert.is_false(not not running.process:has_ended())
         upstream:respond(200, "answer")
         local response = client:read_response()
         assert.equal("answer", response.body)
         assert.is_true(response:has("connection", "close"))
         client:expect_close()
         client:close()
         source:send(t.chunk "b" .. t.chunk "")
         assert.equal("a", streaming:read_chunk())
         assert.equal("b", streaming:read_chunk())
         assert.is_nil(streaming:read_chunk())
         streaming:read_until "\r\n"
         streaming:close()
         expect_end(running, 2)
      end)
   end

   t.it("answers the request that was on its way on an idle connection", function()
      local running = start()
      t.serve_requests(origin, function(_, connection)
         connection:respond(200, "answer")
      end)
      local clients, last = {}
      for i = 1, 10 do
         clients[i] = running:connect()
         assert.equal(200, clients[i]:exchange("GET / HTTP/1.1\nHost: a").status)
      end
      running.process:signal(sys.SIGTERM)
      for _, client in ipairs(clients) do
         t.tasks.sleep(0.005) -- some requests go before the worker knows, some behind
         client:send_head "GET / HTTP/1.1\nHost: a"
      end
      for _, client in ipairs(clients) do
         last = client:read_response()
         assert.equal("answer", last.body)
         client:close()
      end
      assert.is_true(last:has("connection", "close"))
      expect_end(running, 3)
   end)

   t.it("closes idle connections after a while", function()
      local running = start()
      local client = idle(running)
      running.process:signal(sys.SIGTERM)
      assert.equal("closed", client:expect_close())
      expect_end(running, 2)
   end)

   t.it("waits for tunnels to close", function()
      local running = start()
      local client, upstream = tunnel(running)
      signal(running, sys.SIGTERM)
      client:send "ping"
      assert.equal("ping", upstream:read(4))
      upstream:send "pong"
      assert.equal("pong", client:read(4))
      client:close()
      assert.equal("", upstream:read_all())
      upstream:close()
      expect_end(running, 2)
   end)

   t.it("cuts off what takes longer than the grace period", function()
      local running = start "300ms"
      local client = under_way(running)
      local tunnelled = tunnel(running)
      local begun = sys.clock()
      signal(running, sys.SIGTERM)
      client:expect_close()
      tunnelled:expect_close()
      expect_end(running, 2)
      local took = sys.clock() - begun
      assert.is_true(took > 0.25 and took < 2 * t.tasks.patience, took)
      assert.truthy(running:log():find("the grace period is over: 2 connections are cut off", 1, true))
   end)

   t.it("does not wait at INT, nor at a second TERM", function()
      for _, signals in ipairs { { sys.SIGINT }, { sys.SIGTERM, sys.SIGTERM } } do
         local running = start(nil, 2)
         local client = under_way(running)
         local tunnelled = tunnel(running)
         local kept = idle(running)
         local begun = sys.clock()
         for _, number in ipairs(signals) do
            signal(running, number)
         end
         client:expect_close()
         tunnelled:expect_close()
         kept:expect_close()
         expect_end(running, 2)
         assert.is_true(sys.clock() - begun < 2 * t.tasks.patience)
      end
   end)

   t.it("comes while a script is loaded for a reload", function()
      for _, number in ipairs { sys.SIGTERM, sys.SIGINT } do
         local running = start()
         running:write("site.lua", "while true do end")
         running.process:signal(sys.SIGHUP)
         t.eventually("the probe", function()
            return #running:workers() == 2 -- it is a child like the worker
         end)
         running.process:signal(number)
         expect_end(running, 2)
      end
   end)

   t.it("takes the workers along when the supervisor is killed", function()
      local running = start(nil, 2)
      local client = running:connect()
      running:kill()
      client:expect_close()
      t.eventually("the listener to close", function()
         return not socket.try_connect(running.address)
      end)
   end)

   t.it("does not wait for a layer that loops: the others on its worker get their answers", function()
      local running = program.start { io = backend, arguments = { "--script-timeout", "0.2" },
         values = { origin = origin.address }, site = [[
            local ml = require "monolake"
            ml.options { grace = "60s" }
            ml.listen { address = "127.0.0.1:0", chain = { ml.router {
               ["/loop"] = function()
                  ml.log.info "the loop begins"
                  while true do
                     jit.off(function() end) -- nothing that is compiled
                  end
               end,
               ["/*"] = ml.proxy "${origin}",
            } } }
         ]] }
      local client, upstream = under_way(running)
      local looping = running:connect()
      looping:send_head "GET /loop HTTP/1.1\nHost: a"
      running:await_log "the loop begins"
      running.process:signal(sys.SIGTERM)
      running:await_log "finishing requests"
      assert.equal(500, looping:read_response().status)
      assert.matches("at request %d+: GET a/loop", running:log())
      upstream:respond(200, "slow")
      assert.equal("slow", client:read_response().body)
      socket.reset_all()
      running:expect_end()
   end)
end)
