--- Tunnels on streams of HTTP/2: CONNECT (RFC 9113 section 8.5) and WebSocket by extended CONNECT (RFC
--- 8441), to origins of HTTP/1; and CONNECT of HTTP/1 beside them.
local busted = require "busted"
local t = require "spec.support"
local h2 = require "spec.support.h2"

local ENABLE_CONNECT_PROTOCOL, CONNECT_ERROR = 8, 10

local SITE = [[
   local ml = require "monolake"
   ml.listen {
      address = "127.0.0.1:0", protocols = { "h1", "h2c" },
      chain = {
         function(req, next)
            local res = next(req)
            res.headers["x-seen"] = req.method .. " " .. tostring(req.headers.upgrade)
            return res
         end,
         ml.tunnel { allow = { "${origin}", "localhost:1", "*.allowed.example:*", "[::1]:443" } },
         ml.proxy { "${origin}", name = "origin" },
      },
   }
   ml.listen {
      address = "127.0.0.1:0", protocols = { "h1", "h2c" }, tunnel_idle_timeout = "150ms",
      chain = { ml.tunnel { allow = { "${origin}" } }, ml.proxy { "${origin}", name = "idle" } },
   }
   ml.listen {
      address = "127.0.0.1:0", protocols = { "h1", "h2c" },
      chain = {
         function(req, next)
            local res = next(req)
            res.status = 403
            return res
         end,
         ml.tunnel { allow = { "${origin}" } }, ml.proxy { "${origin}", name = "refused" },
      },
   }
   ml.listen { address = "127.0.0.1:0", protocols = { "h1", "h2c" }, chain = ml.text "whatever it is" }
]]

local SWITCHED = [[
   HTTP/1.1 101 Switching Protocols
   Connection: Upgrade
   Upgrade: websocket
   Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
]]

t.on_both_backends("a tunnel over HTTP/2", function(backend)
   local origin, proxy = t.proxied(backend, { site = SITE, listeners = 4 })

   local function connect(listener, options)
      return h2.connect(proxy().addresses[listener or 1], options)
   end

   local function websocket(changes)
      local fields = h2.get { [":method"] = "CONNECT", [":path"] = "/chat",
         { "sec-websocket-version", "13" } }
      table.insert(fields, 1, { ":protocol", "websocket" })
      for _, field in ipairs(changes or {}) do
         table.insert(fields, field)
      end
      return fields
   end

   local function authority_form(target)
      return { { ":method", "CONNECT" }, { ":authority", target } }
   end

   --- Both ends of a WebSocket's tunnel, and the number of its stream.
   local function open_websocket(listener, early)
      local client = connect(listener)
      local id = client:request(websocket(), { open = true })
      local upstream = origin:accept()
      local request = upstream:read_request_head()
      upstream:send(t.head(SWITCHED) .. (early or ""))
      local response = client:head(id)
      assert.equal(200, response.status)
      return client, id, upstream, request, response
   end

   local function open_connect(listener)
      local client = connect(listener)
      local id = client:request(authority_form(origin.address), { open = true })
      local upstream = origin:accept()
      assert.equal(200, client:head(id).status)
      return client, id, upstream
   end

   t.it("is offered, and looks like an upgrade to layers and origins", function()
      local client, _, _, request, response = open_websocket()
      assert.equal(1, client.settings[ENABLE_CONNECT_PROTOCOL])
      assert.equal("GET", request.method)
      assert.equal("/chat", request.target)
      assert.equal("websocket", request:get "upgrade")
      assert.is_true(request:has("connection", "upgrade"))
      assert.is_truthy(request:get("sec-websocket-key"):match "^[%w+/]+==$")
      assert.equal(24, #request:get "sec-websocket-key")
      assert.equal("13", request:get "sec-websocket-version")
      assert.equal("GET websocket", response:get "x-seen")
      assert.is_nil(response:get "upgrade")
      assert.is_nil(response:get "connection")
      assert.is_nil(response:get "sec-websocket-accept")
      assert.is_nil(response:get "content-length")
   end)

   t.it("is not opened by a layer that makes a refusal of a consent, nor is one of HTTP/1", function()
      local function consent()
         local upstream = origin:accept()
         upstream:read_request_head()
         upstream:try_send(t.head(SWITCHED))
         return upstream
      end
      local function expect_refusal_of_h1(head, agree)
         local client = proxy():connect { address = proxy().addresses[3] }
         client:send_head(head)
         local upstream = agree()
         assert.equal(403, client:read_response().status)
         upstream:expect_close()
      end
      local function expect_refusal_of_h2(fields, agree)
         local client = connect(3)
         local id = client:request(fields, { open = true })
         local upstream = agree()
         local response = client:response(id)
         assert.equal(403, response.status)
         assert.is_true(response.ended)
         upstream:expect_close()
      end
      local function accept() return origin:accept() end

      expect_refusal_of_h1("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket", consent)
      expect_refusal_of_h1(("CONNECT %s HTTP/1.1\nHost: a"):format(origin.address), accept)
      expect_refusal_of_h2(websocket(), consent)
      expect_refusal_of_h2(authority_form(origin.address), accept)
   end)

   t.it("is not what an answer of the origin looks like that does not switch protocols", function()
      local client = connect()
      for status, expected in pairs { [200] = 502, [204] = 502, [302] = 302, [404] = 404 } do
         local id = client:request(websocket(), { open = true })
         local upstream = origin:accept()
         upstream:read_request_head()
         upstream:send_head(("HTTP/1.1 %d Status\nConnection: close"):format(status))
         upstream:close()
         local response = client:response(id)
         assert.equal(expected, response.status)
         assert.is_true(response.ended)
      end
   end)

   t.it("is not promised by a layer that answers CONNECT as it does all else", function()
      local client = proxy():connect { address = proxy().addresses[4] }
      client:send_head "CONNECT a.example:1 HTTP/1.1\nHost: a.example:1"
      assert.equal(405, client:read_response().status)
      client = connect(4)
      local response = client:response(client:request(authority_form "a.example:1", { open = true }))
      assert.equal(405, response.status)
   end)

   t.it("carries bytes both ways, what came with the answer first", function()
      local client, id, upstream = open_websocket(1, "first ")
      client:data(id, "\0\1 up")
      assert.equal("\0\1 up", upstream:read(5))
      upstream:send "down\255"
      assert.equal("first down\255", client:body(id, 11))
   end)

   t.it("carries much, both ways at once, beside other streams", function()
      local client, id, upstream = open_connect()
      local bytes = ("0123456789abcdef"):rep(64 * 1024)
      local sending = t.start_task(function() upstream:send(bytes) end)
      local receiving = t.start_task(function() assert.is_true(upstream:read(#bytes) == bytes) end)
      client:send_body(id, bytes)
      assert.is_true(client:body(id, #bytes) == bytes)
      sending:join()
      receiving:join()
      t.start_task(function()
         local other = origin:accept()
         other:read_request()
         other:respond(200, "beside it")
      end)
      assert.equal("beside it", client:get("/other").body)
   end)

   t.it("carries the end of either side", function()
      local client, id, upstream = open_websocket()
      client:data(id, "last", true)
      assert.equal("last", upstream:read_all())
      upstream:send("still here"):close()
      local stream = client:response(id)
      assert.equal("still here", stream.body)
      assert.is_nil(stream.reset)

      client, id, upstream = open_connect()
      upstream:send("bye"):half_close()
      assert.equal("bye", client:response(id).body)
      client:data(id, "thanks", true)
      assert.equal("thanks", upstream:read_all())
   end)

   t.it("ends with a reset on one side", function()
      local client, id, upstream = open_websocket()
      client:frame(h2.RST_STREAM, 0, id, h2.u32(h2.CANCEL))
      upstream:expect_close()
      client, id, upstream = open_websocket()
      upstream:reset()
      assert.equal(CONNECT_ERROR, client:response(id).reset)
      client, id, upstream = open_connect()
      client.socket:reset()
      upstream:expect_close()
      assert.is_nil(client:stream(id).reset)
   end)

   t.it("ends when nothing is said", function()
      local client, id, upstream = open_websocket(2)
      client:data(id, "ping")
      assert.equal("ping", upstream:read(4))
      assert.is_truthy(client:response(id).reset)
      upstream:expect_close()
   end)

   t.it("may be refused by the origin, and the connection goes on", function()
      local client = connect()
      local id = client:request(websocket(), { open = true })
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:respond(403, "no")
      local stream = client:response(id)
      assert.equal(403, stream.status)
      assert.equal("no", stream.body)
      t.start_task(function()
         upstream:read_request()
         upstream:respond(200, "next")
      end)
      assert.equal("next", client:get("/next").body)
   end)

   t.it("goes only where it is allowed to", function()
      local client = connect()
      for _, target in ipairs { "127.0.0.1:1", "localhost:2", "allowed.example:443", "[::1]:444" } do
         assert.equal(403, client:head(client:request(authority_form(target), { open = true })).status)
      end
      assert.equal(502, client:head(client:request(authority_form "localhost:1", { open = true })).status)
   end)

   for what, fields in pairs {
      ["with a path"] = { { ":method", "CONNECT" }, { ":authority", "a:1" }, { ":path", "/" } },
      ["without a port"] = { { ":method", "CONNECT" }, { ":authority", "a" } },
      ["of a protocol, without a path"] = { { ":method", "CONNECT" }, { ":protocol", "websocket" },
         { ":scheme", "http" }, { ":authority", "a" } },
      ["of a protocol, by GET"] = { { ":method", "GET" }, { ":protocol", "websocket" }, { ":scheme", "http" },
         { ":authority", "a" }, { ":path", "/" } },
   } do
      t.it("is an error of the stream " .. what, function()
         local client = connect()
         local stream = client:response(client:request(fields, { open = true }))
         assert.equal(h2.PROTOCOL_ERROR, stream.reset)
      end)
   end

   t.it("is opened by CONNECT of HTTP/1 as well", function()
      local client = proxy():connect()
      client:send_head("CONNECT " .. origin.address .. " HTTP/1.1\nHost: " .. origin.address)
      local upstream = origin:accept()
      local response = client:read_response_head()
      assert.equal(200, response.status)
      assert.is_nil(response:get "content-length")
      assert.is_nil(response:get "transfer-encoding")
      client:send "up"
      assert.equal("up", upstream:read(2))
      upstream:send("down"):close()
      assert.equal("down", client:read_all())
   end)

   t.it("is refused to CONNECT of HTTP/1 where it is not allowed", function()
      local client = proxy():connect()
      client:send_head "CONNECT elsewhere.example:443 HTTP/1.1\nHost: elsewhere.example:443"
      assert.equal(403, client:read_response().status)
   end)
end)

local MIDDLE = [[
   local ml = require "monolake"
   ml.listen { address = "127.0.0.1:0", protocols = { "h2c" },
      chain = ml.proxy { "${origin}", name = "origin" } }
]]
local FRONT = [[
   local ml = require "monolake"
   ml.listen { address = "127.0.0.1:0", protocols = { "h1", "h2c" }, chain = ml.proxy {
      "${middle}", name = "middle", protocol = "h2" } }
]]

t.on_both_backends("a WebSocket by way of an HTTP/2 origin", function(backend)
   local origin, middle, front

   busted.setup(function()
      origin = t.socket.listen()
      middle = t.program.start { io = backend, site = MIDDLE, values = { origin = origin.address } }
      front = t.program.start { io = backend, site = FRONT, values = { middle = middle.address } }
   end)

   busted.teardown(function()
      front:stop()
      middle:stop()
      origin:close()
   end)

   local REQUEST = [[
      GET /chat HTTP/1.1
      Host: a.example
      Connection: Upgrade
      Upgrade: websocket
      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
      Sec-WebSocket-Version: 13
   ]]

   local function open_h1()
      local client = t.socket.connect(front.address)
      client:send(t.head(REQUEST))
      local upstream = origin:accept()
      local request = upstream:read_request_head()
      upstream:send(t.head(SWITCHED))
      local response = client:read_response_head()
      return client, upstream, request, response
   end

   t.it("is an upgrade at both ends", function()
      local client, upstream, request, response = open_h1()
      assert.equal("websocket", request:get "upgrade")
      assert.equal("/chat", request.target)
      assert.equal("a.example", request:get "host")
      assert.equal("dGhlIHNhbXBsZSBub25jZQ==", request:get "sec-websocket-key")
      assert.equal(101, response.status)
      assert.equal("websocket", response:get "upgrade")
      assert.is_true(response:has("connection", "upgrade"))
      assert.equal("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", response:get "sec-websocket-accept")
      client:send "up"
      assert.equal("up", upstream:read(2))
      upstream:send "down"
      assert.equal("down", client:read(4))
   end)

   t.it("is opened over HTTP/2 as well, and carries the end of either side", function()
      local client = h2.connect(front.address)
      local fields = h2.get { [":method"] = "CONNECT", [":path"] = "/chat" }
      table.insert(fields, 1, { ":protocol", "websocket" })
      local id = client:request(fields, { open = true })
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:send(t.head(SWITCHED))
      assert.equal(200, client:head(id).status)
      client:data(id, "last", true)
      assert.equal("last", upstream:read_all())
      upstream:send("still here"):close()
      assert.equal("still here", client:response(id).body)
   end)

   t.it("carries much both ways, and ends with a reset on one side", function()
      local client, upstream = open_h1()
      local bytes = ("0123456789abcdef"):rep(64 * 1024)
      local sending = { t.start_task(function() client:send(bytes) end),
         t.start_task(function() upstream:send(bytes) end) }
      assert.is_true(client:read(#bytes) == bytes)
      assert.is_true(upstream:read(#bytes) == bytes)
      for _, task in ipairs(sending) do
         task:join()
      end
      upstream:reset()
      client:expect_close()

      client, upstream = open_h1()
      client:reset()
      upstream:expect_close()
   end)

   t.it("tells one end of the other's reset, which is not to be taken for an end", function()
      local client, upstream = open_h1()
      upstream:send "cut"
      assert.equal("cut", client:read(3))
      upstream:reset()
      assert.equal("reset", client:expect_close())

      client, upstream = open_h1()
      client:send "cut"
      assert.equal("cut", upstream:read(3))
      client:reset()
      assert.equal("reset", upstream:expect_close())
   end)

   t.it("is refused with what the origin says, and the connections go on", function()
      local client = t.socket.connect(front.address)
      client:send(t.head(REQUEST))
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:respond(403, "no")
      assert.equal("no", client:read_response().body)
      client:send_head "GET /next HTTP/1.1\nHost: a"
      assert.equal("/next", upstream:read_request().target)
      upstream:respond(200, "still HTTP")
      assert.equal("still HTTP", client:read_response().body)
   end)
end)

t.on_both_backends("a tunnel over HTTP/2 one end of which takes slowly", function(backend)
   local origin, proxy = t.proxied(backend, {
      origin = { receive_buffer = 4096 },
      site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, tunnel_idle_timeout = "${idle_ms}ms",
            chain = ml.tunnel { allow = { "${origin}" } } }
      ]],
      values = { idle_ms = 300 * t.tasks.patience },
   })

   local function open()
      local client = h2.connect(proxy().addresses[1], { manual = true })
      local fields = { { ":method", "CONNECT" }, { ":authority", origin.address } }
      local id = client:request(fields, { open = true })
      local upstream = origin:accept()
      assert.equal(200, client:head(id).status)
      return client, id, upstream
   end

   t.it("is not idle when that is the origin", function()
      local bytes = ("u"):rep(40000000) -- more than the kernel's buffers take
      local client, id, upstream = open()
      t.start_task(function() pcall(client.send_body, client, id, bytes) end)
      for _ = 1, 40 * t.tasks.patience do
         upstream:read(100000)
         t.tasks.sleep(0.03)
      end
   end)

   t.it("is not idle when that is the client", function()
      local bytes = ("d"):rep(65535 + 400000 * t.tasks.patience)
      local client, id, upstream = open()
      t.start_task(function() upstream:send(bytes) end)
      for taken = 65535, #bytes, 10000 do
         assert.equal(taken, #client:body(id, taken))
         t.tasks.sleep(0.03)
         local update = h2.u32(10000)
         client:send(h2.frame(h2.WINDOW_UPDATE, 0, 0, update) .. h2.frame(h2.WINDOW_UPDATE, 0, id, update))
      end
   end)
end)
