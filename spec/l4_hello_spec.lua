--- What clients of layer 4 say first, seen by Lua layers: conn:client_hello, conn:peek, conn:detect.
local t = require "spec.support"
local tls_origin = require "spec.support.tls_origin"

local process = t.process

local PASSTHROUGH = [[
   local ml = require "monolake"
   local sites = {
      ["a.example"] = ml.upstream { "${a}", name = "a", protocol = "tcp" },
      ["b.example"] = ml.upstream { "${b}", name = "b", protocol = "tcp" },
   }
   ml.listen { address = "127.0.0.1:0", l4 = function(conn)
      local hello = conn:client_hello { timeout = "5s" }
      local site = hello and sites[hello.name]
      if site then
         conn:splice(site)
      end
   end }
]]

t.on_both_backends("TLS passthrough", function(backend)
   local a, b
   local running = t.serve(function()
      a, b = tls_origin.start "a", tls_origin.start "b"
      return { io = backend, site = PASSTHROUGH, values = { a = a.address, b = b.address },
         files = { ["ca.pem"] = t.certificates.text "ca.pem" } }
   end)

   teardown(function()
      a:stop()
      b:stop()
   end)

   local function run(command)
      local argv = {}
      for word in command:gmatch "%S+" do
         argv[#argv + 1] = word:gsub("@ca.pem", running():path "ca.pem"):gsub("@port",
            running().address:match ":(%d+)$")
      end
      return process.run(argv)
   end

   t.it("shows each client the certificate of whom it asked for", function()
      for _, name in ipairs { "a", "b" } do
         local out, err = run(("openssl s_client -connect 127.0.0.1:@port -servername %s.example -CAfile " ..
            "@ca.pem -verify_return_error -verify_hostname %s.example"):format(name, name:upper()))
         assert.matches("Verify return code: 0 %(ok%)", out, err)
         assert.matches("subject=CN = " .. name .. "\n", out)
         local _, problem, status = run(("curl -sS --resolve %s.example:@port:127.0.0.1 --cacert @ca.pem " ..
            "https://%s.example:@port/"):format(name, name))
         assert.equal(0, status, problem)
      end
   end)

   t.it("closes what is for nobody", function()
      local out = run "openssl s_client -connect 127.0.0.1:@port -servername c.example"
      assert.matches("no peer certificate available", out)
   end)
end)

local LAYERS = [[
   local ml = require "monolake"
   local log = ml.log
   local origin = ml.upstream { "${origin}", name = "origin", protocol = "tcp" }

   local function list(values)
      return table.concat(values or {}, ",")
   end

   ml.listen { address = "127.0.0.1:0", l4 = function(conn)
      local hello, why = conn:client_hello { timeout = "300ms" }
      if not hello then
         log.info("no hello: %s", why)
         return conn:close()
      end
      log.info("hello name=%s alpn=%s version=%s legacy=%s versions=%s", tostring(hello.name),
         list(hello.alpn), hello.version, hello.legacy_version, list(hello.versions))
      log.info("ciphers=%s extensions=%s groups=%s points=%s signatures=%d", list(hello.ciphers),
         list(hello.extensions), list(hello.groups), list(hello.point_formats), #hello.signature_algorithms)
      log.info("ja3=%s", hello.ja3)
      log.info("ja3_hash=%s ja4=%s", hello.ja3_hash, hello.ja4)
      assert(conn:client_hello().ja3 == hello.ja3 and #hello.message == 4 + hello.message:byte(3) * 256
         + hello.message:byte(4))
      conn:splice(origin)
   end }
   ml.listen { address = "127.0.0.1:0", l4 = function(conn)
      local first, why, some = conn:peek(4, { timeout = "300ms" })
      log.info("peek %s %s %s", tostring(first), tostring(why), tostring(some))
      if first then
         log.info("again %s", conn:peek(2))
         conn:splice(origin)
      end
   end }
   ml.listen { address = "127.0.0.1:0", l4 = function(conn)
      log.info("detect %s", tostring(conn:detect { timeout = "300ms" }))
   end }
   local other
   ml.listen { address = "127.0.0.1:0", l4 = function(conn)
      for _, call in ipairs {
         function() conn:peek(100000) end,
         function() conn:peek "x" end,
         function() conn:client_hello { tiemout = 1 } end,
         function() other = other or conn assert(other ~= conn) other:peek(1) end,
      } do
         log.info("misuse: %s", select(2, pcall(call)))
      end
      if other == conn then
         ml.sleep(30)
      end
   end }
   ml.listen { address = "127.0.0.1:0", setup_timeout = "100ms", l4 = function(conn)
      conn:on_close(function(_, result) log.info("over: %s", result.reason) end)
      log.info("never: %s", tostring(conn:peek(1)))
   end }
   local http = ml.http { chain = ml.text "hello" }
   ml.listen { udp = "127.0.0.1:0", l4 = function(conn)
      for _, what in ipairs { "client_hello", "detect", "serve" } do
         log.info("flow: %s", select(2, pcall(conn[what], conn, what == "serve" and http or nil)))
      end
   end }
]]
local HELLO, PEEK, DETECT, MISUSE, SHORT, FLOW = 1, 2, 3, 4, 5, 6

local function sample(name)
   return process.read_file("spec/fuzz/corpus/client_hello/" .. name)
end

t.on_both_backends("layers that look at a client's first bytes", function(backend)
   local origin, proxy = t.proxied(backend, { site = LAYERS, listeners = 6 })
   local offset

   local function connect(listener)
      offset = #proxy():log()
      return proxy():connect { address = proxy().addresses[listener] }
   end

   local function await(pattern)
      return proxy():await_log(pattern, offset)
   end

   --- Sends the pieces one by one; each must have arrived before the next is sent.
   local function send_pieces(client, bytes, size)
      for at = 1, #bytes, size do
         client:send(bytes:sub(at, at + size - 1))
         if at % 32 < size then
            t.tasks.sleep(0.001)
         end
      end
   end

   t.it("are told all of a hello", function()
      local client = connect(HELLO)
      client:send(sample "openssl13")
      await("hello name=www.example.org alpn=h2,http/1.1 version=TLSv1.3 legacy=TLSv1.2 " ..
         "versions=TLSv1.3,TLSv1.2,TLSv1.1,TLSv1\n")
      await("ciphers=4866,4867,4865,.*,255 extensions=0,11,10,.-,51 groups=29,23,.* points=0,1,2 " ..
         "signatures=%d+")
      await "ja3=771,4866%-4867%-4865%-.-,0%-11%-10%-.-,29%-23%-.-,0%-1%-2\n"
      await "ja3_hash=5a1edc7f170af1014fc65c994878e63c ja4=t13d3111h2_e8f1e7e78f70_1f22a2ca17c4"
      local peer = origin:accept()
      assert.equal(sample "openssl13", peer:read(#sample "openssl13"))
   end)

   t.it("are told of older ones that there is no name and no list", function()
      connect(HELLO):send(sample "openssl12")
      await "hello name=nil alpn= version=TLSv1.2 legacy=TLSv1.2 versions=TLSv1.2\n"
   end)

   t.it("see hellos that come byte by byte, in many records, or both", function()
      for _, case in ipairs { { "openssl13", 1 }, { "records_of_7", 4096 }, { "records_of_7", 1 } } do
         local bytes = sample(case[1])
         local client = connect(HELLO)
         send_pieces(client, bytes, case[2])
         await "ja3_hash=5a1edc7f170af1014fc65c994878e63c"
         client:send "and more"
         assert.equal(bytes .. "and more", origin:accept():read(#bytes + 8))
      end
   end)

   t.it("are told why there is none", function()
      local whole = sample "openssl13"
      local damaged = whole:sub(1, 43) .. "\255" .. whole:sub(45) -- a session id longer than there may be
      for _, case in ipairs {
         { "", "timeout" }, { whole:sub(1, 200), "timeout" }, { "GET / HTTP/1.1\r\n\r\n", "not tls" },
         { "\128\46\1\3\1", "not tls" }, { damaged, "malformed" }, { "\22\3\1\64\0\1\1\0\0", "too large" },
         { ("\22\3\1\0\1\1"):rep(3) .. ("\22\3\1\0\1\0"):rep(6000), "too large" },
      } do
         local client = connect(HELLO)
         client:try_send(case[1])
         await("no hello: " .. case[2] .. "\n")
      end
      for _, text in ipairs { "", whole:sub(1, 338) } do
         connect(HELLO):send(text):half_close()
         await "no hello: closed\n"
      end
   end)

   t.it("are given up when the client has gone", function()
      local client = connect(HELLO)
      client:send(sample("openssl13"):sub(1, 100))
      client:reset()
      await "no hello: closed\n"
   end)

   t.it("peek", function()
      local client = connect(PEEK)
      send_pieces(client, "12345", 1)
      await "peek 1234 nil nil\n"
      await "again 12\n"
      assert.equal("12345", origin:accept():read(5))
      connect(PEEK):send "123"
      await "peek nil timeout 123\n"
      connect(PEEK):send("123"):half_close()
      await "peek 123 nil nil\n"
      assert.equal("123", origin:accept():read_all())
   end)

   t.it("tell protocols apart", function()
      for text, expected in pairs {
         ["GET / HTTP/1.1\r\n"] = "http", ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] = "h2c",
         [sample "curl"] = "tls", ["SSH-2.0-x\r\n"] = "other", ["PRI * HTTP/2.0"] = "other", [""] = "other",
      } do
         connect(DETECT):send(text)
         await("detect " .. expected .. "\n")
      end
      send_pieces(connect(DETECT), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 1)
      await "detect h2c\n"
   end)

   t.it("are told what they did wrong", function()
      local first = connect(MISUSE)
      await "misuse: .*site.lua:%d+: peek: expected at most 16384 bytes, not 100000"
      await 'misuse: .*peek: expected a whole number, 0 or more, not "x"'
      await 'misuse: .*client_hello: unknown option "tiemout"; did you mean "timeout"'
      connect(MISUSE)
      await "misuse: .*site.lua:%d+: peek can be called only while its own layer is running"
      first:reset()
   end)

   t.it("find no stream where there are datagrams", function()
      offset = #proxy():log()
      t.udp.bind():send("x", (proxy().addresses[FLOW]:gsub("^udp:", "")))
      await "flow: client_hello: a flow of datagrams has no stream to look at"
      await "flow: detect: a flow of datagrams has no stream to look at"
      await "flow: serve: a flow of datagrams cannot be served by HTTP"
   end)

   t.it("may not wait for ever", function()
      connect(SHORT):expect_close()
      await "over: setup_timeout"
      assert.is_nil(proxy():log(offset):find("never:", 1, true))
   end)
end)
