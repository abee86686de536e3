--- {HTTP/1, HTTP/2} clients x {HTTP/1, HTTP/2} upstreams: two programs in a row between a client and a
--- scripted HTTP/1 origin, so that each message goes through both versions: in the clear, and by TLS of
--- either library from the client to the second program; then programs that are not ours at the ends.
local busted = require "busted"
local t = require "spec.support"
local certificates = require "spec.support.certificates"
local h2 = require "spec.support.h2"

local MIDDLE = [[
local ml = require "monolake"
local chain = { ml.proxy(ml.upstream { "${origin}", name = "origin" }) }
ml.listen { address = "127.0.0.1:0", protocols = { "h1", "h2c" }, chain = chain }
for _, library in ipairs { "openssl", "gnutls" } do
   ml.listen { address = "127.0.0.1:0", chain = chain,
      tls = { cert = "a.pem", key = "a.key", library = library } }
end
]]

local FRONT = [[
local ml = require "monolake"
local function listen(options, tls)
   ml.listen { address = "127.0.0.1:0", protocols = not tls and { "h1", "h2c" } or nil, tls = tls,
      chain = { ml.proxy(ml.upstream(options)) } }
end
listen { "${clear}", name = "h1", protocol = "h1" }
listen { "${clear}", name = "h2", protocol = "h2" }
local function listen_by_tls(library, peer)
   listen({ "https://" .. peer, name = "h2 by " .. library, protocol = "h2",
      tls = { ca = "ca.pem", name = "a.example", library = library } },
      { cert = "a.pem", key = "a.key", library = library })
end
listen_by_tls("openssl", "${openssl}")
listen_by_tls("gnutls", "${gnutls}")
listen { "https://${without_alpn}", name = "not agreed on", protocol = "h2",
   tls = { ca = "ca.pem", name = "a.example" } }
]]
local UPSTREAMS = { "h1", "h2", "h2 by TLS (openssl)", "h2 by TLS (gnutls)" }
local FIRST_BY_TLS, WITHOUT_ALPN = 3, 5

--- What a test sees of a client, whichever its version.
local clients = {}

function clients.h1(address, tls)
   local connection = (tls and t.tls_socket or t.socket).connect(address)
   return {
      send = function(method, path, body, trailers)
         local head = ("%s %s HTTP/1.1\nHost: a"):format(method, path)
         if not body then
            connection:send_head(head)
            return
         end
         connection:send_head(head .. "\nTransfer-Encoding: chunked")
         connection:send((body == "" and "" or t.chunk(body)) .. "0\r\n" ..
            (trailers and "x-sum: " .. trailers .. "\r\n" or "") .. "\r\n")
      end,
      receive = function()
         local interim = {}
         local response = connection:read_response_head()
         while response.status < 200 do
            interim[#interim + 1] = response.status
            response = connection:read_response_head()
         end
         local ok = pcall(connection.read_response_body, connection, response)
         return { status = response.status, body = response.body, interim = interim, complete = ok,
            trailer = ok and response.trailers and response.trailers:get "x-sum" }
      end,
      leave = function()
         connection:reset()
      end,
   }
end

function clients.h2(address, tls)
   local connection, id = h2.connect(address, { tls = tls }), nil
   return {
      send = function(method, path, body, trailers)
         id = connection:request(h2.get { [":method"] = method, [":path"] = path }, { open = body ~= nil })
         for at = 1, body and #body or 0, 16384 do
            connection:data(id, body:sub(at, at + 16383)) -- within the window of a stream
         end
         if body then
            local block = h2.block { { "x-sum", trailers } }
            connection:frame(h2.HEADERS, h2.END_HEADERS + h2.END_STREAM, id, block)
         end
      end,
      receive = function()
         local response = connection:response(id)
         local interim = {}
         for i, one in ipairs(response.interim) do
            interim[i] = one.status
         end
         return { status = response.status, body = response.body, interim = interim,
            complete = response.ended, trailer = response.trailers and response:get("x-sum", true) }
      end,
      leave = function()
         connection:frame(h2.RST_STREAM, 0, id, h2.u32(h2.CANCEL))
         connection:sync()
      end,
   }
end

local function await_listener(name, program, address)
   t.tasks.run(function()
      t.eventually(name .. " to listen", function()
         if program:has_ended() then
            error(name .. " ended: " .. program:stdout() .. program:stderr())
         end
         local socket = t.socket.try_connect(address)
         if socket then
            socket:close()
         end
         return socket
      end)
   end)
end

t.on_both_backends("through both versions", function(backend)
   local origin, middle, front, without_alpn

   --- A TLS server that agrees on no protocol.
   local function start_without_alpn()
      local directory, address = t.process.directory(), t.socket.refusing_address()
      t.process.write_file(directory .. "/a.pem", certificates.text "a.pem")
      t.process.write_file(directory .. "/a.key", certificates.text "a.key")
      without_alpn = t.process.start({ "openssl", "s_server", "-quiet", "-accept", address,
         "-cert", directory .. "/a.pem", "-key", directory .. "/a.key" }, directory)
      await_listener("openssl", without_alpn, address)
      return address
   end

   busted.setup(function()
      origin = t.socket.listen()
      middle = t.program.start { io = backend, site = MIDDLE, values = { origin = origin.address },
         listeners = 3, files = certificates.all() }
      front = t.program.start { io = backend, site = FRONT, listeners = #UPSTREAMS + 1,
         files = certificates.all(), values = { clear = middle.addresses[1], openssl = middle.addresses[2],
            gnutls = middle.addresses[3], without_alpn = start_without_alpn() } }
   end)
   busted.before_each(function()
      origin:drop_pending()
   end)
   busted.teardown(function()
      front:stop()
      middle:stop()
      t.tasks.run(function()
         without_alpn:stop(t.sys.SIGTERM, 10)
      end)
      origin:close()
   end)

   t.it("HTTP/2 must be agreed on by TLS", function()
      local response = t.socket.connect(front.addresses[WITHOUT_ALPN]):exchange "GET / HTTP/1.1\nHost: a"
      assert.equal(502, response.status)
      front:await_log "does not agree on HTTP/2 by ALPN"
      assert.is_nil(origin:try_accept())
   end)

   local function pair(version, which)
      local name = ("%s client, upstream %s: "):format(version, UPSTREAMS[which])

      local function connect()
         return clients[version](front.addresses[which], which >= FIRST_BY_TLS)
      end

      t.it(name .. "a body and trailers both ways", function()
         local client, body = connect(), ("0123456789"):rep(6000)
         client.send("POST", "/echo", body, "17")
         local upstream = origin:accept()
         local request = upstream:read_request()
         assert.is_true(request.body == body)
         assert.equal("17", request.trailers:get "x-sum")
         assert.equal(("%s monolake-lua, %s monolake-lua"):format(version == "h1" and "1.1" or "2.0",
            which == 1 and "1.1" or "2.0"), request:get "via")
         upstream:send(t.head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked" .. t.chunk(body:rep(10)) ..
            "0\r\nx-sum: 42\r\n\r\n")
         local response = client.receive()
         assert.equal(200, response.status)
         assert.is_true(response.body == body:rep(10))
         assert.equal("42", response.trailer)
      end)

      t.it(name .. "interim responses", function()
         local client = connect()
         client.send("GET", "/")
         local upstream = origin:accept()
         upstream:read_request()
         upstream:send_head "HTTP/1.1 103 Early Hints\nLink: </a>"
         upstream:respond(200, "ok")
         local response = client.receive()
         assert.same({ 103 }, response.interim)
         assert.equal("ok", response.body)
      end)

      t.it(name .. "an early response", function()
         local client = connect()
         client.send("POST", "/early", ("x"):rep(60000), "1")
         local upstream = origin:accept()
         upstream:read_request_head()
         upstream:respond(413, "too much", "Connection: close")
         upstream:close()
         assert.equal(413, client.receive().status)
      end)

      t.it(name .. "a body that breaks off is never complete", function()
         local client = connect()
         client.send("GET", "/")
         local upstream = origin:accept()
         upstream:read_request()
         upstream:send(t.head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked" .. t.chunk "part")
         upstream:reset()
         local response = client.receive()
         assert.is_false(response.complete)
      end)

      t.it(name .. "a client that goes away", function()
         local client = connect()
         client.send("GET", "/")
         local upstream = origin:accept()
         upstream:read_request()
         client.leave()
         upstream:expect_close()
      end)

      t.it(name .. "HEAD, 204 and 304", function()
         t.serve_requests(origin, function(request, connection)
            local status = tonumber(request.target:sub(2))
            connection:send_head(("HTTP/1.1 %d X\n%s"):format(status,
               status == 200 and "Content-Length: 5" or "ETag: \"a\""))
         end)
         for _, case in ipairs { { "HEAD", 200 }, { "GET", 204 }, { "GET", 304 } } do
            if version == "h2" or case[1] ~= "HEAD" then -- the reader of HTTP/1 would expect a body
               local client = connect()
               client.send(case[1], "/" .. case[2])
               local response = client.receive()
               assert.equal(case[2], response.status)
               assert.equal("", response.body)
            end
         end
      end)
   end

   for _, version in ipairs { "h1", "h2" } do
      for which in ipairs(UPSTREAMS) do
         pair(version, which)
      end
   end
end)

-- --- Programs that are not ours --------------------------------------------------------------------

local FOREIGN = [[
local ml = require "monolake"
local function listen(options)
   options.protocol = "h2"
   ml.listen { address = "127.0.0.1:0", protocols = { "h1", "h2c" }, chain = {
      ml.proxy(ml.upstream(options)),
   } }
end
listen { "${nghttpd}", name = "nghttpd" }
listen { "unix:${nghttpx}", name = "nghttpx" }
]]

t.on_both_backends("to origins that are not ours", function(backend)
   local nghttpd, nghttpx, origin, front, directory
   local large = ("0123456789abcdef"):rep(65536)

   local function start_nghttpd()
      local address = t.socket.refusing_address()
      nghttpd = t.process.start({ "nghttpd", "--no-tls", "--echo-upload", "--trailer=x-sum: 7",
         "--address=127.0.0.1", "--htdocs=" .. directory, address:match "%d+$" }, directory)
      await_listener("nghttpd", nghttpd, address)
      return address
   end

   local function start_nghttpx()
      local path = directory .. "/nghttpx.sock"
      nghttpx = t.process.start({ "nghttpx", "--conf=/dev/null", "--workers=1", "--frontend=unix:" .. path ..
         ";no-tls", "--backend=" .. origin.address:gsub(":", ",") }, directory)
      await_listener("nghttpx", nghttpx, "unix:" .. path)
      return path
   end

   busted.setup(function()
      directory = t.process.directory()
      t.process.write_file(directory .. "/large.txt", large)
      origin = t.socket.listen()
      front = t.program.start { io = backend, site = FOREIGN, listeners = 2,
         values = { nghttpd = start_nghttpd(), nghttpx = start_nghttpx() } }
   end)
   busted.teardown(function()
      front:stop()
      t.tasks.run(function()
         nghttpd:stop(t.sys.SIGTERM, 10)
         nghttpx:stop(t.sys.SIGTERM, 10)
      end)
      origin:close()
   end)

   local function curl(...)
      local out, err, status = t.process.run({ "curl", "-sS", "--max-time", "20", ... }, 30)
      assert.equal(0, status, err)
      return out
   end

   for _, version in ipairs { "--http1.1", "--http2-prior-knowledge" } do
      t.it(("files and uploads pass through nghttpd, curl %s"):format(version), function()
         local url = "http://" .. front.addresses[1]
         assert.is_true(curl(version, url .. "/large.txt") == large)
         assert.is_true(curl(version, "--upload-file", directory .. "/large.txt", url .. "/echo") == large)
         assert.equal("404", curl(version, "-o", "/dev/null", "-w", "%{http_code}", url .. "/none"))
         assert.matches("content%-length: 1048576", curl(version, "-I", url .. "/large.txt"):lower())
      end)

      t.it(("requests pass through nghttpx, curl %s"):format(version), function()
         t.serve_requests(origin, function(request, connection)
            connection:respond(200, request.method .. " " .. #request.body)
         end)
         local url = "http://" .. front.addresses[2]
         assert.equal("GET 0", curl(version, url))
         assert.equal("POST 1048576", curl(version, "--data-binary", "@" .. directory .. "/large.txt", url))
      end)
   end

   t.it("many at a time share connections to nghttpd", function()
      for _, options in ipairs { { "-c", "8", "-m", "10" }, { "-c", "8", "--h1" } } do
         local out = t.process.run({ "h2load", "-n", "100", "http://" .. front.addresses[1] .. "/large.txt",
            unpack(options) }, 60)
         assert.matches("100 succeeded, 0 failed, 0 errored, 0 timeout", out)
      end
   end)
end)
