--- What HTTP/1 sends through TLS: bodies of every size and framing, tunnels, and the ways to end.
local t = require "spec.support"

local program, sys, tls_socket = t.program, t.sys, t.tls_socket

local SITE = [[
local ml = require "monolake"
ml.listen {
   address = "127.0.0.1:0",
   tls = { cert = "a.pem", key = "a.key" },
   chain = { ml.proxy { "${origin}", name = "origin", idle_max = 0, x_forwarded = true } },
}
ml.listen {
   address = "127.0.0.1:0",
   tls = { cert = "a.pem", key = "a.key" },
   idle_timeout = "300ms",
   chain = { ml.text "at once" },
}
]]

local MIB = 1048576
local REQUEST = "GET / HTTP/1.1\nHost: a"
local UPGRADE = "GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket"
local SWITCHED = "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket"

--- Bytes in which every 16 tell where they are.
local function bytes_of(count)
   local lines = {}
   for i = 1, count / 16 do
      lines[i] = ("%015d\n"):format(i)
   end
   return table.concat(lines)
end

local LARGE = bytes_of(10 * MIB)

t.on_every_tls("HTTP through TLS", function(backend, library)
   local origin, proxy = t.proxied(backend, t.with_tls(backend, library, { site = SITE, listeners = 2 }))

   local function connect(options, running)
      return tls_socket.connect((running or proxy()).address, options)
   end

   --- A request that has reached the origin.
   local function under_way(head, options, running)
      local client = connect(options, running)
      client:send_head(head or REQUEST)
      local upstream = origin:accept()
      upstream:read_request_head()
      return client, upstream
   end

   local function tunnel(options)
      local client, upstream = under_way(UPGRADE, options)
      upstream:send_head(SWITCHED)
      assert.equal(101, client:read_response_head().status)
      return client, upstream
   end

   for _, version in ipairs { "1.2", "1.3" } do
      t.it("carries large bodies both ways, TLS " .. version, function()
         local client = connect { min = version, max = version }
         local sending = t.start_task(function()
            client:send_head(("POST / HTTP/1.1\nHost: a\nContent-Length: %d"):format(#LARGE), LARGE)
         end)
         local upstream = origin:accept()
         assert.is_true(upstream:read_request().body == LARGE)
         sending:join()
         sending = t.start_task(function()
            upstream:respond(200, LARGE)
         end)
         assert.is_true(client:read_response().body == LARGE)
         sending:join()
      end)
   end

   t.it("fills the first flight with the first record, and later records wholly", function()
      local FIRST, FULL, OVERHEAD = 4096, 16384, 17 -- of TLS 1.3: the content's type and the tag
      local client, upstream = under_way()
      upstream:respond(200, LARGE:sub(1, MIB))
      client:read_response()
      local records = client.records
      while records[1] < 1000 do -- the handshake's messages
         table.remove(records, 1)
      end
      assert.is_true(records[1] <= FIRST + OVERHEAD, records[1])
      local sum, full = 0, 0
      for i, length in ipairs(records) do
         sum = sum + length - OVERHEAD
         full = full + (length == FULL + OVERHEAD and 1 or 0)
         assert.is_true(i == 1 or length <= FULL + OVERHEAD)
      end
      assert.is_true(sum > MIB and sum < MIB + 1000, sum)
      assert.is_true(full >= 32 and #records < 128, full .. " full ones of " .. #records)
   end)

   t.it("keeps to the shorter records that a client asks for", function()
      for _, version in ipairs { "1.2", "1.3" } do
         local client, upstream = under_way(REQUEST, { fragments = 512, max = version })
         upstream:respond(200, LARGE:sub(1, MIB / 4))
         assert.is_true(client:read_response().body == LARGE:sub(1, MIB / 4))
         for _, length in ipairs(client.records) do
            assert.is_true(length <= 512 + 24, length) -- TLS 1.2 adds eight bytes of nonce and the tag
         end
      end
   end)

   t.it("is https to the origin", function()
      local client = connect()
      client:send_head(REQUEST)
      local upstream = origin:accept()
      assert.equal("https", upstream:read_request():get "x-forwarded-proto")
      upstream:respond(200, "")
      client:read_response()
   end)

   t.it("answers in the midst of a large body", function()
      for _, version in ipairs { "1.2", "1.3" } do
         local client = tls_socket.connect(proxy().addresses[2], { max = version })
         client:send_head(("POST / HTTP/1.1\nHost: a\nContent-Length: %d"):format(#LARGE))
         assert.is_true(client:try_send(LARGE))
         assert.equal("at once", client:read_response().body)
         assert.equal("closed", client:expect_close())
      end
   end)

   t.it("serves many requests on a connection, and those that are sent ahead", function()
      local client = connect()
      t.serve_requests(origin, function(request, connection)
         connection:respond(200, request.target)
      end)
      for i = 1, 100 do
         assert.equal("/" .. i, client:exchange(("GET /%d HTTP/1.1\nHost: a"):format(i)).body)
      end
      local heads = {}
      for i = 1, 20 do
         heads[i] = t.head(("GET /ahead%d HTTP/1.1\nHost: a"):format(i))
      end
      client:send(table.concat(heads))
      for i = 1, 20 do
         assert.equal("/ahead" .. i, client:read_response().body)
      end
   end)

   t.it("takes a byte in each record, and new keys in between", function()
      local client = connect { min = "1.3" }
      local head = t.head "POST / HTTP/1.1\nHost: a\nContent-Length: 5" .. "hello"
      for i = 1, #head do
         client:send(head:sub(i, i))
         if i % 10 == 0 then
            client:update_keys()
         end
      end
      local upstream = origin:accept()
      assert.equal("hello", upstream:read_request().body)
      upstream:respond(200, "new keys")
      assert.equal("new keys", client:read_response().body)
   end)

   t.it("passes chunks and trailers both ways", function()
      local client = connect()
      client:send_head("POST / HTTP/1.1\nHost: a\nTE: trailers\nTransfer-Encoding: chunked\nTrailer: x-sum",
         t.chunk "one" .. t.chunk "two" .. "0\r\nx-sum: 6\r\n\r\n")
      local upstream = origin:accept()
      local request = upstream:read_request()
      assert.equal("onetwo", request.body)
      assert.equal("6", request.trailers:get "x-sum")
      upstream:send_head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: x-sum",
         t.chunk "three" .. "0\r\nx-sum: 5\r\n\r\n")
      local response = client:read_response()
      assert.equal("three", response.body)
      assert.equal("5", response.trailers:get "x-sum")
   end)

   t.it("does not hold for a slow reader what it cannot send", function()
      local client, upstream = under_way()
      local before = proxy():rss_kib()
      upstream:send_head "HTTP/1.1 200 OK\nContent-Length: 67108864"
      local sent = 0
      while true do
         local ok, _, offset = upstream:try_send(LARGE:sub(1, MIB), 0.1)
         sent = sent + (ok and MIB or offset)
         if not ok then
            break
         end
      end
      assert.is_true(sent < 24 * MIB, sent)
      assert.is_true(proxy():rss_kib() - before < 8192 * t.tasks.patience)
      client:read_response_head()
      client:read(MIB)
   end)

   t.it("carries a tunnel both ways, whatever is in it", function()
      for _, version in ipairs { "1.2", "1.3" } do
         local client, upstream = tunnel { min = version, max = version }
         local sending = { t.start_task(function() client:send(LARGE:sub(1, 2 * MIB)) end),
            t.start_task(function() upstream:send(LARGE:sub(1, 3 * MIB)) end) }
         assert.is_true(client:read(3 * MIB) == LARGE:sub(1, 3 * MIB))
         assert.is_true(upstream:read(2 * MIB) == LARGE:sub(1, 2 * MIB))
         sending[1]:join()
         sending[2]:join()
      end
   end)

   t.it("carries the end of either side of a tunnel", function()
      local client, upstream = tunnel()
      upstream:send("bye"):half_close()
      assert.equal("bye", client:read_all())
      client:send "thanks"
      assert.equal("thanks", upstream:read(6))
      client:close()
      assert.equal("", upstream:read_all())

      client, upstream = tunnel()
      client:send("last"):half_close()
      assert.equal("last", upstream:read_all())
      upstream:send("still here"):close()
      assert.equal("still here", client:read_all())
   end)

   t.it("ends a tunnel that breaks off on one side on the other", function()
      for _, how in ipairs { "reset", "truncate" } do
         local client, upstream = tunnel()
         client[how](client)
         upstream:expect_close()
      end
      local client, upstream = tunnel()
      upstream:reset()
      assert.not_equal("closed", client:expect_close())
   end)

   t.it("says goodbye when it closes", function()
      for _, version in ipairs { "1.2", "1.3" } do
         local client, upstream = under_way("GET / HTTP/1.1\nHost: a\nConnection: close",
            { min = version, max = version })
         upstream:respond(200, LARGE:sub(1, MIB))
         assert.is_true(client:read_response().body == LARGE:sub(1, MIB))
         assert.equal("closed", client:expect_close())
      end
      local client = tls_socket.connect(proxy().addresses[2])
      assert.equal("at once", client:exchange(REQUEST).body)
      assert.equal("closed", client:expect_close()) -- it was idle for too long
      local upstream
      client, upstream = under_way "GET / HTTP/1.0\nHost: a"
      upstream:send_head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", t.chunk "all" .. t.chunk "")
      local response = client:read_response()
      assert.equal("close", response.framing)
      assert.equal("all", response.body)
   end)

   t.it("does not say goodbye behind half a body", function()
      local client, upstream = under_way "GET / HTTP/1.0\nHost: a"
      upstream:send_head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", t.chunk "half")
      client:read_response_head()
      assert.equal("half", client:read(4))
      upstream:reset()
      assert.not_equal("closed", client:expect_close())
   end)

   t.it("answers a client that has closed its side in order", function()
      local client, upstream = under_way()
      client:half_close()
      upstream:respond(200, "answer")
      assert.equal("answer", client:read_response().body)
      assert.equal("closed", client:expect_close())
   end)

   t.it("cancels the request of a client that breaks off", function()
      for _, how in ipairs { "truncate", "reset" } do
         local client, upstream = under_way()
         client[how](client)
         upstream:expect_close()
      end
      local client, upstream = under_way "POST / HTTP/1.1\nHost: a\nContent-Length: 10"
      client:truncate()
      upstream:expect_close()
   end)

   t.it("ends a connection with a damaged record, and what it was about", function()
      for _, version in ipairs { "1.2", "1.3" } do
         for alert, bytes in pairs {
            ["bad record mac"] = "\23\3\3\0\64" .. ("x"):rep(64),
            ["data length too long|record overflow"] = "\23\3\3\255\255" .. ("x"):rep(65535),
         } do
            local client, upstream = under_way(nil, { max = version })
            client:send_raw(bytes)
            upstream:expect_close()
            local ok, why = client:try_fill()
            assert.is_nil(ok)
            assert.is_true(why == "reset" or alert:find((why:gsub("^%w+ ", "")), 1, true) ~= nil, why)
         end
      end
   end)

   t.it("finishes downloads at TERM, and during reloads", function()
      local running = program.start(t.with_tls(backend, library,
         { site = SITE, listeners = 2, values = { origin = origin.address } }))
      local clients, sources = {}, {}
      for i = 1, 3 do
         clients[i], sources[i] = under_way(nil, nil, running)
         sources[i]:send_head(("HTTP/1.1 200 OK\nContent-Length: %d"):format(MIB), LARGE:sub(1, 16 * 100))
         clients[i]:read_response_head()
      end
      running:reload()
      running.process:signal(sys.SIGTERM)
      running:await_log "stopping"
      for i = 1, 3 do
         local sending = t.start_task(function()
            sources[i]:send(LARGE:sub(16 * 100 + 1, MIB))
         end)
         assert.is_true(clients[i]:read(MIB) == LARGE:sub(1, MIB))
         sending:join()
      end
      for i = 1, 3 do
         assert.equal("closed", clients[i]:expect_close())
         clients[i]:close()
      end
      assert.is_true(running.process:wait(3 * t.tasks.patience), "it did not end in time")
      assert.equal(0, running.process.status)
      assert.is_nil(running:alarm())
      program.running[running] = nil
   end)
end)
