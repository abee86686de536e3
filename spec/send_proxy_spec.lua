--- The PROXY protocol towards peers: what they are told of clients, byte by byte, and that no request
--- travels under another client's address.
local t = require "spec.support"
local pp = require "spec.support.proxy_protocol"

local socket, tls_socket = t.socket, t.tls_socket

local SITE = [[
   local ml = require "monolake"
   local ALL = { "alpn", "authority", "ssl", "unique_id", "crc32c" }
   local function http(options)
      options[1] = options[1] or "${origin}"
      return { ml.proxy(ml.upstream(options)) }
   end
   local function tcp(options, ...)
      options.protocol = "tcp"
      options[1] = options[1] or "${origin}"
      return { ml.tcp_proxy(ml.upstream(options), ...) }
   end
   local from = { "127.0.0.1", "unix:" }
   local v1, v2 = http { name = "v1", send_proxy = "v1" }, http { name = "v2", send_proxy = "v2" }
   ml.listen { address = "127.0.0.1:0", chain = v1 }
   ml.listen { address = { "127.0.0.1:0", "[::1]:0", "unix:${directory}/in.sock" }, chain = v2 }
   ml.listen { address = "127.0.0.1:0", l4 = tcp { name = "l4 v1", send_proxy = "v1" } }
   ml.listen { address = "127.0.0.1:0", l4 = tcp { name = "l4 v2", send_proxy = "v2" } }
   ml.listen { address = "127.0.0.1:0", proxy_protocol = { from = from, optional = true },
      chain = http { name = "all", send_proxy = { version = 2, tlvs = ALL } } }
   ml.listen { address = "127.0.0.1:0",
      chain = http { name = "narrow", send_proxy = "v2", connections_max = 1 } }
   ml.listen { address = "127.0.0.1:0", chain = http { "${refusing}", "${origin}", name = "retries",
      send_proxy = "v1", fail_max = 0 } }
   ml.listen { address = "127.0.0.1:0", proxy_protocol = { from = from, optional = true }, chain = v1 }
   ml.listen { address = "127.0.0.1:0",
      chain = http { name = "busy", send_proxy = "v1", connections_max = 4 } }
]]
local V1, V2, V2_SIX, V2_LOCAL, L4_V1, L4_V2, ALL, NARROW, RETRIES, CHAINED, BUSY =
   1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11

t.on_both_backends("PROXY protocol headers to peers", function(backend)
   local directory = t.process.directory()
   local origin, proxy = t.proxied(backend, {
      site = SITE, listeners = 11, values = { directory = directory, refusing = socket.refusing_address() } })

   local function connect(listener)
      return proxy():connect { address = proxy().addresses[listener] }
   end

   local function port_of(client)
      return t.sys.port(client.fd)
   end

   local function listening_port(listener)
      return tonumber(proxy().addresses[listener]:match "%d+$")
   end

   local function line_of(client, listener)
      return ("PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n"):format(port_of(client), listening_port(listener))
   end

   local function get(client, path)
      client:send_head(("GET %s HTTP/1.1\nHost: a"):format(path or "/"))
   end

   --- Answers the request that comes now.
   local function answer(peer, client)
      local request = peer:read_request()
      peer:respond(200, request.target or "ok")
      return client:read_response()
   end

   t.it("tell of the client in version 1", function()
      local client = connect(V1)
      get(client)
      local peer = origin:accept()
      assert.equal(line_of(client, V1), peer:read_until "\n")
      assert.equal(200, answer(peer, client).status)
      get(client, "/again") -- on the same connection, without another header
      assert.equal(200, answer(peer, client).status)
   end)

   t.it("tell of the client in version 2", function()
      local client = connect(V2)
      get(client)
      local peer = origin:accept()
      local header = pp.read_v2(peer)
      assert.equal(pp.v2(pp.STREAM4,
         pp.ends("127.0.0.1", port_of(client), "127.0.0.1", listening_port(V2))), header.bytes)
      assert.equal(200, answer(peer, client).status)
   end)

   t.it("tell of IPv6 and of unix sockets", function()
      local client = connect(V2_SIX)
      get(client)
      local peer = origin:accept()
      assert.equal(pp.v2(pp.STREAM6, pp.ends("::1", port_of(client), "::1", listening_port(V2_SIX))),
         pp.read_v2(peer).bytes)
      answer(peer, client)
      client = connect(V2_LOCAL)
      get(client)
      peer = origin:accept()
      local path = directory .. "/in.sock"
      assert.equal(pp.v2(pp.LOCAL_STREAM, ("\0"):rep(108) .. path .. ("\0"):rep(108 - #path)),
         pp.read_v2(peer).bytes)
      answer(peer, client)
   end)

   t.it("go first of all in layer 4, whoever speaks first", function()
      for _, listener in ipairs { L4_V1, L4_V2 } do
         local function expected(client)
            return listener == L4_V1 and line_of(client, listener) or pp.v2(pp.STREAM4,
               pp.ends("127.0.0.1", port_of(client), "127.0.0.1", listening_port(listener)))
         end
         local client = connect(listener)
         local peer = origin:accept()
         local header = expected(client)
         assert.equal(header, peer:read(#header))
         peer:send "greeting"
         assert.equal("greeting", client:read(8))
         client:send("bye"):half_close()
         assert.equal("bye", peer:read_all())
         peer:close()
         assert.equal("", client:read_all())

         client = connect(listener)
         client:send("at once"):half_close()
         peer = origin:accept()
         assert.equal(expected(client) .. "at once", peer:read_all())
      end
   end)

   t.it("are not those of another client", function()
      local peers = {}
      for turn = 1, 3 do
         local client = connect(V1)
         for _ = 1, 2 do
            get(client)
            local peer = peers[turn]
            if not peer then
               peer = origin:accept()
               peers[turn] = peer
               assert.equal(line_of(client, V1), peer:read_until "\n")
            end
            answer(peer, client)
         end
         client:close()
      end
   end)

   t.it("are not those of another client of the same proxy in front", function()
      local function chained(port)
         local client = connect(CHAINED)
         client:send(("PROXY TCP4 192.0.2.1 198.51.100.7 %d 443\r\n"):format(port))
         get(client)
         return client
      end
      local first = chained(1000)
      local peer = origin:accept()
      assert.equal("PROXY TCP4 192.0.2.1 198.51.100.7 1000 443\r\n", peer:read_until "\n")
      answer(peer, first)
      local second = chained(1001)
      local other = origin:accept()
      assert.equal("PROXY TCP4 192.0.2.1 198.51.100.7 1001 443\r\n", other:read_until "\n")
      answer(other, second)
      local third = chained(1000) -- the same client, by another connection in front
      answer(peer, third)
   end)

   t.it("are those of each request's client where many share few connections", function()
      local wrong, served = nil, 0
      local serving = t.start_task(function()
         while true do
            local peer = origin:accept(3600)
            t.start_task(function()
               local port = peer:read_until("\n"):match "^PROXY TCP4 127.0.0.1 127.0.0.1 (%d+) "
               while peer.buffer ~= "" or peer:try_fill(3600) do
                  local request = peer:read_request()
                  wrong = wrong or request:get "x-port" ~= port and request:get "x-port"
                  served = served + 1
                  peer:respond(200, port)
               end
               peer:close()
            end)
         end
      end)
      local clients = {}
      for i = 1, 24 do
         clients[i] = t.start_task(function()
            for _ = 1, 3 do
               local client = connect(i % 2 == 0 and BUSY or V1)
               for _ = 1, 4 do
                  local port = tostring(port_of(client))
                  local answered = client:exchange("GET / HTTP/1.1\nHost: a\nX-Port: " .. port)
                  assert.equal(port, answered.body)
               end
               client:close()
            end
         end)
      end
      for _, client in ipairs(clients) do
         client:join(30)
      end
      assert.is_falsy(wrong)
      assert.equal(24 * 3 * 4, served)
      assert.is_falsy(serving.done)
   end)

   t.it("make room where connections are few", function()
      for _ = 1, 3 do
         local client = connect(NARROW)
         get(client)
         local peer = origin:accept()
         pp.read_v2(peer)
         answer(peer, client) -- its connection stays, until the next client needs its place
      end
   end)

   t.it("keep nobody waiting for ever where connections are few and others ask all the time", function()
      local served, answered_at = 0, nil
      t.start_task(function()
         while true do
            local peer = origin:accept(3600)
            pp.read_v2(peer)
            t.start_task(function()
               while not peer.ended do
                  local ok, request = pcall(peer.read_request, peer, 3600)
                  served = served + 1
                  answered_at = ok and request.target == "/patient" and served or answered_at
                  peer:try_send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
               end
            end)
         end
      end)
      local eager, patient, asked_at = connect(NARROW), connect(NARROW), nil
      for i = 1, 100 do
         get(eager)
         assert.equal(200, eager:read_response().status)
         if i == 10 then
            get(patient, "/patient")
            asked_at = served
         end
      end
      assert.equal(200, patient:read_response().status)
      assert.is_true(answered_at - asked_at < 20, ("%d others went before"):format(answered_at - asked_at))
   end)

   t.it("are sent to the next peer, too, when one cannot be reached", function()
      for _ = 1, 4 do
         local client = connect(RETRIES)
         get(client)
         local peer = origin:accept()
         assert.equal(line_of(client, RETRIES), peer:read_until "\n")
         answer(peer, client)
      end
   end)

   t.it("pass on what a proxy in front has said", function()
      local ends = pp.ends("192.0.2.1", 40000, "198.51.100.7", 443)
      local ssl = pp.ssl(7, 0, pp.tlv(pp.SSL_VERSION, "TLSv1.2"), pp.tlv(pp.SSL_CN, "alice"),
         pp.tlv(pp.SSL_SIG_ALG, "SHA256"))
      local client = connect(ALL)
      client:send(pp.v2(pp.STREAM4, ends .. pp.tlv(pp.UNIQUE_ID, "\0id") ..
         pp.tlv(pp.AUTHORITY, "www.example") .. pp.tlv(pp.ALPN, "h2") .. ssl .. pp.tlv(pp.NETNS, "blue")))
      get(client)
      local peer = origin:accept()
      assert.equal(pp.with_checksum(pp.STREAM4, ends .. pp.tlv(pp.ALPN, "h2") ..
         pp.tlv(pp.AUTHORITY, "www.example") .. pp.tlv(pp.UNIQUE_ID, "\0id") .. ssl), pp.read_v2(peer).bytes)
      answer(peer, client)
      get(client)
      answer(peer, client)
   end)

   t.it("say of clients in the clear what there is to say", function()
      local client = connect(ALL)
      get(client)
      local header = pp.read_v2(origin:accept())
      local id = header.values[pp.UNIQUE_ID]
      assert.matches("^%x+%-%x+$", id)
      assert.equal(pp.with_checksum(pp.STREAM4, pp.ends("127.0.0.1", port_of(client), "127.0.0.1",
         listening_port(ALL)) .. pp.tlv(pp.UNIQUE_ID, id)), header.bytes)
   end)
end)

local TLS_SITE = [[
   local ml = require "monolake"
   local tls = { cert = "a.pem", key = "a.key", client_auth = "optional", client_ca = "ca.pem" }
   local told = { version = 2, tlvs = { "alpn", "authority", "ssl" } }
   ml.listen { address = "127.0.0.1:0", tls = tls,
      chain = { ml.proxy { "${origin}", name = "http", send_proxy = told } } }
   ml.listen { address = "127.0.0.1:0", tls = tls,
      l4 = { ml.tcp_proxy { "${origin}", name = "tcp", send_proxy = told } } }
   ml.listen { address = "127.0.0.1:0", chain = { ml.proxy { "https://${origin}", name = "secure",
      send_proxy = "v2", tls = { ca = "ca.pem", name = "a.example" } } } }
   ml.listen { address = "127.0.0.1:0", l4 = { ml.tcp_proxy { "https://${origin}", name = "secure tcp",
      send_proxy = "v1", tls = { ca = "ca.pem", name = "a.example" } } } }
]]

t.on_every_tls("PROXY protocol headers and TLS", function(backend, library)
   local origin, proxy = t.proxied(backend, t.with_tls(backend, library, { site = TLS_SITE, listeners = 4 }))
   local server = tls_socket.server { certificate = "a" }

   local function told(listener, options)
      options.name = "a.example"
      local client = tls_socket.connect(proxy().addresses[listener], options)
      if listener == 1 then
         client:send_head "GET / HTTP/1.1\nHost: a"
      end
      local peer = origin:accept()
      local values = pp.read_v2(peer).values
      return values, pp.values(values[pp.SSL]:sub(6)), client:agreed(), client, peer
   end

   t.it("tell of the client's TLS", function()
      for listener = 1, 2 do
         local values, ssl, agreed, client, peer = told(listener, { alpn = { "http/1.1" } })
         assert.equal("a.example", values[pp.AUTHORITY])
         assert.equal(agreed.alpn, values[pp.ALPN])
         assert.equal("\1\0\0\0\1", values[pp.SSL]:sub(1, 5))
         assert.same({ [pp.SSL_VERSION] = "TLSv1.3", [pp.SSL_CIPHER] = agreed.cipher }, ssl)
         peer:close()
         client:reset()
      end
   end)

   t.it("tell of a certificate, and do not lend its connection to others", function()
      local values, ssl, _, client, peer = told(1, { certificate = "client" })
      assert.equal("\7\0\0\0\0", values[pp.SSL]:sub(1, 5))
      assert.equal("client", ssl[pp.SSL_CN])
      peer:read_request()
      peer:respond(200, "ok")
      client:read_response()
      values = told(1, {})
      assert.equal("\1\0\0\0\1", values[pp.SSL]:sub(1, 5))
   end)

   t.it("go before TLS to the peer", function()
      local client = proxy():connect { address = proxy().addresses[3] }
      client:send_head "GET / HTTP/1.1\nHost: a"
      local accepted = origin:accept()
      assert.equal(pp.STREAM4, pp.read_v2(accepted).family)
      local peer = server:accept(accepted)
      peer:read_request()
      peer:respond(200, "ok")
      assert.equal("ok", client:read_response().body)

      client = proxy():connect { address = proxy().addresses[4] }
      accepted = origin:accept()
      assert.matches("^PROXY TCP4 127.0.0.1 127.0.0.1 %d+ %d+\r\n$", accepted:read_until "\n")
      peer = server:accept(accepted)
      peer:send "greeting"
      assert.equal("greeting", client:read(8))
   end)
end)

t.on_both_backends("a chain of two programs", function(backend)
   local SECOND = [[
      local ml = require "monolake"
      ml.listen { address = "127.0.0.1:0", proxy_protocol = { from = "127.0.0.1" },
         chain = { function(req) return ml.text(("%s:%d %s"):format(req.ip, req.port, req.proxy.ip)) end } }
   ]]
   local FIRST = [[
      local ml = require "monolake"
      ml.listen { address = "127.0.0.1:0", l4 = { ml.tcp_proxy { "${second}", send_proxy = "${version}" } } }
   ]]

   t.it("tells the last one who the client is", function()
      local second = t.program.start { io = backend, site = SECOND }
      for _, version in ipairs { "v1", "v2" } do
         local first = t.program.start { io = backend, site = FIRST,
            values = { second = second.address, version = version } }
         local client = first:connect()
         assert.equal(("127.0.0.1:%d 127.0.0.1"):format(t.sys.port(client.fd)),
            client:exchange("GET / HTTP/1.1\nHost: a").body)
         client:close()
      end
   end)

   t.it("follows a reload that begins or ends it", function()
      local origin = socket.listen()
      local SITE_OF = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0",
            chain = { ml.proxy { "${origin}", name = "o", send_proxy = ${send} } } }
      ]]
      local program = t.program.start { io = backend, site = SITE_OF,
         values = { origin = origin.address, send = "nil" } }
      local client = program:connect()
      local function change(send)
         program.values.send = send
         program:write("site.lua", SITE_OF)
         program:reload()
         client:send_head "GET / HTTP/1.1\nHost: a"
      end
      local function answer(peer)
         assert.equal("/", peer:read_request().target)
         peer:respond(200, "ok")
         assert.equal(200, client:read_response().status)
      end
      client:send_head "GET / HTTP/1.1\nHost: a"
      local plain = origin:accept()
      answer(plain)
      change '"v1"'
      local told = origin:accept()
      assert.matches("^PROXY TCP4 ", told:read_until "\n")
      answer(told)
      change "nil"
      answer(plain)
      change '"v1"'
      answer(told)
      origin:close()
   end)
end)

describe("options of PROXY protocol headers to peers", function()
   local function check(options)
      local out, err, status = t.program.check { site = [[
         local ml = require "monolake"
         ml.upstream { "127.0.0.1:1", name = "u", ]] .. options .. [[ }
         ml.listen { address = "127.0.0.1:0", chain = { ml.text "" } }]] }
      return status == 0 and out or err
   end

   t.it("are checked when the site is loaded", function()
      assert.matches("send_proxy=v1", check 'send_proxy = "v1"')
      assert.matches("send_proxy=v2}", check "send_proxy = {}")
      assert.matches("send_proxy=v2%+alpn%+ssl",
         check 'send_proxy = { version = 2, tlvs = { "ssl", "alpn" } }')
      assert.matches('site.lua:2: upstream: send_proxy: expected "v1", "v2"', check 'send_proxy = "v3"')
      assert.matches("site.lua:2: upstream: send_proxy: version: expected 1 or 2, not 3",
         check "send_proxy = { version = 3 }")
      assert.matches("site.lua:2: upstream: send_proxy: tlvs need version 2",
         check 'send_proxy = { version = 1, tlvs = { "ssl" } }')
      assert.matches('tlvs: expected "alpn", [^\n]*, not "sni"', check 'send_proxy = { tlvs = { "sni" } }')
      assert.matches("site.lua:2: upstream: send_proxy: connections of HTTP/2 are shared by clients",
         check 'protocol = "h2", send_proxy = "v1"')
      assert.matches("connections of Thrift are shared", check 'protocol = "thrift", send_proxy = "v2"')
      assert.matches("headers are not sent in datagrams", check 'protocol = "udp", send_proxy = "v2"')
   end)
end)
