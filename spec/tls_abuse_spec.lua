--- What clients do to a TLS port that they should not: silence, garbage, plain HTTP, going away. Each ends
--- in time, the log says why, and the others do not notice.
local t = require "spec.support"

local process, program, socket, sys, tls_socket = t.process, t.program, t.socket, t.sys, t.tls_socket

local SITE = [[
local ml = require "monolake"
local tls = { cert = "a.pem", key = "a.key" }
ml.listen { address = "127.0.0.1:0", tls = tls, chain = { ml.text "answer" } }
ml.listen { address = "127.0.0.1:0", tls = tls, chain = { ml.text "answer" }, handshake_timeout = "150ms" }
]]
local HURRIED = 2
local TIMEOUT_S = 0.15
local REQUEST = "GET / HTTP/1.1\nHost: a"

--- The first bytes of a client, as a server gets them.
local function client_hello()
   local listener = socket.listen()
   local connecting = t.start_task(tls_socket.try_connect, listener.address)
   local connection = listener:accept()
   local hello = connection:read_some()
   connection:close()
   connecting:join()
   listener:close()
   return hello
end

--- The same handshake message in records of so many bytes.
local function split_records(hello, size)
   local message, records = hello:sub(6), {}
   for from = 1, #message, size do
      local piece = message:sub(from, from + size - 1)
      records[#records + 1] = "\22\3\1" .. string.char(math.floor(#piece / 256), #piece % 256) .. piece
   end
   return table.concat(records)
end

t.on_every_tls("a TLS port", function(backend, library)
   local running = t.serve(function()
      return t.with_tls(backend, library, { site = SITE, listeners = 2 })
   end)

   local function connect(listener)
      return running():connect { address = running().addresses[listener or 1] }
   end

   --- A well-behaved client; returns a function that checks that it is served still.
   local function neighbour()
      local client = tls_socket.connect(running().address)
      local function check()
         assert.equal("answer", client:exchange(REQUEST).body)
      end
      check()
      return check
   end

   local function expect_timeout(client, begun)
      while client:try_fill() do -- what it says before
         client.buffer = ""
      end
      local took = sys.clock() - begun
      assert.is_true(took > TIMEOUT_S * 0.9 and took < 2 * t.tasks.patience, took)
   end

   t.it("closes on who says nothing, or not all, or all too slowly", function()
      local check, hello = neighbour(), client_hello()
      local slow = connect(HURRIED)
      local waiting = { t.start_task(expect_timeout, slow, sys.clock()) }
      t.start_task(function()
         for i = 1, #hello do
            if not slow.fd or not slow:try_send(hello:sub(i, i)) then
               break
            end
            t.tasks.sleep(0.02)
         end
      end)
      for _, bytes in ipairs { "", "\22", hello:sub(1, 5), hello:sub(1, 100), hello } do
         local client = connect(HURRIED)
         client:send(bytes)
         waiting[#waiting + 1] = t.start_task(expect_timeout, client, sys.clock())
      end
      for _, task in ipairs(waiting) do
         task:join()
      end
      check()
   end)

   t.it("waits for what comes in pieces, of records or of bytes", function()
      local hello = client_hello()
      for _, bytes in ipairs { split_records(hello, 50), split_records(hello, 1), hello } do
         local client = connect()
         for from = 1, #bytes, 37 do
            client:send(bytes:sub(from, from + 36))
         end
         assert.equal("\22\3\3", client:read(3))
         client:reset()
      end
   end)

   local hostile = {
      ["noise"] = ("\200\1\127"):rep(100),
      ["zeros"] = ("\0"):rep(1000),
      ["a record that is too long"] = "\22\3\1\255\255" .. ("a"):rep(70000),
      ["an alert"] = "\21\3\3\0\2\2\40",
      ["data at once"] = "\23\3\3\0\5hello",
      ["an empty record"] = "\22\3\3\0\0",
      ["a hello of SSL 2"] = "\128\46\1\0\2\0\21\0\0\0\16\1\0\128" .. ("\7"):rep(34),
      ["a hello that is too long"] = "\22\3\1\64\0\1\255\255\255" .. ("a"):rep(16380) ..
         ("\22\3\1\64\0" .. ("a"):rep(16384)):rep(20),
   }
   for what, bytes in pairs(hostile) do
      t.it("refuses " .. what, function()
         local check = neighbour()
         local client = connect()
         client:try_send(bytes)
         client:half_close()
         while client:try_fill() do
            client.buffer = ""
         end
         assert.is_true(client.ended)
         check()
      end)
   end

   local failures = {
      ["the client speaks HTTP in the clear"] = function(address)
         local client = socket.connect(address)
         client:send_head("POST / HTTP/1.1\nHost: a\nContent-Length: 200000", ("a"):rep(200000))
         local response = client:read_response()
         assert.equal(400, response.status)
         assert.equal("close", response:get "connection")
         assert.matches("This port speaks TLS", response.body)
         client:close()
      end,
      ["the client speaks no protocol that is served here"] = function(address)
         assert.is_nil((tls_socket.try_connect(address, { alpn = { "other" } })))
      end,
      ["alert from the peer: bad certificate"] = function(address)
         assert.is_nil((tls_socket.try_connect(address, { name = "b.example" })))
      end,
      ["unsupported protocol"] = function(address)
         assert.is_nil((tls_socket.try_connect(address, { min = "1.1", max = "1.1",
            ciphers = "DEFAULT:@SECLEVEL=0" })))
      end,
      ["no shared cipher"] = function(address)
         assert.is_nil((tls_socket.try_connect(address, { max = "1.2", ciphers = "AES128-SHA" })))
      end,
      ["Connection reset by peer"] = function(address)
         socket.connect(address):send("\22"):half_close():expect_close()
      end,
   }
   for why, fail in pairs(failures) do
      t.it("logs who has failed and why: " .. why, function()
         local own = program.start(t.with_tls(backend, library, { site = SITE, listeners = 2 }))
         fail(own.address)
         assert.equal(why, own:await_log "TLS handshake with 127.0.0.1:%d+ failed: ([^\n]*)")
      end)
   end

   t.it("logs a handshake that took too long", function()
      connect(HURRIED):send("\22"):expect_close()
      running():await_log "TLS handshake with 127.0.0.1:%d+ failed: Connection timed out"
   end)

   t.it("survives those who go in the midst of it, and has its descriptors back", function()
      local check, hello = neighbour(), client_hello()
      local worker = running():workers()[1]
      local before = process.descriptors(worker)
      for i = 1, 200 do
         local client = connect()
         client:try_send(hello:sub(1, i % 2 == 0 and #hello or i))
         if i % 4 >= 2 then
            client:try_fill(0.002)
         end
         client[({ "reset", "close", "half_close" })[i % 3 + 1]](client)
      end
      check()
      socket.reset_all()
      t.eventually("the descriptors to come back", function()
         return process.descriptors(worker) < before
      end)
      assert.equal(worker, running():workers()[1])
   end)

   t.it("refuses a new handshake on an old connection", function()
      local client = tls_socket.connect(running().address, { max = "1.2" })
      client:exchange(REQUEST)
      client:renegotiate()
      local ok, why = client:try_fill(0.2)
      assert.is_nil(ok)
      assert.is_true(why == "no renegotiation" or why == "reset" or why == "truncated", why)
      neighbour()()
   end)
end)
