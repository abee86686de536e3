--- Origins that refuse, vanish, stall, break off or lie; and what that costs clients.
local t = require "spec.support"

local GET = "GET / HTTP/1.1\nHost: a"

t.on_both_backends("an origin that fails", function(backend)
   local nobody = t.socket.refusing_address()
   local origin, proxy = t.proxied(backend, {
      site = [[
         local ml = require "monolake"
         local function serve(options)
            ml.listen { address = "127.0.0.1:0", chain = {
               function(req, next)
                  local res = next(req)
                  res.headers["x-error"] = res.error
                  return res
               end,
               ml.proxy(options),
            } }
         end
         serve { "${origin}", name = "one", retries = 0, response_timeout = "150ms", read_timeout = "150ms" }
         serve { "${nobody}", name = "nobody" }
         serve { "${nobody}", "${origin}", name = "half", fail_timeout = 60 }
         serve { "${origin}", name = "patient" }
      ]],
      values = { nobody = nobody },
      listeners = 4,
   })

   local function connect(listener)
      return proxy():connect { address = proxy().addresses[listener or 1] }
   end

   --- The client's connection and what `act` has left of the origin's.
   local function ask(head, act)
      local client = connect()
      client:send_head(head or GET)
      local upstream = origin:accept()
      upstream:read_request()
      act(upstream)
      return client
   end

   t.it("is a 502 when nobody listens", function()
      local response = connect(2):exchange(GET)
      assert.equal(502, response.status)
      assert.matches("nobody", response:get "x-error")
      assert.not_matches(nobody, response.body)
   end)

   t.it("is passed over for one that works, and left alone for a while", function()
      for _ = 1, 6 do
         local client = connect(3)
         client:send_head(GET)
         local upstream = origin:accept()
         upstream:read_request()
         upstream:respond(200, "ok")
         assert.equal("ok", client:read_response().body)
         client:close()
         upstream:close()
      end
   end)

   t.it("is a 502 when it closes without an answer", function()
      local client = ask(nil, function(upstream) upstream:close() end)
      assert.equal(502, client:read_response().status)
   end)

   t.it("is a 502 when it resets without an answer", function()
      local client = ask(nil, function(upstream) upstream:reset() end)
      assert.equal(502, client:read_response().status)
   end)

   t.it("is a 504 when it does not answer in time, and is left", function()
      local upstream
      local client = ask(nil, function(connection) upstream = connection end)
      assert.equal(504, client:read_response().status)
      upstream:expect_close()
   end)

   t.it("leaves the client's connection usable", function()
      local client = ask(nil, function(upstream) upstream:close() end)
      assert.equal(502, client:read_response().status)
      client:send_head(GET)
      local upstream = origin:accept()
      upstream:read_request()
      upstream:respond(200, "recovered")
      assert.equal("recovered", client:read_response().body)
   end)

   local malformed = {
      ["no HTTP"] = "nonsense\r\n\r\n",
      ["HTTP/2.0"] = "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
      ["a status of two digits"] = "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
      ["a status of four digits"] = "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
      ["a status below 100"] = "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
      ["two framings"] =
         "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["lengths that differ"] = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
      ["a signed length"] = "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
      ["obs-fold"] = "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
      ["a bare LF"] = "HTTP/1.1 200 OK\r\nX: a\nContent-Length: 0\r\n\r\n",
      ["a NUL"] = "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
      ["a space before the colon"] = "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
      ["a head without an end"] = "HTTP/1.1 200 OK\r\n" .. ("X: y\r\n"):rep(100000),
      ["a TLS alert"] = "\21\3\1\0\2\2\40",
   }
   for name, bytes in pairs(malformed) do
      t.it("is a 502 when it answers with " .. name, function()
         local client = ask(nil, function(upstream)
            upstream:try_send(bytes)
            upstream:half_close()
         end)
         assert.equal(502, client:read_response().status)
      end)
   end

   t.it("never makes a truncated body look complete", function()
      local client = ask(nil, function(upstream)
         upstream:send(t.head "HTTP/1.1 200 OK\nContent-Length: 10" .. "half"):close()
      end)
      local head = client:read_response_head()
      assert.equal("10", head:get "content-length")
      assert.is_false((pcall(client.read, client, 10)))

      client = ask(nil, function(upstream)
         upstream:send(t.head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked" .. t.chunk "half"):close()
      end)
      client:read_response_head()
      assert.equal("half", client:read_chunk())
      assert.is_false((pcall(client.read_chunk, client)))
   end)

   t.it("never makes a body look complete that a reset has cut while more was sent", function()
      for _ = 1, 30 do -- whether the send or the receive is told of it, is chance
         local client = connect()
         client:send_head "POST / HTTP/1.1\nHost: a\nContent-Length: 100000"
         local upstream = origin:accept()
         upstream:read_request_head()
         upstream:send(t.head "HTTP/1.1 200 OK\nConnection: close" .. "half")
         client:read_response_head()
         assert.equal("half", client:read_chunk())
         client:send(("x"):rep(1000))
         upstream:reset()
         assert.is_false((pcall(client.read_chunk, client)))
         client:close()
      end
   end)

   t.it("never makes a body look complete that a reset has cut while more waited to be sent", function()
      local client = connect(4)
      client:send_head "POST / HTTP/1.1\nHost: a\nContent-Length: 100000000"
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:send(t.head "HTTP/1.1 200 OK\nConnection: close" .. "half")
      client:read_response_head()
      assert.equal("half", client:read_chunk())
      assert.is_nil((client:try_send(("x"):rep(100000000), 0.3)))
      upstream:reset()
      assert.is_false((pcall(client.read_chunk, client)))
   end)

   t.it("never makes a stalled body look complete", function()
      local client = ask(nil, function(upstream)
         upstream:send(t.head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked" .. t.chunk "half")
      end)
      client:read_response_head()
      assert.equal("half", client:read_chunk())
      assert.is_false((pcall(client.read_chunk, client)))
   end)

   t.it("never makes malformed chunks look complete", function()
      local client = ask(nil, function(upstream)
         upstream:send(t.head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked" .. "nonsense\r\n")
      end)
      assert.equal(502, client:read_response().status)

      local upstream
      client = ask(nil, function(connection)
         upstream = connection
         upstream:send(t.head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked" .. t.chunk "half")
      end)
      client:read_response_head()
      assert.equal("half", client:read_chunk())
      upstream:send "nonsense\r\n"
      assert.is_false((pcall(client.read_chunk, client)))
   end)
end)

t.on_both_backends("a pooled connection to an origin", function(backend)
   local origin, proxy = t.proxied(backend)

   --- Leaves an idle connection in the pool and returns the origin's end of it.
   local function pooled(client)
      client:send_head(GET)
      local upstream = origin:accept()
      upstream:read_request()
      upstream:respond(200, "first")
      assert.equal("first", client:read_response().body)
      return upstream
   end

   t.it("that the origin has closed is not used", function()
      local client = proxy():connect()
      pooled(client):close()
      client:send_head "POST / HTTP/1.1\nHost: a\nContent-Length: 1"
      client:send "x"
      local upstream = origin:accept()
      assert.equal("x", upstream:read_request().body)
      upstream:respond(200, "second")
      assert.equal("second", client:read_response().body)
   end)

   t.it("that sent something unasked is not used", function()
      local client = proxy():connect()
      local upstream = pooled(client)
      upstream:send "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"
      upstream:expect_close()
      client:send_head(GET)
      local fresh = origin:accept()
      fresh:read_request()
      fresh:respond(200, "fresh")
      assert.equal("fresh", client:read_response().body)
   end)

   t.it("that answered with more than one response is not used again", function()
      local client = proxy():connect()
      client:send_head(GET)
      local upstream = origin:accept()
      upstream:read_request()
      upstream:send(t.head "HTTP/1.1 200 OK\nContent-Length: 2" .. "ok" ..
         t.head "HTTP/1.1 200 OK\nContent-Length: 8" .. "smuggled")
      assert.equal("ok", client:read_response().body)
      client:send_head(GET)
      local fresh = origin:accept()
      fresh:read_request()
      fresh:respond(200, "fresh")
      assert.equal("fresh", client:read_response().body)
   end)

   t.it("that dies without an answer costs an idempotent request nothing", function()
      for _, method in ipairs { "GET", "HEAD", "PUT", "DELETE", "OPTIONS" } do
         local client = proxy():connect()
         local upstream = pooled(client)
         client:send_head(method .. " /again HTTP/1.1\nHost: a\nContent-Length: 4", "body")
         upstream:read_request()
         upstream:close()
         local fresh = origin:accept()
         local request = fresh:read_request()
         assert.same({ method, "/again", "body" }, { request.method, request.target, request.body })
         fresh:respond(200, "")
         assert.equal(200, client:read_response({ method = method }).status)
         client:close()
         fresh:close()
      end
   end)

   t.it("that dies without an answer is a 502 for a POST, which is never sent twice", function()
      for _, method in ipairs { "POST", "PATCH", "UNKNOWN" } do
         local client = proxy():connect()
         local upstream = pooled(client)
         client:send_head(method .. " / HTTP/1.1\nHost: a\nContent-Length: 4", "body")
         upstream:read_request()
         upstream:close()
         assert.equal(502, client:read_response().status)
         assert.is_nil(origin:try_accept())
         client:close()
      end
   end)

   t.it("that dies within an answer is no reason to send again", function()
      local client = proxy():connect()
      local upstream = pooled(client)
      client:send_head(GET)
      upstream:read_request()
      upstream:send "HTTP/1.1 2":close()
      assert.equal(502, client:read_response().status)
      assert.is_nil(origin:try_accept())
   end)

   t.it("may die at every second use: 1,500 of 1,500 idempotent requests are answered", function()
      t.start_task(function()
         while true do
            local connection = origin:accept(3600)
            t.start_task(function()
               connection:read_request()
               connection:respond(200, "ok")
               if connection:try_fill(3600) then
                  connection:read_request()
               end
               connection:close()
            end)
         end
      end)
      local client, answered = proxy():connect(), 0
      for _ = 1, 1500 do
         local response = client:exchange(GET)
         answered = answered + (response.status == 200 and response.body == "ok" and 1 or 0)
      end
      assert.equal(1500, answered)
   end)
end)

t.on_both_backends("an origin that takes no more connections at its unix socket", function(backend)
   local path = "unix:" .. t.process.directory() .. "/origin.sock"
   local origin, proxy = t.proxied(backend, {
      origin = { address = path, backlog = 0 },
      site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0",
            chain = ml.proxy { "${origin}", connect_timeout = "300ms", retries = 0 } }
      ]],
   })

   t.it("is waited for as long as it may take to connect", function()
      t.socket.connect(path)
      assert.equal(504, proxy():exchange(GET).status)
   end)

   t.it("serves when it takes some again", function()
      t.socket.connect(path)
      local client = proxy():connect()
      client:send_head(GET)
      t.tasks.sleep(0.05)
      origin:accept()
      local upstream = origin:accept()
      upstream:read_request()
      upstream:respond(200, "at last")
      assert.equal("at last", client:read_response().body)
   end)
end)

describe("the bound of a response's head", function()
   teardown(t.process.remove_directories)

   t.it("is checked", function()
      local _, err, status = t.program.check { site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0",
            chain = ml.proxy { "127.0.0.1:1", response_head_max = "4g" } }
      ]] }
      assert.equal(1, status)
      assert.matches("response_head_max: expected less than 4g", err)
   end)
end)
