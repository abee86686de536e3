--- Who may connect, how often and how fast: allow, deny, connections_per_source, accept_rate,
--- connections_total_max; sets of addresses in layers and from files.
local t = require "spec.support"

local program, socket, sys = t.program, t.socket, t.sys

local HEAD = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

--- What becomes of a client: "served" and its socket, "refused", or "waiting" and its socket.
local function try(address, from, seconds)
   local client, code = socket.try_connect(address, { from = from and from .. ":0" })
   if not client then
      assert.equal(sys.ECONNRESET, code)
      return "refused"
   end
   local sent = client:try_send(HEAD)
   local ok, why = client:try_fill(seconds)
   if ok then
      return "served", client
   elseif why == "timeout" then
      return "waiting", client
   end
   assert(why == "reset" or not sent, why) -- the reset may have met what was sent
   return "refused"
end

local function outcome(...)
   return (try(...))
end

--- So many clients at once: how many were served and refused, and the sockets of the former.
local function crowd(count, address, from)
   local served, clients = 0, {}
   for _ = 1, count do
      local what, client = try(address, from)
      if what == "served" then
         served = served + 1
         clients[served] = client
      end
   end
   return served, clients
end

local function count_lines(text, pattern)
   local count = 0
   for line in text:gmatch "[^\n]+" do
      count = count + (line:find(pattern) and 1 or 0)
   end
   return count
end

t.on_both_backends("allow and deny", function(backend)
   local running = t.serve(t.with_tls(backend, "openssl", {
      listeners = 8,
      site = [[
         local ml = require "monolake"
         local office = ml.cidr { "127.0.1.0/24" }
         local hi = ml.text "hi"
         ml.listen { address = "127.0.0.1:0", chain = hi, deny = { "127.0.0.2", office, "10.0.0.0/8" } }
         ml.listen { address = "127.0.0.1:0", chain = hi, allow = { office, "127.0.0.0/30" },
            deny = "127.0.0.2" }
         ml.listen { address = "[::1]:0", chain = hi, deny = { "::/64", "127.0.0.0/8" } }
         ml.listen { address = "[::1]:0", chain = hi, allow = "::1", deny = "0.0.0.0/0" }
         ml.listen { address = "unix:@access-${name}", chain = hi, allow = "127.0.0.1" }
         ml.listen { address = "unix:@access-other-${name}", chain = hi, allow = { "unix:" } }
         ml.listen { address = "127.0.0.1:0", deny = "127.0.0.2", l4 = function(conn) conn:close() end }
         ml.listen { address = "127.0.0.1:0", allow = "127.0.0.2", chain = hi,
            tls = { cert = "rsa.pem" , key = "rsa.key" } }
      ]],
      values = { name = backend .. math.floor(sys.clock() * 1e6) },
   }))

   local function at(listener, from)
      return outcome(running().addresses[listener], from)
   end

   t.it("refuse whom they name and nobody else", function()
      assert.equal("served", at(1))
      assert.equal("refused", at(1, "127.0.0.2"))
      assert.equal("served", at(1, "127.0.0.3"))
      assert.equal("refused", at(1, "127.0.1.255"))
      assert.equal("served", at(1, "127.0.2.0"))
   end)

   t.it("let in whom they name, but deny wins", function()
      assert.equal("served", at(2))
      assert.equal("refused", at(2, "127.0.0.2"))
      assert.equal("served", at(2, "127.0.0.3"))
      assert.equal("refused", at(2, "127.0.0.4"))
      assert.equal("served", at(2, "127.0.1.77"))
   end)

   t.it("know IPv6 and unix sockets", function()
      assert.equal("refused", at(3))
      assert.equal("served", at(4))
   end)

   t.it("hold for layer 4, and with TLS before anything is said", function()
      local client = running():connect { address = running().addresses[7] }
      assert.equal("closed", client:expect_close())
      assert.equal("refused", at(7, "127.0.0.2"))
      assert.equal("refused", at(8))
   end)

   t.it("log refusals, but not each", function()
      local offset = #running():log()
      for _ = 1, 60 do
         assert.equal("refused", at(1, "127.0.0.2"))
      end
      local lines = count_lines(running():log(offset), "refused: its address is denied")
      assert.is_true(lines < 30, lines .. " lines")
      assert.equal("served", at(1))
   end)
end)

--- Runs specs on both kinds of listeners: with `chain = hi`, and with a layer 4 that carries connections to
--- such a one. `serve` is t.serve for a site of these.
local function on_both_kinds(what, define)
   t.on_both_backends(what .. " of HTTP", function(backend)
      define(backend, t.serve)
   end)
   t.on_both_backends(what .. " of layer 4", function(backend)
      define(backend, function(options)
         local inner = ("unix:@inner-%s-%.0f"):format(backend, sys.clock() * 1e6)
         options.site = options.site:gsub("chain = hi", "l4 = ml.tcp_proxy(inner)"):gsub("local hi", ([[
            local inner = ml.upstream { "%s", name = "inner", protocol = "tcp" }
            %%0]]):format(inner)) .. ('ml.listen { address = "%s", chain = hi }'):format(inner)
         options.listeners = options.listeners + 1
         return t.serve(options)
      end)
   end)
end

on_both_kinds("connections_per_source", function(backend, serve)
   local running = serve {
      io = backend, workers = 2, listeners = 3,
      site = [[
         local ml = require "monolake"
         local hi = ml.text "hi"
         ml.listen { address = "127.0.0.1:0", chain = hi, connections_per_source = 3 }
         ml.listen { address = "127.0.0.1:0", chain = hi, connections_per_source = 3, source_prefix_v4 = 24 }
         ml.listen { address = "[::1]:0", chain = hi, connections_per_source = 2 }
      ]],
   }

   --- Waits until one more client is served, and returns it.
   local function await_room(address)
      return t.eventually("room for another", function()
         local what, client = try(address)
         return what == "served" and client
      end)
   end

   t.it("bounds each client over all workers, until its connections close", function()
      local address = running().address
      local served, clients = crowd(12, address)
      assert.equal(3, served)
      assert.equal("served", outcome(address, "127.0.0.2"))
      running():await_log "refused: too many connections from there"
      clients[2]:close()
      clients[2] = await_room(address)
      assert.equal("refused", outcome(address))
      clients[1]:reset()
      clients[1] = await_room(address)
      assert.equal("refused", outcome(address))
   end)

   t.it("takes networks for one client where it is told to", function()
      local address = running().addresses[2]
      local _, clients = crowd(2, address)
      local third, more = try(address, "127.0.0.9")
      assert.equal("served", third)
      assert.equal("refused", outcome(address, "127.0.0.10"))
      assert.equal("served", outcome(address, "127.0.1.10"))
      clients[1]:close()
      more:close()
   end)

   t.it("bounds clients of IPv6", function()
      assert.equal(2, (crowd(6, running().addresses[3])))
   end)

   t.it("forgets the connections of a worker that is killed", function()
      local own = program.start {
         io = backend, workers = 2,
         site = [[
            local ml = require "monolake"
            ml.listen { address = "127.0.0.1:0", chain = ml.text "hi", connections_per_source = 4 }
         ]],
      }
      local served, clients = crowd(20, own.address)
      assert.equal(4, served)
      for _, pid in ipairs(own:workers()) do
         sys.kill(pid, sys.SIGKILL)
      end
      for _, client in ipairs(clients) do
         client:try_fill()
      end
      t.eventually("two new workers", function()
         return #own:workers() == 2
      end)
      clients = {}
      t.eventually("room for as many as before", function()
         local what, client = try(own.address)
         clients[#clients + 1] = what == "served" and client or nil
         return #clients == 4
      end)
      assert.equal("refused", outcome(own.address))
   end)
end)

t.on_both_backends("behind a proxy that sends PROXY headers", function(backend)
   local running = t.serve {
      io = backend,
      site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", chain = ml.text "hi", deny = { "192.0.2.1", "127.0.0.3" },
            allow = { "192.0.2.0/24", "2001:db8::/32", "127.0.0.4" }, connections_per_source = 2,
            proxy_protocol = { from = "127.0.0.1" } }
      ]],
   }

   --- What becomes of a client of the proxy.
   local function via(ip)
      local client = running():connect()
      client:send(("PROXY TCP%d %s %s 1000 80\r\n"):format(ip:find ":" and 6 or 4, ip, ip))
      client:try_send(HEAD)
      return client:try_fill() and "served" or "refused"
   end

   t.it("the clients that it speaks for are judged and counted", function()
      assert.equal("refused", via "192.0.2.1")
      assert.equal("refused", via "198.51.100.1")
      for _ = 1, 2 do
         assert.equal("served", via "192.0.2.2")
         assert.equal("served", via "192.0.2.3")
         assert.equal("served", via "2001:db8::1")
      end
      assert.equal("refused", via "192.0.2.2")
      assert.equal("refused", via "2001:db8::2")
      assert.equal("served", via "2001:db8:0:1::2")
   end)

   t.it("others are judged by their own addresses", function()
      local address = running().address
      assert.equal("refused", outcome(address, "127.0.0.2"))
      assert.equal("refused", outcome(address, "127.0.0.3"))
      assert.equal(2, (crowd(4, address, "127.0.0.4")))
   end)
end)

t.on_both_backends("flows of datagrams", function(backend)
   local origin
   local running = t.serve(function()
      origin = t.udp.bind()
      return {
         io = backend, workers = 2, values = { origin = origin.address },
         site = [[
            local ml = require "monolake"
            ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy("${origin}", { idle_timeout = "100ms" }),
               deny = { "127.0.0.3" }, connections_per_source = 2 }
         ]],
      }
   end)
   teardown(function()
      origin:close()
   end)

   --- Sends from an address and waits for the answer; nil if none comes.
   local function ask(client)
      client:send("question", (running().address:gsub("^udp:", "")))
      return (client:try_receive(0.15))
   end

   t.it("begin for those who may, so many for each", function()
      origin:serve(function(bytes)
         return bytes
      end)
      local clients = {}
      for i = 1, 3 do
         clients[i] = t.udp.bind "127.0.0.2:0"
      end
      assert.is_nil(ask(t.udp.bind "127.0.0.3:0"))
      running():await_log "client 127.0.0.3:%d+ refused: its address is denied"
      assert.equal("question", ask(clients[1]))
      assert.equal("question", ask(clients[2]))
      assert.is_nil(ask(clients[3]))
      assert.equal("question", ask(t.udp.bind "127.0.0.4:0"))
      t.eventually("room for another flow", function()
         return ask(clients[3])
      end)
   end)
end)

t.on_both_backends("accept_rate of datagrams", function(backend)
   local origin
   local running = t.serve(function()
      origin = t.udp.bind()
      return {
         io = backend, workers = 2, values = { origin = origin.address }, listeners = 2,
         site = [[
            local ml = require "monolake"
            local proxy = ml.udp_proxy "${origin}"
            ml.listen { udp = "127.0.0.1:0", l4 = proxy, accept_rate = 2, accept_burst = 4 }
            ml.listen { address = "127.0.0.1:0",
               chain = function() return ml.text(tostring(ml.stats().udp_flows_lost.rate)) end }
         ]],
      }
   end)
   teardown(function()
      origin:close()
   end)

   t.it("bounds how many flows begin, not those that go on", function()
      origin:serve(function(bytes)
         return bytes
      end)
      local address = running().addresses[1]
      local talker = t.udp.connect(address)
      assert.equal("first", (talker:ask "first"))
      local answered, clients, has = 0, {}, {}
      for i = 1, 40 do
         clients[i] = t.udp.connect(address):send(tostring(i))
         assert.equal("goes on " .. i, (talker:ask("goes on " .. i)))
      end
      running():await_log "datagrams of new flows are dropped %(accept_rate = 2%)"
      local client = running():connect { address = running().addresses[2] }
      t.eventually("every client to be answered or counted", function()
         for i = 1, 40 do
            if not has[i] and clients[i]:try_receive(0.001) then
               has[i], answered = true, answered + 1
            end
         end
         return answered + tonumber(client:exchange("GET / HTTP/1.1\nHost: a").body) == 40
      end)
      assert.is_true(answered >= 1 and answered < 40, answered .. " flows have begun")
      local late = t.udp.connect(address)
      t.eventually("room for another", function()
         return late:send("late"):try_receive(0.05)
      end)
   end)
end)

on_both_kinds("accept_rate and connections_total_max", function(backend, serve)
   local running = serve {
      io = backend, workers = 2, listeners = 2,
      site = [[
         local ml = require "monolake"
         local hi = ml.text "hi"
         ml.listen { address = "127.0.0.1:0", chain = hi, accept_rate = 20, accept_burst = 4 }
         ml.listen { address = "127.0.0.1:0", chain = hi, connections_total_max = 4 }
      ]],
   }

   t.it("lets a burst in, then no more than the rate; nobody is refused", function()
      local started = sys.clock()
      local done = 0
      for _ = 1, 12 do
         t.start_task(function()
            assert.equal("served", (try(running().address)))
            done = done + 1
         end)
      end
      t.eventually("all to be served", function()
         return done == 12
      end)
      -- 4 at once and 8 at 50 ms each; each worker may have had an accept under way
      assert.is_true(sys.clock() - started > 0.25, "it took " .. sys.clock() - started)
   end)

   t.it("says in the log what clients wait for", function()
      running():await_log "clients wait for their turn %(accept_rate = 20%)"
   end)

   t.it("keeps those in the kernel's queue who are too many", function()
      local address = running().addresses[2]
      local served, waiting = {}, {}
      for _ = 1, 10 do
         local what, client = try(address, nil, 0.05)
         table.insert(what == "served" and served or waiting, client)
      end
      assert.is_true(#served >= 1 and #served <= 5, #served .. " were served")
      while #waiting > 0 do
         while #served > 0 do
            table.remove(served):close()
         end
         t.eventually("one of those who wait to be served", function()
            for i, client in ipairs(waiting) do
               if client.buffer ~= "" or client:try_fill(0.02) then
                  served[#served + 1] = table.remove(waiting, i)
                  return true
               end
            end
         end)
      end
   end)
end)

local SET_SITE = [[
   local ml = require "monolake"
   local set = ml.cidr { "192.0.2.0/24", "2001:db8::/32", file = { "more.txt", "few.txt" } }
   ml.listen { address = "127.0.0.1:0", chain = function(req)
      local asked = req.args.ip
      local found, why
      if asked then
         found, why = set:contains(asked)
      else
         found, why = set:contains(req)
      end
      return ml.text(tostring(found) .. (why and ", " .. why or ""))
   end }
   ml.listen { address = "127.0.0.1:0", l4 = function(conn)
      if set:contains(conn) and set:contains(conn.ip) then
         conn:reset()
      end
   end }
   ml.listen { address = "127.0.0.1:0", chain = ml.text "hi", deny = set }
]]

t.on_both_backends("a set of addresses", function(backend)
   local lines = { "# blocked since Monday", "", "  127.0.0.2\t# one" }
   for i = 0, 99999 do -- every other address, so that none of them merge
      local high = ("11.%d.%d."):format(math.floor(i / 32768), math.floor(i / 128) % 256)
      lines[#lines + 1] = high .. i % 128 * 2
   end
   local running = t.serve {
      io = backend, listeners = 3, site = SET_SITE, arguments = { "--watch" },
      files = { ["more.txt"] = table.concat(lines, "\n"), ["few.txt"] = "127.0.0.3/32 ; SBL1\r\n" },
   }

   local function ask(ip)
      local client = running():connect()
      local answer = client:exchange(("GET /?ip=%s HTTP/1.1\nHost: a"):format(ip)).body
      client:close()
      return answer
   end

   t.it("tells layers who is in it", function()
      assert.equal("true", ask "192.0.2.77")
      assert.equal("false", ask "192.0.3.0")
      assert.equal("true", ask "2001:db8:7::1")
      assert.equal("false", ask "2001:db9::")
      assert.equal("true", ask "::ffff:192.0.2.1")
      assert.equal("true", ask "127.0.0.3")
      assert.equal("nil, not an IP address", ask "nonsense")
      assert.equal("nil, not an IP address", ask "192.0.2.0/24")
      for i = 0, 99999, 9973 do
         local high = ("11.%d.%d."):format(math.floor(i / 32768), math.floor(i / 128) % 256)
         assert.equal("true", ask(high .. i % 128 * 2))
         assert.equal("false", ask(high .. i % 128 * 2 + 1))
      end
      for from, expected in pairs { ["127.0.0.2"] = "true", ["127.0.0.4"] = "false" } do
         local client = running():connect { from = from .. ":0" }
         assert.equal(expected, client:exchange("GET / HTTP/1.1\nHost: a").body)
      end
   end)

   t.it("serves layers of layer 4 and listeners", function()
      local l4 = running().addresses[2]
      local blocked = socket.try_connect(l4, { from = "127.0.0.3:0" })
      assert.equal("reset", blocked and blocked:expect_close() or "reset")
      assert.equal("closed", running():connect({ address = l4, from = "127.0.0.4:0" }):expect_close())
      assert.equal("refused", outcome(running().addresses[3], "127.0.0.2"))
      assert.equal("served", outcome(running().addresses[3], "127.0.0.4"))
   end)

   t.it("is read anew when its file changes, and kept when the file is broken", function()
      local address = running().addresses[3]
      local offset = #running():log()
      running():write("few.txt", "127.0.0.4\n")
      running():await_log("generation %d+ serves", offset)
      assert.equal("refused", outcome(address, "127.0.0.4"))
      assert.equal("served", outcome(address, "127.0.0.3"))
      offset = #running():log()
      running():write("few.txt", "127.0.0.4\n\n127.0.0.300\n")
      running():await_log('reload failed[^\n]*few.txt:3: "127.0.0.300" is no IP address', offset)
      assert.equal("refused", outcome(address, "127.0.0.4"))
      offset = #running():log()
      running():write("few.txt", "")
      running():await_log("generation %d+ serves", offset)
      assert.equal("served", outcome(address, "127.0.0.4"))
   end)
end)

t.on_both_backends("a set of a file that is gone", function(backend)
   t.it("still is that of workers which are started again, and reloads say what is missing", function()
      local own = program.start {
         io = backend, files = { ["list.txt"] = "127.0.0.2\n" },
         site = [[
            local ml = require "monolake"
            ml.listen { address = "127.0.0.1:0", chain = ml.text "hi", deny = ml.cidr { file = "list.txt" } }
         ]],
      }
      own:reload()
      os.remove(own:path "list.txt")
      sys.kill(own:workers()[1], sys.SIGKILL)
      own:await_log "was ended by signal 9"
      t.eventually("a new worker", function()
         return outcome(own.address) == "served"
      end)
      assert.equal("refused", outcome(own.address, "127.0.0.2"))
      own:reload "reload failed, the old site serves on: [^\n]*list.txt: No such file or directory"
      assert.equal("refused", outcome(own.address, "127.0.0.2"))
   end)
end)

t.on_both_backends("a reload", function(backend)
   local function site(options)
      return ([[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", chain = ml.text "hi", %s }
      ]]):format(options)
   end

   t.it("changes who may connect, for new connections", function()
      local running = program.start { io = backend, site = site "" }
      local _, kept = try(running.address)
      kept:read_some()
      local function change(options)
         running:write("site.lua", site(options))
         running:reload()
      end
      change 'deny = "127.0.0.0/8"'
      assert.equal("refused", outcome(running.address))
      kept:send(HEAD)
      assert.is_truthy(kept:read_some():find "200 OK")
      change 'allow = "127.0.0.2"'
      assert.equal("refused", outcome(running.address))
      assert.equal("served", outcome(running.address, "127.0.0.2"))
      change "connections_per_source = 2"
      assert.equal(2, (crowd(5, running.address)))
      change "connections_per_source = 4"
      assert.equal(2, (crowd(5, running.address)))
      change "accept_rate = 1000, accept_burst = 10"
      assert.equal(20, (crowd(20, running.address)))
      change ""
      assert.equal(20, (crowd(20, running.address)))
   end)
end)

describe("a site with mistakes about addresses", function()
   local function expect_error(text, message, files)
      local _, err, status = program.check {
         site = 'local ml = require "monolake"\nml.listen { address = "127.0.0.1:0", chain = ml.text "", ' ..
            text .. " }",
         files = files,
      }
      assert.equal(1, status)
      assert.is_truthy(err:find("site.lua:2: ", 1, true), err)
      assert.is_truthy(err:find(message, 1, true), err)
   end

   t.it("is told where they are", function()
      expect_error('allow = "10.0.0.0/33"', 'listen: allow: "10.0.0.0/33" has a prefix of more than 32 bits')
      expect_error('deny = { "localhost" }', 'listen: deny: "localhost" is no IP address')
      expect_error("deny = { 7 }", "listen: deny: expected prefixes")
      expect_error('deny = { file = "x" }', "for files write ml.cidr { file = ... }")
      expect_error('deny = ml.cidr { "::1/200" }', 'cidr: "::1/200" has a prefix of more than 128 bits')
      expect_error('deny = ml.cidr { fiel = "a" }', 'unknown option "fiel"; did you mean "file"?')
      expect_error('deny = ml.cidr { file = "absent.txt" }', "absent.txt: No such file or directory")
      expect_error('deny = ml.cidr { file = "." }', "Is a directory")
      expect_error('deny = ml.cidr { file = "a.txt" }', 'a.txt:3: "10.0.0/8" is no IP address or prefix',
         { ["a.txt"] = "# list\n10.0.0.0/8\n  10.0.0/8 # typo\n" })
      expect_error('deny = ml.cidr { file = "a.txt" }', 'a.txt:1: "??ELF?',
         { ["a.txt"] = "\0\127ELF\1\2" .. ("\200"):rep(5000) })
      expect_error("connections_per_source = -1", "connections_per_source: expected a whole number")
      expect_error("source_prefix_v4 = 33", "source_prefix_v4: expected at most 32 bits, not 33")
      expect_error("accept_burst = 5", "accept_burst needs accept_rate")
      expect_error("accept_rate = 1000, accept_burst = 5", "expected a hundredth of accept_rate or more")
   end)

   t.it("is told how many prefixes are left", function()
      local out, _, status = program.check {
         site = [[
            local ml = require "monolake"
            ml.listen { address = "127.0.0.1:0", chain = ml.text "", allow = { "10.0.0.0/9", "10.128.0.0/9",
               "192.0.2.1" }, deny = "::1" }
         ]],
      }
      assert.equal(0, status)
      assert.is_truthy(out:find("  allow: 2 prefixes\n  deny: 1 prefix\n", 1, true), out)
   end)

   t.it("is warned of bits that do not count", function()
      local _, err, status = program.check {
         site = [[
            local ml = require "monolake"
            ml.listen { address = "127.0.0.1:0", chain = ml.text "", deny = ml.cidr { file = "a.txt" } }
         ]],
         files = { ["a.txt"] = "10.0.0.0/8\n10.0.0.1/8\n10.0.0.1/9\n" },
      }
      assert.equal(0, status)
      local warning = "a.txt:2: bits behind the prefix do not count (2 such prefixes)"
      assert.is_truthy(err:find(warning, 1, true), err)
   end)
end)
