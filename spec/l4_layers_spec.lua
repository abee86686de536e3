--- Lua layers of layer 4: what they know, what they decide, how they fail, what they hear of the end.
local t = require "spec.support"

local SITE = [[
   local ml = require "monolake"
   local log = ml.log
   local origin = ml.upstream { "${origin}", name = "origin", protocol = "tcp" }
   local nobody = ml.upstream { "${refusing}", name = "nobody", protocol = "tcp", retries = 0 }
   local kept

   local function told(conn, result)
      log.info("%s id=%d from=%s:%d to=%s:%d why=%s error=%s in=%d out=%d peer=%s took=%s", conn.ctx.name,
         conn.id, conn.ip, conn.port, conn.local_ip, conn.local_port, result.reason,
         result.error or "none", result.client_bytes, result.peer_bytes, result.peer or "none",
         result.duration < 5 and "little" or "much")
   end

   local function listen(name, ...)
      local layers = { function(conn, next)
         conn.ctx.name = name
         conn:on_close(told)
         local ok, why = next(conn)
         log.info("%s next=%s why=%s", name, tostring(ok), tostring(why))
      end, ... }
      ml.listen { address = "127.0.0.1:0", l4 = layers, setup_timeout = name == "slow" and "100ms" or nil }
   end

   listen("proxied", ml.tcp_proxy(origin))
   listen("spliced", function(conn)
      local ok, why = conn:splice(nobody)
      log.info("first splice=%s why=%s", tostring(ok), why)
      assert(conn:splice(origin, { idle_timeout = "1h" }))
      log.info("second splice: %s", select(2, pcall(conn.splice, conn, origin)))
   end)
   listen("closed", function(conn) conn:close() end)
   listen("reset", function(conn) conn:reset() end)
   listen("broken", function(conn) conn.ctx.nothing.more = 1 end, ml.tcp_proxy(origin))
   listen("late", function(conn, next)
      conn:on_close(function() ml.sleep(1.5) end)
      next(conn)
      error "broken behind next"
   end, ml.tcp_proxy(origin))
   listen("nobody", ml.tcp_proxy(nobody))
   listen("slow", function(conn, next) ml.sleep(60) next(conn) end, ml.tcp_proxy(origin))
   listen("waits", function(conn, next)
      conn:on_close(function(conn, result)
         ml.sleep(0.02)
         log.info("waited for id %d why=%s", conn.id, result.reason)
      end)
      next(conn)
   end, ml.tcp_proxy(origin))
   listen("kept", function(conn)
      log.info("kept %s", kept and select(2, pcall(function() return kept.ip end)) or "nothing")
      kept = conn
   end)
   listen("strange", function(conn, next)
      for _, what in ipairs { "splice", "method", "ipp" } do
         log.info("strange %s", select(2, pcall(function()
            return what == "splice" and conn:splice "127.0.0.1:1" or conn[what]
         end)))
      end
      log.info("strange %s", select(2, pcall(next, {})))
   end)
   listen("cut", function(conn, next)
      next(conn)
      ml.sleep(0)
      kept = conn
   end, ml.tcp_proxy(origin))
   listen("cutter", function() kept:reset() end)
]]

local NAMES = { "proxied", "spliced", "closed", "reset", "broken", "late", "nobody", "slow", "waits", "kept",
   "strange", "cut", "cutter" }

t.on_both_backends("layers of connections", function(backend)
   local origin, proxy = t.proxied(backend, {
      site = SITE, listeners = #NAMES, values = { refusing = t.socket.refusing_address() },
   })

   local address = {}
   local offset

   local function try_connect(name)
      for i, one in ipairs(NAMES) do
         address[one] = proxy().addresses[i]
      end
      offset = #proxy():log()
      return t.socket.try_connect(address[name])
   end

   --- Connects to the listener of that name.
   local function connect(name)
      local client, code = try_connect(name)
      return client or error(("cannot connect to %s: error %d"):format(name, code))
   end

   --- A connection to the listener of that name is reset, perhaps before the client knows that it has
   --- one.
   local function expect_reset(name)
      local client, code = try_connect(name)
      assert.equal("reset", client and client:expect_close() or code == t.sys.ECONNRESET and "reset")
   end

   local function await(pattern)
      return proxy():await_log(pattern, offset)
   end

   t.it("know both ends, and hear of the end", function()
      local client = connect "proxied"
      local peer = origin:accept()
      client:send("12345"):half_close()
      assert.equal("12345", peer:read_all())
      peer:send("123"):close()
      assert.equal("123", client:read_all())
      await "proxied next=true why=nil"
      local id, from, to, why, bytes, at = await(
         "proxied id=(%d+) from=127.0.0.1:(%d+) to=(%S+) why=(%S+ %S+) (in=5 out=3) peer=(%S+) took=little")
      assert.is_true(tonumber(id) > 0 and tonumber(from) > 0)
      assert.equal(address.proxied, to)
      assert.equal("ended error=none", why)
      assert.equal("in=5 out=3", bytes)
      assert.equal(origin.address, at)
   end)

   t.it("may try one upstream after another", function()
      local client = connect "spliced"
      local peer = origin:accept()
      peer:send "x"
      assert.equal("x", client:read(1))
      await "first splice=nil why=upstream \"nobody\", peer 127.0.0.1:%d+: Connection refused"
      await "second splice: .*the connection has a peer already"
      client:reset()
      await "spliced id=%d+ .* why=client_failed error=Connection reset by peer in=0 out=1"
   end)

   t.it("close and reset", function()
      local client = connect "closed"
      assert.equal("closed", client:expect_close())
      await "closed id=%d+ .* why=closed error=none in=0 out=0 peer=none"
      expect_reset "reset"
      await "reset id=%d+ .* why=reset error=none"
   end)

   t.it("fail for themselves only", function()
      expect_reset "broken"
      await "site.lua:%d+: attempt to index field 'nothing'.-stack traceback"
      await "broken id=%d+ .* why=layer_failed"
      expect_reset "late"
      assert.equal("reset", origin:accept():expect_close(1.4))
      await "broken behind next"
      await "late id=%d+ .* why=layer_failed"
   end)

   t.it("hear that nobody could be reached", function()
      expect_reset "nobody"
      await "nobody next=nil why=upstream \"nobody\", peer 127.0.0.1:%d+: Connection refused"
      await "nobody id=%d+ .* why=connect_failed error=upstream .*: Connection refused in=0 out=0 peer=none"
   end)

   t.it("may not wait for ever", function()
      local client = connect "slow"
      assert.equal("reset", client:expect_close())
      await "slow id=%d+ .* why=setup_timeout"
   end)

   t.it("are given up when the client has gone", function()
      local client = connect "waits"
      local peer = origin:accept()
      client:reset()
      peer:expect_close()
      await "waited for id %d+ why=client_failed"
   end)

   t.it("do not outlive their connection", function()
      connect "kept":expect_close()
      connect "kept":expect_close()
      await "kept .*site.lua:%d+: connection handle used after its connection ended"
   end)

   t.it("are told what they did wrong", function()
      connect "strange":expect_close()
      await "splice: expected an upstream that was made while the site was loaded"
      await "a connection has no \"method\" that can be read"
      await "a connection has no \"ipp\" that can be read; did you mean \"ip\"%?"
      await "next: expected the connection, not table"
   end)

   t.it("may end a connection that is under way elsewhere", function()
      local client = connect "cut"
      local peer = origin:accept()
      peer:send "x"
      assert.equal("x", client:read(1))
      local start = offset
      connect "cutter":expect_close()
      assert.equal("reset", client:expect_close())
      offset = start
      await "cut id=%d+ .* why=reset error=none in=0 out=1"
   end)
end)

describe("a site of layer 4", function()
   local function refused(site, pattern)
      local _, err, status = t.program.check { site = 'local ml = require "monolake"\n' .. site }
      assert.equal(1, status)
      assert.matches(pattern, err)
   end

   teardown(t.process.remove_directories)

   t.it("is checked", function()
      refused('ml.listen { address = "127.0.0.1:0", l4 = ml.proxy "127.0.0.1:1" }',
         "site.lua:2: proxy 127.0.0.1:1 is a layer of HTTP and cannot stand in a chain of layer 4")
      refused('ml.listen { address = "127.0.0.1:0", chain = ml.tcp_proxy "127.0.0.1:1" }',
         "site.lua:2: tcp_proxy 127.0.0.1:1 is a layer of layer 4 and cannot stand in a chain of HTTP")
      refused('ml.listen { address = "127.0.0.1:0", l4 = ml.text "hello" }',
         "site.lua:2: a response cannot stand in a chain of layer 4")
      refused('ml.listen { address = "127.0.0.1:0", l4 = {}, chain = {} }',
         "site.lua:2: listen: expected one chain: for HTTP %(chain%), for layer 4 %(l4%) or for Thrift")
      refused('ml.proxy { "127.0.0.1:1", protocol = "tcp" }', "site.lua:2: proxy: upstream .* is for layer 4")
      refused('ml.upstream { "https://a:1", tls = { alpn = { "spec" } } }',
         "site.lua:2: upstream: tls: alpn is for layer 4: HTTP and Thrift know what they speak")
      refused('ml.upstream { "https://a:1", protocol = "tcp", tls = { alpn = { "" } } }',
         "site.lua:2: upstream: tls: alpn: expected names of protocols, e.g. { \"mqtt\" }")
      for _, library in ipairs { "openssl", "gnutls" } do
         local upstream = 'ml.upstream { "https://a:1", protocol = "tcp", tls = { library = "' .. library ..
            '", alpn = { %s } } }'
         refused(upstream:format(('"spec", '):rep(9)),
            "site.lua:2: upstream: tls: alpn: expected no more than 8 protocols, not 9")
         refused(upstream:format('"' .. ("x"):rep(32) .. '"'),
            "site.lua:2: upstream: tls: alpn: expected names of 1 to 31 bytes, not \"x+\"")
         refused(upstream:format '"a\\0b"', "site.lua:2: upstream: tls: alpn: expected names of protocols")
      end
      refused("ml.tcp_proxy(7)", "site.lua:2: tcp_proxy: expected an upstream")
      refused('ml.tcp_proxy("127.0.0.1:1", { idle_timout = 1 })',
         'unknown option "idle_timout"; did you mean "idle_timeout"')
   end)

   t.it("is described", function()
      local out, err, status = t.program.check { site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:3306", setup_timeout = "5s",
            l4 = { function(conn, next) next(conn) end,
               ml.tcp_proxy { "127.0.0.1:1", "unix:/run/a", name = "db" } } }
      ]] }
      assert.equal(0, status, err)
      assert.matches("listen 127.0.0.1:3306 layer 4 {setup_timeout=5s}   %(%S*site.lua:2%)\n", out)
      assert.matches("  lua %S*site.lua:3\n  tcp_proxy db\n", out)
      assert.matches("upstream db round_robin {protocol=tcp}.-\n  127.0.0.1:1\n  unix:/run/a\n", out)
   end)
end)
