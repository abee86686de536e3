--- The PROXY protocol from proxies in front of the program: who may speak it, and what it changes.
local t = require "spec.support"
local h2 = require "spec.support.h2"
local pp = require "spec.support.proxy_protocol"

local cjson = require "cjson"

local socket, tls_socket = t.socket, t.tls_socket

local V1 = "PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\r\n"
local ENDS = pp.ends("192.0.2.1", 40000, "198.51.100.7", 443)

--- A listener answers with what a script sees of the client; those of layer 4 say it first.
local SITE = [[
   local ml = require "monolake"
   local json = require "monolake.json"
   local function about(of)
      local proxy, sizes = of.proxy, {}
      if proxy then
         for kind, value in pairs(proxy.tlvs) do
            sizes[tostring(kind)] = #value
         end
         proxy.tlvs = sizes
      end
      return { ip = of.ip, port = of.port, local_ip = of.local_ip, local_port = of.local_port,
         proxy = proxy }
   end
   local origin = ml.upstream { "${origin}", name = "origin", x_forwarded = true }
   local http = { ml.access_log { path = "${directory}/log", format = "json" }, ml.router {
      ["/forward"] = ml.proxy(origin),
      ["/*"] = function(req)
         return ml.json(about(req))
      end,
   } }
   local tunnels = ml.upstream { "${origin}", name = "tunnels", protocol = "tcp" }
   local function tell(conn, next)
      ml.log.info("tells %s", json.encode(about(conn)))
      conn:on_close(function(closed)
         ml.log.info("closed %s:%d by %s", closed.ip, closed.port,
            closed.proxy and closed.proxy.ip or "nobody")
      end)
      next(conn)
   end
   local from = { "127.0.0.0/8", "unix:" }
   ml.listen { address = "127.0.0.1:0", chain = http, proxy_protocol = { from = from } }
   ml.listen { address = "127.0.0.1:0", chain = http, protocols = { "h1", "h2c" },
      proxy_protocol = { from = from } }
   local l4 = { tell, ml.tcp_proxy(tunnels) }
   ml.listen { address = "127.0.0.1:0", l4 = l4, proxy_protocol = { from = from } }
   ml.listen { address = "127.0.0.1:0", l4 = l4,
      proxy_protocol = { from = from, timeout = "150ms", optional = true } }
   ml.listen { address = "127.0.0.1:0", chain = http, proxy_protocol = { from = from, timeout = "150ms" } }
   ml.listen { address = "127.0.0.1:0", chain = http,
      proxy_protocol = { from = { "10.0.0.0/8", "::1" } } }
   ml.listen { address = "127.0.0.1:0", chain = http, proxy_protocol = { from = from, optional = true } }
   ml.listen { address = "unix:${directory}/in.sock", chain = http, proxy_protocol = { from = "unix:" } }
   ml.listen { address = "[::1]:0", chain = http, proxy_protocol = { from = "::1" } }
]]
local HTTP, BOTH, L4, L4_OPTIONAL, HASTY, OTHERS, OPTIONAL, SIX = 1, 2, 3, 4, 5, 6, 7, 9

t.on_both_backends("the PROXY protocol", function(backend)
   local directory = t.process.directory()
   local origin, proxy = t.proxied(backend, {
      site = SITE, listeners = 9, values = { directory = directory } })

   local function connect(listener, bytes)
      local client = proxy():connect { address = proxy().addresses[listener or HTTP] }
      if bytes then
         client:send(bytes)
      end
      return client
   end

   local function ask(client)
      local response = client:exchange "GET / HTTP/1.1\nHost: a"
      assert.equal("200", tostring(response.status))
      return cjson.decode(response.body)
   end

   --- What a script sees of a client behind these bytes.
   local function seen(bytes, listener)
      local client = connect(listener, bytes)
      local result = ask(client)
      client:close()
      return result
   end

   local function refused(bytes, listener)
      local client = connect(listener, bytes)
      assert.equal("reset", client:expect_close())
   end

   --- The same, again and again until the log, which is limited in lines a second, says why.
   local function refused_for(why, refuse, ...)
      local offset, arguments, count = #proxy():log(), { ... }, select("#", ...)
      t.tasks.eventually(("%q in the log"):format(why), function()
         refuse(unpack(arguments, 1, count))
         return proxy():log(offset):find("refused: PROXY protocol: " .. why)
      end)
   end

   t.it("says who the client is", function()
      local result = seen(V1)
      assert.equal("192.0.2.1", result.ip)
      assert.equal(40000, result.port)
      assert.equal("198.51.100.7", result.local_ip)
      assert.equal(443, result.local_port)
      assert.equal("127.0.0.1", result.proxy.ip)
      assert.is_true(result.proxy.port > 0)
      assert.equal(1, result.proxy.version)
      result = seen(pp.v2(pp.STREAM4, ENDS))
      assert.equal("192.0.2.1", result.ip)
      assert.equal(2, result.proxy.version)
      assert.is_nil(result.proxy.ssl)
   end)

   t.it("knows all families", function()
      assert.equal("2001:db8::1", seen("PROXY TCP6 2001:db8::1 ::1 1 2\r\n").ip)
      assert.equal("192.0.2.9", seen("PROXY TCP6 ::ffff:192.0.2.9 ::ffff:192.0.2.8 1 2\r\n").ip)
      assert.equal("2001:db8::1", seen(pp.v2(pp.STREAM6, pp.ends("2001:db8::1", 1, "::1", 2))).ip)
      assert.equal("192.0.2.1", seen(pp.v2(pp.DATAGRAM4, ENDS)).ip)
      local result = seen(pp.v2(pp.LOCAL_STREAM, ("/run/client\0"):rep(18)))
      assert.equal("unix:", result.ip)
      assert.equal(0, result.port)
   end)

   t.it("keeps the real addresses where the header tells of none", function()
      for _, bytes in ipairs { "PROXY UNKNOWN\r\n", "PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n",
         pp.v2(pp.UNSPEC, ""), pp.v2(0, "", 0x20), pp.v2(pp.STREAM4, ENDS, 0x20),
         pp.v2(0xff, "junk", 0x20) } do
         local client = connect(HTTP, bytes)
         local result = ask(client)
         assert.equal("127.0.0.1", result.ip)
         assert.equal(t.sys.port(client.fd), result.port)
      end
      assert.is_nil(seen(pp.v2(0, "", 0x20)).proxy)
      assert.equal(1, seen("PROXY UNKNOWN\r\n").proxy.version)
   end)

   t.it("shows what else a header says", function()
      local result = seen(pp.with_checksum(pp.STREAM4, ENDS ..
         pp.tlv(pp.ALPN, "h2") .. pp.tlv(pp.AUTHORITY, "www.example") .. pp.tlv(pp.NOOP, "...") ..
         pp.tlv(pp.UNIQUE_ID, "id 7") .. pp.tlv(pp.NETNS, "blue") .. pp.tlv(0xea, "\1vpce-7") ..
         pp.ssl(7, 0, pp.tlv(pp.SSL_VERSION, "TLSv1.3"), pp.tlv(pp.SSL_CN, "alice"),
            pp.tlv(pp.SSL_CIPHER, "AES"), pp.tlv(pp.SSL_SIG_ALG, "SHA256"), pp.tlv(pp.SSL_KEY_ALG, "EC256"))))
      local about = result.proxy
      assert.equal("h2", about.alpn)
      assert.equal("www.example", about.authority)
      assert.equal("id 7", about.unique_id)
      assert.same({ version = "TLSv1.3", cn = "alice", cipher = "AES", sig_alg = "SHA256", key_alg = "EC256",
         verified = true }, about.ssl)
      assert.equal(7, about.tlvs[tostring(0xea)])
      assert.equal(4, about.tlvs[tostring(pp.NETNS)])
   end)

   t.it("takes a certificate for verified only if it was", function()
      local function ssl(flags, verdict)
         return seen(pp.v2(pp.STREAM4, ENDS .. pp.ssl(flags, verdict))).proxy.ssl
      end
      assert.same({ verified = true }, ssl(3, 0))
      assert.same({ verified = true }, ssl(5, 0))
      assert.same({ verified = false }, ssl(3, 18))
      assert.same({ verified = false }, ssl(1, 0))
      assert.is_nil(ssl(0, 0))
   end)

   t.it("is read however it is cut", function()
      local long = pp.with_checksum(pp.STREAM4, ENDS .. pp.tlv(pp.AUTHORITY, "www.example"))
      for _, header in ipairs { V1, long } do
         local clients, parts = {}, {}
         for cut = 1, #header do
            clients[cut] = connect(HTTP, header:sub(1, cut))
            parts[cut] = header:sub(cut + 1)
         end
         for cut = 1, #header do
            clients[cut]:send(parts[cut])
            assert.equal("192.0.2.1", ask(clients[cut]).ip)
            clients[cut]:close()
         end
         local client = connect()
         for i = 1, #header do
            client:send(header:sub(i, i))
            t.tasks.sleep(0)
         end
         assert.equal("192.0.2.1", ask(client).ip)
      end
   end)

   t.it("may be long, and may come with what follows it", function()
      local head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
      local header = pp.v2(pp.STREAM4, ENDS .. pp.tlv(pp.NOOP, ("x"):rep(16000)))
      local client = connect(HTTP, header .. head .. head)
      for _ = 1, 2 do
         assert.equal("192.0.2.1", cjson.decode(client:read_response().body).ip)
      end
      refused_for("it is longer than 16 KiB", refused,
         pp.v2(pp.STREAM4, ENDS .. pp.tlv(pp.NOOP, ("x"):rep(16400))))
   end)

   t.it("comes before HTTP/2 in the clear and HTTP/1 at one port", function()
      assert.equal("192.0.2.1", seen(V1, BOTH).ip)
      local client = h2.connect(proxy().addresses[BOTH], { before = pp.v2(pp.STREAM4, ENDS) })
      assert.equal("192.0.2.1", cjson.decode(client:get("/").body).ip)
   end)

   t.it("is what logs and origins are told", function()
      local client = connect(HTTP, V1)
      client:send_head "GET /forward HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      local request = upstream:read_request()
      assert.equal("192.0.2.1", request:get "x-forwarded-for")
      upstream:respond(200, "ok")
      client:read_response()
      t.tasks.eventually("a line in the log", function()
         local handle = io.open(directory .. "/log")
         local text = handle and handle:read "*a" or ""
         if handle then
            handle:close()
         end
         return text:match '"remote":"192%.0%.2%.1"[^\n]*/forward'
      end)
   end)

   t.it("serves layer 4, where the server may speak first", function()
      local client = connect(L4, V1)
      local peer = origin:accept()
      peer:send "greeting"
      assert.equal("greeting", client:read(8))
      assert.equal("192.0.2.1", cjson.decode(proxy():await_log 'tells ({[^\n]*})').ip)
      client:send("bye"):half_close()
      assert.equal("bye", peer:read_all())
      peer:close()
      assert.equal("", client:read_all())
      proxy():await_log "closed 192.0.2.1:40000 by 127.0.0.1"
      connect(L4, pp.v2(pp.STREAM4, ENDS) .. "at once")
      peer = origin:accept()
      assert.equal("at once", peer:read(7))
   end)

   t.it("serves a proxy on a unix socket or by IPv6", function()
      local client = socket.connect("unix:" .. directory .. "/in.sock")
      client:send(V1)
      local result = ask(client)
      assert.equal("192.0.2.1", result.ip)
      assert.equal("unix:", result.proxy.ip)
      result = seen(V1, SIX)
      assert.equal("192.0.2.1", result.ip)
      assert.equal("::1", result.proxy.ip)
   end)

   t.it("refuses what is no header, and says so", function()
      refused_for("it begins with no PROXY protocol header", refused, "GET / HTTP/1.1\r\n")
      for _, bytes in ipairs {
         "PROXY TCP4 192.0.2.1 198.51.100.7 040000 443\r\n", "PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n",
         "PROXY TCP4 2001:db8::1 ::1 1 2\r\n", "PROXY " .. ("x"):rep(101),
         pp.SIGNATURE .. "\17", pp.v2(0x13, ENDS), pp.v2(pp.STREAM4, ENDS:sub(1, 11)),
         pp.v2(pp.STREAM4, ENDS .. "\1\0\9x"), pp.with_checksum(pp.STREAM4, ENDS):sub(1, -2) .. "?",
      } do
         refused(bytes)
         refused(bytes, OPTIONAL)
      end
   end)

   t.it("ends with a connection that ends within it", function()
      refused_for("the connection ended within its header", function()
         local client = connect(HTTP, V1:sub(1, 20))
         client:half_close()
         assert.equal("reset", client:expect_close())
      end)
      local client = connect()
      client:half_close()
      assert.equal("closed", client:expect_close())
      client = connect(HTTP, pp.v2(pp.STREAM4, ENDS):sub(1, 20))
      client:reset()
      assert.is_truthy(seen(V1))
   end)

   t.it("has to come in time", function()
      local begun = t.sys.clock()
      local slow = { connect(HASTY), connect(HASTY, "PROXY"),
         connect(HASTY, pp.v2(pp.STREAM4, ENDS):sub(1, -2)) }
      for _, client in ipairs(slow) do
         assert.equal("reset", client:expect_close())
      end
      assert.is_true(t.sys.clock() - begun > 0.1)
      refused_for("its header did not come in time", refused, "PROXY", HASTY)
      refused_for("no header came in time", refused, nil, HASTY)
   end)

   t.it("is not read from others", function()
      local result = seen(nil, OTHERS)
      assert.equal("127.0.0.1", result.ip)
      assert.is_nil(result.proxy)
      local client = connect(OTHERS, V1 .. "Host: a\r\n\r\n")
      assert.equal(400, client:read_response().status)
   end)

   t.it("may be optional", function()
      assert.equal("127.0.0.1", seen(nil, OPTIONAL).ip)
      assert.equal("192.0.2.1", seen(V1, OPTIONAL).ip)
      assert.equal("192.0.2.1", seen(pp.v2(pp.STREAM4, ENDS), OPTIONAL).ip)
      local client = connect(OPTIONAL, "P")
      t.tasks.sleep(0)
      client:send_head "UT / HTTP/1.1\nHost: a\nContent-Length: 0"
      assert.equal("127.0.0.1", cjson.decode(client:read_response().body).ip)
      client = connect(L4_OPTIONAL) -- it waits for the server to speak
      local peer = origin:accept()
      peer:send "greeting"
      assert.equal("greeting", client:read(8))
      client = connect(L4_OPTIONAL, V1)
      peer = origin:accept()
      peer:send "greeting"
      assert.equal("greeting", client:read(8))
   end)
end)

local ADMISSION = [[
   local ml = require "monolake"
   local function hi(req)
      return ml.text(req.ip)
   end
   local accept = { from = "127.0.0.1" }
   ml.listen { address = "127.0.0.1:0", chain = hi, proxy_protocol = accept, deny = "192.0.2.0/24" }
   ml.listen { address = "127.0.0.1:0", chain = hi, proxy_protocol = accept, allow = "192.0.2.0/24" }
   ml.listen { address = "127.0.0.1:0", chain = hi, proxy_protocol = accept, connections_per_source = 1 }
   ml.listen { address = "127.0.0.1:0", proxy_protocol = accept, thrift = function(req)
      return ml.thrift.exception(req.ip)
   end }
   ml.listen { address = "127.0.0.1:0", proxy_protocol = accept, l4 = ml.detect {
      http = ml.http { chain = function(req) return ml.text(req.ip .. " of " .. req.proxy.ip) end } } }
]]

t.on_both_backends("clients behind the PROXY protocol", function(backend)
   local proxy = t.serve { io = backend, site = ADMISSION, listeners = 5 }

   local function connect(listener, ip)
      local client = proxy():connect { address = proxy().addresses[listener] }
      client:send(("PROXY TCP4 %s 198.51.100.7 40000 443\r\n"):format(ip))
      return client
   end

   local function served(listener, ip)
      local client = connect(listener, ip)
      assert.equal(ip, client:exchange("GET / HTTP/1.1\nHost: a").body)
      return client
   end

   local function refused(listener, ip)
      assert.equal("reset", connect(listener, ip):expect_close())
   end

   t.it("are let in or not by their own addresses", function()
      refused(1, "192.0.2.1")
      served(1, "192.0.3.1")
      refused(2, "192.0.3.1")
      served(2, "192.0.2.1")
   end)

   t.it("are counted as sources of their own", function()
      local first = served(3, "192.0.2.1")
      refused(3, "192.0.2.1")
      served(3, "192.0.2.2")
      first:close()
      t.tasks.eventually("room for the first again", function()
         local client = connect(3, "192.0.2.1")
         client:try_send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
         return client:try_fill()
      end)
   end)

   t.it("are known to HTTP that layer 4 hands on to", function()
      for _, pause in ipairs { false, true } do
         local client = connect(5, "192.0.2.1")
         if pause then
            t.tasks.sleep(0.01)
         end
         assert.equal("192.0.2.1 of 127.0.0.1", client:exchange("GET / HTTP/1.1\nHost: a").body)
      end
   end)

   t.it("are known to Thrift, too", function()
      local client = connect(4, "192.0.2.1")
      client:send "\0\0\0\17\128\1\0\1\0\0\0\4ping\0\0\0\1\0"
      assert.is_truthy(client:read_until "192.0.2.1")
   end)
end)

local TLS_SITE = [[
   local ml = require "monolake"
   local tls, from = { cert = "a.pem", key = "a.key" }, "127.0.0.1"
   ml.listen { address = "127.0.0.1:0", tls = tls, proxy_protocol = { from = from },
      chain = { function(req) return ml.text(("%s %s %s"):format(req.ip, req.scheme, req.tls.name)) end } }
   ml.listen { address = "127.0.0.1:0", tls = tls, proxy_protocol = { from = from },
      l4 = { ml.tcp_proxy { "${origin}", name = "tunnels" } } }
]]

t.on_every_tls("the PROXY protocol before TLS", function(backend, library)
   local origin, proxy = t.proxied(backend, t.with_tls(backend, library, { site = TLS_SITE, listeners = 2 }))

   local function handshake(listener, ...)
      local client = proxy():connect { address = proxy().addresses[listener] }
      for _, piece in ipairs { ... } do
         client:send(piece)
         t.tasks.sleep(0)
      end
      return assert(tls_socket.try_handshake(client, { name = "a.example" }))
   end

   t.it("is read, however it comes", function()
      for _, header in ipairs { { V1 }, { pp.v2(pp.STREAM4, ENDS) }, { V1:sub(1, 20), V1:sub(21) } } do
         local client = handshake(1, unpack(header))
         assert.equal("192.0.2.1 https a.example", client:exchange("GET / HTTP/1.1\nHost: a").body)
         client:close()
      end
   end)

   t.it("is read together with a client's hello", function()
      local hello = t.relay.start(proxy().addresses[1], { before = V1 })
      local client = tls_socket.connect(hello.address, { name = "a.example" })
      assert.equal("192.0.2.1 https a.example", client:exchange("GET / HTTP/1.1\nHost: a").body)
   end)

   t.it("has to be there", function()
      assert.is_nil((tls_socket.try_connect(proxy().addresses[1], { name = "a.example" })))
   end)

   t.it("is read before layer 4", function()
      local client = handshake(2, V1)
      local peer = origin:accept()
      client:send "hello"
      assert.equal("hello", peer:read(5))
   end)
end)

t.on_both_backends("the end of the PROXY protocol", function(backend)
   local SMALL = [[
      local ml = require "monolake"
      ml.listen { address = "127.0.0.1:0", chain = { function(req) return ml.text(req.ip) end },
         proxy_protocol = ${accept} }
   ]]

   t.it("leaves connections alone that wait for a header when the program ends", function()
      local program = t.program.start { io = backend, site = SMALL,
         values = { accept = '{ from = "127.0.0.1" }' } }
      local waiting, partly = program:connect(), program:connect()
      partly:send(V1:sub(1, 30))
      t.tasks.sleep(0.05)
      program:stop()
      assert.equal("reset", waiting:expect_close())
      assert.equal("reset", partly:expect_close())
   end)

   t.it("follows a reload", function()
      local program = t.program.start { io = backend, site = SMALL,
         values = { accept = '{ from = "127.0.0.1" }' } }
      local partly = program:connect()
      partly:send(V1:sub(1, 30))
      program.values.accept = "nil"
      program:write("site.lua", SMALL)
      program:reload()
      assert.equal("127.0.0.1", program:exchange("GET / HTTP/1.1\nHost: a").body)
      partly:send(V1:sub(31))
      assert.equal("192.0.2.1", partly:exchange("GET / HTTP/1.1\nHost: a").body)
   end)
end)

describe("options of the PROXY protocol", function()
   local function check(accept)
      local _, err, status = t.program.check { site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", chain = { ml.text "" }, proxy_protocol = ]] .. accept .. " }" }
      return status == 0 or err
   end

   t.it("are checked when the site is loaded", function()
      assert.is_true(check '{ from = { "10.0.0.0/8", "unix:", ml.cidr "::1" }, timeout = 3 }')
      local unsaid = "site.lua:2: listen: proxy_protocol: expected who may send headers"
      assert.matches(unsaid, check "{}")
      assert.matches(unsaid, check "{ from = {} }")
      assert.matches('site.lua:2: listen: proxy_protocol: from: "10.0.0.0/33" ',
         check '{ from = "10.0.0.0/33" }')
      assert.matches("listen: proxy_protocol: from: expected prefixes", check "{ from = { 7 } }")
      assert.matches('unknown option "form"; did you mean "from"', check '{ form = "::1" }')
      assert.matches("listen: proxy_protocol: expected a table, not true", check "true")
      local _, err = t.program.check { site = [[
         local ml = require "monolake"
         ml.listen { udp = "127.0.0.1:0", proxy_protocol = { from = "::1" },
            l4 = ml.udp_proxy "127.0.0.1:53" }]] }
      assert.matches("listen: proxy_protocol: headers are not read from datagrams", err)
   end)
end)
