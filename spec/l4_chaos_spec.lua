--- Layer 4 under clients, peers and layers that all do as they like, through reloads: nothing may crash,
--- leak or stay behind. SPEC_SEED repeats the choices of a run (but not its timing).
local t = require "spec.support"

local process, socket, tasks = t.process, t.socket, t.tasks

local CLIENTS = 40
local RELOADS = t.full_load and 20 or 3
local RELOAD_SECONDS = t.full_load and 2 or 0.4

local SITE = [[
   local ml = require "monolake"
   local origin = ml.upstream { "${origin}", "${refusing}", name = "origin", protocol = "tcp",
      connect_timeout = "200ms", fail_max = 0 }
   local full = ml.upstream { "${origin}", name = "full", protocol = "tcp", connections_max = 5,
      connect_timeout = "50ms" }
   local other -- a connection, which may have ended

   local behaviours = {
      function() ml.sleep(math.random() * 0.2) end,
      function() error "as it likes" end,
      function(conn) conn:close() end,
      function(conn) conn:reset() end,
      function(conn) conn:splice(full) end,
      function() if other then pcall(other.reset, other) end end,
      function(conn) pcall(conn.peek, conn, 3, { timeout = 0.02 }) end,
      function() end,
   }

   local function chaos(conn, next)
      local choice = math.random(#behaviours)
      conn:on_close(function()
         if choice % 2 == 0 then
            ml.sleep(math.random() * 0.05)
         end
      end)
      behaviours[choice](conn)
      if choice > 5 or choice == 1 then
         next(conn)
      end
      if choice == 7 then
         ml.sleep(math.random() * 0.15)
      elseif choice == 8 and math.random(4) == 1 then
         error "late"
      end
      other = conn
   end

   math.randomseed(${seed})
   ml.listen { address = "127.0.0.1:0", setup_timeout = "100ms", l4 = { ml.access_log "access.log", chaos,
      ml.tcp_proxy(origin, { idle_timeout = "60ms", total_timeout = "300ms" }) } }
   ml.listen { address = "127.0.0.1:0", tls = { cert = "a.pem", key = "a.key" }, l4 = ml.tcp_proxy(origin) }
   ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy { "${calm}", name = "calm" } }
]]
local CHAOS_LISTENERS, CALM = 2, 3

--- What a client or a peer may do with its end.
local function behave(connection)
   local choice = math.random(8)
   for _ = 1, math.random(5) do
      if choice == 1 then
         return connection:reset()
      elseif choice == 2 then
         connection:half_close()
      elseif choice == 3 then
         connection:try_send(("x"):rep(200000), 0.1)
      end
      connection:try_send("hello", 0.1)
      connection:try_fill(0.02)
      connection.buffer = ""
   end
   if choice < 5 then
      connection:close()
   else
      connection:reset()
   end
end

t.on_both_backends("layer 4 in chaos", function(backend)
   t.it("stays as it was", function()
      local seed = tonumber(os.getenv "SPEC_SEED") or os.time()
      math.randomseed(seed)
      local origin, calm = socket.listen(), socket.listen()
      local running = t.program.start(t.with_tls(backend, "openssl", { site = SITE, listeners = 3,
         values = { origin = origin.address, calm = calm.address, refusing = socket.refusing_address(),
            seed = seed } }))
      local client = running:connect { address = running.addresses[CALM] }
      local peer = calm:accept()
      local pid = running:workers()[1]
      local descriptors = process.descriptors(pid)
      t.start_task(function()
         while true do
            t.start_task(behave, origin:accept(3600))
         end
      end)

      local stopping, begun, clients = false, 0, {}
      for i = 1, CLIENTS do
         clients[i] = t.start_task(function()
            while not stopping do
               local connection = socket.try_connect(running.addresses[math.random(CHAOS_LISTENERS)])
               begun = begun + 1
               if connection then
                  behave(connection)
               end
            end
         end)
      end
      for _ = 1, RELOADS do
         tasks.sleep(RELOAD_SECONDS)
         running:reload()
      end
      stopping = true
      for _, task in ipairs(clients) do
         task:join()
      end

      assert.is_true(begun > 100, begun .. " connections only")
      client:send "still here?"
      assert.equal("still here?", peer:read(11), "seed " .. seed)
      t.eventually("all to be closed", function()
         return process.descriptors(pid) <= descriptors
      end)
      assert.same({ pid }, running:workers(), "a worker has died; seed " .. seed)
      client:close()
      peer:close()
      running:stop()
      origin:close()
      calm:close()
   end)
end)
