--- Layer 4 through reloads, drains and the end of the program; its access log; and real programs.
local t = require "spec.support"

local process, program, socket, sys = t.process, t.program, t.socket, t.sys

local SITE = [[
   local ml = require "monolake"
   ml.options { grace = "${grace}" }
   local origin = ml.upstream { "${origin}", name = "origin", protocol = "tcp" }
   ml.listen { address = "127.0.0.1:0", l4 = {
      ml.access_log "text.log",
      ml.access_log { path = "json.log", format = "json" },
      function(conn, next)
         conn:on_close(function(closed, result)
            ml.log.info("${generation} connection %d: %s", closed.id, result.reason)
         end)
         ml.log.info("${generation} connection %d begins", conn.id)
         next(conn)
      end,
      ml.tcp_proxy(origin),
   } }
]]

t.on_both_backends("the life of connections of layer 4", function(backend)
   local origin

   setup(function()
      origin = socket.listen()
   end)
   teardown(function()
      origin:close()
   end)
   before_each(function()
      origin:drop_pending()
   end)

   local function start(options)
      options = options or {}
      options.io, options.site = backend, options.site or SITE
      options.values = { origin = options.origin or origin.address, grace = options.grace or "30s",
         generation = options.seconds or "first" }
      return program.start(options)
   end

   local function tunnel(running)
      local client = running:connect()
      local peer = origin:accept()
      peer:send "hello"
      assert.equal("hello", client:read(5))
      return client, peer
   end

   local function talk(client, peer)
      client:send "ping"
      assert.equal("ping", peer:read(4))
      peer:send "pong"
      assert.equal("pong", client:read(4))
   end

   t.it("outlives reloads", function()
      local running = start()
      local client, peer = tunnel(running)
      running.values.generation = "second"
      running:write("site.lua", SITE)
      running:reload()
      talk(client, peer)
      local other, other_peer = tunnel(running)
      running:await_log "second connection %d+ begins"
      client:half_close()
      peer:read_all()
      peer:close()
      running:await_log "first connection %d+: ended"
      talk(other, other_peer)
      other:reset()
      running:await_log "second connection %d+: client_failed"
      running:stop()
   end)

   t.it("becomes HTTP and back, for those who come then", function()
      local running = start()
      local address = running.address
      local client, peer = tunnel(running)
      running:write("site.lua", ([[
         local ml = require "monolake"
         ml.listen { address = "%s", chain = ml.text "by HTTP" }
      ]]):format("127.0.0.1:0"))
      running:reload()
      talk(client, peer)
      local kept = socket.connect(address)
      assert.equal("by HTTP", kept:exchange("GET / HTTP/1.1\nHost: a").body)
      running:write("site.lua", SITE)
      running:reload()
      talk(client, peer)
      assert.equal(503, kept:exchange("GET / HTTP/1.1\nHost: a").status)
      local other, other_peer = tunnel(running)
      talk(other, other_peer)
      kept:close()
      client:close()
      other:close()
      running:stop(sys.SIGINT)
   end)

   --- TERM is given; waits until nobody is let in any more.
   local function terminate(running)
      running.process:signal(sys.SIGTERM)
      running:await_log "stopping"
      t.eventually("the listener to close", function()
         local late = socket.try_connect(running.address)
         if late then
            late:reset()
         end
         return not late
      end)
   end

   t.it("has the grace period to end", function()
      local running = start()
      local client, peer = tunnel(running)
      terminate(running)
      origin:drop_pending()
      talk(client, peer)
      client:half_close()
      assert.equal("", peer:read_all())
      peer:send("last words"):close()
      assert.equal("last words", client:read_all())
      running:stop()
   end)

   t.it("has that time for on_close, too, and no more", function()
      local function close_behind(client)
         client:expect_close()
         client:close()
      end
      local site = [[
         local ml = require "monolake"
         ml.options { grace = "${grace}" }
         ml.listen { address = "127.0.0.1:0", l4 = { function(conn)
            ml.log.info "here"
            conn:on_close(function() ml.sleep(${generation}) ml.log.info "slept" end)
            conn:close()
         end } }
      ]]
      local running = start { site = site, seconds = "0.3" }
      close_behind(running:connect())
      running:await_log "here"
      running:stop()
      assert.matches("slept", running:log())
      running = start { site = site, seconds = "60", grace = "100ms" }
      close_behind(running:connect())
      running:await_log "here"
      running:stop()
      assert.not_matches("slept", running:log())
   end)

   t.it("is cut off when that is over", function()
      local running = start { grace = "100ms" }
      local client, peer = tunnel(running)
      running.process:signal(sys.SIGTERM)
      assert.equal("reset", client:expect_close())
      assert.equal("reset", peer:expect_close())
      running:await_log "the grace period is over: 1 connections are cut off"
      running:await_log "first connection %d+: cancelled"
      running:stop()
   end)

   t.it("is cut off at once by INT", function()
      local running = start()
      local client, peer = tunnel(running)
      running.process:signal(sys.SIGINT)
      assert.equal("reset", client:expect_close())
      assert.equal("reset", peer:expect_close())
      running:stop()
   end)

   t.it("leaves descriptors for the peers of all who are let in", function()
      local running = start { prefix = { "prlimit", "--nofile=60:60" } } -- 45 for clients and peers
      local clients, peers = {}, {}
      for i = 1, 40 do
         clients[i] = running:connect()
      end
      running:await_log "22 connections are open: others wait"
      for i = 1, #clients do
         peers[i] = origin:accept()
         peers[i]:close()
         clients[i]:read_all() -- in the order in which they came
         clients[i]:close()
      end
      assert.is_nil(running:log():find "file descriptor")
      running:stop()
   end)

   t.it("is told of in access logs", function()
      local running = start()
      local client, peer = tunnel(running)
      local from = "127.0.0.1:" .. sys.port(client.fd)
      client:send("12345678"):half_close()
      peer:read_all()
      peer:close()
      client:read_all()
      local function line_of(name, pattern)
         return t.eventually("a line in " .. name, function()
            local file = io.open(running:path(name))
            local text = file and file:read "*a" or ""
            if file then
               file:close()
            end
            return text:match("[^\n]*" .. pattern .. "[^\n]*\n")
         end)
      end
      local escaped = (from:gsub("%.", "%%."))
      assert.matches("^" .. escaped .. " %[%d%d/%a+/%d+:%d+:%d+:%d+ [+-]%d+%] " .. running.address .. " "
         .. origin.address .. " 8 5 0%.%d%d%d ended\n$", line_of("text.log", escaped))
      local json = require("cjson").decode(line_of("json.log", '"remote":"' .. escaped))
      assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$", json.time)
      assert.is_true(json.id > 0 and json.duration_ms > 0)
      assert.same({ running.address, origin.address, 8, 5, "ended" },
         { json["local"], json.peer, json.client_bytes, json.peer_bytes, json.reason })
      assert.is_nil(json.error)

      client, peer = tunnel(running)
      peer:reset()
      client:expect_close()
      assert.matches(" 0 5 0%.%d%d%d peer_failed \"Connection reset by peer\"\n$",
         line_of("text.log", "peer_failed"))
      json = require("cjson").decode(line_of("json.log", "peer_failed"))
      assert.equal("Connection reset by peer", json.error)
      running:stop()
   end)

   t.it("is told of when nobody was reached", function()
      local running = start { origin = socket.refusing_address() }
      local client = socket.try_connect(running.address)
      if client then
         client:expect_close()
      end
      local line = t.eventually("a line", function()
         local file = assert(io.open(running:path "json.log"))
         local text = file:read "*a"
         file:close()
         return text:match "connect_failed" and text
      end)
      local json = require("cjson").decode(line)
      assert.equal(require("cjson").null, json.peer)
      assert.matches("^upstream \"origin\", peer 127.0.0.1:%d+: Connection refused$", json.error)
      running:stop()
   end)

   t.it("carries Redis", function()
      local directory = process.directory()
      local server = process.start({ "redis-server", "--port", "0", "--unixsocket",
         directory .. "/redis.sock", "--save", "", "--dir", directory }, directory)
      t.eventually("Redis", function()
         return server:stdout():find "ready to accept connections"
      end)
      local running = start { origin = "unix:" .. directory .. "/redis.sock" }
      local port = running.address:match "%d+$"
      local function redis(...)
         local out, err, status = process.run({ "redis-cli", "-p", port, ... })
         assert.equal(0, status, err)
         return out
      end
      assert.equal("PONG\n", redis "ping")
      assert.equal("OK\n", redis("set", "key", ("value "):rep(20000)))
      assert.equal(("value "):rep(20000) .. "\n", redis("get", "key"))
      local out = process.run { "redis-benchmark", "-p", port, "-c", "20", "-n", "2000", "-P", "4", "-t",
         "get,set", "-q" }
      assert.matches("GET: %d", out)
      assert.not_matches("[Ee]rror", out)
      running:stop()
      server:stop(sys.SIGTERM)
   end)

   t.it("carries SMTP, whose server speaks first", function()
      local function smtp(...)
         return process.start({ "/usr/bin/python3", "spec/support/smtp.py", ... }, process.directory())
      end
      local function mails(part)
         local found = {}
         for mail in part:stdout():gmatch "(mail %d+ %x+)\n" do
            found[#found + 1] = mail
         end
         return found
      end
      local server = smtp "server"
      local running = start { origin = t.eventually("SMTP", function()
         return server:stdout():match "listening on (%S+)"
      end) }
      local client = smtp("client", running.address, "5")
      t.eventually("the client's end", function()
         return client:has_ended()
      end)
      assert.equal("", client:stderr())
      local sent = mails(client)
      assert.equal(5, #sent)
      assert.same(sent, mails(server))
      local silent = running:connect()
      assert.matches("^220 spec ", silent:read_until "\r\n")
      assert.equal("221 Bye\r\n", silent:send("QUIT\r\n"):read_all())
      silent:close()
      running:stop()
      server:stop(sys.SIGKILL)
   end)

   t.it("carries a line server", function()
      local running = start()
      t.start_task(function()
         while true do
            local peer = origin:accept(3600)
            t.start_task(function()
               peer:send "220 ready\r\n"
               local line
               repeat
                  line = peer:read_until "\r\n"
                  peer:send("250 " .. line)
               until line == "QUIT\r\n"
               peer:close()
            end)
         end
      end)
      local clients = {}
      for i = 1, 20 do
         clients[i] = running:connect()
      end
      for round = 1, 5 do
         for i, client in ipairs(clients) do
            assert.equal(round == 1 and "220 ready\r\n" or ("250 line %d\r\n"):format(i),
               client:read_until "\r\n")
            client:send(("line %d\r\n"):format(i))
         end
      end
      for i, client in ipairs(clients) do
         client:send "QUIT\r\n"
         assert.equal(("250 line %d\r\n250 QUIT\r\n"):format(i), client:read_all())
         client:close()
      end
      running:stop()
   end)
end)
