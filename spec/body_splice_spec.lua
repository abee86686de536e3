--- Long responses, which the kernel hands on through pipes: the same as if each byte had been read.
local t = require "spec.support"

local process, program, sys = t.process, t.program, t.sys

local KIB, MIB = 1024, 1048576
local GET = "GET / HTTP/1.1\nHost: a"
local PATTERN = ("0123456789abcde"):rep(MIB / 15 + 1) -- its length is no power of two

local SITE = [[
   local ml = require "monolake"
   ml.options { grace = "10s" }
   ml.listen { address = "127.0.0.1:0", chain = {
      ml.access_log "access.log",
      ml.proxy { "${origin}", name = "origin", read_timeout = "${read_timeout}" },
   } }
]]

local function bytes(count)
   return PATTERN:rep(math.ceil(count / #PATTERN)):sub(1, count)
end

t.on_both_backends("a long response", function(backend)
   local origin, proxy = t.proxied(backend, { site = SITE, values = { read_timeout = "30s" } })

   --- The client's connection and the origin's, which has read the request.
   local function ask(running, options)
      local client = running:connect(options)
      client:send_head(GET)
      local upstream = origin:accept()
      upstream:read_request()
      return client, upstream
   end

   --- Sends what the other side takes; how much that was is the task's result.
   local function flood(upstream, body)
      return t.start_task(function()
         local ok, _, offset = upstream:try_send(body, 0.3)
         return ok and #body or offset
      end)
   end

   for _, size in ipairs { 256 * KIB - 1, 256 * KIB, 512 * KIB + 1, MIB, 5 * MIB + 7 } do
      t.it(("of %d bytes leaves both connections to the next ones"):format(size), function()
         local body = bytes(size)
         local client, upstream = ask(proxy())
         client:send_head(GET) -- waits meanwhile
         for i = 1, 3 do
            if i > 1 then
               upstream:read_request() -- on the same connection
            end
            local answering = t.start_task(function()
               upstream:respond(200, body)
            end)
            local response = client:read_response()
            answering:join()
            assert.equal("length", response.framing)
            assert.is_true(response.body == body, "other bytes than were sent")
            if i == 2 then
               client:send_head(GET)
            end
         end
         client:send_head(GET)
         upstream:read_request()
         upstream:respond(200, "short")
         assert.equal("short", client:read_response().body)
      end)
   end

   t.it("goes on behind urgent data, which get lost", function()
      local client, upstream = ask(proxy())
      t.start_task(function()
         upstream:send_head("HTTP/1.1 200 OK\nContent-Length: " .. 2 * #PATTERN)
         upstream:send(PATTERN):send_urgent():send(PATTERN)
      end)
      assert.is_true(client:read_response().body == PATTERN:rep(2), "other bytes than were sent")
   end)

   t.it("goes on while it comes, in pieces of any size", function()
      local client, upstream = ask(proxy())
      upstream:send_head("HTTP/1.1 200 OK\nContent-Length: " .. MIB)
      client:read_response_head()
      local sent, size = 0, 1
      while sent < MIB do
         local piece = PATTERN:sub(sent + 1, math.min(sent + size, MIB))
         upstream:send(piece)
         assert.is_true(client:read(#piece) == piece, "other bytes than were sent")
         sent, size = sent + #piece, size * 3
      end
      client:send_head(GET)
      upstream:read_request()
   end)

   t.it("is followed by nothing of what the origin sends unasked", function()
      local client, upstream = ask(proxy())
      local body = bytes(MIB)
      upstream:send_head("HTTP/1.1 200 OK\nContent-Length: " .. MIB)
      t.start_task(function()
         upstream:try_send(body .. t.head "HTTP/1.1 200 OK\nContent-Length: 4" .. "evil")
      end)
      assert.is_true(client:read_response().body == body)
      upstream:expect_close()
      client:send_head(GET)
      local other = origin:accept()
      other:read_request()
      other:respond(200, "good")
      assert.equal("good", client:read_response().body)
   end)

   t.it("that the origin cuts is cut for the client", function()
      for _, how in ipairs { "close", "reset" } do
         local client, upstream = ask(proxy())
         upstream:send_head("HTTP/1.1 200 OK\nContent-Length: " .. 2 * MIB)
         client:read_response_head()
         upstream:send(bytes(MIB))
         local offset = #proxy():log()
         client:read(MIB)
         upstream[how](upstream)
         assert.equal("reset", client:expect_close())
         proxy():await_log("broke off", offset)
      end
   end)

   t.it("that a client does not wait for is given up", function()
      for _, how in ipairs { "close", "reset" } do
         local client, upstream = ask(proxy())
         upstream:send_head("HTTP/1.1 200 OK\nContent-Length: " .. 64 * MIB)
         client:read_response_head()
         upstream:send(bytes(MIB))
         client:read(MIB)
         client[how](client)
         local ok
         repeat
            ok = upstream:try_send(PATTERN)
         until not ok
      end
   end)

   t.it("that a client does not wait for is given up while the origin is silent", function()
      local client, upstream = ask(proxy())
      upstream:send_head("HTTP/1.1 200 OK\nContent-Length: " .. 64 * MIB)
      client:read_response_head()
      upstream:send(bytes(MIB))
      client:read(MIB)
      client:reset()
      upstream:expect_close()
   end)

   t.it("waits in a pipe for a client that reads slowly", function()
      local clients, count, size = {}, 3, 24 * MIB
      local body, worker = bytes(size), proxy():workers()[1]
      for i = 1, count do
         local client, upstream = ask(proxy(), { receive_buffer = 8192 })
         upstream:send_head("HTTP/1.1 200 OK\nContent-Length: " .. size)
         clients[i] = { client = client, upstream = upstream, sent = flood(upstream, body) }
      end
      for _, one in ipairs(clients) do
         local sent = one.sent:join()
         assert.is_true(sent > MIB and sent < size, sent .. " bytes were taken")
         one.rest = body:sub(sent + 1)
      end
      local pipes = process.run { "sh", "-c", "ls -l /proc/" .. worker .. "/fd | grep -c pipe:" }
      assert.is_true(tonumber(pipes) >= 2 * count, pipes .. " pipes")
      local quick, upstream = ask(proxy())
      upstream:respond(200, "others are served")
      assert.equal("others are served", quick:read_response().body)
      for _, one in ipairs(clients) do
         t.start_task(function()
            one.upstream:send(one.rest)
         end)
         assert.is_true(one.client:read_response().body == body)
         one.client:send_head(GET)
         one.upstream:read_request()
      end
   end)

   t.it("passes between local sockets", function()
      local directory = process.directory()
      local server = t.socket.listen { address = "unix:" .. directory .. "/origin.sock" }
      local running = program.start { io = backend, values = { directory = directory }, site = [[
         local ml = require "monolake"
         local origin = ml.proxy "unix:${directory}/origin.sock"
         ml.listen { address = "unix:${directory}/site.sock", chain = origin }
      ]] }
      local client = t.socket.connect("unix:" .. directory .. "/site.sock")
      local upstream
      local body = bytes(3 * MIB)
      for _ = 1, 2 do
         client:send_head(GET)
         upstream = upstream or server:accept()
         upstream:read_request()
         t.start_task(function()
            upstream:respond(200, body)
         end)
         assert.is_true(client:read_response().body == body, "other bytes than were sent")
      end
      server:close()
      client:close()
      running:stop()
   end)

   t.it("may be written whole by a layer that has read its beginning", function()
      local running = program.start { io = backend, values = { origin = origin.address }, site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", chain = {
            function(req, next)
               local res = next(req)
               res.headers["x-length"] = tostring(#res:body())
               return res
            end,
            ml.proxy "${origin}",
         } }
      ]] }
      local client, upstream = ask(running)
      local body = bytes(700 * KIB)
      t.start_task(function()
         upstream:respond(200, body)
      end)
      local response = client:read_response()
      assert.equal(tostring(#body), response:get "x-length")
      assert.is_true(response.body == body)
      running:stop()
   end)

   t.it("that stops coming is cut after the read timeout, and counted in the log", function()
      local running = program.start { io = backend, site = SITE,
         values = { origin = origin.address, read_timeout = "150ms" } }
      local client, upstream = ask(running)
      upstream:send_head("HTTP/1.1 200 OK\nContent-Length: " .. 2 * MIB)
      client:read_response_head()
      upstream:send(bytes(MIB))
      assert.is_true(client:read(MIB) == bytes(MIB))
      assert.equal("reset", client:expect_close())
      upstream:expect_close()
      t.eventually("a line in the access log", function()
         local file = io.open(running:path "access.log")
         local text = file and file:read "*a" or ""
         if file then
            file:close()
         end
         return text:find(" 200 " .. MIB .. " ", 1, true) or text:find('"bytes":' .. MIB, 1, true)
      end)
      running:stop()
   end)

   t.it("is sent to its end when the program drains", function()
      local running = program.start { io = backend, site = SITE,
         values = { origin = origin.address, read_timeout = "30s" } }
      local client, upstream = ask(running)
      upstream:send_head("HTTP/1.1 200 OK\nContent-Length: " .. 2 * MIB)
      client:read_response_head()
      upstream:send(bytes(MIB))
      client:read(MIB)
      running.process:signal(sys.SIGTERM)
      t.start_task(function()
         upstream:send(bytes(MIB))
      end)
      assert.is_true(client:read(MIB) == bytes(MIB))
      assert.equal("", client:read_all())
      running:expect_end()
   end)

   t.it("is copied where descriptors have run out", function()
      local running = program.start { io = backend, site = SITE,
         values = { origin = origin.address, read_timeout = "30s" } }
      local client, upstream = ask(running)
      process.run { "prlimit", "--pid", tostring(running:workers()[1]), "--nofile=3:3" }
      local body = bytes(3 * MIB)
      t.start_task(function()
         upstream:respond(200, body)
      end)
      assert.is_true(client:read_response().body == body)
      running:await_log "no pipe to be had: Too many open files"
      running:stop()
   end)
end)
