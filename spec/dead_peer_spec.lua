--- Tunnels of which one end vanishes without a word, as machines do that lose their power or their network.
local json = require "cjson"
local t = require "spec.support"
local h2 = require "spec.support.h2"

local SITE = [[
   local ml = require "monolake"
   local log = ml.access_log { path = "lines.json", format = "json" }
   local function listen(options, peers)
      local tcp = { "${origin}", protocol = "tcp" }
      local web = { "${origin}" }
      for name, value in pairs(options) do
         tcp[name], web[name] = value, value
      end
      tcp.name, web.name = peers .. " tcp", peers .. " web"
      ml.listen { address = "127.0.0.1:0", keepalive = options.keepalive, ack_timeout = options.ack_timeout,
         l4 = { log, ml.tcp_proxy(tcp) } }
      ml.listen { address = "127.0.0.1:0", keepalive = options.keepalive, ack_timeout = options.ack_timeout,
         protocols = { "h1", "h2c" }, chain = { log, ml.tunnel { allow = { "${origin}" } }, ml.proxy(web) } }
   end
   listen({ keepalive = "1s" }, "silent")
   listen({ ack_timeout = "300ms" }, "deaf")
]]
local KEEPALIVE, ACK_TIMEOUT = 0, 2 -- before the listeners with these options
local LAYER4, HTTP = 1, 2

--- Which end of what vanishes.
local CASES = {
   { "layer4", "client" }, { "layer4", "peer" }, { "connect", "client" }, { "upgrade", "client" },
   { "upgrade", "peer" }, { "h2", "client" },
}

-- With a keepalive of a second, TCP asks three times, a second apart each, and gives up a second later.
local SILENT_SECONDS_MIN, SILENT_SECONDS_MAX, SECONDS_MAX = 2.5, 4.5, 15
local MANY = ("many bytes "):rep(1000)

t.on_both_backends("an end that has vanished", function(backend)
   local origin, proxy = t.proxied(backend, { site = SITE, listeners = 4 })

   --- Both ends of a tunnel, the client's and the peer's.
   local open = {}

   function open.layer4(first)
      local client = t.socket.connect(proxy().addresses[first + LAYER4])
      return client, origin:accept()
   end

   function open.connect(first)
      local client = t.socket.connect(proxy().addresses[first + HTTP])
      client:send_head(("CONNECT %s HTTP/1.1\nHost: %s"):format(origin.address, origin.address))
      local peer = origin:accept()
      assert.equal(200, client:read_response_head().status)
      return client, peer
   end

   function open.upgrade(first)
      local client = t.socket.connect(proxy().addresses[first + HTTP])
      client:send_head "GET / HTTP/1.1\nHost: a\nConnection: upgrade\nUpgrade: talk"
      local peer = origin:accept()
      peer:read_request()
      peer:send_head "HTTP/1.1 101 Go\nConnection: upgrade\nUpgrade: talk"
      assert.equal(101, client:read_response_head().status)
      return client, peer
   end

   --- The client's socket is that of the whole connection.
   function open.h2(first)
      local client = h2.connect(proxy().addresses[first + HTTP])
      local id = client:request({ { ":method", "CONNECT" }, { ":authority", origin.address } },
         { open = true })
      local peer = origin:accept()
      assert.equal(200, client:head(id).status)
      return client.socket, peer
   end

   local function lines()
      local list = {}
      for line in t.process.read_file(proxy():path "lines.json"):gmatch "[^\n]+" do
         list[#list + 1] = json.decode(line)
      end
      return list
   end

   --- Has an end of each tunnel vanish, and the other see it; `say` is what is on its way then. Returns
   --- how long the first took.
   local function vanish(first, say)
      local before, tasks, soonest = #lines(), {}, math.huge
      local due = {}
      for _, case in ipairs(CASES) do
         local kind, side = case[1], case[2]
         local client, peer = open[kind](first)
         local gone, left = client, peer
         if side == "peer" then
            gone, left = peer, client
         end
         due[side .. "_failed"] = (due[side .. "_failed"] or 0) + 1
         tasks[#tasks + 1] = t.start_task(function()
            local begun = t.sys.clock()
            t.sys.deafen(gone.fd)
            if say then
               left:send(say)
            end
            assert.equal("reset", left:expect_close(SECONDS_MAX))
            soonest = math.min(soonest, t.sys.clock() - begun)
            gone:reset()
         end)
      end
      for _, task in ipairs(tasks) do
         task:join()
      end
      local logged = t.eventually("its lines", function()
         local now = lines()
         return #now == before + #CASES and now
      end)
      local reasons = {}
      for i = before + 1, #logged do
         reasons[logged[i].reason] = (reasons[logged[i].reason] or 0) + 1
      end
      assert.same(due, reasons)
      return soonest
   end

   --- One end sends until nobody takes any more, and the other takes nothing for so long.
   local function pause(client, peer, seconds)
      local sent, taken = 0, 0
      while peer:try_send(MANY, 0.2) do
         sent = sent + #MANY
      end
      t.tasks.sleep(seconds)
      while taken < sent do
         taken = taken + #client:read_some()
      end
      client:reset()
      peer:expect_close()
   end

   t.it("is found out by asking, and is not one that only takes nothing for a while", function()
      local client, peer = open.layer4(KEEPALIVE)
      local pausing = t.start_task(pause, client, peer, SILENT_SECONDS_MAX)
      local seconds = vanish(KEEPALIVE)
      assert.is_true(seconds > SILENT_SECONDS_MIN, ("it was given up after %.3f s"):format(seconds))
      local before = #lines()
      pausing:join()
      t.eventually("its line", function()
         return #lines() == before + 1
      end)
   end)

   --- What it has sent fills all that there is room for, so nobody receives from it any more.
   t.it("is found out by its reset while the other takes nothing", function()
      for _, case in ipairs(CASES) do
         local kind, side = case[1], case[2]
         if kind ~= "h2" then -- which has no more on its way than streams have windows
            local before = #lines()
            local client, peer = open[kind](KEEPALIVE)
            local gone, left = client, peer
            if side == "peer" then
               gone, left = peer, client
            end
            repeat until not gone:try_send(MANY, 0.2)
            gone:reset()
            local logged = t.eventually("its line", function()
               local now = lines()
               return #now > before and now
            end)
            assert.equal(side .. "_failed", logged[#logged].reason, kind)
            left:reset()
         end
      end
   end)

   t.it("is found out by what it does not acknowledge", function()
      vanish(ACK_TIMEOUT, MANY)
   end)
end)
