--- Layer 4: connections carried to peers of an upstream, whatever they speak and however they end.
local t = require "spec.support"

local socket, sys, tls_socket = t.socket, t.sys, t.tls_socket

local MIB = 1048576

-- What the kernel lets a socket's receive buffer grow to: 6 MiB by default, 32 where much memory is.
local RECEIVE_BUFFER_MAX = tonumber(t.process.read_file("/proc/sys/net/ipv4/tcp_rmem"):match "%d+%s*$")

local SITE = [[
   local ml = require "monolake"
   local origin = ml.upstream { "${origin}", name = "origin", protocol = "tcp" }
   ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy(origin) }
   ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy(origin, { idle_timeout = "250ms" }) }
   ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy(origin), total_timeout = "150ms" }
   ml.listen { address = "127.0.0.1:0", tunnel_idle_timeout = "100ms",
      l4 = function(conn) conn:splice(origin, { idle_timeout = "1h", total_timeout = "150ms" }) end }
   ml.listen { address = "127.0.0.1:0",
      l4 = ml.tcp_proxy { "${refusing}", "${silent}", "${origin}", name = "many", connect_timeout = "50ms",
         fail_max = 2 } }
   ml.listen { address = "127.0.0.1:0",
      l4 = ml.tcp_proxy { "${origin}", name = "full", connections_max = 1, connect_timeout = "100ms" } }
   ml.listen { address = "127.0.0.1:0", tunnel_idle_timeout = "200ms", l4 = ml.tcp_proxy(origin) }
   ml.listen { address = "127.0.0.1:0", half_closed_timeout = "250ms", keepalive = "40s",
      l4 = ml.tcp_proxy { "${origin}", name = "watched", keepalive = "40s" } }
]]
local PLAIN, IDLE, TOTAL, SPLICED, MANY, FULL, SHORT, WATCHED = 1, 2, 3, 4, 5, 6, 7, 8
local LISTENERS = 8

--- An address at which connections are neither taken nor refused: its queue is full.
local function silent_listener()
   local listener = socket.listen { backlog = 0 }
   for _ = 1, 2 do
      sys.connect(listener.address, {})
   end
   return listener
end

t.on_both_backends("layer 4", function(backend)
   local silent = silent_listener()
   local origin, proxy = t.proxied(backend, {
      site = SITE, listeners = LISTENERS,
      values = { refusing = socket.refusing_address(), silent = silent.address },
   })
   teardown(function()
      silent:close()
   end)

   local function connect(listener, options)
      options = options or {}
      options.address = proxy().addresses[listener or PLAIN]
      return proxy():connect(options)
   end

   --- Both ends of a tunnel.
   local function tunnel(listener, options)
      local client = connect(listener, options)
      return client, origin:accept()
   end

   --- Both ends of one that is under way for sure.
   local function talking()
      local client, peer = tunnel()
      peer:send "hello"
      assert.equal("hello", client:read(5))
      return client, peer
   end

   --- Ends both, each when the other has.
   local function finish(client, peer)
      client:half_close()
      peer:read_all()
      peer:close()
      client:read_all()
   end

   t.it("lets the server speak first, as MySQL does", function()
      local function packet(sequence, payload)
         return string.char(#payload % 256, math.floor(#payload / 256), 0, sequence) .. payload
      end
      local function read_packet(from)
         local head = from:read(4)
         return from:read(head:byte(1) + head:byte(2) * 256), head:byte(4)
      end
      local client, peer = tunnel()
      local greeting = "\10" .. "8.0.36\0" .. ("\0"):rep(4) .. ("salt"):rep(2) .. "\0" .. ("\255"):rep(18)
      peer:send(packet(0, greeting))
      local got, sequence = read_packet(client)
      assert.equal(greeting, got)
      assert.equal(0, sequence)
      client:send(packet(1, "login as somebody\0"))
      assert.equal("login as somebody\0", (read_packet(peer)))
      peer:send(packet(2, "\0\0\0\2\0\0\0"))
      assert.equal(7, #read_packet(client))
      client:send(packet(0, "\1")) -- COM_QUIT
      assert.equal("\1", (read_packet(peer)))
      peer:close()
      assert.equal("", client:read_all())
   end)

   t.it("carries what comes behind urgent data, which get lost", function()
      local client, peer = talking()
      proxy():at_once(function()
         client:send("before"):send_urgent():send("behind")
      end)
      assert.equal("beforebehind", peer:read(12))
      finish(client, peer)
   end)

   t.it("carries the end of either side", function()
      local client, peer = tunnel()
      client:send("question"):half_close()
      assert.equal("question", peer:read_all())
      peer:send("answer"):close()
      assert.equal("answer", client:read_all())

      client, peer = tunnel()
      peer:send("greeting"):half_close()
      assert.equal("greeting", client:read_all())
      client:send "a long "
      assert.equal("a long ", peer:read(7))
      client:send("goodbye"):close()
      assert.equal("goodbye", peer:read_all())
   end)

   t.it("carries what was sent and ended before the peer was connected", function()
      local client = connect()
      client:send("all at once"):half_close()
      local peer = origin:accept()
      assert.equal("all at once", peer:read_all())
      peer:send("done"):close()
      assert.equal("done", client:read_all())
   end)

   t.it("carries a reset of either side, behind a FIN, too", function()
      local client, peer = talking()
      client:reset()
      assert.equal("reset", peer:expect_close())
      client, peer = talking()
      peer:reset()
      assert.equal("reset", client:expect_close())
      client, peer = talking()
      client:half_close()
      assert.equal("", peer:read_all())
      peer:reset()
      assert.equal("reset", client:expect_close())
   end)

   t.it("carries much both ways at once", function()
      local client, peer = tunnel()
      local bytes = ("0123456789abcdef"):rep(256 * 1024)
      local sending = { t.start_task(function() client:send(bytes) end),
         t.start_task(function() peer:send(bytes) end) }
      local reading = t.start_task(function() return client:read(#bytes) == bytes end)
      assert.is_true(peer:read(#bytes) == bytes)
      assert.is_true(reading:join())
      sending[1]:join()
      sending[2]:join()
      finish(client, peer)
   end)

   t.it("holds up who sends more than the other side takes", function()
      for _, slow in ipairs { "client", "peer" } do
         local client, peer = tunnel(PLAIN, { receive_buffer = 8192 })
         local from, to = slow == "client" and peer or client, slow == "client" and client or peer
         local ok, why, offset = from:try_send(("x"):rep(64 * MIB), 0.3)
         assert.is_nil(ok)
         assert.equal("timeout", why)
         assert.is_true(offset < 24 * MIB + RECEIVE_BUFFER_MAX) -- what kernels keep on either side
         local read = t.start_task(function() return to:read(offset) end)
         assert.equal(offset, #read:join())
         from:send "y"
         assert.equal("y", to:read(1))
         finish(client, peer)
      end
   end)

   t.it("ends what is idle, and only that", function()
      local client, peer = tunnel(IDLE)
      for _ = 1, 8 do
         t.tasks.sleep(0.06)
         peer:send "."
         assert.equal(".", client:read(1))
      end
      local begun = sys.clock()
      assert.equal("reset", client:expect_close())
      assert.equal("reset", peer:expect_close())
      assert.is_true(sys.clock() - begun > 0.15)
   end)

   t.it("ends what is half-closed and idle", function()
      local client, peer = tunnel(WATCHED)
      peer:half_close()
      assert.equal("", client:read_all())
      for _ = 1, 8 do
         t.tasks.sleep(0.06)
         client:send "."
         assert.equal(".", peer:read(1))
      end
      assert.equal("reset", peer:expect_close())
   end)

   t.it("has TCP ask those who are silent", function()
      --- Is there an open connection between these ports (nil: any) with a timer for that?
      local function is_watched(local_port, remote_port)
         local function port(number)
            return number and ("%04X"):format(number) or "%x+"
         end
         local pattern = (" %%x+:%s %%x+:%s 01 %%x+:%%x+ 02:"):format(port(local_port), port(remote_port))
         local file = assert(io.open "/proc/net/tcp")
         local text = file:read "*a"
         file:close()
         return text:find(pattern) ~= nil
      end
      local client, peer = tunnel(WATCHED)
      t.eventually("the client to be watched", function()
         return is_watched(tonumber(proxy().addresses[WATCHED]:match "%d+$"), sys.port(client.fd))
      end)
      t.eventually("the peer to be watched", function()
         return is_watched(nil, sys.port(peer.fd))
      end)
      finish(client, peer)
   end)

   t.it("ends what has lasted too long, however busy", function()
      for _, listener in ipairs { TOTAL, SPLICED } do
         local begun = sys.clock()
         local client, peer = tunnel(listener)
         local ended = t.start_task(function()
            while client:try_fill() do
               client.buffer = ""
            end
            return sys.clock() - begun
         end)
         while peer:try_send "." and not ended.done do
            t.tasks.sleep(0.01)
         end
         local seconds = ended:join()
         assert.is_true(seconds > 0.12, ("it lasted %.3f s"):format(seconds))
      end
   end)

   t.it("passes over peers that refuse or say nothing", function()
      for _ = 1, 9 do
         local client = connect(MANY)
         client:send "hello"
         local peer = origin:accept()
         assert.equal("hello", peer:read(5))
         finish(client, peer)
      end
      proxy():await_log "of upstream \"many\" failed 2 times in a row: not used for 10000 ms"
   end)

   t.it("waits for room at a peer, but not for ever", function()
      local client, peer = tunnel(FULL)
      local second = connect(FULL)
      assert.equal("reset", second:expect_close())
      proxy():await_log "upstream \"full\": no connection became free in time %(connections_max%)"
      second = connect(FULL)
      t.tasks.sleep(0.01)
      finish(client, peer)
      peer = origin:accept()
      second:send "x"
      assert.equal("x", peer:read(1))
      finish(second, peer)
   end)

   t.it("survives a network that delays and cuts into pieces", function()
      local relay = t.relay.start(proxy().addresses[PLAIN], { delay = 0.001, piece = 5 })
      local client = socket.connect(relay.address)
      local peer = origin:accept()
      client:send(("ping "):rep(20)):half_close()
      assert.equal(("ping "):rep(20), peer:read_all())
      peer:send(("pong "):rep(20)):close()
      assert.equal(("pong "):rep(20), client:read_all())
   end)

   t.it("finds out about a side that has fallen silent", function()
      local relay = t.relay.start(proxy().addresses[SHORT])
      local client = socket.connect(relay.address)
      local peer = origin:accept()
      client:send "1"
      assert.equal("1", peer:read(1))
      relay:lose()
      client:send "2"
      assert.equal("reset", peer:expect_close())
   end)

   t.it("is reset in the middle of a transfer", function()
      local relay = t.relay.start(proxy().addresses[PLAIN], { reset_after = 100000 })
      local client = socket.connect(relay.address)
      local peer = origin:accept()
      t.start_task(function() client:try_send(("x"):rep(MIB)) end)
      local why
      repeat
         local ok
         ok, why = peer:try_fill()
      until not ok
      assert.equal("reset", why)
      assert.is_true(#peer.buffer <= 200000)
   end)

   t.it("goes on where a stalled network does", function()
      local relay = t.relay.start(proxy().addresses[PLAIN])
      local client = socket.connect(relay.address, { receive_buffer = 8192 })
      local peer = origin:accept()
      relay:stall()
      local _, why, offset = peer:try_send(("stalled?"):rep(8 * MIB), 0.2)
      assert.equal("timeout", why)
      relay:go_on()
      assert.equal(offset, #client:read(offset))
      finish(client, peer)
   end)
end)

local FAMILIES = [[
   local ml = require "monolake"
   ml.listen { address = { "unix:${directory}/in.sock", "[::1]:0" }, l4 = {
      function(conn, next)
         ml.log.info("from %s:%d to %s:%d", conn.ip, conn.port, conn.local_ip, conn.local_port)
         next(conn)
      end,
      ml.tcp_proxy { "unix:${directory}/out.sock", name = "local" } } }
   ml.listen { address = "unix:${directory}/six.sock", l4 = ml.tcp_proxy { "${six}", name = "six" } }
   ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy { "localhost:${port}", name = "named" } }
]]

t.on_both_backends("layer 4 over other families", function(backend)
   local directory = t.process.directory()
   local out = socket.listen { address = "unix:" .. directory .. "/out.sock" }
   local six = socket.listen { address = "[::1]:0" }
   local four = socket.listen()
   local proxy = t.serve {
      io = backend, site = FAMILIES, listeners = 4,
      values = { directory = directory, six = six.address, port = four.address:match "%d+$" },
   }
   teardown(function()
      out:close()
      six:close()
      four:close()
   end)

   local function check(address, listener)
      local client = socket.connect(address)
      local peer = listener:accept()
      client:send("ping"):half_close()
      assert.equal("ping", peer:read_all())
      peer:send("pong"):close()
      assert.equal("pong", client:read_all())
   end

   t.it("carries from a unix socket to another", function()
      check("unix:" .. directory .. "/in.sock", out)
      proxy():await_log "from unix::0 to unix::0"
   end)

   t.it("carries from IPv6 to a unix socket and back", function()
      check(proxy().addresses[2], out)
      proxy():await_log "from ::1:%d+ to ::1:%d+"
      check("unix:" .. directory .. "/six.sock", six)
   end)

   t.it("carries to a host by its name", function()
      check(proxy().addresses[4], four)
   end)
end)

local TLS_SITE = [[
   local ml = require "monolake"
   local tls = { cert = "a.pem", key = "a.key" }
   local inner = ml.upstream { "${origin}", name = "inner", protocol = "tcp" }
   ml.listen { address = "127.0.0.1:0", tls = tls, l4 = {
      function(conn, next)
         conn:on_close(function(_, result)
            ml.log.info("%s %s %s: %s", conn.tls.version, conn.tls.name or "no name",
               conn.tls.alpn or "no alpn", result.reason)
         end)
         next(conn)
      end,
      ml.tcp_proxy(inner) } }
   ml.listen { address = "127.0.0.1:0",
      l4 = ml.tcp_proxy { "https://${origin}", name = "outer", tls = { ca = "ca.pem", name = "a.example" } } }
   ml.listen { address = "127.0.0.1:0",
      l4 = ml.tcp_proxy { "https://${origin}", name = "wary", retries = 0,
         tls = { ca = "ca.pem", name = "other.example" } } }
   ml.listen { address = "127.0.0.1:0", tls = tls,
      l4 = ml.tcp_proxy { "https://${origin}", name = "both", tls = { ca = "ca.pem", name = "a.example" } } }
]]
local INNER, OUTER, WARY, BOTH = 1, 2, 3, 4

-- In front of another listener of its own.
local ALPN_SITE = [[
   local ml = require "monolake"
   local tls = { cert = "a.pem", key = "a.key", alpn = { "mqtt", "spec" } }
   ml.listen { address = "unix:${directory}/inner", tls = tls, l4 = {
      function(conn, next)
         ml.log.info("agreed on %s", conn.tls.alpn or "nothing")
         next(conn)
      end,
      ml.tcp_proxy { "${origin}", name = "inner" } } }
   ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy { "https://unix:${directory}/inner", name = "outer",
      tls = { ca = "ca.pem", name = "a.example", alpn = { "spec" } } } }
]]

t.on_every_tls("layer 4 with TLS", function(backend, library)
   local origin, proxy = t.proxied(backend, t.with_tls(backend, library, { site = TLS_SITE, listeners = 4 }))
   local server = tls_socket.server { certificate = "a" }

   local function connect(listener)
      return proxy():connect { address = proxy().addresses[listener] }
   end

   t.it("is terminated", function()
      local client = tls_socket.connect(proxy().addresses[INNER], { name = "a.example" })
      local peer = origin:accept()
      peer:send "greeting"
      assert.equal("greeting", client:read(8))
      client:send("bye"):half_close()
      assert.equal("bye", peer:read_all())
      peer:send("good bye"):close()
      assert.equal("good bye", client:read_all())
      proxy():await_log "TLSv1.3 a.example no alpn: ended"
   end)

   t.it("is spoken to the peer, who proves its name", function()
      local client = connect(OUTER)
      local peer = server:accept(origin:accept())
      assert.equal("a.example", peer:agreed().name)
      client:send("in the clear"):half_close()
      assert.equal("in the clear", peer:read_all())
      peer:send("answered"):close()
      assert.equal("answered", client:read_all())
   end)

   t.it("is not spoken to one who does not", function()
      local client = connect(WARY)
      pcall(server.accept, server, origin:accept())
      assert.equal("reset", client:expect_close())
      proxy():await_log "upstream \"wary\", peer 127.0.0.1:%d+: the TLS handshake failed"
   end)

   t.it("agrees on protocols by ALPN if asked to", function()
      local options = t.with_tls(backend, library, { site = ALPN_SITE, listeners = 2 })
      options.values = { directory = t.process.directory(), origin = origin.address }
      local running = t.program.start(options)
      local client = running:connect { address = running.addresses[2] }
      local peer = origin:accept()
      peer:send "hello"
      assert.equal("hello", client:read(5))
      running:await_log "agreed on spec"
      client:close()
      peer:close()
      running:stop()
   end)

   t.it("carries much from one session to another", function()
      local client = tls_socket.connect(proxy().addresses[BOTH], { name = "a.example" })
      local peer = server:accept(origin:accept())
      local bytes = ("0123456789abcdef"):rep(64 * 1024)
      local sending = t.start_task(function() peer:send(bytes):close() end)
      assert.is_true(client:read_all() == bytes)
      sending:join()
   end)
end)
