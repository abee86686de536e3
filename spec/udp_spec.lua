--- UDP: flows of datagrams carried to peers of an upstream.
local t = require "spec.support"

local program, sys, udp = t.program, t.sys, t.udp

local PROXY = [[
   local ml = require "monolake"
   ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy("${origin}") }
]]

t.on_both_backends("udp", function(backend)
   local started = {}

   local function start(site, values, options)
      options = options or {}
      options.io, options.site, options.values = backend, site, values
      local running = program.start(options)
      started[#started + 1] = running
      return running
   end

   --- As t.it; programs are not drained behind it, which would take a second.
   local function it(name, fn)
      t.it(name, function()
         started = {}
         fn()
         for _, running in ipairs(started) do
            if program.running[running] then
               running:stop(sys.SIGINT)
            end
         end
      end)
   end

   local function echo(prefix, address)
      return udp.bind(address):serve(function(bytes) return (prefix or "") .. bytes end)
   end

   local function read_lines(running, name)
      local handle = io.open(running:path(name))
      local lines = {}
      for line in handle and handle:lines() or function() end do
         lines[#lines + 1] = line
      end
      if handle then
         handle:close()
      end
      return lines
   end

   --- Waits for so many lines of a log.
   local function await_lines(running, name, count)
      return t.eventually(count .. " lines in " .. name, function()
         local lines = read_lines(running, name)
         return #lines >= count and lines
      end)
   end

   describe("carries", function()
      it("datagrams both ways, empty and large ones too", function()
         local running = start(PROXY, { origin = echo().address })
         assert.matches("^udp:127%.0%.0%.1:[1-9]%d*$", running.address)
         local client = udp.connect(running.address)
         for _, bytes in ipairs { "hello", "", "x", ("y"):rep(1400), ("z"):rep(65507), "", "bye" } do
            assert.equal(bytes, (client:ask(bytes)))
         end
      end)

      it("each client's on a socket of its own", function()
         local origin, seen = udp.bind(), {}
         origin:serve(function(bytes, from)
            seen[from] = (seen[from] or 0) + 1
            return bytes
         end)
         local running = start(PROXY, { origin = origin.address }, { workers = 2 })
         local clients = {}
         for i = 1, 200 do
            clients[i] = udp.connect(running.address)
         end
         for round = 1, 3 do
            for i, client in ipairs(clients) do
               client:send(("%d of %d"):format(round, i))
            end
            for i, client in ipairs(clients) do
               assert.equal(("%d of %d"):format(round, i), (client:receive()))
            end
         end
         local flows = 0
         for _, count in pairs(seen) do
            assert.equal(3, count)
            flows = flows + 1
         end
         assert.equal(200, flows)
      end)

      it("what the peer sends unasked, but to nobody who has not sent first", function()
         local origin = udp.bind()
         local running = start(PROXY, { origin = origin.address })
         local client = udp.connect(running.address):send "subscribe"
         local _, flow = origin:receive()
         for i = 1, 5 do
            origin:send("news " .. i, flow)
            assert.equal("news " .. i, (client:receive()))
         end
         udp.bind():send("forged", flow)
         assert.is_true(client:silent(0.05))
      end)

      it("a burst in its order", function()
         local origin = udp.bind()
         local running = start(PROXY, { origin = origin.address })
         local client = udp.connect(running.address)
         for i = 1, 100 do
            client:send(("%03d"):format(i))
         end
         local bytes, flow
         for i = 1, 100 do
            bytes, flow = origin:receive()
            assert.equal(("%03d"):format(i), bytes)
         end
         for i = 1, 100 do
            origin:send(("%03d"):format(i), flow)
         end
         for i = 1, 100 do
            assert.equal(("%03d"):format(i), (client:receive()))
         end
      end)

      it("between families of addresses", function()
         local v4, v6 = echo "four ", echo("six ", "[::1]:0")
         local running = start([[
            local ml = require "monolake"
            local six = ml.upstream { "${v6}", protocol = "udp" }
            ml.listen { udp = "[::1]:0", l4 = ml.udp_proxy("${v4}") }
            ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy(six) }
            ml.listen { udp = "[::1]:0", l4 = ml.udp_proxy(six) }
         ]], { v4 = v4.address, v6 = v6.address }, { listeners = 3 })
         assert.equal("four a", (udp.connect(running.addresses[1]):ask "a"))
         assert.equal("six b", (udp.connect(running.addresses[2]):ask "b"))
         assert.equal("six c", (udp.connect(running.addresses[3]):ask "c"))
      end)

      it("answers from the address that was asked, of all those that it is bound to", function()
         local running = start([[
            local ml = require "monolake"
            ml.listen { udp = ":0", l4 = ml.udp_proxy("${origin}") }
         ]], { origin = echo().address }, { listeners = 2 })
         local v4 = running.addresses[1]:match "^udp:0%.0%.0%.0:(%d+)$"
         local v6 = running.addresses[2]:match "^udp:%[::%]:(%d+)$"
         -- Connected sockets hear from nobody else.
         for _, address in ipairs { "127.0.0.1:" .. v4, "127.1.2.3:" .. v4, "[::1]:" .. v6 } do
            local client = udp.connect(address)
            assert.equal("hello", (client:ask "hello"))
            assert.equal("again", (client:ask "again"))
         end
         local client = udp.bind()
         for i = 1, 3 do -- the same client asks several addresses
            local asked = ("127.0.0.%d:%s"):format(i, v4)
            local bytes, from = client:send("to " .. i, asked):receive()
            assert.equal("to " .. i, bytes)
            assert.equal(asked, from)
         end
      end)

      it("by the rules of the upstream", function()
         local origins = { echo "a", echo "b", echo "c" }
         local running = start([[
            local ml = require "monolake"
            local turns = ml.upstream { "${a}", "${b}", "${c}", name = "turns", protocol = "udp" }
            local hash = ml.upstream { "${a}", "${b}", "${c}", name = "hash", balance = "hash",
               protocol = "udp" }
            ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy(turns) }
            ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy(hash) }
         ]], { a = origins[1].address, b = origins[2].address, c = origins[3].address }, { listeners = 2 })
         local answers = {}
         for i = 1, 3 do
            answers[i] = udp.connect(running.addresses[1]):ask ""
         end
         table.sort(answers)
         assert.same({ "a", "b", "c" }, answers)
         local first = udp.connect(running.addresses[2]):ask ""
         for _ = 1, 10 do
            assert.equal(first, (udp.connect(running.addresses[2]):ask ""))
         end
      end)

      it("and counts each flow as an attempt", function()
         local origin = echo()
         local running = start([[
            local ml = require "monolake"
            local function count()
               return ml.text(tostring(ml.stats().upstream_attempts.echo))
            end
            local origin = ml.upstream { "${origin}", name = "echo", protocol = "udp" }
            ml.listen { address = "127.0.0.1:0", chain = count }
            ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy(origin) }
            local function pass(flow, next)
               next(flow)
            end
            ml.listen { udp = "127.0.0.1:0", l4 = { pass, ml.udp_proxy(origin) } }
         ]], { origin = origin.address }, { listeners = 3 })
         for i = 1, 3 do
            udp.connect(running.addresses[2]):ask(tostring(i))
         end
         udp.connect(running.addresses[3]):ask "of layers"
         local client = running:connect { address = running.addresses[1] }
         assert.equal("4", client:send_head("GET / HTTP/1.1\nHost: a"):read_response().body)
      end)

      it("in turns, although a name has yet to be resolved", function()
         local origins = { echo "a", echo "b" }
         local running = start([[
            local ml = require "monolake"
            ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy { "localhost:${port}", "${b}" } }
         ]], { port = origins[1].address:match ":(%d+)$", b = origins[2].address })
         local answers = {}
         for i = 1, 4 do
            answers[i] = udp.connect(running.address):ask ""
         end
         assert.same({ "a", "b", "a", "b" }, answers)
      end)

      it("to peers by name", function()
         local origin = echo()
         local running = start([[
            local ml = require "monolake"
            ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy("localhost:${port}") }
         ]], { port = origin.address:match ":(%d+)$" })
         local client = udp.connect(running.address)
         client:send "one":send "two"
         assert.equal("one", (client:receive()))
         assert.equal("two", (client:receive()))
         assert.equal("three", (udp.connect(running.address):ask "three"))
      end)
   end)

   describe("ends", function()
      it("flows that are idle, and tells of it", function()
         local origin = udp.bind()
         local running = start([[
            local ml = require "monolake"
            ml.listen { udp = "127.0.0.1:0", l4 = {
               ml.access_log "flows.log",
               ml.udp_proxy("${origin}", { idle_timeout = "200ms" }),
            } }
         ]], { origin = origin.address })
         local client = udp.connect(running.address):send "one"
         local _, first = origin:receive()
         for i = 1, 4 do -- either side keeps it
            t.tasks.sleep(0.08)
            if i % 2 == 0 then
               client:send "keep"
               assert.equal(first, select(2, origin:receive()))
            else
               origin:send("answer", first)
               client:receive()
            end
         end
         local line = await_lines(running, "flows.log", 1)[1]
         assert.matches("^127%.0%.0%.1:%d+ %[.*%] 127%.0%.0%.1:%d+ " .. origin.address:gsub("%.", "%%.") ..
            " 11 12 0%.%d+ idle_timeout 3 2$", line)
         client:send "two"
         local bytes, second = origin:receive()
         assert.equal("two", bytes)
         assert.not_equal(first, second)
      end)

      it("flows at the total_timeout of the listener, however much they say", function()
         local origin, seen, flows = udp.bind(), {}, 0
         origin:serve(function(bytes, from)
            flows = flows + (seen[from] and 0 or 1)
            seen[from] = true
            return bytes
         end)
         local running = start([[
            local ml = require "monolake"
            local origin = ml.upstream { "${origin}", name = "origin", protocol = "udp" }
            ml.listen { udp = "127.0.0.1:0", total_timeout = "200ms", l4 = ml.udp_proxy(origin) }
            ml.listen { udp = "127.0.0.1:0", total_timeout = "200ms", l4 = {
               ml.access_log "flows.log", ml.udp_proxy(origin, { total_timeout = "1h" }) } }
         ]], { origin = origin.address }, { listeners = 2 })
         for number, address in ipairs(running.addresses) do
            local client = udp.connect(address)
            t.eventually("another flow", function()
               client:send("still here"):try_receive(0.05) -- what its end meets on its way is lost
               return flows >= 2 * number
            end)
         end
         assert.matches(" total_timeout %d+ %d+$", await_lines(running, "flows.log", 1)[1])
      end)

      it("flows whose datagrams have had their answers", function()
         local origin, sources = udp.bind(), {}
         origin:serve(function(bytes, from)
            sources[#sources + 1] = from
            return bytes
         end)
         local running = start([[
            local ml = require "monolake"
            ml.listen { udp = "127.0.0.1:0", l4 = {
               ml.access_log { path = "flows.log", format = "json" },
               ml.udp_proxy("${origin}", { responses_max = 1 }),
            } }
         ]], { origin = origin.address })
         local client = udp.connect(running.address)
         for i = 1, 5 do
            assert.equal("query " .. i, (client:ask("query " .. i)))
         end
         local lines = await_lines(running, "flows.log", 5)
         for _, line in ipairs(lines) do
            assert.matches('"reason":"ended"', line)
            assert.matches('"client_packets":1,"peer_packets":1', line)
         end
         local seen = {}
         for _, source in ipairs(sources) do
            assert.is_nil(seen[source])
            seen[source] = true
         end
      end)

      it("flows to a peer that is not there, and passes it over when it has failed", function()
         local origin = echo()
         local running = start([[
            local ml = require "monolake"
            local up = ml.upstream { "${dead}", "${origin}", name = "up", protocol = "udp", fail_max = 2 }
            ml.listen { udp = "127.0.0.1:0", l4 = { ml.access_log "flows.log", ml.udp_proxy(up) } }
         ]], { dead = udp.refusing_address(), origin = origin.address })
         for i = 1, 2 do
            local client = udp.connect(running.address):send "lost"
            await_lines(running, "flows.log", i)
            for _ = 1, 3 do -- the next datagram finds the other peer, and stays there
               assert.equal("hello", (client:ask "hello"))
            end
         end
         running:await_log "not used for 10000 ms"
         assert.matches(' peer_failed 1 0 "Connection refused"$', read_lines(running, "flows.log")[1])
         for _ = 1, 6 do
            assert.equal("up", (udp.connect(running.address):ask "up"))
         end
      end)

      it("nothing else when all peers are gone", function()
         local running = start(PROXY, { origin = udp.refusing_address() })
         local client = udp.connect(running.address)
         for _ = 1, 20 do
            client:send "hello"
         end
         assert.is_true(client:silent(0.1))
         running:await_log "Connection refused"
      end)
   end)

   describe("at the bound", function()
      local BOUNDED = [[
         local ml = require "monolake"
         ml.listen { udp = "127.0.0.1:0", flows_max = 3, l4 = ml.udp_proxy("${origin}") }
      ]]

      it("gives the place of the oldest flow whose client has fallen silent", function()
         local origin, sources = udp.bind(), {}
         origin:serve(function(bytes, from)
            sources[bytes] = from
            return bytes
         end)
         local running = start(BOUNDED, { origin = origin.address })
         local talker = udp.connect(running.address)
         talker:ask "talker 1"
         talker:ask "talker 2" -- goes on behind an answer
         for i = 1, 10 do
            assert.equal("query " .. i, (udp.connect(running.address):ask("query " .. i)))
         end
         assert.equal("talker 3", (talker:ask "talker 3"))
         assert.equal(sources["talker 1"], sources["talker 3"])
      end)

      it("refuses new flows where all go on", function()
         local origin = echo()
         local running = start(BOUNDED, { origin = origin.address })
         local talkers = {}
         for i = 1, 3 do
            talkers[i] = udp.connect(running.address)
            talkers[i]:ask "1"
            talkers[i]:ask "2"
         end
         local other = udp.connect(running.address):send "hello"
         running:await_log "3 flows are open, all with clients that go on: new ones are refused %(flows_max%)"
         assert.is_true(other:silent(0.05))
         for i = 1, 3 do
            assert.equal("3", (talkers[i]:ask "3"))
         end
      end)

      it("of descriptors too", function()
         local origin = echo()
         local running = start(PROXY, { origin = origin.address },
            { prefix = { "prlimit", "--nofile=64:64" } })
         for i = 1, 100 do
            assert.equal(tostring(i), (udp.connect(running.address):ask(tostring(i))))
         end
      end)
   end)

   describe("layers", function()
      it("see the first datagram, wait, and choose", function()
         local a, b = echo "a:", echo "b:"
         local running = start([[
            local ml = require "monolake"
            local a = ml.upstream { "${a}", name = "a", protocol = "udp" }
            local b = ml.upstream { "${b}", name = "b", protocol = "udp" }
            ml.listen { udp = "127.0.0.1:0", l4 = function(flow, next)
               local first = flow:peek()
               ml.log.info(("first %q of %s:%d at %s:%d"):format(first, flow.ip, flow.port, flow.local_ip,
                  flow.local_port))
               if first == "drop" then
                  return flow:close()
               elseif first:sub(1, 4) == "wait" then
                  ml.sleep(0.1)
               end
               assert(flow:splice(flow:peek(2) == "b?" and b or a, { idle_timeout = 5 }))
            end }
         ]], { a = a.address, b = b.address })
         local client = udp.connect(running.address):send "drop"
         running:await_log('first "drop" of 127%.0%.0%.1:%d+ at ' .. running.address:sub(5):gsub("%.", "%%."))
         assert.is_true(client:silent(0.05))
         assert.equal("a:hello", (client:ask "hello")) -- another datagram, another flow
         assert.equal("b:b?", (udp.connect(running.address):ask "b?"))
         client = udp.connect(running.address)
         client:send "wait":send "":send "2":send "3"
         for _, bytes in ipairs { "a:wait", "a:", "a:2", "a:3" } do
            assert.equal(bytes, (client:receive()))
         end
      end)

      it("cannot have a flow that never ends by itself", function()
         local running = start([[
            local ml = require "monolake"
            local origin = ml.upstream { "${origin}", name = "origin", protocol = "udp" }
            ml.listen { udp = "127.0.0.1:0", l4 = function(flow)
               flow:splice(origin, { idle_timeout = 0 })
            end }
         ]], { origin = udp.bind().address })
         udp.connect(running.address):send "hello"
         running:await_log "site.lua:4: splice: idle_timeout: expected more than 0: a flow has no other end"
      end)

      it("keep no more datagrams waiting than flow_queue_max", function()
         local origin = udp.bind()
         local running = start([[
            local ml = require "monolake"
            ml.listen { udp = "127.0.0.1:0", flow_queue_max = 4, l4 = {
               function(flow, next)
                  ml.sleep(0.1)
                  next(flow)
               end,
               ml.udp_proxy "${origin}",
            } }
         ]], { origin = origin.address })
         local client = udp.connect(running.address)
         for i = 1, 10 do
            client:send(tostring(i))
         end
         for i = 1, 4 do
            assert.equal(tostring(i), (origin:receive()))
         end
         assert.is_true(origin:silent(0.05))
         client:send "later"
         assert.equal("later", (origin:receive()))
      end)

      it("hear of the end, and of why there was no peer", function()
         local origin = echo()
         local running = start([[
            local ml = require "monolake"
            local function watch(flow, next)
               flow.ctx.name = flow:peek()
               flow:on_close(function(closed, result)
                  ml.log.info(("%s %s %d/%d %d/%d %s %s"):format(closed.ctx.name, result.reason,
                     result.client_packets, result.client_bytes, result.peer_packets, result.peer_bytes,
                     result.peer, result.error))
               end)
               if flow.ctx.name == "error" then
                  error "on purpose"
               elseif flow.ctx.name ~= "nobody" then
                  next(flow)
               end
            end
            ml.listen { udp = "127.0.0.1:0", setup_timeout = "200ms", l4 = {
               watch,
               function(flow, next)
                  if flow:peek() == "sleep" then
                     ml.sleep(10)
                  end
                  next(flow)
               end,
               ml.udp_proxy("${origin}", { responses_max = 1 }),
            } }
         ]], { origin = origin.address })
         udp.connect(running.address):ask "hello"
         running:await_log("hello ended 1/5 1/5 " .. origin.address:gsub("%.", "%%.") .. " nil")
         udp.connect(running.address):send "nobody"
         running:await_log "nobody closed 0/0 0/0 nil nil"
         udp.connect(running.address):send "error"
         running:await_log "error layer_failed 0/0 0/0 nil .*on purpose"
         udp.connect(running.address):send "sleep"
         running:await_log "sleep setup_timeout 0/0"
      end)

      it("have no options of streams", function()
         for option, why in pairs {
            tunnel_idle_timeout = "udp; idle_timeout is an option of ml%.udp_proxy",
            half_closed_timeout = "udp; idle_timeout", keepalive = "udp", ack_timeout = "udp",
            connections_max = "udp; flows_max",
         } do
            local _, err = program.check { site = ([[
               local ml = require "monolake"
               ml.listen { udp = "127.0.0.1:0", %s = 10, l4 = ml.udp_proxy "127.0.0.1:9" }
            ]]):format(option) }
            assert.matches("listen: " .. option .. ": there is none for " .. why, err)
         end
      end)

      it("must name upstreams of datagrams", function()
         local function refused(listen, why)
            local _, err = program.check { site = 'local ml = require "monolake"\n' .. listen }
            assert.matches(why, err)
         end
         refused('ml.listen { udp = "127.0.0.1:53", l4 = ml.tcp_proxy "127.0.0.1:1" }',
            "tcp_proxy 127%.0%.0%.1:1 is a layer of layer 4 and cannot stand in a chain of UDP")
         refused('ml.listen { address = "127.0.0.1:53", l4 = ml.udp_proxy "127.0.0.1:1" }',
            "is a layer of UDP and cannot stand in a chain of layer 4")
         refused('ml.listen { udp = "unix:/x", l4 = ml.udp_proxy "127.0.0.1:1" }', "no internet address")
         refused('ml.listen { udp = "127.0.0.1:53" }', "udp needs a chain of layer 4")
         refused('ml.listen { udp = "127.0.0.1:53", address = "127.0.0.1:53", l4 = {} }', "not both")
         refused('ml.udp_proxy(ml.upstream { "127.0.0.1:1" })', 'needs protocol = "udp"')
         refused('ml.udp_proxy("127.0.0.1:1", { idle_timeout = 0 })', "idle_timeout: expected more than 0")
         refused('ml.udp_proxy "unix:/x"', "needs internet addresses")
      end)
   end)

   describe("a reload", function()
      local SITE = [[
         local ml = require "monolake"
         ml.listen { udp = { ${addresses} }, l4 = ml.udp_proxy("${origin}") }
      ]]

      local function site(addresses, origin)
         return (SITE:gsub("%${(%w+)}", { addresses = addresses, origin = origin.address }))
      end

      it("keeps flows with their peer; new ones go to the new one", function()
         local old, new = echo "old ", echo "new "
         local running = start(site('"127.0.0.1:0"', old), {}, { workers = 2 })
         local clients = {}
         for i = 1, 20 do
            clients[i] = udp.connect(running.address)
            assert.equal("old 1", (clients[i]:ask "1"))
         end
         running:write("site.lua", site('"127.0.0.1:0"', new))
         running:reload()
         for i = 1, 20 do
            assert.equal("old 2", (clients[i]:ask "2"))
            assert.equal("new 1", (udp.connect(running.address):ask "1"))
         end
      end)

      it("adds and drops listeners", function()
         local origin = echo()
         local running = start(site('"127.0.0.1:0", "[::1]:0"', origin), {}, { listeners = 2 })
         local client = udp.connect(running.addresses[2])
         assert.equal("1", (client:ask "1"))
         running:write("site.lua", site('"127.0.0.1:0", "127.0.0.1:0"', origin))
         running:reload()
         local added = t.eventually("the new address", function() return running:listening()[3] end)
         assert.equal("2", (udp.connect(added):ask "2"))
         assert.equal("3", (udp.connect(running.addresses[1]):ask "3"))
         assert.equal("2", (client:ask "2")) -- goes on until it is silent
         t.eventually("the old socket to be closed", function()
            local gone = udp.connect(running.addresses[2]):send "x"
            return select(2, gone:try_receive(0.05)) == "refused"
         end)
      end)

      it("begins flows anew when a worker dies", function()
         local origin = echo()
         local running = start(PROXY, { origin = origin.address }, { workers = 2 })
         local clients = {}
         for i = 1, 20 do
            clients[i] = udp.connect(running.address)
            clients[i]:ask "1"
         end
         sys.kill(running:workers()[1], sys.SIGKILL)
         running:await_log "is started again"
         for i = 1, 20 do
            assert.equal("2", (clients[i]:ask("2")))
         end
      end)
   end)

   it("goes on through an upgrade of the program", function()
      local running = start(PROXY, { origin = echo().address }, { workers = 2 })
      local clients = {}
      for i = 1, 10 do
         clients[i] = udp.connect(running.address)
         assert.equal("1", (clients[i]:ask "1"))
      end
      local new = running:upgrade()
      for _ = 1, 3 do
         for i = 1, 10 do
            assert.equal("2", (clients[i]:ask "2"))
            assert.equal("3", (udp.connect(running.address):ask "3"))
         end
      end
      running:expect_end()
      assert.equal("4", (clients[1]:ask "4"))
      new:stop(sys.SIGINT)
   end)

   describe("a drain", function()
      it("waits for answers, ends what is silent, and begins nothing", function()
         local origin = udp.bind()
         local running = start(PROXY, { origin = origin.address })
         local client = udp.connect(running.address):send "question"
         local _, flow = origin:receive()
         local stopping = t.start_task(function() running:stop() end)
         running:await_log "finishing requests"
         udp.connect(running.address):send "too late"
         origin:send("answer", flow)
         assert.equal("answer", (client:receive()))
         assert.is_true(origin:silent(0.05))
         stopping:join()
      end)

      it("is bounded by the grace period", function()
         local running = start([[
            local ml = require "monolake"
            ml.options { grace = "300ms" }
            ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy("${origin}") }
         ]], { origin = echo().address })
         local client = udp.connect(running.address)
         client:ask "1"
         local stopping = t.start_task(function() running:stop() end)
         t.eventually("the end", function()
            return not pcall(client.ask, client, "more", 0.05)
         end)
         stopping:join()
         assert.matches("1 connections are cut off", running:log())
      end)
   end)

   it("finds out that somebody else has the port", function()
      local other = udp.bind()
      local _, err = pcall(start, ([[
         local ml = require "monolake"
         ml.listen { udp = %q, l4 = ml.udp_proxy "127.0.0.1:1" }
      ]]):format(other.address), {})
      assert.matches("cannot listen on udp:" .. other.address:gsub("%.", "%%.") .. ": Address already in use",
         tostring(err))
   end)
end)
