--- Deadlines: connecting, head, body, idle, sending and total (idle ones of tunnels: upgrade_spec).
local t = require "spec.support"
local h2 = require "spec.support.h2"

local GET = "GET / HTTP/1.1\nHost: a"

t.on_both_backends("a deadline", function(backend)
   -- Its queue is full in the spec of connecting: then nobody answers, not even with a refusal.
   local full = t.socket.listen { backlog = 0 }
   local origin, proxy = t.proxied(backend, {
      site = [[
         local ml = require "monolake"
         local count = 0
         local function serve(listener, upstream)
            count = count + 1
            upstream[1], upstream.name = upstream[1] or "${origin}", "u" .. count
            listener.address, listener.chain = "127.0.0.1:0", ml.proxy(upstream)
            ml.listen(listener)
         end
         serve({ head_timeout = "100ms" }, {})
         serve({ body_timeout = "100ms" }, {})
         serve({ idle_timeout = "100ms" }, {})
         serve({ total_timeout = "150ms", protocols = { "h1", "h2c" } }, {})
         serve({}, { response_timeout = "100ms" })
         serve({}, { read_timeout = "100ms" })
         serve({ send_timeout = "200ms" }, {})
         serve({}, { send_timeout = "200ms" })
         serve({}, { idle_timeout = "100ms" })
         serve({}, { "${full}", connect_timeout = "100ms", retries = 0 })
      ]],
      values = { full = full.address },
      listeners = 10,
   })

   local function connect(listener, options)
      options = options or {}
      options.address = proxy().addresses[listener]
      return proxy():connect(options)
   end

   --- How long it takes.
   local function seconds(act)
      local before = t.sys.clock()
      act()
      return t.sys.clock() - before
   end

   t.it("bounds a head, however slowly it comes", function()
      local client, answered = connect(1), false
      local feeder = t.start_task(function()
         client:send "GET / HTTP/1.1\r\n"
         while not answered and client:try_send "X: y\r\n" do
            t.tasks.sleep(0.02)
         end
      end)
      local took = seconds(function()
         assert.equal(408, client:read_response().status)
      end)
      answered = true
      assert.is_true(took >= 0.09)
      feeder:join()
   end)

   t.it("bounds how long a connection may say nothing at first: it is closed without a word", function()
      assert.equal("closed", connect(1):expect_close())
   end)

   t.it("bounds the wait for more of a request's body", function()
      local client = connect(2)
      client:send_head("POST / HTTP/1.1\nHost: a\nContent-Length: 10", "half")
      local upstream = origin:accept()
      assert.equal(408, client:read_response().status)
      client:expect_close()
      assert.is_false((pcall(upstream.read_request, upstream)))
   end)

   t.it("does not bound a body that keeps coming", function()
      local client = connect(2)
      client:send_head "POST / HTTP/1.1\nHost: a\nContent-Length: 10"
      t.start_task(function()
         for _ = 1, 10 do
            client:send "x"
            t.tasks.sleep(0.03)
         end
      end)
      local upstream = origin:accept()
      assert.equal("xxxxxxxxxx", upstream:read_request().body)
      upstream:respond(200, "ok")
      assert.equal("ok", client:read_response().body)
   end)

   t.it("bounds how long a connection may be idle", function()
      local client = connect(3)
      client:send_head(GET)
      local upstream = origin:accept()
      upstream:read_request()
      upstream:respond(200, "ok")
      client:read_response()
      local took = seconds(function()
         assert.equal("closed", client:expect_close())
      end)
      assert.is_true(took >= 0.09)
   end)

   t.it("bounds an exchange as a whole, whatever it does", function()
      local client = connect(4)
      client:send_head(GET)
      local upstream = origin:accept()
      upstream:read_request()
      upstream:send(t.head "HTTP/1.1 200 OK\nTransfer-Encoding: chunked")
      t.start_task(function()
         while upstream:try_send(t.chunk "x") do
            t.tasks.sleep(0.02)
         end
      end)
      client:read_response_head()
      assert.is_false((pcall(function()
         while client:read_chunk() do end
      end)))
   end)

   t.it("of an exchange is answered for, whatever version it is of", function()
      local client = connect(4)
      client:send_head(GET)
      assert.equal(504, client:read_response().status)
      client = h2.connect(proxy().addresses[4])
      local response = client:response(client:request())
      assert.equal(504, response.status)
      assert.equal("Gateway Timeout\n", response.body)
      assert.is_true(response.ended)
   end)

   t.it("bounds the wait for a response", function()
      local client = connect(5)
      client:send_head(GET)
      local upstream = origin:accept()
      upstream:read_request()
      assert.equal(504, client:read_response().status)
      upstream:expect_close()
   end)

   t.it("of a response does not run while the client is slow with its request", function()
      local function begin()
         local client = connect(5)
         client:send_head("POST / HTTP/1.1\nHost: a\nContent-Length: 10", "begun")
         local upstream = origin:accept()
         upstream:read_request_head()
         assert.equal("begun", upstream:read(5))
         assert.is_true(client:silent(0.25))
         client:send "ended"
         assert.equal("ended", upstream:read(5))
         return client, upstream
      end
      local client, upstream = begin()
      upstream:respond(200, "in time"):close()
      assert.equal("in time", client:read_response().body)
      client, upstream = begin()
      assert.equal(504, client:read_response().status) -- but it runs when all is sent
      upstream:expect_close()
   end)

   t.it("bounds the wait for more of a response's body", function()
      local client = connect(6)
      client:send_head(GET)
      local upstream = origin:accept()
      upstream:read_request()
      upstream:send(t.head "HTTP/1.1 200 OK\nContent-Length: 10" .. "half")
      client:read_response_head()
      assert.equal("half", client:read(4))
      client:expect_close()
      upstream:expect_close()
   end)

   t.it("bounds the wait for a client that reads nothing", function()
      local client = connect(7, { receive_buffer = 4096 })
      client:send_head(GET)
      local upstream = origin:accept()
      upstream:read_request()
      upstream:send(t.head "HTTP/1.1 200 OK\nContent-Length: 100000000")
      local sent, _, count = upstream:try_send(("x"):rep(100000000))
      assert.is_nil(sent)
      assert.is_true(count < 50000000)
   end)

   t.it("bounds the wait for an origin that reads nothing", function()
      local client = connect(8)
      client:send_head "POST / HTTP/1.1\nHost: a\nContent-Length: 100000000"
      local upstream = origin:accept()
      t.start_task(function()
         client:try_send(("x"):rep(100000000))
      end)
      local response = client:read_response()
      assert.is_true(response.status == 504 or response.status == 502)
      upstream:close()
   end)

   t.it("ends idle connections to origins", function()
      local client = connect(9)
      client:send_head(GET)
      local upstream = origin:accept()
      upstream:read_request()
      upstream:respond(200, "ok")
      client:read_response()
      upstream:expect_close()
   end)

   t.it("bounds connecting", function()
      t.socket.connect(full.address)
      local client = connect(10)
      client:send_head(GET)
      local took = seconds(function()
         assert.equal(504, client:read_response().status)
      end)
      assert.is_true(took >= 0.09 and took < 5)
   end)
end)

t.on_both_backends("a deadline of sending on a local socket", function(backend)
   local directory = t.process.directory()
   local origin, proxy = t.proxied(backend, {
      site = [[
         local ml = require "monolake"
         local slow = ml.proxy { "${origin}", name = "slow", send_timeout = "200ms" }
         ml.listen { address = "unix:${directory}/in.sock", protocols = { "h1", "h2c" },
            send_timeout = "200ms", chain = slow }
         ml.listen { address = "127.0.0.1:0", chain = slow }
      ]],
      origin = { address = "unix:" .. directory .. "/out.sock" },
      values = { directory = directory },
      listeners = 2,
   })
   local BYTES = 100000000

   --- Serves one request with a body that its client does not read; the proxy ends it.
   local function expect_left()
      local upstream = origin:accept()
      upstream:read_request()
      upstream:send(t.head("HTTP/1.1 200 OK\nContent-Length: " .. BYTES))
      local sent, why, count = upstream:try_send(("x"):rep(BYTES))
      assert.is_nil(sent)
      assert.not_equal("timeout", why)
      assert.is_true(count < BYTES / 2)
   end

   local function inner()
      return "unix:" .. directory .. "/in.sock"
   end

   t.it("bounds the wait for a client of HTTP/1 that reads nothing", function()
      local client = t.socket.connect(inner())
      client:send_head(GET)
      expect_left()
   end)

   t.it("bounds the wait for a client of HTTP/2 that reads nothing", function()
      local client = h2.connect(inner(), { settings = { [h2.INITIAL_WINDOW_SIZE] = BYTES } })
      client:frame(h2.WINDOW_UPDATE, 0, 0, h2.u32(BYTES))
      client:request()
      expect_left()
   end)

   t.it("bounds the wait for a client of HTTP/2 that opens no window", function()
      local client = h2.connect(inner(), { manual = true })
      local id = client:request()
      expect_left()
      assert.equal(h2.CANCEL, client:reset_of(id))
      client:sync() -- the others of its connection are served
   end)

   t.it("does not bound how long a client takes that reads slowly", function()
      local body = ("0123456789abcdef"):rep(2 * 65536)
      local client = t.socket.connect(inner())
      client:send_head(GET)
      local upstream = origin:accept()
      upstream:read_request()
      local answering = t.start_task(function()
         upstream:respond(200, body)
      end)
      client:read_until "\r\n\r\n"
      local begun, pieces = t.sys.clock(), {}
      for i = 1, 16 do
         t.tasks.sleep(0.1)
         pieces[i] = client:read(#body / 16)
      end
      assert.is_true(table.concat(pieces) == body)
      answering:join()
      assert.is_true(t.sys.clock() - begun > 1)
   end)

   t.it("bounds the wait for an origin that reads nothing", function()
      local client = proxy():connect { address = proxy().addresses[2] }
      client:send_head("POST / HTTP/1.1\nHost: a\nContent-Length: " .. BYTES)
      local upstream = origin:accept()
      t.start_task(function()
         client:try_send(("x"):rep(BYTES))
      end)
      local response = client:read_response()
      assert.is_true(response.status == 504 or response.status == 502)
      upstream:close()
   end)
end)

local HELD_UP = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", head_timeout = "300ms", chain = { ml.router {
   ["/busy"] = function()
      ml.log.info "busy now"
      local until_s = ml.now() + 0.6
      while ml.now() < until_s do end
      return ml.text "busy"
   end,
   ["/"] = ml.text "hello",
} } }
]]
t.on_both_backends("a worker that was held up", function(backend)
   t.it("serves what came meanwhile before it looks at its timers", function()
      local running = t.program.start { io = backend, site = HELD_UP }
      for _ = 1, 5 do
         local busy = running:connect()
         local clients = {}
         for i = 1, 40 do
            clients[i] = running:connect()
         end
         local offset = #running:log()
         busy:send_head "GET /busy HTTP/1.1\nHost: a"
         running:await_log("busy now", offset)
         for _, client in ipairs(clients) do
            client:send_head "GET / HTTP/1.1\nHost: a"
         end
         for _, client in ipairs(clients) do
            assert.equal("hello", client:read_response().body)
            client:close()
         end
         busy:close()
      end
   end)
end)
