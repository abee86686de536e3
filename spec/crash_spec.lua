--- A worker that dies under load costs what was on it, and nobody else anything: not a request of the
--- others fails, and its queue is served again at once.
local t = require "spec.support"

local program, socket, sys = t.program, t.socket, t.sys

local WORKERS = 3
local CONNECTIONS = 12         -- on each worker at least
local NEWCOMERS = 30           -- just after a death: a third of them in the dead worker's queue
-- What is promised for a quiet machine, as that of SPEC_LOAD=full is to be; and for a busy one.
local SERVED_AGAIN_SECONDS = t.full_load and 0.1 or 2

local SITE = [[
local ml = require "monolake"
local ffi = require "ffi"
ffi.cdef "int getpid(void);"
ml.listen { address = { ${addresses} }, chain = { ml.router {
   ["/crash"] = function() return ml.text(tostring(ffi.cast("int *", 16)[0])) end,
   ["/*"] = function() return ml.text(tostring(ffi.C.getpid())) end,
} } }
]]

local function ask(client)
   return tonumber(client:exchange("GET / HTTP/1.1\nHost: a").body)
end

local function start(backend, workers)
   return program.start { io = backend, site = SITE, workers = workers,
      values = { addresses = '"127.0.0.1:0"' } }
end

--- As many connections on each worker, by pid.
local function connections(running)
   local by_pid, full = {}, 0
   while full < WORKERS do
      local client = running:connect()
      local pid = ask(client)
      by_pid[pid] = by_pid[pid] or {}
      local on_worker = by_pid[pid]
      on_worker[#on_worker + 1] = client
      full = full + (#on_worker == CONNECTIONS and 1 or 0)
   end
   return by_pid
end

--- Asks again and again; any answer but that of the worker on which the connection is fails the spec.
local function keep_asking(by_pid, victim)
   local load = { answered = 0, tasks = {} }
   for pid, clients in pairs(by_pid) do
      for _, client in ipairs(clients) do
         if pid ~= victim then
            load.tasks[#load.tasks + 1] = t.start_task(function()
               while not load.stopping do
                  assert.equal(pid, ask(client))
                  load.answered = load.answered + 1
                  t.tasks.sleep(0.002)
               end
            end)
         end
      end
   end
   return load
end

local function finish(load)
   load.stopping = true
   for _, task in ipairs(load.tasks) do
      task:join()
   end
end

--- Kills it and waits until it is dead: until then it may still accept connections, which it takes along.
local function kill(pid, signal)
   local pidfd = assert(sys.pidfd(pid))
   sys.kill(pid, signal)
   assert(t.tasks.wait(pidfd, "read"), "it does not die")
   t.tasks.forget(pidfd)
   sys.close(pidfd)
end

--- Connects newcomers and returns how long the last of them has waited for an answer.
local function greet_newcomers(running, victim, address)
   local begun, newcomers = sys.clock(), {}
   for i = 1, NEWCOMERS do
      newcomers[i] = t.start_task(function()
         local client = running:connect { address = address }
         assert.not_equal(victim, ask(client))
         client:close()
      end)
   end
   for _, newcomer in ipairs(newcomers) do
      newcomer:join()
   end
   return sys.clock() - begun
end

t.on_both_backends("the death of a worker under load", function(backend)
   local function expect_served_again(waited, name)
      if t.full_load then
         io.stderr:write(("\n   %s (%s): all newcomers answered after %.0f ms\n"):format(name, backend,
            waited * 1000))
      end
      assert.is_true(waited < SERVED_AGAIN_SECONDS * t.tasks.patience, waited .. " s")
   end

   for name, signal in pairs { SIGKILL = sys.SIGKILL, SIGSEGV = sys.SIGSEGV } do
      t.it("by " .. name .. " costs nobody on another one anything", function()
         local running = start(backend, WORKERS)
         running:expect_crash()
         for _, victim in ipairs(running:workers()) do
            local by_pid = connections(running)
            local load = keep_asking(by_pid, victim)
            t.eventually("load", function()
               return load.answered > 100
            end)
            kill(victim, signal)
            local waited = greet_newcomers(running, victim)
            local before = load.answered
            t.eventually("more load", function()
               return load.answered > before + 100
            end)
            finish(load)
            expect_served_again(waited, name)
            running:await_log("%(pid " .. victim .. "%)[^\n]*: it is started again")
            for _, client in ipairs(by_pid[victim]) do
               client:expect_close()
            end
            socket.reset_all()
         end
         running:stop()
      end)
   end

   -- A sanitizer reports it in words of its own, which fail a spec.
   if not program.sanitized then
      t.it("leaves a backtrace and the request that it was at", function()
         local running = start(backend, 1)
         local client = running:connect()
         client:send_head "GET /crash HTTP/1.1\nHost: a"
         client:expect_close()
         running:await_log("crashed: Segmentation fault, address 0x10\n" ..
            "[^\n]*at request %d+: GET a/crash\n" ..
            ".*the program stands at .*monolake%-lua%(.*%[0x%x+%]\n.*was ended by signal 11")
         assert.is_number(ask(running:connect()))
         socket.reset_all()
         running:stop()
      end)
   end

   t.it("again and again is answered by longer and longer delays", function()
      local running = start(backend, 1)
      local deaths, delays = {}, {}
      for i = 1, 5 do
         local victim = t.eventually("a worker", function()
            return running:workers()[1]
         end)
         if deaths[i - 1] then
            delays[#delays + 1] = sys.clock() - deaths[i - 1]
         end
         deaths[i] = sys.clock()
         sys.kill(victim, sys.SIGKILL)
         running:await_log("%(pid " .. victim .. "%)[^\n]*: it is started again")
      end
      -- At once, then 200, 400 and 800 ms.
      for i, least in ipairs { 0, 0.15, 0.35, 0.75 } do
         assert.is_true(delays[i] > least, ("delay %d: %.3f s"):format(i, delays[i]))
      end
      assert.is_true(delays[1] < delays[4], "no delay grows")
      assert.is_number(ask(running:connect()))
      socket.reset_all()
      running:stop()
   end)

   --- Kills the same worker, by its place, until it is not started again at once. Returns the others.
   local function hold_back(running, check)
      local others = running:workers()
      local victim = table.remove(others)
      for i = 1, 6 do
         kill(victim, sys.SIGKILL)
         if check then
            check()
         end
         running:await_log("%(pid " .. victim .. "%)[^\n]*: it is started again")
         victim = i < 6 and t.eventually("another worker", function()
            return running:workers()[WORKERS]
         end)
      end
      return others
   end

   t.it("again and again leaves nobody in its queue: another one stands in for it", function()
      local running = start(backend, WORKERS)
      local others = hold_back(running, function()
         expect_served_again(greet_newcomers(running), "a loop of SIGKILL")
      end)
      assert.same(others, running:workers(), "it is not held back")
      local by_pid = {}
      for _ = 1, NEWCOMERS do
         local client = running:connect()
         by_pid[client] = ask(client)
      end
      -- A reload meanwhile adds a listener, of which that worker has a queue, too.
      running.values.addresses = '"127.0.0.1:0", "127.0.0.1:0"'
      running:write("site.lua", SITE)
      running.process:signal(sys.SIGHUP)
      local added = t.eventually("the new listener", function()
         return running:listening()[2]
      end)
      expect_served_again(greet_newcomers(running, nil, added), "a listener added meanwhile")
      t.eventually("its return", function()
         return #running:workers() == WORKERS
      end)
      -- Connections stay where they are, over its return and a reload.
      running:reload()
      for client, pid in pairs(by_pid) do
         local response = client:exchange "GET / HTTP/1.1\nHost: a"
         assert.equal(tostring(pid), response.body)
         assert.is_false(response:has("connection", "close"))
      end
      -- And it has its queue to itself again: else nobody would be left when the others stand still.
      local returned = running:workers()[WORKERS]
      t.eventually("an answer of that worker", function()
         local client = running:connect()
         local pid = ask(client)
         client:close()
         return pid == returned
      end)
      socket.reset_all()
      running:stop()
   end)

   t.it("of the one that stands in for another leaves both to the third", function()
      local running = start(backend, WORKERS)
      local others = hold_back(running)
      for _, victim in ipairs(others) do
         kill(victim, sys.SIGKILL)
         expect_served_again(greet_newcomers(running, victim), "the death of a helper")
         running:await_log("%(pid " .. victim .. "%)[^\n]*: it is started again")
      end
      socket.reset_all()
      running:stop()
   end)
end)
