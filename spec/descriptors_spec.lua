--- More connections than the program may have: they wait, nobody else suffers.
local t = require "spec.support"

local program = t.program

local REQUEST = "GET / HTTP/1.1\nHost: a"

t.on_both_backends("connections", function(backend)
   --- So many connections with a request on each.
   local function ask_on(running, count)
      local clients = {}
      for i = 1, count do
         clients[i] = running:connect():send_head(REQUEST)
      end
      return clients
   end

   --- How many of them have been answered.
   local function answered(clients)
      local count = 0
      for _, client in ipairs(clients) do
         if client.answered or not client:silent(0) then
            client.answered = true
            count = count + 1
         end
      end
      return count
   end

   t.it("beyond connections_max wait until others close", function()
      local running = program.start { io = backend, site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", connections_max = 3, chain = { ml.text "hello" } }
      ]] }
      local clients = ask_on(running, 5)
      t.eventually("three answers", function() return answered(clients) == 3 end)
      assert.is_true(clients[5]:silent(0.05))
      for _, client in ipairs(clients) do
         assert.equal("hello", client:read_response().body)
         client:close()
      end
   end)

   t.it("beyond what open files allow wait until others close", function()
      local running = program.start { io = backend, prefix = { "prlimit", "--nofile=40:40" }, site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", chain = { ml.text "hello" } }
      ]] }
      local clients = ask_on(running, 100)
      running:await_log "30 connections are open: others wait"
      t.eventually("thirty answers", function() return answered(clients) == 30 end)
      for _, client in ipairs(clients) do
         assert.equal("hello", client:read_response().body)
         client:close()
      end
      assert.is_true(select(2, running:log():gsub("are open", "")) < 10, "the log is flooded")
   end)

   t.it("to origins for which no descriptor is left blame no origin", function()
      local origin = t.socket.listen()
      local running = program.start { io = backend, site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", chain = {
            ml.router { ["/local"] = ml.text "local", ["/*"] = ml.proxy { "${origin}", name = "origin" } },
         } }
      ]], values = { origin = origin.address } }
      local worker = running:workers()[1]
      local client = running:connect()
      assert.equal("local", client:exchange("GET /local HTTP/1.1\nHost: a").body)
      t.process.run { "prlimit", "--pid", tostring(worker), "--nofile=3:1000" }
      local response = client:exchange(REQUEST)
      assert.equal(503, response.status)
      assert.equal("1", response:get "retry-after")
      running:await_log "origin[^\n]*no file descriptor is left: raise the limit"
      t.process.run { "prlimit", "--pid", tostring(worker), "--nofile=1000:1000" }
      t.serve_requests(origin, function(_, connection)
         connection:respond(200, "hello")
      end)
      assert.equal("hello", client:exchange(REQUEST).body)
   end)

   t.it("leave descriptors for the origins of others", function()
      local origin = t.socket.listen()
      local running = program.start { io = backend, prefix = { "prlimit", "--nofile=100:100" },
         site = t.PROXY_SITE, values = { origin = origin.address } }
      t.serve_requests(origin, function(_, connection)
         connection:respond(200, "hello")
      end)
      local served, silent = {}, {}
      for i = 1, 8 do
         served[i] = running:connect()
         assert.equal(200, served[i]:exchange(REQUEST).status)
      end
      for i = 1, 100 do
         silent[i] = running:connect()
      end
      running:await_log "75 connections are open: others wait"
      for _, client in ipairs(served) do -- all at once: needs a connection to the origin for each
         client:send_head(REQUEST)
      end
      for _, client in ipairs(served) do
         assert.equal(200, client:read_response().status)
      end
      for _, client in ipairs(silent) do
         client:close()
      end
      assert.equal(200, running:exchange(REQUEST).status)
   end)
end)
