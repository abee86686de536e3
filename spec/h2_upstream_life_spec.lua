--- Connections to HTTP/2 origins through reloads, at the end of the program, and in a storm of all that
--- can go wrong.
local t = require "spec.support"
local h2 = require "spec.support.h2"
local h2_origin = require "spec.support.h2_origin"

local program, process, sys = t.program, t.process, t.sys

local SITE = [[
local ml = require "monolake"
ml.options { grace = "5s" }
ml.listen { address = "127.0.0.1:0", protocols = { "h1", "h2c" }, chain = { ml.proxy(ml.upstream {
   "${origin}", name = "origin", protocol = "h2", retries = 1, fail_max = 0, ${options}
}) } }
]]

local WITHOUT = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = { ml.text "alone" } }
]]

t.on_both_backends("connections to an HTTP/2 origin", function(backend)
   local origin

   setup(function()
      origin = t.socket.listen()
   end)
   teardown(function()
      origin:close()
   end)
   before_each(function()
      origin:drop_pending()
   end)

   local function start(options)
      return program.start { io = backend, site = SITE,
         values = { origin = origin.address, options = options or "" } }
   end

   local function reload(running)
      local offset = #running:log()
      running.process:signal(sys.SIGHUP)
      running:await_log("generation %d+ serves", offset)
   end

   --- One request and its answer. Returns the connection to the origin.
   local function ask(running, connection)
      local client = running:connect()
      client:send_head "GET / HTTP/1.1\nHost: a"
      connection = connection or h2_origin.accept(origin)
      connection:respond(connection:read_request(), 200, "answer")
      assert.equal("answer", client:read_response().body)
      return connection
   end

   t.it("outlive reloads", function()
      local running = start()
      local connection = ask(running)
      for _ = 1, 2 do
         reload(running)
         ask(running, connection)
      end
      assert.is_nil(origin:try_accept())
   end)

   t.it("are closed when no site names the origin any more", function()
      local running = start()
      local idle = ask(running)
      running:write("site.lua", WITHOUT)
      reload(running)
      idle:close_code()
      running:write("site.lua", SITE)
      reload(running)
      ask(running)
   end)

   t.it("are closed behind the last answer when no site names the origin any more", function()
      local running = start()
      local client = running:connect()
      client:send_head "GET / HTTP/1.1\nHost: a"
      local connection = h2_origin.accept(origin)
      local request = connection:read_request()
      running:write("site.lua", WITHOUT)
      reload(running)
      connection:respond(request, 200, "last")
      assert.equal("last", client:read_response().body)
      assert.equal(h2.NO_ERROR, connection:close_code())
   end)

   t.it("are closed when the program ends, behind the last answer", function()
      local running = start()
      local client = running:connect()
      client:send_head "GET / HTTP/1.1\nHost: a"
      local connection = h2_origin.accept(origin)
      local request = connection:read_request()
      running.process:signal(sys.SIGTERM)
      connection:respond(request, 200, "last")
      assert.equal("last", client:read_response().body)
      connection:close_code()
   end)

   t.it("are others than those of HTTP/1 to the same address", function()
      local running = start "connections_max = 1"
      local idle = ask(running)
      running:write("site.lua", (SITE:gsub('"h2", retries', '"h1", retries')))
      reload(running)
      idle:close_code()
      local client = running:connect()
      for _ = 1, 2 do
         client:send_head "GET /plain HTTP/1.1\nHost: a"
         local upstream = origin:accept()
         assert.equal("/plain", upstream:read_request().target)
         upstream:respond(200, "plain")
         assert.equal("plain", client:read_response().body)
         running:write("site.lua", SITE)
         reload(running)
         ask(running)
         upstream:expect_close()
         running:write("site.lua", (SITE:gsub('"h2", retries', '"h1", retries')))
         reload(running)
      end
   end)

   t.it("do not outlive a program that ends at once", function()
      local running = start()
      local client = running:connect()
      client:send_head "GET / HTTP/1.1\nHost: a"
      local connection = h2_origin.accept(origin)
      connection:read_request()
      running:stop(sys.SIGINT)
      connection:close_code()
   end)

   t.it("that are being made do not keep the program", function()
      local running = start()
      local client = running:connect()
      client:send_head "GET / HTTP/1.1\nHost: a"
      local connection = h2_origin.accept(origin, { silent = true })
      running:stop(sys.SIGINT)
      connection:close_code()
   end)

   t.it("are few for many, whatever goes wrong on them", function()
      local running = start "connections_max = 4, streams_max = 20, response_timeout = '300ms'"
      local random = 12345

      local function chance(sides)
         random = (random * 1103515245 + 12345) % 2147483648
         return math.floor(random / 65536) % sides
      end

      local function answer(connection, request)
         local what = chance(12)
         if what == 0 then
            connection:reset(request, h2.REFUSED_STREAM)
         elseif what == 1 then
            connection:reset(request, h2.INTERNAL_ERROR)
         elseif what == 2 then
            connection:head(request, 200)
            connection:data(request, "part")
            connection:reset(request, h2.CANCEL)
         elseif what == 3 then
            connection:head(request, 103)
            connection:frame(h2.HEADERS, h2.END_HEADERS, request.id, h2.block { { "x-no", "status" } })
         elseif what == 4 then
            connection:respond(request, 413, "early")
            connection:reset(request, h2.NO_ERROR)
         elseif what ~= 5 then -- else there is no answer
            connection:respond(request, 200, ("x"):rep(1000))
         end
         if chance(60) == 0 then
            connection:say_goaway(request.id)
         elseif chance(120) == 0 then
            connection.socket:reset()
         end
      end

      local function serve(connection)
         repeat
            local alive, request = pcall(connection.read_request, connection, 3600)
            alive = alive and pcall(answer, connection, request)
         until not alive
      end

      t.start_task(function()
         while true do
            local socket = origin:accept(3600)
            t.start_task(function()
               local ok, connection = pcall(h2_origin.accept, { accept = function() return socket end })
               if ok then
                  serve(connection)
               end
            end)
         end
      end)

      local answers = 0

      local function count(ok)
         answers = answers + (ok and 1 or 0)
      end

      local function client_of_h1()
         local client = running:connect()
         client:send_head(chance(2) == 0 and "GET / HTTP/1.1\nHost: a" or
            "POST / HTTP/1.1\nHost: a\nContent-Length: 2000", ("b"):rep(2000))
         if chance(5) > 0 then
            count(pcall(client.read_response, client))
         end
         client:reset()
      end

      local function client_of_h2()
         local client = h2.connect(running.address)
         for _ = 1, 5 do
            local id = client:request(h2.post(), { open = true })
            client:data(id, ("b"):rep(3000))
            if chance(3) == 0 then
               client:frame(h2.RST_STREAM, 0, id, h2.u32(h2.CANCEL))
            else
               client:data(id, "", true)
               count(pcall(client.response, client, id))
            end
         end
         client.socket:reset()
      end

      local tasks = {}
      for i = 1, 16 do
         tasks[i] = t.start_task(function()
            for _ = 1, 10 do
               local client = i % 2 == 0 and client_of_h1 or client_of_h2
               client()
            end
         end)
      end
      for _, task in ipairs(tasks) do
         task:join(60 * t.tasks.patience)
      end
      assert.is_true(answers > 150, ("only %d answers"):format(answers))
      local worker = running:workers()[1]
      t.eventually("the connections of clients to be closed", function()
         return process.descriptors(worker) < 40
      end)
   end)
end)
