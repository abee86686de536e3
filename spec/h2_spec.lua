--- HTTP/2 of clients in the clear: the same exchanges as over HTTP/1, in front of an HTTP/1 origin.
local t = require "spec.support"
local h2 = require "spec.support.h2"
local process = t.process

local SITE = [[
local ml = require "monolake"
local origin = ml.upstream { "${origin}", name = "origin" }
ml.listen { address = "127.0.0.1:0", protocols = { "h1", "h2c" }, chain = { ml.proxy(origin) } }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, body_max = 1000, requests_max = 3,
   chain = { ml.proxy(origin) } }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, head_timeout = "150ms", idle_timeout = "150ms",
   body_timeout = "150ms", send_timeout = "300ms", chain = { ml.proxy(origin) } }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, chain = {
   function(req)
      if req.path == "/fails" then
         local count = 0
         return ml.response { body = function()
            count = count + 1
            if count > 2 then error "broken" end
            return ("x"):rep(1000)
         end }
      end
      return ml.text(req.method .. " " .. req.version .. " " .. tostring(req.headers.host) .. " " ..
         tostring(req.headers.cookie))
   end,
} }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, send_timeout = "100ms",
   chain = { ml.text(("x"):rep(524288)) } }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, h2_window = "200k", chain = { ml.proxy(origin) } }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, h2_streams_max = 2 ^ 31,
   chain = { ml.text "text" } }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, h2_streams_max = 2, chain = {
   function(req) return ml.text(req:body()) end,
} }
]]

t.on_both_backends("a client's HTTP/2 connection", function(backend)
   local origin, proxy = t.proxied(backend, { site = SITE, listeners = 8 })

   local function connect(listener, options)
      return h2.connect(proxy().addresses[listener or 1], options)
   end

   --- Serves one request on a connection of its own.
   local function serve(respond)
      t.start_task(function()
         local upstream = origin:accept()
         respond(upstream, upstream:read_request())
      end)
   end

   t.it("may have any number of streams", function()
      assert.equal("text", connect(7):get("/").body)
   end)

   t.it("may have begun more than are allowed before it knows how many are", function()
      local client = connect(8)
      client.rude = true -- no acknowledgement
      for _ = 1, 3 do
         client:request(h2.post(), { open = true })
      end
      client:data(1, "first", true)
      assert.equal("first", client:response(1).body)
      client:request(h2.post(), { open = true })
      client:data(5, "refused", true):data(7, "fourth", true):data(3, "second", true)
      assert.equal(h2.REFUSED_STREAM, client:response(5).reset)
      assert.equal("second", client:response(3).body)
      assert.equal("fourth", client:response(7).body)
   end)

   t.it("may have thousands of answers on their way at once", function()
      local client, requests = connect(7), {}
      local count = 5000
      for i = 1, count do
         requests[i] = h2.frame(h2.HEADERS, h2.END_HEADERS + h2.END_STREAM, i * 2 - 1, h2.block(h2.get()))
      end
      client:send(table.concat(requests))
      for i = 1, count do
         assert.equal("text", client:response(i * 2 - 1).body)
      end
   end)

   t.it("serves request after request", function()
      t.serve_requests(origin, function(request, connection)
         connection:respond(200, "for " .. request.target)
      end)
      local client = connect()
      for i = 1, 5 do
         local response = client:get("/" .. i)
         assert.equal(200, response.status)
         assert.equal("for /" .. i, response.body)
         assert.equal("6", response:get "content-length")
         assert.is_truthy(response:get "date")
      end
   end)

   t.it("is found by its first bytes, however they come", function()
      t.serve_requests(origin, function(_, connection)
         connection:respond(200, "here")
      end)
      local client = connect(1, { silent = true })
      local bytes = h2.PREFACE .. h2.frame(h2.SETTINGS, 0, 0) ..
         h2.frame(h2.HEADERS, h2.END_HEADERS + h2.END_STREAM, 1, h2.block(h2.get()))
      for i = 1, #bytes do
         client:send(bytes:sub(i, i))
         t.tasks.sleep(0)
      end
      assert.equal("here", client:response(1).body)

      local plain = proxy():connect()
      for c in ("PRI / HTTP/1.1\r\nHost: a\r\n\r\n"):gmatch "." do
         plain:send(c)
         t.tasks.sleep(0)
      end
      assert.equal("here", plain:read_response().body)
   end)

   t.it("is not made of one of HTTP/1 by Upgrade", function()
      local plain = proxy():connect()
      plain:send_head [[
         GET / HTTP/1.1
         Host: a
         Connection: Upgrade, HTTP2-Settings
         Upgrade: h2c
         HTTP2-Settings: AAMAAABkAAQAAP__
      ]]
      local upstream = origin:accept()
      local request = upstream:read_request()
      assert.is_nil(request:get "upgrade")
      assert.is_nil(request:get "http2-settings")
      upstream:respond(200, "as before")
      assert.equal("as before", plain:read_response().body)
   end)

   t.it("shows the origin what HTTP/1 would have shown", function()
      local client = connect()
      local id = client:request(h2.get {
         [":method"] = "PURGE", [":path"] = "/a?b=c", [":authority"] = "site.example:81",
         { "cookie", "a=1" }, { "x-one", "1" }, { "cookie", "b=2" }, { "te", "trailers" },
         { "cookie", "c=3" },
      })
      local upstream = origin:accept()
      local request = upstream:read_request()
      assert.equal("PURGE", request.method)
      assert.equal("/a?b=c", request.target)
      assert.equal("site.example:81", request:get "host")
      assert.equal("a=1; b=2; c=3", request:get "cookie")
      assert.equal("1", request:get "x-one")
      assert.equal("2.0 monolake-lua", request:get "via")
      assert.equal("none", request.framing)
      upstream:send(t.head [[
         HTTP/1.1 404 Not Found
         X-Upper: Yes
         Connection: x-hop
         X-Hop: 1
         Transfer-Encoding: chunked
      ]] .. t.chunk "lost" .. "0\r\nx-end: done\r\n\r\n")
      local response = client:response(id)
      assert.equal(404, response.status)
      assert.equal("Yes", response:get "x-upper")
      assert.is_nil(response:get "x-hop")
      assert.is_nil(response:get "transfer-encoding")
      assert.is_nil(response:get "connection")
      assert.equal("lost", response.body)
      assert.equal("done", response:get("x-end", true))
   end)

   t.it("shows layers the same request", function()
      local response = connect(4):get("/", {
         [":authority"] = "b.example", { "cookie", "x=1" }, { "cookie", "y=2" },
      })
      assert.equal("GET 2 b.example x=1; y=2", response.body)
   end)

   t.it("passes bodies and trailers on, both ways", function()
      local client = connect()
      local id = client:request(h2.post(), { open = true })
      client:data(id, "hello "):data(id, ""):data(id, "world")
      client:frame(h2.HEADERS, h2.END_HEADERS + h2.END_STREAM, id, h2.block { { "x-sum", "42" } })
      local upstream = origin:accept()
      local request = upstream:read_request()
      assert.equal("hello world", request.body)
      assert.equal("42", request.trailers:get "x-sum")
      upstream:respond(200, ("y"):rep(200000))
      assert.equal(200000, #client:response(id).body)
   end)

   t.it("cannot change a request's routing or whom it is of by trailers", function()
      local client = connect()
      local id = client:request(h2.post(), { open = true })
      client:data(id, "data")
      client:frame(h2.HEADERS, h2.END_HEADERS + h2.END_STREAM, id, h2.block {
         { "host", "evil" }, { "x-forwarded-for", "1.2.3.4" }, { "authorization", "made up" },
         { "x-ok", "1" },
      })
      local upstream = origin:accept()
      assert.same({ { "x-ok", "1" } }, upstream:read_request().trailers.fields)
      upstream:respond(200, "ok")
      assert.equal("ok", client:response(id).body)
   end)

   t.it("passes a declared length on", function()
      local client = connect()
      local id = client:request(h2.get { [":method"] = "PUT", { "content-length", "5" } }, { open = true })
      client:data(id, "12345", true)
      local upstream = origin:accept()
      local request = upstream:read_request()
      assert.equal("length", request.framing)
      assert.equal("12345", request.body)
      upstream:respond(204)
      local response = client:response(id)
      assert.equal(204, response.status)
      assert.is_nil(response:get "content-length")
   end)

   t.it("answers HEAD and 304 without a body", function()
      t.serve_requests(origin, function(_, connection)
         connection:send(t.head "HTTP/1.1 200 OK\nContent-Length: 1234")
      end)
      local response = connect():get("/", { [":method"] = "HEAD" })
      assert.equal("1234", response:get "content-length")
      assert.equal("", response.body)
      assert.is_true(response.ended)
   end)

   t.it("relays interim responses and asks for a body that waits to be asked for", function()
      local client = connect()
      local id = client:request(h2.post { { "expect", "100-continue" } }, { open = true })
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:send(t.head "HTTP/1.1 103 Early Hints\nLink: </x>" ..
         t.head "HTTP/1.1 100 Continue")
      local stream = client:stream(id)
      client:pump(function() return #stream.interim == 2 end)
      assert.equal(103, stream.interim[1].status)
      assert.equal(100, stream.interim[2].status)
      client:data(id, "now", true)
      assert.equal("now", upstream:read_chunk())
      assert.is_nil(upstream:read_chunk())
      upstream:respond(200, "thanks")
      assert.equal("thanks", client:response(id).body)
   end)

   t.it("lets a slow stream hold no other up", function()
      t.serve_requests(origin, function(request, connection)
         if request.target == "/slow" then
            connection:send(t.head "HTTP/1.1 200 OK\nContent-Length: 10" .. "12345")
            t.tasks.sleep(0.2)
            connection:send "67890"
         else
            connection:respond(200, request.target)
         end
      end)
      local client = connect()
      local slow = client:request(h2.get { [":path"] = "/slow" })
      local ids = {}
      for i = 1, 100 do
         ids[i] = client:request(h2.get { [":path"] = "/" .. i })
      end
      for i, id in ipairs(ids) do
         assert.equal("/" .. i, client:response(id).body)
      end
      assert.is_false(client:stream(slow).ended)
      assert.equal("1234567890", client:response(slow).body)
   end)

   t.it("sends no more than the windows allow, and other streams meanwhile", function()
      t.serve_requests(origin, function(request, connection)
         connection:respond(200, request.target == "/big" and ("z"):rep(300000) or "small")
      end)
      local client = connect(1, { manual = true, settings = { [h2.INITIAL_WINDOW_SIZE] = 1000 } })
      local big = client:request(h2.get { [":path"] = "/big" })
      local stream = client:stream(big)
      client:pump(function() return stream.parts[1] end)
      assert.equal(1000, #stream.parts[1])
      assert.equal("small", client:get("/small").body)
      client:sync()
      assert.equal(1, #stream.parts)
      client:frame(h2.WINDOW_UPDATE, 0, big, h2.u32(400000))
      client:frame(h2.WINDOW_UPDATE, 0, 0, h2.u32(400000))
      assert.equal(300000, #client:response(big).body)
   end)

   --- Uploads as much as the window of a request allows, before the origin reads any of it.
   local function fill_window(client, window)
      local id = client:request(h2.post(), { open = true })
      local upstream = origin:accept()
      upstream:read_request_head()
      local sent = 0
      client:sync()
      while window > 0 do
         local len = math.min(window, 16384)
         client:data(id, ("q"):rep(len))
         window, sent = window - len, sent + len
      end
      local got = 0
      while got < sent do
         got = got + #upstream:read_chunk()
      end
      return id, upstream
   end

   t.it("takes a body no faster than the origin does", function()
      local client = connect()
      local id, upstream = fill_window(client, 65535)
      client:data(id, "end", true)
      assert.equal("end", upstream:read_chunk())
      assert.is_nil(upstream:read_chunk())
      upstream:respond(200, "ok")
      assert.equal("ok", client:response(id).body)
   end)

   t.it("lets a request's body be as far ahead of the origin as h2_window says", function()
      local client = connect(6)
      client:sync()
      assert.equal(204800, client.settings[h2.INITIAL_WINDOW_SIZE])
      local id, upstream = fill_window(client, 204800)
      client:data(id, "", true)
      assert.is_nil(upstream:read_chunk())
      upstream:respond(200, "ok")
      assert.equal("ok", client:response(id).body)
   end)

   t.it("tells a client that may stop sending that it may, behind the response", function()
      local client = connect()
      local id = client:request(h2.post(), { open = true })
      client:data(id, "some")
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:send(t.head "HTTP/1.1 403 Forbidden\nContent-Length: 2\nConnection: close" .. "no")
      local response = client:response(id)
      assert.equal("no", response.body)
      assert.is_true(response.ended)
      assert.equal(h2.NO_ERROR, client:reset_of(id))
   end)

   t.it("waits a little for the rest of a request that was answered early", function()
      local client = connect()
      local id = client:request(h2.post(), { open = true })
      client:data(id, "some")
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:send(t.head "HTTP/1.1 403 Forbidden\nContent-Length: 2\nConnection: close" .. "no")
      assert.equal("no", client:response(id).body)
      client:data(id, ("x"):rep(16000), true)
      client:sync()
      assert.is_nil(client:stream(id).reset)
   end)

   t.it("cancels the request of a stream that is reset, and only that", function()
      local client = connect()
      local id = client:request(h2.get { [":path"] = "/given-up" })
      local upstream = origin:accept()
      upstream:read_request()
      client:frame(h2.RST_STREAM, 0, id, h2.u32(h2.CANCEL))
      upstream:expect_close()
      serve(function(connection)
         connection:respond(200, "goes on")
      end)
      assert.equal("goes on", client:get("/").body)
   end)

   t.it("cancels all requests of a client that is gone, with FIN or RST", function()
      for _, leave in ipairs { "close", "reset" } do
         local client = connect()
         client:sync()
         client:request()
         client:request(h2.post(), { open = true })
         local first, second = origin:accept(), origin:accept()
         first:read_request_head()
         second:read_request_head()
         client.socket[leave](client.socket)
         first:expect_close()
         second:expect_close()
      end
   end)

   t.it("resets a stream whose origin or layer breaks off", function()
      serve(function(connection)
         connection:send(t.head "HTTP/1.1 200 OK\nContent-Length: 100" .. "only this")
         connection:close()
      end)
      local client = connect()
      local response = client:get "/"
      assert.equal(200, response.status)
      assert.is_false(response.ended)
      assert.equal(h2.INTERNAL_ERROR, response.reset)

      client = connect(4)
      response = client:get "/fails"
      assert.equal(h2.INTERNAL_ERROR, response.reset)
      assert.matches("^GET 2 ", client:get("/").body)
   end)

   t.it("refuses bodies and heads that are too large", function()
      local client = connect(2)
      local id = client:request(h2.post { { "content-length", "1001" } }, { open = true })
      assert.equal(413, client:response(id).status)

      id = client:request(h2.post(), { open = true })
      client:data(id, ("b"):rep(600)):data(id, ("b"):rep(600), true)
      assert.equal(413, client:response(id).status)

      client = connect()
      local fields = h2.get()
      for i = 1, 101 do
         fields[#fields + 1] = { "x-" .. i, "1" }
      end
      local many = client:request(fields)
      assert.equal(431, client:response(many).status)
      fields = h2.get()
      for i = 1, 5 do
         fields[#fields + 1] = { "x-" .. i, ("v"):rep(8000) }
      end
      assert.equal(431, client:response(client:long_request(fields)).status)
      id = client:request(h2.get { [":path"] = "/" .. ("p"):rep(9000) })
      assert.equal(414, client:response(id).status)
   end)

   t.it("answers no more requests than it may", function()
      t.serve_requests(origin, function(_, connection)
         connection:respond(200, "ok")
      end)
      local client = connect(2)
      for _ = 1, 3 do
         assert.equal("ok", client:get("/").body)
      end
      assert.equal(h2.NO_ERROR, client:close_code())
      assert.equal(5, client.last_id)
   end)

   t.it("has nothing done for requests behind the last one, though it hears of that late", function()
      local huge, seen = ("x"):rep(64000000), {} -- more than the kernel's buffers take
      local stuck
      t.serve_requests(origin, function(request, connection)
         seen[#seen + 1] = request.target
         if request.target ~= "/huge" then
            connection:respond(200, "ok")
            return
         end
         connection:send_head("HTTP/1.1 200 OK\nContent-Length: " .. #huge)
         local _, _, sent = connection:try_send(huge, 0.3)
         stuck = true
         connection:send(huge:sub(sent + 1))
      end)
      local client = connect(2, { receive_buffer = 4096, manual = true,
         settings = { [h2.INITIAL_WINDOW_SIZE] = 2 ^ 31 - 1 } })
      client:frame(h2.WINDOW_UPDATE, 0, 0, h2.u32(2 ^ 31 - 65536))
      client:request(h2.get { [":path"] = "/huge" })
      t.eventually("the client's socket is full", function() return stuck end)
      for i = 2, 4 do
         client:request(h2.post { [":path"] = "/" .. i })
      end
      client:close_code()
      assert.equal(5, client.last_id)
      table.sort(seen)
      assert.same({ "/2", "/3", "/huge" }, seen)
   end)

   t.it("is answered though it has said all before it could acknowledge anything", function()
      local client = connect(3, { manual = true })
      client.rude = true
      local id = client:request()
      client.socket:half_close()
      local upstream = origin:accept()
      upstream:read_request()
      connect(3):close_code() -- as long as an acknowledgement would have been waited for
      upstream:respond(200, "late")
      assert.equal("late", client:response(id).body)
   end)

   t.it("does not wait for ever", function()
      assert.equal(h2.NO_ERROR, connect(3):close_code()) -- no request
      local client = connect(3, { silent = true })
      client:close_code()
      assert.is_truthy(client.closed)

      client = connect(3) -- half a head
      client:frame(h2.HEADERS, h2.END_STREAM, 1, h2.block(h2.get()))
      assert.equal(h2.PROTOCOL_ERROR, client:close_code())

      client = connect(3) -- half a body
      local id = client:request(h2.post { { "content-length", "10" } }, { open = true })
      client:data(id, "half")
      assert.equal(408, client:response(id).status)

      client = connect(3) -- no acknowledgement
      client.rude = true
      origin:drop_pending()
      t.serve_requests(origin, function(_, connection)
         connection:respond(200, ("w"):rep(70000))
      end)
      client:request()
      assert.equal(h2.SETTINGS_TIMEOUT, client:close_code())

      client = connect(3, { manual = true }) -- a window that stays shut
      id = client:request()
      assert.equal(h2.CANCEL, client:reset_of(id))
   end)

   t.it("lets streams take their time behind others on a slow connection", function()
      local client = connect(5, { receive_buffer = 65536, settings = { [h2.INITIAL_WINDOW_SIZE] = 1048576 } })
      client:frame(h2.WINDOW_UPDATE, 0, 0, h2.u32(100000000))
      client.manual = true
      local ids, total = {}, 0
      for i = 1, 16 do
         ids[i] = client:request()
      end
      for _, id in ipairs(ids) do
         local stream, read = client:stream(id), 0
         client:pump(function()
            if #stream.parts > read then
               read = #stream.parts
               total = total + #stream.parts[read]
               t.tasks.sleep(total > 4000000 and 0.002 or 0)
            end
            return stream.ended or stream.reset
         end)
         assert.is_nil(stream.reset)
      end
   end)

   t.it("answers what a client that half-closes has asked for", function()
      local client = connect(1, { manual = true })
      client:pump(function() return client.acknowledged end)
      client.rude = true -- what it says no more it does not say to settings either
      local id = client:request()
      local half = client:request(h2.post(), { open = true })
      local upstream = origin:accept()
      local first = upstream:read_request_head()
      if first.method == "POST" then -- two connections, in either order
         upstream = origin:accept()
         upstream:read_request_head()
      end
      client.socket:half_close()
      t.tasks.sleep(0.02)
      upstream:respond(200, "still")
      assert.equal("still", client:response(id).body)
      client:close_code()
      assert.is_false(client:stream(half).status == 200)
   end)

   t.it("refuses a tunnel", function()
      local client = connect()
      local id = client:request(h2.get { { "x", "1" } })
      local upstream = origin:accept()
      upstream:read_request()
      upstream:send(t.head "HTTP/1.1 101 Switching Protocols\nConnection: upgrade\nUpgrade: echo")
      assert.equal(502, client:response(id).status)
   end)
end)

describe("a site's options of HTTP/2", function()
   teardown(process.remove_directories)

   t.it("are checked", function()
      for option, complaint in pairs {
         ["h2_window = 1000"] = "h2_window: expected 65535 bytes to less than 2g, not 1000",
         ['h2_window = "2g"'] = "h2_window: expected 65535 bytes to less than 2g, not 2147483648",
         ["h2_streams_max = 0"] = 'h2_streams_max: expected 1 or more; protocols = { "h1" } turns HTTP/2 off',
      } do
         local site = ('local ml = require "monolake"\nml.listen { address = "127.0.0.1:0", %s, chain = {} }')
            :format(option)
         local _, err, status = t.program.check { site = site }
         assert.equal(1, status)
         assert.matches("site.lua:2: listen: " .. complaint, err, 1, true)
      end
   end)
end)
