--- One port for all: HTTP/1, HTTP/2 in the clear, TLS that is ended here, TLS that is passed through, and
--- whatever else there is.
local t = require "spec.support"
local tls_origin = require "spec.support.tls_origin"

local process = t.process

local SITE = [[
   local ml = require "monolake"
   local other = ml.upstream { "${other}", name = "other", protocol = "tcp" }
   local passed = ml.upstream { "${passed}", name = "passed", protocol = "tcp" }

   local function about(req)
      return ml.text(("${version} %s %s %s %s\n"):format(req.scheme, req.version,
         req.tls and req.tls.name or "-", req.port > 0 and req.ip or "?"))
   end
   local chain = { ml.router {
      ["GET /about"] = about,
      ["POST /echo"] = function(req) return ml.response { body = req:body() } end,
      ["GET /slow"] = function(req) ml.sleep(0.3) return about(req) end,
   } }
   local certificate = { cert = "a.pem", key = "a.key" }
   local secure = ml.http { chain = chain, tls = certificate }
   local plain = ml.http { chain = chain, protocols = { "h1", "h2c" } }

   local function told(conn, next)
      conn:on_close(function(_, result)
         ml.log.info("ended %s %d", result.reason, result.client_bytes)
      end)
      next(conn)
   end

   ml.listen { address = "127.0.0.1:0", l4 = { told, ml.detect {
      tls = secure, http = plain, other = ml.tcp_proxy(other), timeout = "${timeout}" } } }
   -- TLS that is ended here beside TLS that is passed through, on one port, by name.
   ml.listen { address = "127.0.0.1:0", l4 = { told, function(conn, next)
      local hello, why = conn:client_hello { timeout = "300ms" }
      if hello and hello.name == "b.example" then
         return next(conn)
      elseif hello or why == "not tls" then
         return conn:serve(hello and secure or plain)
      end
      conn:reset()
   end, ml.tcp_proxy(passed) } }
   -- Behind TLS of the listener's own.
   ml.listen { address = "127.0.0.1:0", tls = certificate, l4 = ml.detect {
      http = ml.http { chain = chain }, other = ml.tcp_proxy(other), timeout = "${timeout}" } }
   -- What nobody was named for goes on behind.
   ml.listen { address = "127.0.0.1:0", l4 = {
      ml.detect { http = ml.http { chain = chain }, timeout = "${timeout}" },
      function(conn) ml.log.info("behind, %s", conn:peek(1) or "nothing") conn:close() end } }
   -- Wrong, as is found when it happens.
   ml.listen { address = "127.0.0.1:0", tls = certificate, l4 = secure }
   ml.listen { address = "127.0.0.1:0", l4 = function(conn)
      ml.log.info("serve: %s", select(2, pcall(conn.serve, conn, {})))
      conn:peek(1)
      conn:serve(plain)
      ml.log.info("serve: %s", select(2, pcall(conn.serve, conn, plain)))
      error "broken behind serve"
   end }
]]
local DETECT, MIXED, BEHIND_TLS, REST, TWICE, BROKEN = 1, 2, 3, 4, 5, 6

t.on_both_backends("detection", function(backend)
   local library = backend == "io_uring" and "openssl" or "gnutls"
   local offset, other, passed
   local running = t.serve(function()
      other, passed = t.socket.listen(), tls_origin.start "b"
      return t.with_tls(backend, library, { site = SITE, listeners = 6,
         values = {
            other = other.address, passed = passed.address, version = "first", timeout = "300ms",
         } })
   end)

   before_each(function()
      other:drop_pending()
   end)

   teardown(function()
      other:close()
      passed:stop()
   end)

   local function connect(listener)
      offset = #running():log()
      return running():connect { address = running().addresses[listener] }
   end

   local function await(pattern)
      return running():await_log(pattern, offset)
   end

   local function run(listener, command)
      offset = #running():log()
      local argv = {}
      for word in command:gmatch "%S+" do
         argv[#argv + 1] = word:gsub("@(%l+%.pem)", function(name) return running():path(name) end)
            :gsub("@large", running():path "large")
            :gsub("@port", running().addresses[listener]:match ":(%d+)$")
      end
      return process.run(argv)
   end

   --- Sends a request with curl.
   local function curl(listener, name, scheme, options)
      local command = "curl -sS --resolve %s:@port:127.0.0.1 --cacert @ca.pem %s %s://%s:@port/about"
      return run(listener, command:format(name, options or "", scheme, name))
   end

   t.it("serves HTTP/1, HTTP/2 and TLS on one port", function()
      assert.equal("first http 1.1 - 127.0.0.1\n", (curl(DETECT, "a.example", "http")))
      await "ended served 0\n"
      assert.equal("first http 2 - 127.0.0.1\n",
         (curl(DETECT, "a.example", "http", "--http2-prior-knowledge")))
      await "ended served 0\n"
      assert.equal("first https 1.1 a.example 127.0.0.1\n", (curl(DETECT, "a.example", "https", "--http1.1")))
      assert.equal("first https 2 a.example 127.0.0.1\n", (curl(DETECT, "a.example", "https", "--http2")))
      await "ended served 0\n"
   end)

   t.it("loses nothing of what came before it had decided", function()
      local body = ("0123456789abcdef"):rep(20000)
      running():write("large", body)
      for _, options in ipairs { "--http1.1", "--http2" } do
         local out = run(DETECT, ("curl -sS --resolve a.example:@port:127.0.0.1 --cacert @ca.pem " ..
            "%s --data-binary @@large -H Expect: https://a.example:@port/echo"):format(options))
         assert.is_true(out == body, options)
      end
      local client = connect(DETECT)
      for piece in ("GET /about HTTP/1.1\r\nHost: a\r\n\r\n"):rep(2):gmatch "." do
         client:send(piece)
      end
      for _ = 1, 2 do
         assert.equal("first http 1.1 - 127.0.0.1\n", client:read_response().body)
      end
   end)

   t.it("takes the others to their upstream", function()
      connect(DETECT):send "SSH-2.0-client\r\n"
      assert.equal("SSH-2.0-client\r\n", other:accept():read(16))
      local client = connect(DETECT) -- the server speaks first
      other:accept():send "220 hello\r\n"
      assert.equal("220 hello\r\n", client:read(11))
      connect(DETECT):send "GE"
      assert.equal("GE", other:accept():read(2))
   end)

   t.it("ends TLS for one name and passes it through for another", function()
      assert.equal("first https 1.1 a.example 127.0.0.1\n", (curl(MIXED, "a.example", "https", "--http1.1")))
      await "ended served 0\n"
      local page, err, status = curl(MIXED, "b.example", "https")
      assert.equal(0, status, err)
      assert.matches("s_server", page)
      await "ended %a+ [1-9]%d+\n"
      assert.equal("first http 1.1 - 127.0.0.1\n", (curl(MIXED, "a.example", "http")))
      local out = run(MIXED, "openssl s_client -connect 127.0.0.1:@port -servername b.example " ..
         "-CAfile @ca.pem -verify_return_error -verify_hostname b.example")
      assert.matches("Verify return code: 0 %(ok%)", out)
      assert.matches("subject=CN = b\n", out)
   end)

   t.it("works behind TLS too", function()
      assert.equal("first https 1.1 a.example 127.0.0.1\n",
         (curl(BEHIND_TLS, "a.example", "https", "--http1.1")))
   end)

   t.it("leaves the rest to what stands behind", function()
      connect(REST):send "x"
      await "behind, x\n"
      connect(REST):half_close()
      await "behind, \n"
   end)

   t.it("refuses TLS inside TLS", function()
      local _, _, status = curl(TWICE, "a.example", "https")
      assert.not_equal(0, status)
   end)

   t.it("resets what a layer fails for behind serve", function()
      local client = connect(BROKEN):send "x"
      assert.equal("reset", client:expect_close())
      await "serve: .*expected what ml.http has made while the site was loaded"
      await "serve: .*the connection has a peer already"
      await "broken behind serve"
   end)

   t.it("goes on over reloads, and ends old connections in order", function()
      local client = connect(DETECT)
      client:send_head "GET /about HTTP/1.1\nHost: a"
      assert.equal("first http 1.1 - 127.0.0.1\n", client:read_response().body)
      local busy = connect(DETECT)
      busy:send_head "GET /slow HTTP/1.1\nHost: a"
      local undecided = connect(DETECT)
      undecided:send "GET /ab"
      running().values.version = "second"
      running():write("site.lua", SITE)
      running():reload()
      undecided:send "out HTTP/1.1\r\nHost: a\r\n\r\n"
      assert.matches("^%a+ http 1.1", undecided:read_response().body)
      local last = busy:read_response()
      assert.equal("first http 1.1 - 127.0.0.1\n", last.body)
      assert.equal("close", last:get "connection")
      assert.equal("closed", client:expect_close())
      assert.equal("second http 1.1 - 127.0.0.1\n", (curl(DETECT, "a.example", "http")))
      assert.equal("second https 2 a.example 127.0.0.1\n", (curl(MIXED, "a.example", "https", "--http2")))
   end)
end)

t.on_both_backends("detection, when the program ends", function(backend)
   t.it("lets what is under way end, and closes what is idle", function()
      local running = t.program.start(t.with_tls(backend, "openssl", { site = SITE, listeners = 6,
         values = { other = "127.0.0.1:1", passed = "127.0.0.1:1", version = "only", timeout = "5s" } }))
      local idle, busy, undecided = running:connect(), running:connect(), running:connect()
      local secure = t.tls_socket.connect(running.address, { name = "a.example" })
      for _, client in ipairs { idle, secure } do
         client:send_head "GET /about HTTP/1.1\nHost: a"
         assert.equal(200, client:read_response().status)
      end
      undecided:send "GE"
      busy:send_head "GET /slow HTTP/1.1\nHost: a"
      local stopped = t.start_task(function()
         running:stop()
      end)
      assert.equal("only http 1.1 - 127.0.0.1\n", busy:read_response().body)
      undecided:send "T /about HTTP/1.1\r\nHost: a\r\n\r\n"
      local last = undecided:read_response()
      assert.equal(200, last.status)
      assert.equal("close", last:get "connection")
      for _, client in ipairs { idle, secure, busy, undecided } do
         assert.equal("closed", client:expect_close())
      end
      stopped:join()
   end)
end)

describe("a site with detection", function()
   local function refused(site, pattern)
      local _, err, status = t.program.check { site = 'local ml = require "monolake"\n' .. site }
      assert.equal(1, status)
      assert.matches(pattern, err)
   end

   teardown(process.remove_directories)

   t.it("is checked", function()
      refused("ml.detect {}", "site.lua:2: detect: expected who serves tls, http, h2c or other")
      refused("ml.detect { htpp = 1 }", 'unknown option "htpp"; did you mean "http"')
      refused("ml.http {}", "site.lua:2: http: expected a chain")
      refused('ml.http { chain = {}, connections_max = 1 }', 'http: unknown option "connections_max"')
      refused('ml.detect { h2c = ml.http { chain = {} } }',
         'site.lua:2: detect: h2c: expected HTTP that speaks it: protocols = { "h2c" }')
      refused("ml.detect { tls = ml.http { chain = {} } }",
         "site.lua:2: detect: tls: expected HTTP that has an option tls")
      refused("ml.detect { http = ml.http { chain = {}, tls = { on_client_hello = print } } }",
         "site.lua:2: detect: http: expected HTTP without an option tls")
      refused('ml.listen { address = "127.0.0.1:0", chain = ml.http { chain = {} } }',
         "site.lua:2: http is a layer of layer 4 and cannot stand in a chain of HTTP")
      refused('ml.listen { address = "127.0.0.1:0", l4 = ml.detect { tls = ml.proxy "127.0.0.1:1" } }',
         "site.lua:2: proxy 127.0.0.1:1 is a layer of HTTP and cannot stand in a chain of layer 4")
   end)

   t.it("is described", function()
      local out, err, status = t.program.check { site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:3306", l4 = ml.detect {
            http = ml.http { chain = ml.text "hello" }, other = ml.tcp_proxy "127.0.0.1:1" } }
      ]] }
      assert.equal(0, status, err)
      assert.matches("  detect\n    http\n      http\n        chain\n          response 200, 5 bytes\n", out)
      assert.matches("    other\n      tcp_proxy 127.0.0.1:1\n", out)
   end)
end)
