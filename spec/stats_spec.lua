--- What the program counts: ml.stats and ml.metrics, over workers that die and reloads.
local t = require "spec.support"

local program, socket, sys = t.program, t.socket, t.sys

local SITE = [[
local ml = require "monolake"
local api = ml.upstream { "unix:${directory}/none.sock", name = 'a "b\\c', retries = 0 }
ml.listen { address = "127.0.0.1:0", chain = ml.router {
   ["/text"] = ml.text "hello",
   ["/missing"] = ml.text("no", { status = 404 }),
   ["/broken"] = function() error "on purpose" end,
   ["/api"] = ml.proxy(api),
   ["/stats"] = function() return ml.json(ml.stats()) end,
   ["/metrics"] = ml.metrics(),
} }
ml.listen { address = "127.0.0.1:0", deny = "127.0.0.0/8", chain = ml.text "never" }
ml.listen { udp = "127.0.0.1:0", l4 = function(conn) conn:close() end }
]]

local function get(client, path)
   return client:exchange(("GET %s HTTP/1.1\nHost: a"):format(path))
end

local function stats(client)
   return require("monolake").json.decode(get(client, "/stats").body)
end

--- The samples of an exposition, by name and labels; fails where its text breaks a rule.
local function samples(text)
   local found, kinds, helped = {}, {}, {}
   assert.equal("\n", text:sub(-1))
   for line in text:gmatch "[^\n]+" do
      local help, kind = line:match "^# HELP (%S+) .+$", line:match "^# TYPE (%S+) %S+$"
      if help then
         assert.is_nil(helped[help], line)
         helped[help] = true
      elseif kind then
         local of = line:match "(%S+)$"
         assert(of == "counter" or of == "gauge", line)
         assert.equal(of == "counter", kind:find "_total$" ~= nil, line)
         kinds[kind] = of
      else
         local name, labels, value = line:match "^([%l%d_]+)(%S*) (%-?%d+)$"
         if not name then -- labels may hold blanks
            name, labels, value = line:match "^([%l%d_]+)(%b{}) (%-?%d+)$"
         end
         assert(name and kinds[name] and helped[name], line)
         assert.is_nil(found[name .. labels], line)
         found[name .. labels] = tonumber(value)
      end
   end
   return found
end

t.on_both_backends("counters", function(backend)
   local running = t.serve { io = backend, site = SITE, workers = 2, listeners = 3,
      values = { directory = t.process.directory() } }

   t.it("say what clients have got", function()
      local client = running():connect()
      local before = stats(client)
      for _, path in ipairs { "/text", "/text", "/missing", "/broken", "/api" } do
         get(client, path)
      end
      local after = stats(client)
      assert.equal(6, after.requests.h1 - before.requests.h1)
      assert.equal(3, after.responses["2xx"] - before.responses["2xx"]) -- one is that of /stats
      assert.equal(1, after.responses["4xx"] - before.responses["4xx"])
      assert.equal(2, after.responses["5xx"] - before.responses["5xx"])
      assert.equal(1, after.layer_failures - before.layer_failures)
      assert.equal(1, after.requests_active)
      assert.equal(2, after.workers)
      assert(after.client_bytes.out - before.client_bytes.out > 5 * #"HTTP/1.1 200 OK")
      local name = 'a "b\\c'
      assert.equal(1, after.upstream_attempts[name] - before.upstream_attempts[name])
      assert.equal(1, after.upstream_connects[name] - before.upstream_connects[name])
      assert.equal(1, after.upstream_connect_failures[name] - before.upstream_connect_failures[name])
      assert.equal(1, after.upstream_failures[name] - before.upstream_failures[name])
      client:close()
   end)

   t.it("follow connections over all workers", function()
      local client = running():connect()
      t.eventually("other tests' connections to be gone", function()
         return stats(client).connections_open == 1
      end)
      local before, crowd = stats(client), {}
      for i = 1, 20 do
         crowd[i] = running():connect()
         get(crowd[i], "/text")
      end
      local during = stats(client)
      assert.equal(21, during.connections_open)
      assert.equal(20, during.connections_accepted - before.connections_accepted)
      for _, other in ipairs(crowd) do
         other:close()
      end
      t.eventually("their end to be counted", function() return stats(client).connections_open == 1 end)
      client:close()
   end)

   t.it("say who was refused", function()
      local client = running():connect()
      local before = stats(client).connections_refused.denied
      socket.try_connect(running().addresses[2])
      t.eventually("the refusal to be counted", function()
         return stats(client).connections_refused.denied == before + 1
      end)
      client:close()
   end)

   t.it("follow flows of datagrams", function()
      local client = running():connect()
      local sender = t.udp.connect(running().addresses[3]:match "^udp:(.*)")
      sender:send "hello"
      t.eventually("the flow to be counted, and to end", function()
         local now = stats(client)
         return now.udp_flows == 1 and now.udp_datagrams == 1 and now.udp_flows_open == 0
      end)
      client:close()
   end)

   t.it("are read by Prometheus", function()
      local client = running():connect()
      local response = get(client, "/metrics")
      assert.equal("text/plain; version=0.0.4; charset=utf-8", response:get "content-type")
      local found = samples(response.body)
      local table_of = stats(client)
      assert.equal(table_of.connections_accepted, found.monolake_connections_accepted_total)
      assert.equal(table_of.responses["5xx"], found['monolake_responses_total{status="5xx"}'])
      assert.is_number(found.monolake_connections_open)
      assert.is_number(found['monolake_upstream_attempts_total{upstream="a \\"b\\\\c"}'])
      client:close()
   end)

   t.it("stay when workers die and sites are loaded anew", function()
      local client = running():connect()
      local before = stats(client)
      client:close()
      running():reload()
      for _, pid in ipairs(running():workers()) do
         sys.kill(pid, sys.SIGKILL)
      end
      -- Who is queued at a worker that is killed gets a reset.
      t.eventually("two new workers to serve", function()
         client = running():connect()
         local ok, now = pcall(stats, client)
         return ok and now.worker_restarts.signal == before.worker_restarts.signal + 2
      end)
      local after = stats(client)
      assert(after.connections_accepted > before.connections_accepted)
      assert(after.responses["5xx"] >= before.responses["5xx"])
      assert.equal(before.reloads.done + 1, after.reloads.done)
      assert(after.connections_open >= 1 and after.connections_open < 50)
      client:close()
   end)

   t.it("go on in a new program", function()
      local old = program.start { io = backend, site = SITE, workers = 2, listeners = 3,
         values = { directory = t.process.directory() } }
      local client = old:connect()
      for _ = 1, 5 do
         get(client, "/api")
      end
      local before = stats(client)
      client:close()
      local new
      for _ = 1, 2 do
         new = old:upgrade()
         old:expect_end()
         old = new
      end
      client = new:connect()
      local after = stats(client)
      assert.equal(before.upstream_attempts['a "b\\c'], after.upstream_attempts['a "b\\c'])
      assert.equal(before.responses["5xx"], after.responses["5xx"])
      assert.equal(before.responses["2xx"] + 1, after.responses["2xx"])
      assert.equal(1, after.connections_open)
      client:close()
      assert.is_nil(new:log():find("cannot be used", 1, true))
      new:stop()
   end)
end)
