--- Upgrade (RFC 9110 section 7.8): a WebSocket or another protocol becomes a tunnel.
local t = require "spec.support"

local REQUEST = [[
   GET /chat HTTP/1.1
   Host: a.example
   Connection: keep-alive, Upgrade
   Upgrade: websocket
   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
   Sec-WebSocket-Version: 13
]]

local SWITCHED = [[
   HTTP/1.1 101 Switching Protocols
   Connection: Upgrade
   Upgrade: websocket
   Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
]]

t.on_both_backends("an upgrade", function(backend)
   local second = t.socket.listen()
   local origin, proxy = t.proxied(backend, {
      values = { second = second.address },
      site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", chain = ml.proxy { "${origin}" } }
         ml.listen {
            address = "127.0.0.1:0", tunnel_idle_timeout = "150ms",
            chain = { function(req, next) return next(req) end, ml.proxy { "${origin}", name = "lua" } },
         }
         ml.listen { address = "127.0.0.1:0", chain = ml.proxy {
            "${origin}", "${second}", name = "least", balance = "least_conn",
         } }
      ]],
      listeners = 3,
   })

   --- Both ends of a tunnel.
   local function tunnel(listener, early)
      local client = proxy():connect { address = proxy().addresses[listener or 1] }
      client:send(t.head(REQUEST))
      local upstream = origin:accept()
      local request = upstream:read_request_head()
      upstream:send(t.head(SWITCHED) .. (early or ""))
      local response = client:read_response_head()
      assert.equal(101, response.status)
      return client, upstream, request, response
   end

   t.it("is passed on and answered", function()
      local _, _, request, response = tunnel()
      assert.equal("websocket", request:get "upgrade")
      assert.is_true(request:has("connection", "upgrade"))
      assert.equal("dGhlIHNhbXBsZSBub25jZQ==", request:get "sec-websocket-key")
      assert.equal("websocket", response:get "upgrade")
      assert.is_true(response:has("connection", "upgrade"))
      assert.equal("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", response:get "sec-websocket-accept")
   end)

   t.it("carries bytes both ways, whatever they are", function()
      local client, upstream = tunnel()
      client:send "\0\1\2 GET / HTTP/1.1\r\n\r\n"
      assert.equal("\0\1\2 GET / HTTP/1.1\r\n\r\n", upstream:read(22))
      upstream:send "\255answer"
      assert.equal("\255answer", client:read(7))
   end)

   t.it("carries what the origin sent with its answer", function()
      local client = tunnel(1, "first frame")
      assert.equal("first frame", client:read(11))
   end)

   t.it("carries what the client sent before the answer", function()
      local client = proxy():connect()
      client:send(t.head(REQUEST) .. "early frame")
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:send(t.head(SWITCHED))
      client:read_response_head()
      assert.equal("early frame", upstream:read(11))
   end)

   t.it("carries much, both ways at once, with a slow reader", function()
      local client, upstream = tunnel()
      local bytes = ("0123456789abcdef"):rep(256 * 1024)
      local sending = { t.start_task(function() client:send(bytes) end),
         t.start_task(function() upstream:send(bytes) end) }
      t.tasks.sleep(0.05)
      assert.is_true(client:read(#bytes) == bytes)
      assert.is_true(upstream:read(#bytes) == bytes)
      for _, task in ipairs(sending) do
         task:join()
      end
   end)

   t.it("carries the end of either side", function()
      local client, upstream = tunnel()
      client:send("last"):half_close()
      assert.equal("last", upstream:read_all())
      upstream:send("still here"):close()
      assert.equal("still here", client:read_all())

      client, upstream = tunnel()
      upstream:send("bye"):half_close()
      assert.equal("bye", client:read_all())
      client:send("thanks"):close()
      assert.equal("thanks", upstream:read_all())
   end)

   t.it("ends with a reset on one side", function()
      local client, upstream = tunnel()
      client:reset()
      upstream:expect_close()
      client, upstream = tunnel()
      upstream:reset()
      client:expect_close()
   end)

   t.it("works behind Lua layers, and ends when nothing is said", function()
      local client, upstream = tunnel(2)
      client:send "ping"
      assert.equal("ping", upstream:read(4))
      client:expect_close()
      upstream:expect_close()
   end)

   t.it("counts for its peer where the least loaded one is taken, as long as it lasts", function()
      local client, upstream = tunnel(3)
      for listener, name in pairs { [origin] = "first", [second] = "second" } do
         t.serve_requests(listener, function(_, connection)
            connection:respond(200, name)
         end)
      end
      local function ask()
         local other = proxy():connect { address = proxy().addresses[3] }
         return other:exchange("GET / HTTP/1.1\nHost: a").body
      end
      for _ = 1, 4 do
         assert.equal("second", ask())
      end
      client:close()
      upstream:expect_close()
      upstream:close()
      t.eventually("the first to be asked", function()
         return ask() == "first"
      end)
   end)

   t.it("may be refused", function()
      local client = proxy():connect()
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

   t.it("needs a Connection field that says so", function()
      local client = proxy():connect()
      client:send_head "GET / HTTP/1.1\nHost: a\nUpgrade: websocket"
      local upstream = origin:accept()
      assert.is_nil(upstream:read_request():get "upgrade")
      upstream:respond(200, "")
      client:read_response()
   end)

   t.it("is nothing for HTTP/1.0", function()
      local client = proxy():connect()
      client:send_head "GET / HTTP/1.0\nHost: a\nConnection: Upgrade\nUpgrade: websocket"
      local upstream = origin:accept()
      assert.is_nil(upstream:read_request():get "upgrade")
      upstream:respond(200, "")
      client:read_response()
   end)
end)
