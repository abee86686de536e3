--- UDP: datagrams of a flow that the kernel takes and gives as one (UDP_SEGMENT, UDP_GRO) remain what they
--- are, one by one.
local t = require "spec.support"

local process, program, sys, udp = t.process, t.program, t.sys, t.udp

local PROXY = [[
   local ml = require "monolake"
   ml.listen { udp = "${listen}", receive_buffer = "4m", l4 = ml.udp_proxy("${origin}") }
   ml.listen { address = "127.0.0.1:0", chain = function() return ml.json(ml.stats()) end }
]]

--- Datagrams of these sizes, each of which can be told from the others.
local function datagrams(sizes)
   local made = {}
   for i, size in ipairs(sizes) do
      made[i] = (("%d;"):format(i):rep(size)):sub(1, size)
   end
   return made
end

local function times(count, size)
   local sizes = {}
   for i = 1, count do
      sizes[i] = size
   end
   return sizes
end

local MIXED = times(10, 1200)
for _, size in ipairs { 700, 1200, 1200, 1200, 1, 0, 0, 5, 5, 6, 5, 4, 4, 1200 } do
   MIXED[#MIXED + 1] = size
end

t.on_both_backends("runs of datagrams", function(backend)
   local running, origin

   local function it(name, fn)
      t.it(name, function()
         fn()
         running:stop(sys.SIGINT)
      end)
   end

   local function start(options)
      options = options or {}
      origin = udp.bind(options.origin)
      running = program.start { io = backend, workers = 1, site = options.site or PROXY, listeners = 2,
         values = { origin = origin.address, listen = options.listen or "127.0.0.1:0" } }
      local port = running.addresses[1]:match "%d+$"
      return (options.reached_at or "127.0.0.1:%d"):format(port)
   end

   local function send_all(socket, list, to)
      for _, bytes in ipairs(list) do
         socket:send(bytes, to)
      end
   end

   --- A flow, and where its datagrams come from.
   local function begin(address)
      local client = udp.connect(address):send "begin"
      local _, flow = origin:receive()
      return client, flow
   end

   local function stats()
      local client = running:connect { address = running.addresses[2] }
      local body = client:exchange("GET / HTTP/1.1\nHost: a").body
      client:close()
      return require("cjson").decode(body)
   end

   for family, addresses in pairs {
      ["IPv4"] = {},
      ["IPv6"] = { listen = "[::1]:0", reached_at = "[::1]:%d", origin = "[::1]:0" },
      ["IPv4 at any address"] = { listen = "0.0.0.0:0", reached_at = "127.0.0.5:%d" },
      ["IPv6 at any address"] = { listen = "[::]:0", reached_at = "[::1]:%d" },
   } do
      it("keep their order and bounds, whatever their sizes: " .. family, function()
         local client, flow = begin(start(addresses))
         local sent = datagrams(MIXED)
         for _ = 1, 2 do
            running:at_once(function() send_all(client, sent) end)
            assert.equal(flow, origin:expect(sent))
            running:at_once(function() send_all(origin, sent, flow) end)
            client:expect(sent)
         end
         assert.equal(1 + 2 * #sent, stats().udp_datagrams)
         assert.equal(0, stats().udp_datagrams_dropped.full)
      end)

      it("come as such, and are told apart: " .. family, function()
         local address = start(addresses)
         local sent = datagrams { 100, 100, 100, 100, 30 }
         local client = udp.connect(address)
         if not client:send_run(table.concat(sent), 100) then
            return pending "the kernel has none"
         end
         local flow = origin:expect(sent) -- which has begun with them
         for _ = 1, 5 do -- the peer is asked for runs when it has sent 16
            assert.is_true(origin:send_run(table.concat(sent), 100, flow))
            client:expect(sent)
            assert.is_true(client:send_run(table.concat(sent), 100))
            origin:expect(sent)
         end
         local counted = stats()
         assert.equal(30, counted.udp_datagrams)
         assert.equal(1, counted.udp_flows)
      end)
   end

   it("keep their order and bounds by chance", function()
      local client, flow = begin(start())
      local choice = { 0, 1, 100, 100, 100, 99, 1200, 1200 }
      math.randomseed(1)
      for _ = 1, 20 do
         local sizes, last = {}, 1
         for i = 1, math.random(1, 60) do
            last = math.random() < 0.7 and last or math.random(#choice)
            sizes[i] = choice[last]
         end
         local sent = datagrams(sizes)
         running:at_once(function()
            send_all(client, sent)
            send_all(origin, sent, flow)
         end)
         origin:expect(sent)
         client:expect(sent)
      end
   end)

   it("go out as one, if they have come in one turn", function()
      local client, flow = begin(start())
      if not (sys.receive_runs(origin.fd) and sys.receive_runs(client.fd)) then
         return pending "the kernel has none"
      end
      local sizes = times(10, 1200)
      sizes[11] = 700
      local sent = datagrams(sizes)
      running:at_once(function() send_all(client, sent) end)
      assert.equal(table.concat(sent), (origin:receive()))
      for _ = 1, 2 do
         running:at_once(function() send_all(origin, sent, flow) end)
         assert.equal(table.concat(sent), (client:receive()))
      end
      origin:send_run(table.concat(sent), 1200, flow)
      assert.equal(table.concat(sent), (client:receive()))
   end)

   it("of several flows at once do not mix", function()
      local address = start()
      local clients, flows, seen = {}, {}, {}
      for i = 1, 5 do
         clients[i], flows[i] = begin(address)
         seen[flows[i]] = {}
      end
      running:at_once(function()
         for round = 1, 20 do
            for i, client in ipairs(clients) do
               client:send(("%d of %d "):format(round, i):rep(20))
               origin:send(("%d to %d "):format(round, i):rep(20), flows[i])
            end
         end
      end)
      for _ = 1, 100 do
         local bytes, from = origin:receive()
         table.insert(seen[from], bytes)
      end
      for i, client in ipairs(clients) do
         for round = 1, 20 do
            assert.equal(("%d of %d "):format(round, i):rep(20), seen[flows[i]][round])
            assert.equal(("%d to %d "):format(round, i):rep(20), (client:receive()))
         end
      end
   end)

   it("are single datagrams to layers, to flow_queue_max and to responses_max", function()
      local address = start { site = [[
         local ml = require "monolake"
         local origin = ml.upstream { "${origin}", protocol = "udp", name = "origin" }
         ml.listen { udp = "127.0.0.1:0", flow_queue_max = 7, l4 = function(flow)
            ml.log.info(("first: %q"):format(flow:peek()))
            flow:on_close(function(_, result)
               ml.log.info(("closed: %d/%d %d/%d"):format(result.client_packets, result.client_bytes,
                  result.peer_packets, result.peer_bytes))
            end)
            ml.sleep(0.1)
            assert(flow:splice(origin, { responses_max = 1 }))
         end }
         ml.listen { address = "127.0.0.1:0", chain = function() return ml.json(ml.stats()) end }
      ]] }
      local client = udp.connect(address)
      if not client:send_run(("0123456789"):rep(20), 10) then
         return pending "the kernel has none"
      end
      running:await_log 'first: "0123456789"'
      local expected = {}
      for i = 1, 7 do
         expected[i] = "0123456789"
      end
      local flow = origin:expect(expected)
      assert.equal(13, stats().udp_datagrams_dropped.full)
      origin:send_run(("abc"):rep(9), 3, flow)
      client:expect { "abc", "abc", "abc", "abc", "abc", "abc", "abc" }
      assert.is_true(client:silent(0.05))
      running:await_log "closed: 7/70 7/21"
   end)

   --- Executes what follows in a network of its own, in which 1,000 bytes are the most.
   local SMALL = [[ip link set lo mtu 1000 up && exec "$@"]]

   local BURSTS = [[
import os, signal, socket, sys
worker = int(sys.argv[1])
origin, client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
for s in origin, client:
    s.settimeout(5)
origin.bind(("127.0.0.1", 9000))
client.connect(("127.0.0.1", 9001))
client.send(b"begin")
_, flow = origin.recvfrom(65536)
sent = [bytes([65 + i]) * (1200 if i < 10 else 300) for i in range(12)]
for round in range(2):
    for to in origin, client:
        os.kill(worker, signal.SIGSTOP)
        for each in sent:
            client.send(each) if to is origin else origin.sendto(each, flow)
        os.kill(worker, signal.SIGCONT)
        # Behind a refusal, and never again, a run may be overtaken by what came behind it.
        assert sorted(to.recv(65536) for _ in sent) == sorted(sent)
print("all came")
]]

   t.it("that are too long for the path go one by one", function()
      if not (process.installed "ip" and os.execute "unshare -n true 2>/dev/null" == 0) then
         return pending "a network of its own is not permitted here"
      end
      running = program.start { io = backend, workers = 1, listeners = 1,
         prefix = { "unshare", "-n", "sh", "-c", SMALL, "sh" }, site = [[
            local ml = require "monolake"
            ml.listen { udp = "127.0.0.1:9001", l4 = ml.udp_proxy("127.0.0.1:9000") }
         ]] }
      local pid = tostring(running.process.pid)
      local out, err = process.run({ "nsenter", "-t", pid, "-n", "/usr/bin/python3", "-c", BURSTS,
         tostring(running:workers()[1]) }, 30)
      assert.equal("all came\n", out, err)
      running:stop(sys.SIGINT)
   end)
end)
