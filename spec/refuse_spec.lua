--- What is refused and never forwarded (RFC 9110, RFC 9112).
local t = require "spec.support"

local HOST = "Host: a.example\r\n"

--- A request with these header lines; the body follows.
local function with_fields(fields, body)
   return "POST / HTTP/1.1\r\n" .. fields .. "\r\n" .. (body or "")
end

local function with_target(target)
   return "GET " .. target .. " HTTP/1.1\r\n" .. HOST .. "\r\n"
end

local CHUNKED = HOST .. "Transfer-Encoding: chunked\r\n"

--- Answered with 400 before anything is forwarded.
local malformed = {
   -- Field lines.
   ["obs-fold"] = with_fields(HOST .. "X: a\r\n b\r\n"),
   ["obs-fold with a tab"] = with_fields(HOST .. "X: a\r\n\tb\r\n"),
   ["obs-fold as the first field"] = with_fields(" X: a\r\n" .. HOST),
   ["obs-fold that hides a Content-Length"] = with_fields(HOST .. "X: a\r\n Content-Length: 3\r\n", "abc"),
   ["a bare LF behind a field"] = with_fields("Host: a\nX: b\r\n"),
   ["a bare LF behind the request line"] = "GET / HTTP/1.1\n" .. HOST .. "\r\n",
   ["a bare LF as the end"] = "GET / HTTP/1.1\r\n" .. HOST .. "\n",
   ["a bare CR in a value"] = with_fields(HOST .. "X: a\rb\r\n"),
   ["a bare CR before a field"] = with_fields("\rHost: a\r\n"),
   ["a CR CR LF"] = with_fields("Host: a\r\r\n"),
   ["a space before the colon"] = with_fields(HOST .. "X : a\r\n"),
   ["a tab before the colon"] = with_fields(HOST .. "X\t: a\r\n"),
   ["a name with a space"] = with_fields(HOST .. "X Y: a\r\n"),
   ["an empty name"] = with_fields(HOST .. ": a\r\n"),
   ["a line without a colon"] = with_fields(HOST .. "nonsense\r\n"),
   ["a name with a non-token byte"] = with_fields(HOST .. "X(y): a\r\n"),
   ["a name with a byte over 127"] = with_fields(HOST .. "X\xc3: a\r\n"),
   ["a NUL in a value"] = with_fields(HOST .. "X: a\0b\r\n"),
   ["a control byte in a value"] = with_fields(HOST .. "X: a\1b\r\n"),
   ["a DEL in a value"] = with_fields(HOST .. "X: a\127b\r\n"),
   ["a NUL in a name"] = with_fields(HOST .. "X\0: a\r\n"),
   -- Host.
   ["no Host"] = with_fields "X: y\r\n",
   ["two Hosts"] = with_fields(HOST .. HOST),
   ["two Hosts of different case"] = with_fields(HOST .. "hOST: a.example\r\n"),
   ["a Host with a space"] = with_fields "Host: a b\r\n",
   ["a Host with a slash"] = with_fields "Host: a/b\r\n",
   ["a Host with userinfo"] = with_fields "Host: u@a\r\n",
   ["a Host list"] = with_fields "Host: a, b\r\n",
   ["a Host with a port that is none"] = with_fields "Host: a:port\r\n",
   -- Framing.
   ["Transfer-Encoding with Content-Length"] =
      with_fields(CHUNKED .. "Content-Length: 3\r\n", "0\r\n\r\n"),
   ["Content-Length with Transfer-Encoding"] =
      with_fields(HOST .. "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
   ["an empty transfer coding"] = with_fields(HOST .. "Transfer-Encoding: \r\n", "0\r\n\r\n"),
   ["a coding before chunked"] = with_fields(HOST .. "Transfer-Encoding: deflate, chunked\r\n", "0\r\n\r\n"),
   ["a coding behind chunked"] = with_fields(HOST .. "Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"),
   ["chunked twice"] = with_fields(HOST .. "Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
   ["chunked in two fields"] = with_fields(CHUNKED .. "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
   ["an empty element before chunked"] = with_fields(HOST .. "Transfer-Encoding: ,chunked\r\n", "0\r\n\r\n"),
   ["an empty element behind chunked"] = with_fields(HOST .. "Transfer-Encoding: chunked,\r\n", "0\r\n\r\n"),
   ["identity"] = with_fields(HOST .. "Transfer-Encoding: identity\r\n"),
   ["an unknown coding"] = with_fields(HOST .. "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
   ["chunked with a parameter"] = with_fields(HOST .. "Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"),
   ["chunked in quotes"] = with_fields(HOST .. 'Transfer-Encoding: "chunked"\r\n', "0\r\n\r\n"),
   ["chunked with a vertical tab"] = with_fields(HOST .. "Transfer-Encoding: \vchunked\r\n", "0\r\n\r\n"),
   ["Transfer-Encoding in HTTP/1.0"] =
      "POST / HTTP/1.0\r\n" .. CHUNKED .. "\r\n0\r\n\r\n",
   ["two lengths that differ"] = with_fields(HOST .. "Content-Length: 1\r\nContent-Length: 2\r\n", "ab"),
   ["two lengths that agree"] = with_fields(HOST .. "Content-Length: 1\r\nContent-Length: 1\r\n", "a"),
   ["a list of lengths that differ"] = with_fields(HOST .. "Content-Length: 1, 2\r\n", "ab"),
   ["a signed length"] = with_fields(HOST .. "Content-Length: +1\r\n", "a"),
   ["a negative length"] = with_fields(HOST .. "Content-Length: -1\r\n"),
   ["an empty length"] = with_fields(HOST .. "Content-Length: \r\n"),
   ["a hexadecimal length"] = with_fields(HOST .. "Content-Length: 0x1\r\n", "a"),
   ["a length with a space"] = with_fields(HOST .. "Content-Length: 1 1\r\n", "a"),
   ["a length that overflows"] = with_fields(HOST .. "Content-Length: 18446744073709551617\r\n", "a"),
   ["a length over 63 bits"] = with_fields(HOST .. "Content-Length: 9223372036854775808\r\n", "a"),
   -- Request line.
   ["a fragment"] = with_target "/a#b",
   ["a control byte in the target"] = with_target "/a\1b",
   ["a NUL in the target"] = with_target "/a\0b",
   ["a DEL in the target"] = with_target "/a\127b",
   ["a target that is no path"] = with_target "path",
   ["a target with a space"] = with_target "/a b",
   ["an asterisk for GET"] = with_target "*",
   ["another scheme"] = with_target "ftp://a.example/",
   ["a target without an authority"] = with_target "http:///path",
   ["userinfo in the target"] = with_target "http://user@a.example/",
   ["a method that is no token"] = "G(T / HTTP/1.1\r\n" .. HOST .. "\r\n",
   ["no method"] = " / HTTP/1.1\r\n" .. HOST .. "\r\n",
   ["no target"] = "GET HTTP/1.1\r\n" .. HOST .. "\r\n",
   ["two spaces"] = "GET  / HTTP/1.1\r\n" .. HOST .. "\r\n",
   ["a tab"] = "GET\t/ HTTP/1.1\r\n" .. HOST .. "\r\n",
   ["a space behind the version"] = "GET / HTTP/1.1 \r\n" .. HOST .. "\r\n",
   ["a leading space"] = " GET / HTTP/1.1\r\n" .. HOST .. "\r\n",
   ["bytes before the request line"] = "\0GET / HTTP/1.1\r\n" .. HOST .. "\r\n",
   ["RTSP"] = "OPTIONS rtsp://a.example/ RTSP/1.0\r\n" .. HOST .. "\r\n",
   ["ICE"] = "SOURCE /x ICE/1.0\r\n" .. HOST .. "\r\n",
   ["HTTP/0.9"] = "GET /\r\n\r\n",
   ["a TLS hello"] = "\22\3\1\2\0\1\0\1\252\3\3" .. ("\0"):rep(64) .. "\r\n\r\n",
   ["an SSH greeting"] = "SSH-2.0-OpenSSH_9.2\r\n\r\n",
   ["a lower-case protocol"] = "GET / http/1.1\r\n" .. HOST .. "\r\n",
}

--- Versions other than 1.0 and 1.1: 505 (RFC 9110 section 15.6.6) or, where the line is no HTTP, 400.
local versions = {
   "HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9", "HTTP/1.10", "HTTP/1", "HTTP/01.1",
}

--- Chunks that end the request although its head was well-formed.
local chunks = {
   ["a size that overflows"] = "10000000000000000\r\n",
   ["a size over 63 bits"] = "8000000000000000\r\n",
   ["a signed size"] = "+1\r\na\r\n0\r\n\r\n",
   ["a size with 0x"] = "0x1\r\na\r\n0\r\n\r\n",
   ["no size"] = "\r\na\r\n0\r\n\r\n",
   ["junk behind the size"] = "1 x\r\na\r\n0\r\n\r\n",
   ["a space before the size"] = " 1\r\na\r\n0\r\n\r\n",
   ["a bare LF behind the size"] = "1\na\r\n0\r\n\r\n",
   ["a bare CR in an extension"] = "1;a\rb\r\na\r\n0\r\n\r\n",
   ["a NUL in an extension"] = "1;a\0b\r\na\r\n0\r\n\r\n",
   ["data longer than the size"] = "1\r\nab\r\n0\r\n\r\n",
   ["a bare LF behind the data"] = "1\r\na\n0\r\n\r\n",
   ["a folded trailer"] = "0\r\nX: a\r\n b\r\n\r\n",
   ["a trailer without a colon"] = "0\r\nnonsense\r\n\r\n",
   ["a NUL in a trailer"] = "0\r\nX: a\0\r\n\r\n",
}

t.on_both_backends("a request is refused that has", function(backend)
   local origin, proxy = t.proxied(backend)

   --- Sends the bytes; returns the answer, after which the connection was closed.
   local function answer_to(bytes)
      local client = proxy():connect()
      client:send(bytes)
      local response = client:read_response()
      assert.is_true(response:has("connection", "close"))
      client:expect_close()
      return response
   end

   for name, bytes in pairs(malformed) do
      t.it(name, function()
         local response = answer_to(bytes)
         assert.equal(400, response.status)
         assert.is_nil(origin:try_accept())
      end)
      t.it(name .. ", pipelined behind a good one", function()
         local client = proxy():connect()
         client:send(t.head "GET /good HTTP/1.1\nHost: a" .. bytes)
         local upstream = origin:accept()
         assert.equal("/good", upstream:read_request().target)
         upstream:respond(200, "good")
         assert.equal("good", client:read_response().body)
         assert.equal(400, client:read_response().status)
         client:expect_close()
         assert.equal("", upstream.buffer)
      end)
   end

   t.it("the method HEAD, too, without a body then", function()
      local client = proxy():connect()
      client:send(t.head "HEAD / HTTP/1.1\nHost: a b")
      assert.equal(400, client:read_response({ method = "HEAD" }).status)
      assert.equal("", client:read_all())
   end)

   for _, version in ipairs(versions) do
      t.it("the version " .. version, function()
         local status = answer_to("GET / " .. version .. "\r\n" .. HOST .. "\r\n").status
         assert.is_true(status == 505 or status == 400)
         assert.is_nil(origin:try_accept())
      end)
   end

   for name, body in pairs(chunks) do
      t.it("in its chunks " .. name, function()
         local client = proxy():connect()
         client:send(with_fields(CHUNKED, body))
         local upstream
         t.start_task(function()
            upstream = origin:accept(1)
         end)
         local response = client:read_response()
         assert.equal(400, response.status)
         client:expect_close()
         if upstream then -- what had been forwarded by then never becomes a whole request
            assert.is_false((pcall(upstream.read_request, upstream)))
         end
      end)
   end
end)

t.on_both_backends("limits", function(backend)
   local origin, proxy = t.proxied(backend, {
      site = [[
         local ml = require "monolake"
         ml.listen {
            address = "127.0.0.1:0",
            request_line_max = 200, head_max = 1000, headers_max = 10, body_max = 100,
            chain = { ml.proxy { "${origin}" } },
         }
      ]],
   })

   local function status_of(bytes)
      local client = proxy():connect()
      client:send(bytes)
      local response = client:read_response()
      client:expect_close()
      assert.is_nil(origin:try_accept())
      return response.status
   end

   local function passes(bytes)
      local client = proxy():connect()
      client:send(bytes)
      local upstream = origin:accept()
      local request = upstream:read_request()
      upstream:respond(200, "ok")
      assert.equal("ok", client:read_response().body)
      client:close()
      return request
   end

   t.it("bound the request line", function()
      passes(with_target("/" .. ("x"):rep(150)))
      assert.equal(414, status_of(with_target("/" .. ("x"):rep(250))))
      assert.equal(414, status_of("GET /" .. ("x"):rep(100000)))
   end)

   t.it("bound the head", function()
      passes(with_fields(HOST .. "Content-Length: 0\r\nX: " .. ("x"):rep(700) .. "\r\n"))
      assert.equal(431, status_of(with_fields(HOST .. "X: " .. ("x"):rep(1000) .. "\r\n")))
      assert.equal(431, status_of(with_fields(HOST .. "X: " .. ("x"):rep(100000))))
   end)

   t.it("bound the number of fields", function()
      passes(with_fields(HOST .. "Content-Length: 0\r\n" .. ("X: y\r\n"):rep(8)))
      assert.equal(431, status_of(with_fields(HOST .. ("X: y\r\n"):rep(10))))
   end)

   t.it("bound a body of known length before it is read", function()
      local whole = with_fields(HOST .. "Content-Length: 100\r\n", ("x"):rep(100))
      assert.equal(100, #passes(whole).body)
      assert.equal(413, status_of(with_fields(HOST .. "Content-Length: 101\r\n")))
   end)

   t.it("bound a body in chunks", function()
      assert.equal(100, #passes(with_fields(CHUNKED, t.chunk(("x"):rep(100)) .. t.chunk "")).body)
      local client = proxy():connect()
      client:send(with_fields(CHUNKED, t.chunk(("x"):rep(101)) .. t.chunk ""))
      assert.equal(413, client:read_response().status)
      client:expect_close()
   end)
end)
