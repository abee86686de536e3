--- USR2: tunnels move to the new program, and no byte of theirs is lost, doubled or out of order.
local t = require "spec.support"
local flow = require "spec.support.flow"

local process, program, socket, sys, tls_socket = t.process, t.program, t.socket, t.sys, t.tls_socket

local SITE = [[
local ml = require "monolake"
ml.options { grace = "${grace}" }
local tcp = ml.upstream { "${origin}", name = "tcp", protocol = "tcp" }
ml.listen { address = "127.0.0.1:0", l4 = {
   ml.access_log "${directory}/text.log",
   ml.access_log { path = "${directory}/json.log", format = "json" },
   ml.tcp_proxy(tcp),
} }
ml.listen { address = "127.0.0.1:0", chain = {
   ml.access_log "${directory}/http.log",
   ml.access_log { path = "${directory}/http.json", format = "json" },
   ml.tunnel { allow = { "${origin}" } },
   ml.proxy { "${origin}" },
} }
ml.listen { address = "127.0.0.1:0", l4 = {
   function(conn, next)
      conn:on_close(function(_, result) ml.log.info("on_close: %s", result.reason) end)
      return next(conn)
   end,
   ml.tcp_proxy(tcp),
} }
ml.listen { address = "127.0.0.1:0", connections_per_source = 2, l4 = function(conn)
   return conn:splice(tcp, { idle_timeout = "${idle}" })
end }
]]
local PLAIN, HTTP, HOOKED, LIMITED = 1, 2, 3, 4

--- Ways in that are rarer.
local OTHER_SITE = [[
local ml = require "monolake"
local log = ml.access_log "${directory}/text.log"
local tcp = ml.tcp_proxy { "${origin}", name = "tcp" }
ml.listen { address = "127.0.0.1:0", l4 = { log, ml.detect {
   http = ml.http { chain = ml.proxy { "${origin}", name = "http" } }, other = tcp } } }
local inner = ml.tcp_proxy({ "unix:${directory}/out", name = "local" }, { idle_timeout = "${idle}" })
ml.listen { address = "unix:${directory}/in", l4 = { log, inner } }
ml.listen { address = "127.0.0.1:0", proxy_protocol = { from = { "127.0.0.1" } }, l4 = { log, tcp } }
]]
local DETECTING, LOCAL, BEHIND_A_PROXY = 1, 2, 3

t.on_both_backends("tunnels and a new program", function(backend)
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
      return program.start { io = backend, site = options.site or SITE, workers = options.workers or 2,
         listeners = options.listeners or 4, files = options.files, program = options.program,
         values = { origin = options.origin or origin.address, directory = process.directory(),
            grace = options.grace or "30s", idle = options.idle or "1h" } }
   end

   --- Both ends of a tunnel, over which a word has gone each way.
   local function tunnel(running, listener, connect)
      local client = (connect or socket.connect)(running.addresses[listener or PLAIN])
      local peer = origin:accept()
      client:send "hello"
      assert.equal("hello", peer:read(5))
      peer:send "welcome"
      assert.equal("welcome", client:read(7))
      return client, peer
   end

   local function websocket(running, listener)
      local client = socket.connect(running.addresses[listener or HTTP])
      client:send_head "GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket"
      local peer = origin:accept()
      peer:read_request_head()
      peer:send(t.head "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket" .. "early")
      assert.equal(101, client:read_response_head().status)
      assert.equal("early", client:read(5))
      return client, peer
   end

   local function connect(running)
      local client = socket.connect(running.addresses[HTTP])
      client:send_head(("CONNECT %s HTTP/1.1\nHost: %s"):format(origin.address, origin.address))
      local peer = origin:accept()
      assert.equal(200, client:read_response_head().status)
      return client, peer
   end

   local function talk(client, peer)
      client:send "ping"
      assert.equal("ping", peer:read(4))
      peer:send "pong"
      assert.equal("pong", client:read(4))
   end

   --- USR2, and the end of the old program, which has nothing left to wait for.
   local function upgrade(running)
      local new = running:upgrade()
      running:expect_end()
      return new
   end

   local function end_well(client, peer)
      client:half_close()
      assert.equal("", peer:read_all())
      peer:close()
      assert.equal("", client:read_all())
      client:close()
   end

   --- Waits for so many lines of a log of the site's.
   local function lines(running, name, count)
      local found
      t.eventually(count .. " lines in " .. name, function()
         found = {}
         for line in process.read_file(running.values.directory .. "/" .. name):gmatch "[^\n]+" do
            found[#found + 1] = line
         end
         return #found >= count
      end)
      assert.equal(count, #found)
      return found
   end

   t.it("go on with what flows, upgrade after upgrade", function()
      local running = start()
      local makers = { tunnel, tunnel, websocket, connect }
      local flows, ends = {}, {}
      for i, make in ipairs(makers) do
         local client, peer = make(running)
         ends[i] = { client, peer }
         local bulk = i == 1
         flows[#flows + 1] = flow.start(client, peer, { name = "up " .. i,
            piece = bulk and 262144 or 1000 * i + 1, pause = not bulk and 0.001 or nil })
         flows[#flows + 1] = flow.start(peer, client, { name = "down " .. i,
            piece = i <= 2 and 262144 or 77, pause = i > 2 and 0.001 or nil })
      end
      for _ = 1, 3 do
         for _, each in ipairs(flows) do
            each:await(each.piece * 3)
         end
         running = upgrade(running)
      end
      for _, each in ipairs(flows) do
         each:await(each.piece * 3)
      end
      for _, each in ipairs(flows) do
         each:stop()
      end
      for _, pair in ipairs(ends) do
         end_well(unpack(pair))
      end
      local text, json = lines(running, "text.log", 2), lines(running, "json.log", 2)
      for i = 1, 2 do
         local up, down = flows[2 * i - 1].sent + 5, flows[2 * i].sent + 7
         local counts = (" %.0f %.0f "):format(up, down)
         local found = false
         for _, line in ipairs(text) do
            found = found or (line:find(counts, 1, true) and line:find(origin.address, 1, true)
               and line:match "ended$")
         end
         assert.truthy(found, counts .. " in " .. table.concat(text, "\n"))
         local members = ('"client_bytes":%.0f,"peer_bytes":%.0f'):format(up, down)
         assert.truthy(table.concat(json):find(members, 1, true))
      end
      local up, down = flows[5].sent, flows[6].sent + #"early"
      local of_websocket = (' "GET / HTTP/1.1" 101 %.0f "-" "-" %.0f '):format(down, up)
      local of_connect = (' "CONNECT %s HTTP/1.1" 200 %.0f "-" "-" %.0f '):format(origin.address,
         flows[8].sent, flows[7].sent)
      local http = table.concat(lines(running, "http.log", 2), "\n") .. "\n"
      for _, expected in ipairs { of_websocket, of_connect } do
         local _, last = http:find(expected, 1, true)
         assert.matches("^%d+%.%d+ ended\n", http:sub((last or #http) + 1), expected .. " in " .. http)
      end
      local object = table.concat(lines(running, "http.json", 2), "\n")
      assert.truthy(object:find(('"bytes":%.0f,'):format(down), 1, true), object)
      assert.truthy(object:find(('"client_bytes":%.0f,"reason":"ended"}'):format(up), 1, true), object)
      running:stop()
   end)

   t.it("move whatever way they came in, and outlive reloads there", function()
      local running = start { site = OTHER_SITE, listeners = 3 }
      local path = running.values.directory .. "/out"
      local inner = socket.listen { address = "unix:" .. path }
      local clients, peers = {}, {}
      clients[1], peers[1] = websocket(running, DETECTING)
      clients[2] = socket.connect(running.addresses[LOCAL])
      peers[2] = inner:accept()
      clients[3] = socket.connect(running.addresses[BEHIND_A_PROXY])
      clients[3]:send "PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\r\n"
      peers[3] = origin:accept()
      for i = 1, 3 do
         talk(clients[i], peers[i])
      end
      running = upgrade(running)
      for i = 1, 3 do
         talk(clients[i], peers[i])
      end
      running:write("site.lua", (OTHER_SITE:gsub("\nml.listen { address = \"unix.-\n", "\n")))
      running:reload()
      running:reload()
      for i = 1, 3 do
         talk(clients[i], peers[i])
         end_well(clients[i], peers[i])
      end
      local log = table.concat(lines(running, "text.log", 3), "\n")
      assert.matches("\n192%.0%.2%.1:40000 %[.-%] 198%.51%.100%.7:443 [%d.:]+ 12 12 %S+ ended", "\n" .. log)
      assert.matches("unix:%S+/in unix:%S+/out 12 12 %S+ ended", log)
      inner:close()
      running:stop()
   end)

   t.it("know of local clients that they only read slowly", function()
      local running = start { site = OTHER_SITE, listeners = 3, idle = "300ms" }
      local inner = socket.listen { address = "unix:" .. running.values.directory .. "/out" }
      local client, peer = socket.connect(running.addresses[LOCAL]), inner:accept()
      talk(client, peer)
      running = upgrade(running)
      local down = flow.between(peer, client)
      down:fill()
      for _ = 1, 12 do -- some in each idle time, but less than a send of the tunnel's has
         t.tasks.sleep(0.1)
         down:take_some(32768)
      end
      down:drain()
      end_well(client, peer)
      inner:close()
      running:stop()
   end)

   t.it("keep what waits for a slow reader", function()
      local running = start()
      local client, peer = tunnel(running)
      local other, other_peer = tunnel(running)
      local up, down = flow.between(client, peer), flow.between(peer, client)
      local bulk = flow.start(other, other_peer, { name = "bulk", piece = 262144 })
      bulk:await(4 * 1048576)
      bulk.stopping = true -- its reader goes on: the direction is spliced, and stays so for a while
      bulk.sender:join()
      local late = flow.between(other_peer, other)
      up:fill()
      down:fill()
      late:fill()
      running = upgrade(upgrade(running))
      up:drain()
      down:drain()
      late:drain()
      bulk:stop()
      up:send_some(100000)
      up:drain()
      talk(client, peer)
      end_well(client, peer)
      end_well(other, other_peer)
      running:stop()
   end)

   t.it("keep bulk that is spliced and stuck", function()
      local running = start { workers = 1 }
      local client, peer = tunnel(running)
      local up = flow.between(client, peer)
      local bulk = flow.start(client, peer, { name = "bulk", piece = 262144 })
      bulk:await(4 * 1048576)
      bulk:stop()
      up.sent, up.received = bulk.sent, bulk.received
      up:fill()
      running = upgrade(running)
      up:drain()
      talk(client, peer)
      end_well(client, peer)
      running:stop()
   end)

   t.it("keep their ends: half-closed ones", function()
      local running = start()
      local client, peer = tunnel(running)
      local other, other_peer = tunnel(running)
      local stuck, stuck_peer = tunnel(running)
      client:half_close()
      assert.equal("", peer:read_all())
      other_peer:half_close()
      assert.equal("", other:read_all())
      local up = flow.between(stuck, stuck_peer)
      up:fill()
      stuck:half_close()
      running = upgrade(upgrade(running))
      peer:send "late answer"
      assert.equal("late answer", client:read(11))
      peer:close()
      client:expect_close()
      other:send("late question"):close()
      assert.equal("late question", other_peer:read_all())
      other_peer:close()
      up:drain()
      assert.equal("", stuck_peer:read_all())
      stuck_peer:send("bye"):close()
      assert.equal("bye", stuck:read_all())
      for _, line in ipairs(lines(running, "text.log", 3)) do
         assert.matches("ended$", line)
      end
      running:stop()
   end)

   t.it("keep their times and their bounds", function()
      local running = start { idle = "1200ms" }
      local clients, peers = {}, {}
      for i = 1, 2 do
         clients[i], peers[i] = tunnel(running, LIMITED)
      end
      running = upgrade(running)
      for i = 1, 2 do
         talk(clients[i], peers[i])
      end
      local third = socket.try_connect(running.addresses[LIMITED]) -- a reset may be that fast
      if third then
         third:expect_close()
      end
      running:await_log "too many connections from there"
      clients[1]:expect_close() -- idle
      clients[2]:expect_close()
      third = socket.connect(running.addresses[LIMITED])
      talk(third, origin:accept())
      third:reset()
      running:stop()
   end)

   t.it("need no grace to move; those that stay do", function()
      local running = start { grace = "0s" }
      local ends = {}
      for i = 1, 40 do
         ends[i] = { tunnel(running) }
      end
      local hooked = tunnel(running, HOOKED)
      running = upgrade(running)
      hooked:expect_close()
      for _, pair in ipairs(ends) do
         talk(unpack(pair))
      end
      running:stop()
   end)

   t.it("tell of resets where they are now", function()
      local running = start()
      local client, peer = tunnel(running)
      local other, other_peer = tunnel(running)
      running = upgrade(running)
      client:reset()
      local _, why = peer:try_fill()
      assert.equal("reset", why)
      other_peer:reset()
      _, why = other:try_fill()
      assert.equal("reset", why)
      local log = table.concat(lines(running, "text.log", 2), "\n")
      assert.matches("client_failed", log)
      assert.matches("peer_failed", log)
      running:stop()
   end)

   t.it("stay where they have an on_close, or no listener any more", function()
      local running = start()
      local hooked, hooked_peer = tunnel(running, HOOKED)
      local client, peer = tunnel(running)
      local limited, limited_peer = tunnel(running, LIMITED)
      running:write("site.lua", (SITE:gsub("\nml.listen { address = \"127.0.0.1:0\", connections.*", "\n")))
      local new = running:upgrade()
      talk(client, peer)
      running:await_log "a tunnel stays in this program: the new one has refused it"
      talk(hooked, hooked_peer)
      talk(limited, limited_peer)
      assert.falsy(running.process:has_ended())
      end_well(hooked, hooked_peer)
      running:await_log "on_close: ended"
      assert.falsy(running.process:has_ended())
      end_well(limited, limited_peer)
      running:expect_end()
      talk(client, peer)
      end_well(client, peer)
      new:stop()
   end)

   t.it("stay where they are if the new program does not start", function()
      local running = start()
      local client, peer = tunnel(running)
      local up = flow.start(client, peer, { piece = 1000, pause = 0.001 })
      up:await(5000)
      running:write("site.lua", "error 'on purpose'")
      running.process:signal(sys.SIGUSR2)
      running:await_log("upgrade failed: process %d+ ended with exit code 1", 0, 20 * t.tasks.patience)
      up:await(5000)
      up:stop()
      end_well(client, peer)
      running:stop()
   end)

   for _, count in ipairs { 1, 3 } do
      t.it(("move to another number of workers, on the other back end: %d"):format(count), function()
         local path, real = program.copy(process.directory())
         local running = start { workers = 2, program = path }
         local flows = {}
         for i = 1, 12 do
            local client, peer = tunnel(running)
            flows[i] = flow.start(client, peer, { name = "tunnel " .. i, piece = 500, pause = 0.002 })
         end
         local other = backend == "epoll" and "io_uring" or "epoll"
         program.replace(path, ("for site; do :; done; exec '%s' --io %s -w %d \"$site\"\n")
            :format(real, other, count))
         running = upgrade(running)
         assert.equal(count, #running:workers())
         for _, each in ipairs(flows) do
            each:await(1000)
         end
         for _, each in ipairs(flows) do
            each:stop()
         end
         socket.reset_all()
         running:stop()
      end)
   end

   t.it("move by hundreds", function()
      local COUNT = t.full_load and 5000 or 500
      local function part(...)
         return process.start({ "luajit", "spec/support/tunnels.lua", ... }, process.directory())
      end
      local function reported(of, name)
         return t.eventually(name, function()
            return of:stdout():match("%f[%w]" .. name .. " ([^\n]+)\n")
         end, 60 * t.tasks.patience)
      end
      local echo = part "echo"
      local running = start { origin = reported(echo, "listening") }
      local stop = running:path "stop"
      local holder = part("hold", running.address, tostring(COUNT), stop)
      reported(holder, "held")
      local begun = sys.clock()
      local new = upgrade(running)
      if t.full_load then
         local text = "\n   %d tunnels (%s): %.2f s from USR2 to the end of the old program\n"
         io.stderr:write(text:format(COUNT, backend, sys.clock() - begun))
      end
      process.write_file(stop, "")
      assert.equal(tostring(COUNT), reported(holder, "alive"))
      holder:signal(sys.SIGKILL)
      echo:signal(sys.SIGKILL)
      new:stop()
   end)
end)

t.on_every_tls("tunnels with TLS and a new program", function(backend, library)
   local origin
   setup(function()
      origin = socket.listen()
   end)
   teardown(function()
      origin:close()
   end)

   t.it("stay and drain", function()
      local site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", tls = { cert = "a.pem", key = "a.key" },
            l4 = ml.tcp_proxy { "${origin}", name = "tcp" } }
      ]]
      local running = program.start(t.with_tls(backend, library,
         { values = { origin = origin.address }, site = site }))
      local client = tls_socket.connect(running.address, { name = "a.example" })
      local peer = origin:accept()
      client:send "hello"
      assert.equal("hello", peer:read(5))
      local new = running:upgrade()
      peer:send "welcome"
      assert.equal("welcome", client:read(7))
      client:send "again"
      assert.equal("again", peer:read(5))
      assert.falsy(running.process:has_ended())
      client:close()
      peer:close()
      running:expect_end()
      new:stop()
   end)
end)
