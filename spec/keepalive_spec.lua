local t = require "spec.support"

t.on_both_backends("a client's connection", function(backend)
   local origin, proxy = t.proxied(backend, {
      site = [[
         local ml = require "monolake"
         local origin = ml.upstream { "${origin}", name = "origin" }
         ml.listen { address = "127.0.0.1:0", chain = { ml.proxy(origin) } }
         ml.listen { address = "127.0.0.1:0", requests_max = 2, chain = { ml.proxy(origin) } }
         ml.listen { address = "127.0.0.1:0", head_timeout = "150ms", idle_timeout = "150ms",
            chain = { ml.proxy(origin) } }
      ]],
      listeners = 3,
   })

   t.it("serves request after request, over one connection to the origin", function()
      local client = proxy():connect()
      local upstream
      for i = 1, 5 do
         client:send_head(("GET /%d HTTP/1.1\nHost: a.example"):format(i))
         upstream = upstream or origin:accept()
         assert.equal("/" .. i, upstream:read_request().target)
         upstream:respond(200, "answer " .. i)
         assert.equal("answer " .. i, client:read_response().body)
      end
      assert.is_nil(origin:try_accept())
   end)

   t.it("answers pipelined requests in their order", function()
      local client = proxy():connect()
      local requests = {}
      for i = 1, 20 do
         requests[i] = t.head(("GET /%d HTTP/1.1\nHost: a.example"):format(i))
      end
      client:send(table.concat(requests))
      t.serve_requests(origin, function(request, connection)
         connection:respond(200, "for " .. request.target)
      end)
      for i = 1, 20 do
         assert.equal("for /" .. i, client:read_response().body)
      end
   end)

   t.it("answers requests pipelined behind bodies", function()
      local client = proxy():connect()
      client:send(t.head "POST /1 HTTP/1.1\nHost: a\nContent-Length: 5" .. "first" ..
         t.head "POST /2 HTTP/1.1\nHost: a\nTransfer-Encoding: chunked" .. t.chunk "second" .. t.chunk "" ..
         t.head "GET /3 HTTP/1.1\nHost: a")
      t.serve_requests(origin, function(request, connection)
         connection:respond(200, request.target .. request.body)
      end)
      assert.equal("/1first", client:read_response().body)
      assert.equal("/2second", client:read_response().body)
      assert.equal("/3", client:read_response().body)
   end)

   t.it("takes a request byte by byte", function()
      local client = proxy():connect()
      local bytes = t.head "POST /slow HTTP/1.1\nHost: a\nTransfer-Encoding: chunked" ..
         t.chunk "some data" .. "0\r\nx-end: yes\r\n\r\n"
      t.start_task(function()
         for i = 1, #bytes do
            client:send(bytes:sub(i, i))
            t.tasks.sleep(0)
         end
      end)
      local upstream = origin:accept()
      local request = upstream:read_request()
      assert.equal("some data", request.body)
      assert.equal("yes", request.trailers:get "x-end")
      upstream:respond(200, "done")
      assert.equal("done", client:read_response().body)
   end)

   t.it("is closed when the client asks for it", function()
      local client = proxy():connect()
      client:send_head "GET / HTTP/1.1\nHost: a\nConnection: close"
      local upstream = origin:accept()
      upstream:read_request()
      upstream:respond(200, "bye")
      local response = client:read_response()
      assert.equal("bye", response.body)
      assert.is_true(response:has("connection", "close"))
      assert.equal("closed", client:expect_close())
   end)

   t.it("does not answer what comes behind a closing request", function()
      local client = proxy():connect()
      client:send(t.head "GET /last HTTP/1.1\nHost: a\nConnection: close" ..
         t.head "GET /extra HTTP/1.1\nHost: a")
      local upstream = origin:accept()
      assert.equal("/last", upstream:read_request().target)
      upstream:respond(200, "bye")
      assert.equal("bye", client:read_response().body)
      client:expect_close()
      assert.is_true(upstream:silent(0.05) or upstream.ended)
   end)

   t.it("stays usable when the origin's does not", function()
      local client = proxy():connect()
      for i = 1, 3 do
         client:send_head "GET / HTTP/1.1\nHost: a"
         local upstream = origin:accept()
         upstream:read_request()
         upstream:respond(200, "answer " .. i, "Connection: close"):close()
         local response = client:read_response()
         assert.equal("answer " .. i, response.body)
         assert.is_false(response:has("connection", "close"))
      end
   end)

   t.it("is told to close by the last request that it may carry", function()
      local client = proxy():connect { address = proxy().addresses[2] }
      t.serve_requests(origin, function(_, connection)
         connection:respond(200, "ok")
      end)
      assert.is_false(client:exchange("GET / HTTP/1.1\nHost: a"):has("connection", "close"))
      assert.is_true(client:exchange("GET / HTTP/1.1\nHost: a"):has("connection", "close"))
      client:expect_close()
   end)

   t.it("is closed without a word when it stays idle", function()
      local client = proxy():connect { address = proxy().addresses[3] }
      assert.equal("closed", client:expect_close())
      client = proxy():connect { address = proxy().addresses[3] }
      t.serve_requests(origin, function(_, connection)
         connection:respond(200, "ok")
      end)
      assert.equal("ok", client:exchange("GET / HTTP/1.1\nHost: a").body)
      assert.equal("closed", client:expect_close())
   end)

   t.it("gets its answer when the client has ended its side", function()
      local client = proxy():connect()
      client:send_head("GET /half HTTP/1.1\nHost: a"):half_close()
      local upstream = origin:accept()
      upstream:read_request()
      assert.is_true(upstream:silent(0.05))
      upstream:respond(200, ("x"):rep(300000))
      assert.equal(300000, #client:read_response().body)
      assert.equal("closed", client:expect_close())
   end)

   t.it("gets a long answer in pieces when the client has ended its side and reads late", function()
      local client = proxy():connect { receive_buffer = 8192 }
      client:send_head("GET /half HTTP/1.1\nHost: a"):half_close()
      local upstream = origin:accept()
      upstream:read_request()
      upstream:send_head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked"
      local body = t.chunk(("x"):rep(65535)):rep(200) .. t.chunk ""
      local _, why, sent = upstream:try_send(body, 0.3)
      assert.equal("timeout", why)
      t.start_task(function()
         upstream:send(body:sub(sent + 1))
      end)
      assert.equal(200 * 65535, #client:read_response().body)
      assert.equal("closed", client:expect_close())
   end)

   t.it("gets all its pipelined answers when the client has ended its side", function()
      local client = proxy():connect()
      client:send(t.head("GET /1 HTTP/1.1\nHost: a"):rep(3)):half_close()
      t.serve_requests(origin, function(_, connection)
         connection:respond(200, "ok")
      end)
      for _ = 1, 3 do
         assert.equal("ok", client:read_response().body)
      end
      assert.equal("closed", client:expect_close())
   end)

   t.it("takes its request away from the origin when the client resets it", function()
      local client = proxy():connect()
      client:send_head "GET /wait HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      upstream:read_request()
      client:reset()
      upstream:expect_close()
   end)

   t.it("takes its request away when the client resets in the middle of a response", function()
      local client = proxy():connect()
      client:send_head "GET /stream HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      upstream:read_request()
      upstream:send(t.head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked" .. t.chunk "begin")
      client:read_response_head()
      assert.equal("begin", client:read_chunk())
      client:reset()
      t.eventually("the origin's connection to be closed", function()
         upstream:try_send(t.chunk "more", 0.01)
         return upstream:try_fill(0.001) ~= true and upstream.ended
      end)
   end)

   t.it("takes its request away when the client resets in the middle of a request body", function()
      local client = proxy():connect()
      client:send(t.head "POST / HTTP/1.1\nHost: a\nContent-Length: 1000" .. "half")
      local upstream = origin:accept()
      upstream:read_request_head()
      assert.equal("half", upstream:read(4))
      client:reset()
      upstream:expect_close()
   end)

   t.it("never makes a request of a body that is cut short", function()
      local client = proxy():connect()
      client:send(t.head "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked" .. t.chunk "half")
      local upstream = origin:accept()
      upstream:read_request_head()
      assert.equal("half", upstream:read_chunk())
      client:half_close()
      local ok = pcall(upstream.read_chunk, upstream)
      assert.is_false(ok)
   end)
end)

t.on_both_backends("HTTP/1.0", function(backend)
   local origin, proxy = t.proxied(backend)

   local function ask(client, head, answer)
      client:send_head(head)
      local upstream = origin:accept()
      local request = upstream:read_request()
      upstream:send(answer)
      return request, upstream
   end

   local CHUNKED = t.head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked" .. t.chunk "one " .. t.chunk "two" ..
      "0\r\nx-end: yes\r\n\r\n"

   t.it("clients never get chunks", function()
      local client = proxy():connect()
      local request = ask(client, "GET / HTTP/1.0\nHost: a", CHUNKED)
      assert.equal("1.1", request.version)
      local response = client:read_response()
      assert.equal("close", response.framing)
      assert.equal("one two", response.body)
      assert.is_nil(response:get "transfer-encoding")
   end)

   t.it("clients never get chunks with keep-alive either", function()
      local client = proxy():connect()
      ask(client, "GET / HTTP/1.0\nHost: a\nConnection: keep-alive", CHUNKED)
      local response = client:read_response()
      assert.equal("close", response.framing)
      assert.equal("one two", response.body)
   end)

   t.it("clients see a reset where chunks are cut short", function()
      local client = proxy():connect()
      local _, upstream = ask(client, "GET / HTTP/1.0\nHost: a",
         t.head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked" .. t.chunk "one ")
      client:read_response_head()
      assert.equal("one ", client:read(4))
      upstream:close()
      assert.equal("reset", client:expect_close())
   end)

   t.it("clients keep a connection that they ask to keep", function()
      local client = proxy():connect()
      ask(client, "GET / HTTP/1.0\nHost: a\nConnection: keep-alive",
         t.head "HTTP/1.1 200 OK\nContent-Length: 2" .. "ok")
      local response = client:read_response()
      assert.equal("ok", response.body)
      assert.is_true(response:has("connection", "keep-alive"))
      assert.is_true(client:silent(0.05))
   end)

   t.it("clients that do not ask are told to close", function()
      local client = proxy():connect()
      ask(client, "GET / HTTP/1.0\nHost: a", t.head "HTTP/1.1 200 OK\nContent-Length: 2" .. "ok")
      assert.equal("ok", client:read_response().body)
      assert.equal("closed", client:expect_close())
   end)

   t.it("clients need not name a host", function()
      local client = proxy():connect()
      local request = ask(client, "GET /nohost HTTP/1.0", t.head "HTTP/1.1 200 OK\nContent-Length: 2" .. "ok")
      assert.equal("/nohost", request.target)
      assert.is_string(request:get "host")
      assert.equal("ok", client:read_response().body)
   end)

   t.it("clients never see interim responses", function()
      local client = proxy():connect()
      ask(client, "GET / HTTP/1.0\nHost: a",
         t.head "HTTP/1.1 103 Early Hints\nLink: </a.css>" ..
            t.head "HTTP/1.1 200 OK\nContent-Length: 2" .. "ok")
      assert.equal("ok", client:read_response().body)
   end)

   t.it("origins end a body by closing, which clients get framed", function()
      local client = proxy():connect()
      local _, upstream = ask(client, "GET / HTTP/1.1\nHost: a",
         t.head "HTTP/1.0 200 OK\nContent-Type: text/plain" .. "all ")
      upstream:send "of it":close()
      local response = client:read_response()
      assert.equal("chunked", response.framing)
      assert.equal("all of it", response.body)
      assert.is_true(client:silent(0.05))
   end)

   t.it("origins keep a connection only if they say so", function()
      local client = proxy():connect()
      local _, upstream = ask(client, "GET / HTTP/1.1\nHost: a",
         t.head "HTTP/1.0 200 OK\nContent-Length: 2\nConnection: keep-alive" .. "ok")
      assert.equal("ok", client:read_response().body)
      client:send_head "GET /again HTTP/1.1\nHost: a"
      assert.equal("/again", upstream:read_request().target)
      upstream:send(t.head "HTTP/1.0 200 OK\nContent-Length: 2" .. "ok")
      assert.equal("ok", client:read_response().body)
      upstream:expect_close()
   end)

   t.it("origins that send chunks are not trusted", function()
      local client = proxy():connect()
      ask(client, "GET / HTTP/1.1\nHost: a",
         t.head "HTTP/1.0 200 OK\nTransfer-Encoding: chunked" .. t.chunk "x" .. t.chunk "")
      local response = client:read_response()
      assert.equal(502, response.status)
   end)
end)
