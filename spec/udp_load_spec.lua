--- Many flows of datagrams, and a flood of senders that never existed while others talk. A short version by
--- default, the full one with SPEC_LOAD=full, which prints its figures.
local t = require "spec.support"

local program, sys, udp = t.program, t.sys, t.udp

local FULL = t.full_load
local FLOWS = FULL and 8000 or 1000
local FORGED = FULL and 50000 or 3000
local FLOW_BYTES_MAX = 1024 -- of a worker for a flow on which nothing moves

local TALKERS, FLOWS_MAX = 20, 200
local FORGED_AT_ONCE = 50

local SITE = [[
   local ml = require "monolake"
   local origin = ml.upstream { "${origin}", name = "origin", protocol = "udp" }
   local proxy = ml.udp_proxy(origin, { idle_timeout = "1h" })
   ml.listen { udp = "127.0.0.1:0", flows_max = ${flows_max}, l4 = proxy }
   ml.listen { address = "127.0.0.1:0", chain = function() return ml.json(ml.stats()) end }
]]

local function stats(running)
   local client = running:connect { address = running.addresses[2] }
   local body = client:exchange("GET / HTTP/1.1\nHost: a").body
   client:close()
   return require("cjson").decode(body)
end

t.on_both_backends("load of UDP", function(backend)
   setup(sys.raise_descriptor_limit)

   --- The program, and where each flow comes from, by the name that its client gives itself.
   local function start(flows_max)
      local origin, sources = udp.bind(), {}
      origin:serve(function(bytes, from)
         local flows = sources[bytes] or {}
         sources[bytes] = flows
         flows[from] = true
         return bytes
      end)
      local running = program.start { io = backend, site = SITE, listeners = 2,
         values = { origin = origin.address, flows_max = flows_max } }
      return running, sources
   end

   local function rounds_of(running, clients)
      for i, client in ipairs(clients) do
         clients[i] = client or udp.connect(running.addresses[1])
         assert.equal("client " .. i, (clients[i]:ask("client " .. i)))
      end
   end

   t.it("holds many flows in little memory", function()
      local running = start(FLOWS + 100)
      local clients = {}
      for i = 1, 50 do
         clients[i] = false
      end
      rounds_of(running, clients)
      local before_kib = running:rss_kib()
      for i = 51, FLOWS + 50 do
         clients[i] = false
      end
      rounds_of(running, clients)
      local bytes = running:expect_small("a flow", before_kib, FLOWS, FLOW_BYTES_MAX)
      if FULL then
         io.stderr:write(("\n   %d flows (%s): %.0f bytes each\n"):format(FLOWS, backend, bytes))
      end
      assert.equal(FLOWS + 50, stats(running).udp_flows_open)
      rounds_of(running, clients) -- all go on
      assert.equal(FLOWS + 50, stats(running).udp_flows)
      running:stop(sys.SIGINT)
   end)

   t.it("lets those who talk go on through a flood of made-up senders", function()
      local running, sources = start(FLOWS_MAX)
      local talkers = {}
      for i = 1, TALKERS do
         talkers[i] = false
      end
      rounds_of(running, talkers)
      rounds_of(running, talkers)
      for _ = 1, FORGED / FORGED_AT_ONCE do
         for _ = 1, FORGED_AT_ONCE do
            local forged = udp.connect(running.addresses[1])
            forged:send "forged"
            forged:close()
         end
         rounds_of(running, talkers)
      end
      for i = 1, TALKERS do
         local flows = 0
         for _ in pairs(sources["client " .. i]) do
            flows = flows + 1
         end
         assert.equal(1, flows)
      end
      local counted = stats(running)
      assert.is_true(counted.udp_flows_open <= FLOWS_MAX, counted.udp_flows_open .. " flows")
      local lost = counted.udp_flows_lost
      assert.is_true(lost.evicted >= FORGED / 2, lost.evicted .. " evicted")
      assert.equal(0, lost.refused)
      running:stop(sys.SIGINT)
   end)
end)
