--- More connections than the program may have: they wait, nobody else suffers.
local t = require "spec.support"
local h2 = require "spec.support.h2"
local h2_origin = require "spec.support.h2_origin"
local thrift = require "spec.support.thrift"

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

   local function open(client)
      return client:silent(0)
   end

   t.it("beyond what open files allow take the places of the longest idle ones", function()
      local running = program.start { io = backend, prefix = { "prlimit", "--nofile=40:40" }, site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", chain = function()
            return ml.text(tostring(ml.stats().idle_connections_shed.client))
         end }
      ]] }
      local clients = {}
      for i = 1, 30 do
         clients[i] = running:connect()
         clients[i]:exchange(REQUEST)
      end
      clients[1]:exchange(REQUEST)
      local late = running:connect():send_head(REQUEST)
      assert.equal("1", late:read_response().body)
      assert.is_true(open(clients[1]))
      clients[2]:expect_close()
      assert.is_true(open(clients[3]))
      running:await_log "1 idle connections of clients are closed early"
   end)

   t.it("beyond connections_max take the places of that listener's longest idle ones", function()
      local running = program.start { io = backend, listeners = 2, site = [[
         local ml = require "monolake"
         for _ = 1, 2 do
            ml.listen { address = "127.0.0.1:0", connections_max = 2, protocols = { "h1", "h2c" },
               chain = ml.text "hello" }
         end
      ]] }
      local other = running:connect { address = running.addresses[2] }
      other:exchange(REQUEST)
      local streams = h2.connect(running.address)
      assert.equal(200, streams:get("/").status)
      local busy = running:connect():send "GET / HTTP/1.1\r\n"
      local late = running:connect():send_head(REQUEST)
      assert.equal("hello", late:read_response().body)
      assert.equal(0, streams:close_code())
      assert.is_true(open(other))
      busy:send "Host: a\r\n\r\n"
      assert.equal("hello", busy:read_response().body)
   end)

   t.it("that are idle stay where nobody waits for their places", function()
      local running = program.start { io = backend, site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", connections_max = 1, chain = ml.text "hello" }
      ]] }
      local client = running:connect()
      client:exchange(REQUEST)
      assert.is_true(client:silent(1.5)) -- longer than an idle one is spared
   end)

   local SHED_SITE = [[
      local ml = require "monolake"
      local first = ml.proxy(ml.upstream { "${first}", name = "first", protocol = "${protocol}",
         ${one_at_a_time} })
      ml.listen { address = "127.0.0.1:0", chain = ml.router {
         ["/first"] = first,
         ["/second"] = ml.proxy { "${second}", name = "second" },
         ["/shed"] = function() return ml.text(tostring(ml.stats().idle_connections_shed.peer)) end,
      } }
      ml.listen { address = "127.0.0.1:0", ${kind} = first }
   ]]

   local function ask(running)
      return running:connect():send_head "GET /first HTTP/1.1\nHost: a"
   end

   local function got_answer(client)
      assert.equal("hello", client:read_response().body)
   end

   --- A request by way of the program, its arrival at the origin by a new connection, whose socket is
   --- returned with what answers it, and the receipt of that.
   local exchanges = {
      h1 = { ask, function(origin)
         local connection = origin:accept()
         connection:read_request()
         return connection, function()
            connection:respond(200, "hello")
         end
      end, got_answer },
      h2 = { ask, function(origin)
         local connection = h2_origin.accept(origin)
         local stream = connection:read_request()
         return connection.socket, function()
            connection:respond(stream, 200, "hello")
         end
      end, got_answer },
      thrift = { function(running)
         return running:connect({ address = running.addresses[2] }):send(thrift.message { seqid = 1 })
      end, function(origin)
         local connection = origin:accept()
         local seqid = thrift.read(connection).seqid
         return connection, function()
            connection:send(thrift.message { type = thrift.REPLY, seqid = seqid })
         end
      end, function(client)
         assert.equal(1, thrift.read(client).seqid)
      end },
   }

   --- So many idle connections to the origin.
   local function make_idle(exchange, running, origin, count)
      local request, take, receive = unpack(exchange)
      local clients, idle, answers = {}, {}, {}
      for i = 1, count do
         clients[i] = request(running)
      end
      for i = 1, count do
         idle[i], answers[i] = take(origin)
      end
      for i = 1, count do
         answers[i]() -- now: none may be idle for the next request to take
      end
      for i = 1, count do
         receive(clients[i])
      end
      return idle, clients
   end

   --- Behind what was on its way.
   local function assert_reset(connection)
      local ok, why
      repeat
         connection.buffer = ""
         ok, why = connection:try_fill()
      until not ok
      assert.equal("reset", why)
   end

   for protocol, exchange in pairs(exchanges) do
      t.it("to origins take the descriptors of idle ones to others, of " .. protocol, function()
         local first, second = t.socket.listen(), t.socket.listen()
         local running = program.start { io = backend, prefix = { "prlimit", "--nofile=40:1000" },
            listeners = 2, site = SHED_SITE, values = { first = first.address, second = second.address,
               protocol = protocol, one_at_a_time = protocol == "h2" and "streams_max = 1" or "",
               kind = protocol == "thrift" and "thrift" or "chain" } }
         t.serve_requests(second, function(_, connection)
            connection:respond(200, "hello")
         end)
         local client, crowd = running:connect(), {}
         local function shed()
            return client:exchange("GET /shed HTTP/1.1\nHost: a").body
         end
         local idle, clients = make_idle(exchange, running, first, 4) -- whoever is queued may take one, too
         t.process.run { "prlimit", "--pid", tostring(running:workers()[1]), "--nofile=30:1000" }
         repeat -- as long as they say half of what they want, they are not idle
            crowd[#crowd + 1] = running:connect():send "GET / HTTP/1.1\r\n"
            assert.equal("0", shed())
         until running:log():find "cannot accept on [^\n]*Too many open files; trying again [^\n]*ulimit"
         assert.equal("hello", client:exchange("GET /second HTTP/1.1\nHost: a").body)
         assert.equal("4", shed())
         for i = 1, 4 do
            assert_reset(idle[i])
            clients[i]:close()
         end
         for _, one in ipairs(crowd) do
            one:close()
         end
      end)
   end

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

   t.it("that are idle make way for flows of datagrams, too, though nobody can wait for them", function()
      local origin, echo = t.socket.listen(), t.udp.bind()
      local running = program.start { io = backend, listeners = 2, site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", chain = ml.proxy { "${origin}", name = "origin" } }
         ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy("${echo}") }
      ]], values = { origin = origin.address, echo = echo.address } }
      local worker = running:workers()[1]
      echo:serve(function(bytes)
         return bytes
      end)
      local client = running:connect():send_head(REQUEST)
      local idle = origin:accept()
      idle:read_request()
      idle:respond(200, "hello")
      assert.equal("hello", client:read_response().body)
      t.process.run { "prlimit", "--pid", tostring(worker), "--nofile=3:1000" }
      t.udp.connect(running.addresses[2]):send "hello"
      assert_reset(idle)
      running:await_log "no file descriptor is left: raise the limit"
      t.process.run { "prlimit", "--pid", tostring(worker), "--nofile=1000:1000" }
      assert.equal("hello", (t.udp.connect(running.addresses[2]):ask "hello"))
      assert.same({ worker }, running:workers())
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
         served[i]:send "GET / HTTP/1.1\r\n" -- is not idle any more
      end
      for i = 1, 100 do
         silent[i] = running:connect()
      end
      running:await_log "75 connections are open: others wait"
      for _, client in ipairs(served) do -- all at once: needs a connection to the origin for each
         client:send "Host: a\r\n\r\n"
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
