--- Origins that speak HTTP/2, scripted frame by frame, behind clients of HTTP/1.
local t = require "spec.support"
local h2 = require "spec.support.h2"
local h2_origin = require "spec.support.h2_origin"

local SITE = [[
local ml = require "monolake"
local function upstream(options)
   options[1], options.protocol = "${origin}", "h2"
   return {
      function(req, next)
         local res = next(req)
         res.headers["x-why"] = res.error
         return res
      end,
      ml.proxy(ml.upstream(options)),
   }
end
ml.listen { address = "127.0.0.1:0", chain = upstream { name = "usual" } }
ml.listen { address = "127.0.0.1:0", chain = upstream { name = "one", connections_max = 1, streams_max = 2,
   connect_timeout = "3s" } }
ml.listen { address = "127.0.0.1:0", chain = upstream { name = "hasty", response_timeout = "200ms",
   read_timeout = "200ms", send_timeout = "200ms", idle_timeout = "150ms", connect_timeout = "500ms",
   retries = 0 } }
ml.listen { address = "127.0.0.1:0", chain = upstream { name = "pinging", retries = 0,
   ping_interval = "60ms" } }
ml.listen { address = "127.0.0.1:0", chain = upstream { name = "strict", response_head_max = 1000,
   x_forwarded = true } }
]]
local USUAL, ONE, HASTY, PINGING, STRICT = 1, 2, 3, 4, 5

-- Frames that end a connection: the code of our GOAWAY, and what an origin sends, given the request's stream.
local OK = h2.block { { ":status", "200" } }
local function raw(...)
   local bytes = h2.frame(...)
   return function() return bytes end
end
local FATAL = {
   ["PUSH_PROMISE"] = { h2.PROTOCOL_ERROR, function(id)
      return h2.frame(h2.PUSH_PROMISE, h2.END_HEADERS, id, h2.u32(2) .. h2.block(h2.get()))
   end },
   ["HEADERS on a stream of its own"] = { h2.PROTOCOL_ERROR, raw(h2.HEADERS, 5, 2, OK) },
   ["HEADERS on a stream that we have not opened"] = { h2.PROTOCOL_ERROR, raw(h2.HEADERS, 5, 101, OK) },
   ["HEADERS on stream 0"] = { h2.PROTOCOL_ERROR, raw(h2.HEADERS, 5, 0, OK) },
   ["DATA on stream 0"] = { h2.PROTOCOL_ERROR, raw(h2.DATA, 0, 0, "x") },
   ["DATA on an idle stream"] = { h2.PROTOCOL_ERROR, raw(h2.DATA, 0, 101, "x") },
   ["RST_STREAM on an idle stream"] = { h2.PROTOCOL_ERROR, raw(h2.RST_STREAM, 0, 101, h2.u32(8)) },
   ["WINDOW_UPDATE on an idle stream"] = { h2.PROTOCOL_ERROR, raw(h2.WINDOW_UPDATE, 0, 101, h2.u32(8)) },
   ["WINDOW_UPDATE of 0"] = { h2.PROTOCOL_ERROR, raw(h2.WINDOW_UPDATE, 0, 0, h2.u32(0)) },
   ["a window too large"] = { h2.FLOW_CONTROL_ERROR, raw(h2.WINDOW_UPDATE, 0, 0, h2.u32(2 ^ 31 - 1)) },
   ["CONTINUATION without HEADERS"] = { h2.PROTOCOL_ERROR, function(id)
      return h2.frame(h2.CONTINUATION, h2.END_HEADERS, id, OK)
   end },
   ["another frame inside a head"] = { h2.PROTOCOL_ERROR, function(id)
      return h2.frame(h2.HEADERS, 0, id, OK) .. h2.frame(h2.PING, 0, 0, "12345678")
   end },
   ["a frame too large"] = { h2.FRAME_SIZE_ERROR, function(id)
      return h2.frame(h2.DATA, 0, id, ("x"):rep(16385))
   end },
   ["padding longer than the frame"] = { h2.PROTOCOL_ERROR, function(id)
      return h2.frame(h2.HEADERS, h2.END_HEADERS + h2.PADDED, id, "\255" .. OK)
   end },
   ["a field section that cannot be decoded"] = { h2.COMPRESSION_ERROR, function(id)
      return h2.frame(h2.HEADERS, 5, id, "\255\255\255")
   end },
   ["a field of an index that is not there"] = { h2.COMPRESSION_ERROR, function(id)
      return h2.frame(h2.HEADERS, 5, id, "\190")
   end },
   ["a table larger than allowed"] = { h2.COMPRESSION_ERROR, function(id)
      return h2.frame(h2.HEADERS, 5, id, h2.integer(32, 5, 4097) .. OK)
   end },
   ["SETTINGS of 5 bytes"] = { h2.FRAME_SIZE_ERROR, raw(h2.SETTINGS, 0, 0, "12345") },
   ["SETTINGS on a stream"] = { h2.PROTOCOL_ERROR, raw(h2.SETTINGS, 0, 1, "") },
   ["SETTINGS that acknowledge something"] = { h2.FRAME_SIZE_ERROR, raw(h2.SETTINGS, 1, 0, "123456") },
   ["SETTINGS that enable push"] = { h2.PROTOCOL_ERROR, raw(h2.SETTINGS, 0, 0, h2.settings { [2] = 1 }) },
   ["a window setting too large"] =
      { h2.FLOW_CONTROL_ERROR, raw(h2.SETTINGS, 0, 0, h2.settings { [4] = 2 ^ 31 }) },
   ["a frame size setting too small"] =
      { h2.PROTOCOL_ERROR, raw(h2.SETTINGS, 0, 0, h2.settings { [5] = 100 }) },
   ["PING of 7 bytes"] = { h2.FRAME_SIZE_ERROR, raw(h2.PING, 0, 0, "1234567") },
   ["PING on a stream"] = { h2.PROTOCOL_ERROR, raw(h2.PING, 0, 1, "12345678") },
   ["RST_STREAM of 3 bytes"] = { h2.FRAME_SIZE_ERROR, function(id)
      return h2.frame(h2.RST_STREAM, 0, id, "123")
   end },
   ["GOAWAY on a stream"] = { h2.PROTOCOL_ERROR, raw(h2.GOAWAY, 0, 1, h2.u32(0) .. h2.u32(0)) },
}

t.on_both_backends("an HTTP/2 origin", function(backend)
   local listener, proxy = t.proxied(backend, { site = SITE, listeners = 5 })
   local held = {} -- connections to the origin, which outlive a spec unless it ends them

   local function accept(options)
      local origin = h2_origin.accept(listener, options)
      held[#held + 1] = origin
      return origin
   end

   local function connect(which)
      return proxy():connect { address = proxy().addresses[which or USUAL] }
   end

   --- Sends a request of HTTP/1 and returns the client.
   local function ask(which, head, body)
      local client = connect(which)
      client:send_head(head or "GET / HTTP/1.1\nHost: a.example", body)
      return client
   end

   --- A request that has reached a new connection to the origin.
   local function reach(which, head, body, options)
      local client = ask(which, head, body)
      local origin = accept(options)
      return client, origin, origin:read_request()
   end

   local function expect_error(client, status)
      local response = client:read_response()
      assert.equal(status, response.status)
      return response
   end

   t.it("gets the request in its own form", function()
      local client, origin, request = reach(USUAL, "GET /path?q=1 HTTP/1.1\nHost: a.example\n" ..
         "X-Mixed: Case\nTE: trailers, deflate\nConnection: TE, X-Hop\nX-Hop: 1\nKeep-Alive: 5")
      assert.same({
         { ":method", "GET" }, { ":scheme", "http" }, { ":authority", "a.example" }, { ":path", "/path?q=1" },
         { "x-mixed", "Case" }, { "via", "1.1 monolake-lua" }, { "te", "trailers" },
      }, request.fields)
      assert.is_true(request.ended)
      assert.equal(0, origin.settings[2]) -- no server push
      origin:respond(request, 200, "hello", { { "content-length", "5" }, { "x-from", "origin" } })
      local response = client:read_response()
      assert.equal("hello", response.body)
      assert.equal("origin", response:get "x-from")
      assert.equal("5", response:get "content-length")
   end)

   t.it("hears of the client", function()
      local client, origin, request = reach(STRICT,
         "GET / HTTP/1.1\nHost: a.example\nX-Forwarded-For: 192.0.2.1")
      assert.equal("192.0.2.1, 127.0.0.1", request:get "x-forwarded-for")
      assert.equal("a.example", request:get "x-forwarded-host")
      origin:respond(request, 204)
      assert.equal(204, client:read_response().status)
   end)

   t.it("takes many requests at a time on one connection", function()
      local clients, requests = {}, {}
      for i = 1, 20 do
         clients[i] = ask(USUAL, ("GET /%d HTTP/1.1\nHost: a"):format(i))
      end
      local origin = accept()
      for _ = 1, 20 do
         local request = origin:read_request()
         requests[tonumber(request:get(":path"):sub(2))] = request
      end
      for i = 20, 1, -1 do
         origin:respond(requests[i], 200, "for " .. i)
      end
      for i = 1, 20 do
         assert.equal("for " .. i, clients[i]:read_response().body)
      end
      assert.is_nil(listener:try_accept())
   end)

   t.it("is used again for the next request", function()
      local client, origin, request = reach()
      origin:respond(request, 200, "first")
      assert.equal("first", client:read_response().body)
      client:send_head "GET /second HTTP/1.1\nHost: a"
      request = origin:read_request()
      assert.equal("/second", request:get ":path")
      origin:respond(request, 200, "second")
      assert.equal("second", client:read_response().body)
   end)

   -- --- Bodies ---------------------------------------------------------------------------------

   t.it("gets small and large bodies, with trailers", function()
      local client, origin, request = reach(USUAL, "POST /s HTTP/1.1\nHost: a\nContent-Length: 4", "data")
      assert.equal("data", origin:read_body(request))
      assert.equal("4", request:get "content-length")
      origin:respond(request, 200, "small")
      assert.equal("small", client:read_response().body)

      local large = ("0123456789abcdef"):rep(20000)
      client:send_head "POST /l HTTP/1.1\nHost: a\nTransfer-Encoding: chunked"
      t.start_task(function()
         for at = 1, #large, 10000 do
            client:send(t.chunk(large:sub(at, at + 9999)))
         end
         client:send "0\r\nX-Sum: 1\r\n\r\n"
      end)
      request = origin:read_request()
      assert.is_nil(request:get "transfer-encoding")
      assert.is_true(large == origin:read_body(request))
      assert.equal("1", request:get("x-sum", true))
      origin:respond(request, 200, "large")
      assert.equal("large", client:read_response().body)
   end)

   t.it("holds a client up while its window is closed", function()
      local size = 64000000 -- more than the kernel's buffers take
      local client, origin, request = reach(USUAL,
         ("POST / HTTP/1.1\nHost: a\nContent-Length: %d"):format(size), nil, { manual = true })
      local sent, why = client:try_send(("x"):rep(size), 0.3)
      assert.is_nil(sent)
      assert.equal("timeout", why)
      origin:sync()
      assert.equal(65535, #table.concat(request.parts))
      origin.manual = false
      origin:frame(h2.WINDOW_UPDATE, 0, 0, h2.u32(65535))
      origin:frame(h2.WINDOW_UPDATE, 0, request.id, h2.u32(65535))
      client:reset()
      assert.equal(h2.CANCEL, origin:reset_of(request))
   end)

   t.it("is held up by a slow client, alone on its stream", function()
      local client, origin, request = reach()
      origin:head(request, 200)
      local piece, sent = ("x"):rep(16384), 0
      for _ = 1, 4 do -- the window of a stream, but a byte
         origin:data(request, piece:sub(1, math.min(#piece, 65535 - sent)))
         sent = sent + math.min(#piece, 65535 - sent)
      end
      local other = ask(USUAL, "GET /other HTTP/1.1\nHost: a")
      local quick = origin:read_request()
      origin:respond(quick, 200, "quick")
      assert.equal("quick", other:read_response().body)
      origin:pump(function() -- the client's socket takes it, so the window opens again
         return origin.updates[request.id]
      end)
      origin:data(request, "end", true)
      assert.equal(65535 + 3, #client:read_response().body)
   end)

   t.it("sends trailers, also without a body", function()
      local client, origin, request = reach()
      origin:head(request, 200)
      origin:data(request, "body")
      origin:trailers(request, { { "x-sum", "9" } })
      local response = client:read_response()
      assert.equal("body", response.body)
      assert.equal("9", response.trailers:get "x-sum")
      client:send_head "GET / HTTP/1.1\nHost: a"
      request = origin:read_request()
      origin:head(request, 200)
      origin:trailers(request, { { "x-sum", "0" } })
      response = client:read_response()
      assert.equal("", response.body)
      assert.equal("0", response.trailers:get "x-sum")
   end)

   t.it("cannot change by trailers what its head has said", function()
      local client, origin, request = reach()
      origin:head(request, 200)
      origin:data(request, "body")
      origin:trailers(request, { { "set-cookie", "a=b" }, { "location", "/evil" }, { "x-ok", "1" } })
      local response = client:read_response()
      assert.equal("body", response.body)
      assert.same({ { "x-ok", "1" } }, response.trailers.fields)
   end)

   t.it("answers HEAD, and with 204 and 304", function()
      local client, origin, request = reach(USUAL, "HEAD / HTTP/1.1\nHost: a")
      origin:respond(request, 200, nil, { { "content-length", "1234" } })
      local response = client:read_response { method = "HEAD" }
      assert.equal("1234", response:get "content-length")
      for _, status in ipairs { 204, 304 } do
         client:send_head "GET / HTTP/1.1\nHost: a"
         origin:respond(origin:read_request(), status)
         assert.equal(status, client:read_response().status)
      end
   end)

   t.it("may answer early, and wants no more of the body then", function()
      local client, origin, request = reach(USUAL, "POST / HTTP/1.1\nHost: a\nContent-Length: 100000", "some")
      origin:respond(request, 413, "no")
      origin:reset(request, h2.NO_ERROR)
      local response = client:read_response()
      assert.equal(413, response.status)
      assert.equal("no", response.body)
   end)

   t.it("may answer without taking anything of the body", function()
      for _, body in ipairs { "data", ("x"):rep(100000) } do
         local client, origin, request = reach(HASTY,
            ("POST / HTTP/1.1\nHost: a\nContent-Length: %d"):format(#body), nil,
            { settings = { [h2.INITIAL_WINDOW_SIZE] = 0 } })
         client:try_send(body, 0.1)
         origin:respond(request, 403, "no")
         local response = client:read_response()
         assert.equal(403, response.status)
         assert.equal("no", response.body)
         assert.equal(h2.CANCEL, origin:reset_of(request))
         assert.equal("", origin:read_body(request))
         origin:close()
      end
   end)

   t.it("sends interim responses", function()
      local client, origin, request = reach()
      origin:head(request, 103, { fields = { { "link", "</a>" } } })
      local hints = client:read_response_head()
      assert.equal(103, hints.status)
      assert.equal("</a>", hints:get "link")
      origin:respond(request, 200, "final")
      assert.equal("final", client:read_response().body)
   end)

   t.it("gives 100 Continue", function()
      local client, origin, request = reach(USUAL,
         "POST / HTTP/1.1\nHost: a\nContent-Length: 4\nExpect: 100-continue")
      assert.equal("100-continue", request:get "expect")
      origin:head(request, 100)
      assert.equal(100, client:read_response_head().status)
      client:send "data"
      assert.equal("data", origin:read_body(request))
      origin:respond(request, 200, "ok")
      assert.equal("ok", client:read_response().body)
   end)

   -- --- Malformed answers ----------------------------------------------------------------------

   local malformed = {
      ["no status"] = { { "x-a", "b" } },
      ["a status of two digits"] = { { ":status", "20" } },
      ["a status out of range"] = { { ":status", "999" } },
      ["a status of 101"] = { { ":status", "101" } },
      ["two statuses"] = { { ":status", "200" }, { ":status", "200" } },
      ["a pseudo-header field of requests"] = { { ":status", "200" }, { ":path", "/" } },
      ["a pseudo-header field behind others"] = { { "x-a", "b" }, { ":status", "200" } },
      ["a connection-specific field"] = { { ":status", "200" }, { "connection", "close" } },
      ["transfer-encoding"] = { { ":status", "200" }, { "transfer-encoding", "chunked" } },
      ["a name in upper case"] = { { ":status", "200" }, { "X-A", "b" } },
      ["a name with a space"] = { { ":status", "200" }, { "x a", "b" } },
      ["a value with a line feed"] = { { ":status", "200" }, { "x-a", "b\nc" } },
      ["two lengths"] = { { ":status", "200" }, { "content-length", "1" }, { "content-length", "2" } },
      ["a length that is no number"] = { { ":status", "200" }, { "content-length", "+1" } },
      ["too long a head"] = { { ":status", "200" }, { "x-a", ("b"):rep(1000) } },
   }
   for what, fields in pairs(malformed) do
      t.it(("is malformed: %s"):format(what), function()
         local client, origin, request = reach(STRICT)
         origin:frame(h2.HEADERS, h2.END_HEADERS, request.id, h2.block(fields))
         assert.equal(502, client:read_response().status)
         assert.is_truthy(origin:reset_of(request))
         client = ask(STRICT, "GET /next HTTP/1.1\nHost: a")
         request = origin:read_request() -- the connection is as good as before
         origin:respond(request, 200, "next")
         assert.equal("next", client:read_response().body)
      end)
   end

   t.it("is malformed: a length that DATA contradicts", function()
      local client, origin, request = reach(STRICT)
      origin:head(request, 200, { fields = { { "content-length", "9" } } })
      origin:data(request, "short", true)
      local response = client:read_response_head()
      assert.equal(200, response.status)
      assert.is_false(pcall(client.read_response_body, client, response))
   end)

   t.it("is malformed: a length, and the end at once", function()
      local client, origin, request = reach(STRICT)
      origin:respond(request, 200, nil, { { "content-length", "9" } })
      expect_error(client, 502)
   end)

   t.it("is malformed: interim responses without end", function()
      local client, origin, request = reach(STRICT)
      for _ = 1, 40 do
         origin:head(request, 102)
      end
      local response = client:read_response_head()
      while response.status == 102 do
         response = client:read_response_head()
      end
      assert.equal(502, response.status)
   end)

   for what, case in pairs(FATAL) do
      t.it(("breaks the rules: %s"):format(what), function()
         local client, origin, request = reach(STRICT, "POST / HTTP/1.1\nHost: a\nContent-Length: 0")
         origin:send(case[2](request.id))
         expect_error(client, 502)
         assert.equal(case[1], origin:close_code())
         assert.is_truthy(origin.closed)
         client:send_head "GET /next HTTP/1.1\nHost: a"
         local second = accept()
         second:respond(second:read_request(), 200, "next")
         assert.equal("next", client:read_response().body)
         second:close()
      end)
   end

   t.it("does not speak HTTP/2 at all", function()
      local client = ask(STRICT)
      local upstream = listener:accept()
      upstream:read_until "SM\r\n\r\n"
      upstream:send "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
      expect_error(client, 502)
      proxy():await_log "does not speak HTTP/2"
   end)

   for what, frames in pairs {
      ["says goodbye with its first word"] = h2.frame(h2.SETTINGS, 0, 0) ..
         h2.frame(h2.GOAWAY, 0, 0, h2.u32(0) .. h2.u32(h2.NO_ERROR)),
      ["allows no streams"] = h2.frame(h2.SETTINGS, 0, 0, h2.settings { [h2.MAX_CONCURRENT_STREAMS] = 0 }),
   } do
      t.it("is not connected to over and over when it " .. what, function()
         local count = 0
         t.start_task(function()
            while true do
               local socket = listener:accept(3600)
               count = count + 1
               socket:try_send(frames)
            end
         end)
         local client = ask(HASTY)
         local status = client:read_response().status
         assert.is_true(status == 502 or status == 504)
         assert.equal(1, count)
      end)
   end

   t.it("may allow streams a little later", function()
      local client = ask(HASTY)
      local origin = accept { settings = { [h2.MAX_CONCURRENT_STREAMS] = 0 } }
      origin:sync()
      origin:frame(h2.SETTINGS, 0, 0, h2.settings { [h2.MAX_CONCURRENT_STREAMS] = 1 })
      origin:respond(origin:read_request(), 200, "later")
      assert.equal("later", client:read_response().body)
   end)

   -- --- Resets and retries ---------------------------------------------------------------------

   for what, code in pairs { [""] = h2.INTERNAL_ERROR, [" for a reason that nobody knows"] = 0xfedcba98 } do
      t.it("resets a stream" .. what .. ": an error for that client alone", function()
         local client, origin, request = reach(USUAL, "POST / HTTP/1.1\nHost: a\nContent-Length: 0")
         local other = ask(USUAL, "GET /other HTTP/1.1\nHost: a")
         local quick = origin:read_request()
         origin:reset(request, code)
         expect_error(client, 502)
         origin:respond(quick, 200, "fine")
         assert.equal("fine", other:read_response().body)
      end)
   end

   t.it("resets a stream inside of a response", function()
      local client, origin, request = reach()
      origin:head(request, 200, { fields = { { "content-length", "100" } } })
      origin:data(request, "part")
      local response = client:read_response_head()
      assert.equal("part", client:read(4))
      origin:reset(request, h2.INTERNAL_ERROR)
      assert.equal(200, response.status)
      client:expect_close()
   end)

   t.it("refuses a stream: it is sent again, whatever its method", function()
      local client, origin, request = reach(USUAL, "POST /again HTTP/1.1\nHost: a\nContent-Length: 4", "data")
      origin:read_body(request)
      origin:reset(request, h2.REFUSED_STREAM)
      local second = accept()
      request = second:read_request()
      assert.equal("/again", request:get ":path")
      assert.equal("data", second:read_body(request))
      second:respond(request, 200, "taken")
      assert.equal("taken", client:read_response().body)
   end)

   t.it("refuses a stream for ever: 502", function()
      local client = ask(USUAL, "POST / HTTP/1.1\nHost: a\nContent-Length: 0")
      local origin = accept()
      origin:reset(origin:read_request(), h2.REFUSED_STREAM)
      local second = accept() -- the one on which it is tried again, but there is no third
      second:reset(second:read_request(), h2.REFUSED_STREAM)
      second:reset(second:read_request(), h2.REFUSED_STREAM)
      expect_error(client, 502)
   end)

   t.it("says goodbye: what it has not looked at is sent elsewhere, the rest is answered", function()
      local first, origin, one = reach(USUAL, "POST /1 HTTP/1.1\nHost: a\nContent-Length: 0")
      local second = ask(USUAL, "POST /2 HTTP/1.1\nHost: a\nContent-Length: 0")
      origin:read_request()
      origin:say_goaway(one.id)
      local other = accept()
      local again = other:read_request()
      assert.equal("/2", again:get ":path")
      other:respond(again, 200, "two")
      assert.equal("two", second:read_response().body)
      origin:respond(one, 200, "one")
      assert.equal("one", first:read_response().body)
      origin:close_code() -- drained, and closed
   end)

   t.it("closes without an answer: idempotent requests are sent again, others are not", function()
      local client, origin, request = reach()
      origin:respond(request, 200, "warm")
      client:read_response()
      client:send_head "GET /again HTTP/1.1\nHost: a"
      local other = ask(USUAL, "POST /once HTTP/1.1\nHost: a\nContent-Length: 0")
      origin:read_request()
      origin:read_request()
      origin:close()
      local second = accept()
      request = second:read_request()
      assert.equal("/again", request:get ":path")
      second:respond(request, 200, "again")
      assert.equal("again", client:read_response().body)
      expect_error(other, 502)
   end)

   t.it("has hung up while nobody asked: the next request finds a new connection", function()
      local client, origin, request = reach()
      origin:respond(request, 200, "first")
      client:read_response()
      origin:close()
      client:send_head "POST / HTTP/1.1\nHost: a\nContent-Length: 0"
      local second = accept()
      second:respond(second:read_request(), 200, "second")
      assert.equal("second", client:read_response().body)
   end)

   t.it("hears of a client that goes away", function()
      local client, origin, request = reach()
      client:reset()
      assert.equal(h2.CANCEL, origin:reset_of(request))
      client, origin = ask(USUAL), origin
      request = origin:read_request()
      origin:head(request, 200)
      origin:data(request, "part")
      client:read_response_head()
      client:reset()
      assert.equal(h2.CANCEL, origin:reset_of(request))
   end)

   -- --- Bounds and times -----------------------------------------------------------------------

   t.it("gets no more streams at a time than it allows", function()
      local client, origin, request = reach(USUAL, nil, nil,
         { settings = { [h2.MAX_CONCURRENT_STREAMS] = 1 } })
      origin:sync()
      local other = ask(USUAL, "GET /other HTTP/1.1\nHost: a")
      local second = accept()
      second:respond(second:read_request(), 200, "elsewhere")
      assert.equal("elsewhere", other:read_response().body)
      origin:respond(request, 200, "here")
      assert.equal("here", client:read_response().body)
   end)

   t.it("gets no more streams than it allows even if they all come at once", function()
      local clients = {}
      for i = 1, 6 do
         clients[i] = ask(USUAL, "POST / HTTP/1.1\nHost: a\nContent-Length: 0")
      end
      local function serve(origin)
         while true do
            local request = origin:read_request(3600)
            origin:sync()
            assert.equal(0, #origin.waiting)
            origin:respond(request, 200, "one of them")
         end
      end
      t.start_task(function()
         while true do
            t.start_task(serve, accept { settings = { [h2.MAX_CONCURRENT_STREAMS] = 1 } })
         end
      end)
      for i = 1, 6 do
         assert.equal("one of them", clients[i]:read_response().body)
      end
   end)

   t.it("that says goodbye before anything is asked: 502, and no flood of connections", function()
      local client = ask(USUAL, "POST / HTTP/1.1\nHost: a\nContent-Length: 0")
      local connections = 0
      t.start_task(function()
         while true do
            local ok, origin = pcall(accept, { silent = true })
            connections = connections + 1
            if ok then
               origin.socket:send(h2.frame(h2.SETTINGS, 0, 0, "") ..
                  h2.frame(h2.GOAWAY, 0, 0, h2.u32(0) .. h2.u32(h2.NO_ERROR)))
            end
         end
      end)
      expect_error(client, 502)
      assert.equal(1, connections)
   end)

   t.it("gets no more connections than we allow: the others wait for room", function()
      local clients = {}
      for i = 1, 5 do
         clients[i] = ask(ONE, ("GET /%d HTTP/1.1\nHost: a"):format(i))
      end
      local origin = accept()
      local one, two = origin:read_request(), origin:read_request()
      origin:sync()
      assert.equal(0, #origin.waiting)
      origin:respond(one, 200, "one")
      origin:respond(two, 200, "two")
      for _ = 1, 3 do
         origin:respond(origin:read_request(), 200, "later")
      end
      for i = 1, 5 do
         assert.equal(200, clients[i]:read_response().status)
      end
      assert.is_nil(listener:try_accept())
   end)

   t.it("is slow to answer: 504 for that stream alone", function()
      local client, origin, request = reach(HASTY)
      local patient = ask(HASTY, "GET /patient HTTP/1.1\nHost: a")
      local other = origin:read_request()
      origin:head(other, 200)
      assert.equal(200, patient:read_response_head().status)
      t.start_task(function()
         for _ = 1, 6 do -- for longer than the other may take
            origin:data(other, "x")
            t.tasks.sleep(0.05)
         end
         origin:data(other, "y", true)
      end)
      expect_error(client, 504)
      assert.equal(h2.CANCEL, origin:reset_of(request))
      assert.is_truthy(patient:read_until "y")
   end)

   t.it("is slow with a body: that stream breaks off", function()
      local client, origin, request = reach(HASTY)
      origin:head(request, 200, { fields = { { "content-length", "10" } } })
      client:read_response_head()
      client:expect_close()
      assert.equal(h2.CANCEL, origin:reset_of(request))
      origin:sync()
   end)

   t.it("takes nothing: 504", function()
      local client, origin, request = reach(HASTY, "POST / HTTP/1.1\nHost: a\nContent-Length: 100000", nil,
         { settings = { [h2.INITIAL_WINDOW_SIZE] = 0 } })
      client:try_send(("x"):rep(100000), 0.1)
      expect_error(client, 504)
      assert.equal(h2.CANCEL, origin:reset_of(request))
   end)

   t.it("is left when nobody has asked for long", function()
      local client, origin, request = reach(HASTY)
      origin:respond(request, 200, "ok")
      client:read_response()
      assert.equal(h2.NO_ERROR, origin:close_code())
   end)

   t.it("is asked for a sign of life, and left if it gives none", function()
      local client, origin = reach(PINGING)
      local signs = 0
      local frame = origin:read_frame()
      while frame do -- nothing is answered
         signs = signs + (frame.kind == h2.PING and 1 or 0)
         frame = origin:read_frame()
      end
      assert.equal(1, signs)
      expect_error(client, 502)
   end)

   t.it("gives no sign of life to a request: the next ones go elsewhere until it does", function()
      local client, origin, request = reach()
      origin:respond(request, 200, "warm")
      client:read_response()
      client:send_head "GET /silence HTTP/1.1\nHost: a"
      request = origin:read_request()
      t.tasks.sleep(1.1) -- so long that doubts arise
      client:reset()
      origin.socket:fill "the ping" -- which stays unread
      local other = ask(USUAL, "GET /elsewhere HTTP/1.1\nHost: a")
      local second = accept()
      local elsewhere = second:read_request()
      assert.equal(h2.CANCEL, origin:reset_of(request)) -- and the ping is answered
      second:say_goaway(elsewhere.id)
      second:respond(elsewhere, 200, "elsewhere")
      assert.equal("elsewhere", other:read_response().body)
      origin:pump(function()
         return origin.pings_in == 1
      end)
      other:send_head "GET /back HTTP/1.1\nHost: a"
      request = origin:read_request()
      origin:respond(request, 200, "back")
      assert.equal("back", other:read_response().body)
   end)

   t.it("is kept if it gives signs of life", function()
      local client, origin, request = reach(PINGING)
      local signs = 0
      origin:pump(function()
         signs = origin.pings_in
         return signs == 3
      end)
      origin:respond(request, 200, "late")
      assert.equal("late", client:read_response().body)
   end)
end)
