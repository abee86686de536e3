local t = require "spec.support"

t.on_both_backends("bodies", function(backend)
   local origin, proxy = t.proxied(backend)

   --- Sends a request and returns both ends, the request having been read.
   local function begin(head, body)
      local client = proxy():connect()
      client:send_head(head, body)
      local upstream = origin:accept()
      return client, upstream, upstream:read_request()
   end

   for _, size in ipairs { 0, 1, 1000, 16384, 65536, 1000003 } do
      t.it(("of %d bytes go both ways with a length"):format(size), function()
         local body = ("0123456789"):rep(math.ceil(size / 10)):sub(1, size)
         local client = proxy():connect()
         local sending = t.start_task(function()
            client:send_head("POST / HTTP/1.1\nHost: a\nContent-Length: " .. size, body)
         end)
         local upstream = origin:accept()
         local request = upstream:read_request()
         sending:join()
         assert.is_true(request.body == body)
         assert.equal("length", request.framing)
         local answering = t.start_task(function()
            upstream:respond(200, body)
         end)
         local response = client:read_response()
         answering:join()
         assert.equal("length", response.framing)
         assert.is_true(response.body == body)
      end)

      t.it(("of %d bytes go both ways in chunks"):format(size), function()
         local body = ("abcdefghij"):rep(math.ceil(size / 10)):sub(1, size)
         local parts = {}
         for at = 1, size, 7001 do
            parts[#parts + 1] = t.chunk(body:sub(at, at + 7000))
         end
         local chunks = table.concat(parts) .. t.chunk ""
         local client = proxy():connect()
         local sending = t.start_task(function()
            client:send_head("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked", chunks)
         end)
         local upstream = origin:accept()
         local request = upstream:read_request()
         sending:join()
         assert.is_true(request.body == body)
         assert.equal("chunked", request.framing)
         local answering = t.start_task(function()
            upstream:send_head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", chunks)
         end)
         local response = client:read_response()
         answering:join()
         assert.equal("chunked", response.framing)
         assert.is_true(response.body == body)
      end)
   end

   t.it("are passed on while they come", function()
      local client = proxy():connect()
      client:send_head "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked"
      local upstream = origin:accept()
      upstream:read_request_head()
      for i = 1, 3 do
         client:send(t.chunk("up " .. i))
         assert.equal("up " .. i, upstream:read_chunk())
      end
      client:send(t.chunk "")
      assert.is_nil(upstream:read_chunk())
      upstream:read_until "\r\n"
      upstream:send_head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked"
      client:read_response_head()
      for i = 1, 3 do
         upstream:send(t.chunk("down " .. i))
         assert.equal("down " .. i, client:read_chunk())
      end
   end)

   t.it("of a response are passed on while the request's still comes", function()
      local client = proxy():connect()
      client:send_head "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked"
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:send_head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked"
      client:read_response_head()
      for i = 1, 5 do
         client:send(t.chunk("ping " .. i))
         assert.equal("ping " .. i, upstream:read_chunk())
         upstream:send(t.chunk("pong " .. i))
         assert.equal("pong " .. i, client:read_chunk())
      end
      client:send(t.chunk "")
      assert.is_nil(upstream:read_chunk())
      upstream:send(t.chunk "")
      assert.is_nil(client:read_chunk())
   end)

   t.it("keep chunks apart from whatever extensions they carry", function()
      local client, upstream, request = begin("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked",
         "3;name=value\r\nabc\r\n2;quoted=\"a;b\"\r\nde\r\n000\r\n\r\n")
      assert.equal("abcde", request.body)
      upstream:send_head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked",
         "0000003;x=y\r\nabc\r\n0;last\r\n\r\n")
      assert.equal("abc", client:read_response().body)
   end)

   t.it("carry trailers in both directions", function()
      local client, upstream, request = begin(
         "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTrailer: x-sum",
         t.chunk "data" .. "0\r\nx-sum: 1234\r\nx-more: yes\r\n\r\n")
      assert.equal("1234", request.trailers:get "x-sum")
      assert.equal("yes", request.trailers:get "x-more")
      upstream:send_head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: x-sum",
         t.chunk "data" .. "0\r\nx-sum: 5678\r\n\r\n")
      assert.equal("5678", client:read_response().trailers:get "x-sum")
   end)

   t.it("cannot change their framing or routing by trailers", function()
      local client, upstream, request = begin("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked",
         t.chunk "data" .. "0\r\nContent-Length: 5\r\nHost: evil\r\nTransfer-Encoding: x\r\nx-ok: 1\r\n\r\n")
      for _, name in ipairs { "content-length", "host", "transfer-encoding" } do
         assert.is_nil(request.trailers:get(name))
      end
      upstream:respond(200, "ok")
      assert.equal("ok", client:read_response().body)
   end)

   t.it("are not needed to answer", function()
      local client = proxy():connect()
      client:send_head("POST / HTTP/1.1\nHost: a\nContent-Length: 10000000", ("x"):rep(50000))
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:respond(413, "too much", "Connection: close")
      local response = client:read_response()
      assert.equal(413, response.status)
      assert.equal("too much", response.body)
      assert.is_true(response:has("connection", "close"))
   end)

   t.it("that the origin does not want may still be sent by the client", function()
      local client = proxy():connect()
      client:send_head("POST / HTTP/1.1\nHost: a\nContent-Length: 3000000", ("x"):rep(50000))
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:respond(403, "no", "Connection: close"):close()
      local sending = t.start_task(function()
         client:try_send(("x"):rep(2950000))
      end)
      local response = client:read_response()
      assert.equal(403, response.status)
      assert.equal("no", response.body)
      sending:join()
   end)

   t.it("of HEAD, 204 and 304 are none, whatever the fields say", function()
      local client = proxy():connect()
      client:send_head "HEAD /h HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      assert.equal("HEAD", upstream:read_request().method)
      upstream:send_head "HTTP/1.1 200 OK\nContent-Length: 1234"
      local response = client:read_response { method = "HEAD" }
      assert.equal("1234", response:get "content-length")

      client:send_head "HEAD /c HTTP/1.1\nHost: a"
      upstream:read_request()
      upstream:send_head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked"
      assert.equal(200, client:read_response { method = "HEAD" }.status)

      client:send_head "GET /204 HTTP/1.1\nHost: a"
      upstream:read_request()
      upstream:send_head "HTTP/1.1 204 No Content"
      response = client:read_response()
      assert.equal(204, response.status)
      assert.is_nil(response:get "content-length")
      assert.is_nil(response:get "transfer-encoding")

      client:send_head "GET /304 HTTP/1.1\nHost: a\nIf-None-Match: \"x\""
      upstream:read_request()
      upstream:send_head "HTTP/1.1 304 Not Modified\nETag: \"x\"\nContent-Length: 99"
      response = client:read_response()
      assert.equal(304, response.status)
      assert.equal('"x"', response:get "etag")

      client:send_head "GET /after HTTP/1.1\nHost: a"
      assert.equal("/after", upstream:read_request().target)
      upstream:respond(200, "still in step")
      assert.equal("still in step", client:read_response().body)
   end)

   t.it("without framing are none in requests", function()
      local client, upstream, request = begin "POST / HTTP/1.1\nHost: a"
      assert.equal("", request.body)
      upstream:respond(200, "ok")
      assert.equal("ok", client:read_response().body)
   end)
end)

t.on_both_backends("interim responses", function(backend)
   local origin, proxy = t.proxied(backend)

   t.it("of the origin reach the client at once", function()
      local client = proxy():connect()
      client:send_head "GET / HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      upstream:read_request()
      upstream:send_head "HTTP/1.1 103 Early Hints\nLink: </a.css>; rel=preload\nLink: </b.js>; rel=preload"
      local hints = client:read_response_head()
      assert.equal(103, hints.status)
      assert.same({ "</a.css>; rel=preload", "</b.js>; rel=preload" }, hints:all "link")
      upstream:send_head "HTTP/1.1 102 Processing"
      assert.equal(102, client:read_response_head().status)
      upstream:respond(200, "ok")
      assert.equal("ok", client:read_response().body)
   end)

   t.it("arrive also when they come together with the answer", function()
      local client = proxy():connect()
      client:send_head "GET / HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      upstream:read_request()
      upstream:send(t.head "HTTP/1.1 103 Early Hints\nLink: </a.css>" ..
         t.head "HTTP/1.1 200 OK\nContent-Length: 2" .. "ok")
      assert.equal(103, client:read_response_head().status)
      assert.equal("ok", client:read_response().body)
   end)

   t.it("100 Continue is the origin's to give", function()
      local client = proxy():connect()
      client:send_head "POST / HTTP/1.1\nHost: a\nContent-Length: 4\nExpect: 100-continue"
      local upstream = origin:accept()
      assert.equal("100-continue", upstream:read_request_head():get "expect")
      assert.is_true(client:silent(0.05))
      upstream:send_head "HTTP/1.1 100 Continue"
      assert.equal(100, client:read_response_head().status)
      client:send "data"
      assert.equal("data", upstream:read(4))
      upstream:respond(200, "ok")
      assert.equal("ok", client:read_response().body)
      client:send_head "GET /next HTTP/1.1\nHost: a"
      assert.equal("/next", upstream:read_request().target)
      upstream:respond(200, "ok") -- so that nothing is sent again when both ends close
      client:read_response()
   end)

   t.it("a refusal instead of 100 Continue reaches the client, and no body the origin", function()
      local client = proxy():connect()
      client:send_head "POST / HTTP/1.1\nHost: a\nContent-Length: 4\nExpect: 100-continue"
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:respond(417, "no")
      local response = client:read_response()
      assert.equal(417, response.status)
      assert.equal("no", response.body)
      upstream:expect_close()
   end)

   t.it("a client need not wait for 100 Continue", function()
      local client = proxy():connect()
      client:send_head("POST / HTTP/1.1\nHost: a\nContent-Length: 4\nExpect: 100-continue", "data")
      local upstream = origin:accept()
      assert.equal("data", upstream:read_request().body)
      upstream:respond(200, "ok")
      local response = client:read_response_head()
      if response.status == 100 then
         response = client:read_response_head()
      end
      assert.equal("ok", client:read_response_body(response).body)
   end)

   t.it("HTTP/1.0 clients expect nothing", function()
      local client = proxy():connect()
      client:send_head("POST / HTTP/1.0\nHost: a\nContent-Length: 4\nExpect: 100-continue", "data")
      local upstream = origin:accept()
      assert.equal("data", upstream:read_request().body)
      upstream:respond(200, "ok")
      assert.equal("ok", client:read_response().body)
   end)
end)

t.on_both_backends("back-pressure", function(backend)
   local origin, proxy = t.proxied(backend)
   local PIECE = ("x"):rep(65536)
   local rss_growth_max_kib = 4096 * t.tasks.patience -- sanitizers keep what is freed for a while

   --- Sends pieces until nothing is taken for a while; returns how many bytes went.
   local function fill_up(socket, bytes_max)
      local sent = 0
      while sent < bytes_max do
         local ok, _, count = socket:try_send(PIECE, 0.3)
         sent = sent + (ok and #PIECE or count)
         if not ok then
            break
         end
      end
      return sent
   end

   t.it("stops an origin whose client does not read", function()
      local client = proxy():connect { receive_buffer = 16384 }
      client:send_head "GET / HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      upstream:read_request()
      local before_kib = proxy():rss_kib()
      local total = 256 * 1024 * 1024
      upstream:send_head("HTTP/1.1 200 OK\nContent-Length: " .. total)
      local sent = fill_up(upstream, total)
      assert.is_true(sent < 64 * 1024 * 1024, "the proxy took " .. sent .. " bytes that nobody reads")
      assert.is_true(proxy():rss_kib() - before_kib < rss_growth_max_kib)

      -- Others are served meanwhile.
      local other = proxy():connect()
      other:send_head "GET /other HTTP/1.1\nHost: a"
      local second = origin:accept()
      assert.equal("/other", second:read_request().target)
      second:respond(200, "ok")
      assert.equal("ok", other:read_response().body)

      -- And it goes on when the client reads again.
      client:read_response_head()
      assert.equal(sent, #client:read(sent))
      upstream:send "more"
      assert.equal("more", client:read(4))
   end)

   t.it("stops a client whose origin does not read", function()
      local client = proxy():connect()
      local total = 256 * 1024 * 1024
      client:send_head("POST / HTTP/1.1\nHost: a\nContent-Length: " .. total)
      local upstream = origin:accept()
      upstream:read_request_head()
      local before_kib = proxy():rss_kib()
      local sent = fill_up(client, total)
      assert.is_true(sent < 64 * 1024 * 1024, "the proxy took " .. sent .. " bytes that nobody reads")
      assert.is_true(proxy():rss_kib() - before_kib < rss_growth_max_kib)
      assert.equal(sent, #upstream:read(sent))
      client:send "more"
      assert.equal("more", upstream:read(4))
   end)
end)
