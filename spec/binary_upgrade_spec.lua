--- USR2: a new program takes the place of the one that runs, and nobody who talks to it notices.
local t = require "spec.support"

local h2 = require "spec.support.h2"

local process, program, socket, sys = t.process, t.program, t.socket, t.sys

local SITE = [[
local ml = require "monolake"
local ffi = require "ffi"
ffi.cdef "int getpid(void);"
ml.listen { address = { "127.0.0.1:0", "unix:${directory}/site.sock" }, chain = {
   ml.router {
      ["/slow"] = function() ml.log.info "slow begins" ml.sleep(0.5) return ml.text "slow" end,
      ["/held"] = function()
         ml.log.info "held begins"
         while not io.open "${directory}/release" do
            ml.sleep(0.01)
         end
         return ml.text "held"
      end,
      ["/pid"] = function() return ml.text(tostring(ffi.C.getpid())) end,
      ["/*"] = ml.text "hello",
   },
} }
]]

local QUEUED_SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = ml.text "hello", connections_total_max = 4 }
]]

t.on_both_backends("a new program", function(backend)
   --- Starts a copy of the program, which can be replaced.
   local function start(options)
      local directory = process.directory()
      local path, real = program.copy(directory)
      options = options or {}
      return program.start { io = backend, site = options.site or SITE, workers = options.workers or 2,
         listeners = options.listeners or 2,
         values = { directory = directory }, program = path, arguments = options.arguments }, path, real
   end

   local load
   after_each(function()
      if load and not load:has_ended() then
         load:signal(sys.SIGKILL)
      end
   end)

   --- Request after request. Returns what ends them and says how many were answered, none badly.
   local function steady(running)
      local stop = running:path "stop"
      load = process.start({ "luajit", "spec/support/load.lua", "steady", running.address, "20", stop },
         process.directory())
      t.eventually("the load to begin", function() return load:stdout():find "begun" end)
      return function()
         process.write_file(stop, "")
         assert.is_true(load:wait(20 * t.tasks.patience))
         assert.equal("0", load:stdout():match "failed (%d+)", load:stdout())
         return tonumber(load:stdout():match "answered (%d+)")
      end
   end

   local function pid_of(running, address)
      local client = running:connect { address = address }
      local response = client:exchange "GET /pid HTTP/1.1\nHost: a\nConnection: close"
      client:close()
      return tonumber(response.body)
   end

   t.it("takes over again and again under load without a lost request", function()
      local pid_file = process.directory() .. "/pid"
      local running = start { arguments = { "--pid", pid_file } }
      local finish = steady(running)
      for _ = 1, 4 do
         local new = running:upgrade()
         assert.equal(new.process.pid, tonumber(process.read_file(pid_file)))
         running:expect_end()
         running = new
      end
      assert.is_true(finish() > 100)
      assert.equal(running.process.pid, tonumber(process.read_file(pid_file)))
      local ours = {}
      for _, pid in ipairs(running:workers()) do
         ours[pid] = true
      end
      for _, address in ipairs(running.addresses) do
         assert.is_true(ours[pid_of(running, address)])
      end
      socket.reset_all()
      running:stop()
      assert.equal("", process.read_file(pid_file))
   end)

   --- Nobody is let in while others hold the only places, so that all wait in the kernel's queues.
   for _, count in ipairs { 1, 2, 3 } do
      t.it(("serves those who are queued: from 2 workers to %d"):format(count), function()
         local running, path, real = start { site = QUEUED_SITE, listeners = 1 }
         local held, waiting = {}, {}
         for i = 1, 4 do
            held[i] = running:connect()
            held[i]:exchange "GET / HTTP/1.1\nHost: a"
         end
         for i = 1, 24 do
            waiting[i] = running:connect()
            waiting[i]:send_head "GET / HTTP/1.1\nHost: a\nConnection: close"
         end
         program.replace(path, ("exec '%s' \"$@\" -w %d\n"):format(real, count))
         local new = running:upgrade()
         for i = 1, 24 do
            assert.equal("hello", waiting[i]:read_response().body)
            waiting[i]:expect_close()
         end
         running:expect_end()
         assert.equal(count, #new:workers())
         socket.reset_all()
         new:stop()
      end)
   end

   t.it("lets the old one finish what it has begun", function()
      local running = start()
      local slow, idle = running:connect(), running:connect()
      idle:exchange "GET / HTTP/1.1\nHost: a"
      slow:send_head "GET /slow HTTP/1.1\nHost: a"
      running:await_log "slow begins"
      local new = running:upgrade()
      local response = slow:read_response()
      assert.equal("slow", response.body)
      assert.is_true(response:has("connection", "close"))
      idle:expect_close()
      running:expect_end()
      socket.reset_all()
      new:stop()
   end)

   t.it("lets the old one finish its streams of HTTP/2, and tells their clients to begin no more", function()
      local running = start { site = SITE:gsub("chain =", 'protocols = { "h1", "h2c" }, chain =') }
      local client = h2.connect(running.address)
      local held = {}
      for i = 1, 2 do
         held[i] = client:request(h2.get { [":path"] = "/held" })
      end
      running:await_log "held begins.*held begins"
      local new = running:upgrade()
      client:pump(function() return client.goaway end)
      assert.equal(h2.NO_ERROR, client.goaway)
      process.write_file(running.values.directory .. "/release", "")
      for _, id in ipairs(held) do
         local response = client:response(id)
         assert.equal(200, response.status)
         assert.equal("held", response.body)
      end
      assert.equal(h2.NO_ERROR, client:close_code())
      assert.is_true(client.last_id >= held[2])
      running:expect_end()
      -- Its clients' next connection is the new one's.
      assert.equal("hello", h2.connect(new.address):get("/").body)
      socket.reset_all()
      new:stop()
   end)

   for _, count in ipairs { 1, 3 } do
      t.it("may have another number of workers: " .. count, function()
         local running, path, real = start()
         local finish = steady(running)
         program.replace(path, ("exec '%s' \"$@\" -w %d\n"):format(real, count))
         local new = running:upgrade()
         running:expect_end()
         assert.equal(count, #new:workers())
         assert.is_true(finish() > 0)
         socket.reset_all()
         new:stop()
      end)
   end

   t.it("that cannot start leaves the old one as it was", function()
      local running, path, real = start { arguments = { "--script-timeout", "0.1" } }
      local function expect_failure(pattern)
         local offset = #running:log()
         running.process:signal(sys.SIGUSR2)
         running:await_log(pattern, offset, 20 * t.tasks.patience)
         for _, address in ipairs(running.addresses) do
            assert.is_truthy(pid_of(running, address))
         end
      end
      local finish = steady(running)
      running:write("site.lua", "error 'on purpose'")
      expect_failure "on purpose.*upgrade failed: process %d+ ended with exit code 1; this one serves on"
      running:write("site.lua", SITE)
      program.replace(path, "kill -9 $$\n")
      expect_failure "upgrade failed: process %d+ was ended by signal 9 %(Killed%); this one serves on"
      os.remove(path)
      expect_failure "cannot execute .*monolake%-lua: No such file or directory.*upgrade failed"
      program.replace(path, "sleep 60\n")
      local offset = #running:log()
      running.process:signal(sys.SIGUSR2)
      running:await_log("is started as process", offset)
      running.process:signal(sys.SIGUSR2)
      running:await_log "no upgrade now: another one is under way"
      running:await_log("was not ready in time: it is killed.*upgrade failed", offset, 20 * t.tasks.patience)
      program.replace(path, ("exec '%s' \"$@\"\n"):format(real))
      local new = running:upgrade()
      running:expect_end()
      finish()
      socket.reset_all()
      new:stop()
   end)

   --- Loading it for the fourth time takes until somebody has changed the file: that is the worker of a
   --- new program, behind the probe and the worker of the old one, and its own probe.
   local LOADS_LONG = [[
local directory = debug.getinfo(1).source:match "@(.*)/"
local file = io.open(directory .. "/count", "a+")
file:write "x"
local count = file:seek "end"
file:close()
if count == ${count} then
   io.open(directory .. "/begun", "w"):close()
   while not io.open(directory .. "/changed") do end
end
]]

   local function loading_for_long(count)
      return LOADS_LONG:gsub("%${count}", count) .. SITE
   end

   local function await_loading(running)
      t.eventually("the script to run", function() return io.open(running:path "begun") end)
   end

   local function becomes(running, answer)
      t.eventually("the answer " .. answer, function()
         return running:exchange "GET / HTTP/1.1\nHost: a".body == answer
      end)
   end

   local EDITED = SITE:gsub('"hello"', '"edited"')

   t.it("reloads what was edited behind its back: HUP to the old one is passed on", function()
      local running = start { site = loading_for_long(4), workers = 1 }
      local offset = #running:log()
      running.process:signal(sys.SIGUSR2)
      await_loading(running)
      running:write("site.lua", EDITED)
      running.process:signal(sys.SIGHUP)
      running:await_log("the reload waits for the end of the upgrade", offset)
      running:write("changed", "")
      local new = running:await_upgrade(offset)
      becomes(new, "edited")
      running:expect_end()
      socket.reset_all()
      new:stop()
   end)

   t.it("hears of a HUP that the old one gets while it drains", function()
      local running = start()
      local held = running:connect()
      held:send_head "GET /held HTTP/1.1\nHost: a"
      running:await_log "held begins"
      local new = running:upgrade()
      running:write("site.lua", EDITED)
      running.process:signal(sys.SIGHUP)
      becomes(new, "edited")
      process.write_file(running.values.directory .. "/release", "")
      assert.equal("held", held:read_response().body)
      running:expect_end()
      socket.reset_all()
      new:stop()
   end)

   t.it("that cannot start does not keep the old one from a reload", function()
      local running, path = start()
      program.replace(path, ("while [ ! -e '%s' ]; do sleep 0.01; done\nexit 1\n")
         :format(running:path "changed"))
      running.process:signal(sys.SIGUSR2)
      running:await_log "is started as process"
      running:write("site.lua", EDITED)
      running.process:signal(sys.SIGHUP)
      running:await_log "the reload waits for the end of the upgrade"
      running:write("changed", "")
      running:await_log "upgrade failed: process %d+ ended with exit code 1.*generation 2 serves"
      assert.equal("edited", running:exchange "GET / HTTP/1.1\nHost: a".body)
   end)

   t.it("is started behind a reload that is under way", function()
      local running = start()
      running:write("site.lua", loading_for_long(1) .. "\n-- edited")
      local offset = #running:log()
      running.process:signal(sys.SIGHUP)
      await_loading(running)
      running.process:signal(sys.SIGUSR2)
      running:await_log("the upgrade waits until the site is loaded", offset)
      running:write("changed", "")
      local new = running:await_upgrade(offset)
      assert.matches("generation 2 serves.*is started as process", running:log(offset))
      running:expect_end()
      socket.reset_all()
      new:stop()
   end)

   t.it("that dies before it serves leaves the old one's pid file", function()
      local pid_file = process.directory() .. "/pid"
      local running, path, real = start { arguments = { "--pid", pid_file } }
      local ours = running.process.pid .. "\n"
      program.replace(path, ("echo $$ >'%s'\nexit 1\n"):format(pid_file))
      running.process:signal(sys.SIGUSR2)
      running:await_log "upgrade failed"
      t.eventually("our pid in the file", function() return process.read_file(pid_file) == ours end)
      -- Its worker cannot load what its probe could.
      local offset = #running:log()
      program.replace(path, ("exec '%s' \"$@\"\n"):format(real))
      running:write("site.lua", SITE .. [[
         if io.open "${directory}/probed" then
            error "on purpose"
         end
         io.open("${directory}/probed", "w"):close()
      ]])
      running.process:signal(sys.SIGUSR2)
      local pid = running:await_log("is started as process (%d+)", offset)
      running:await_log("upgrade failed: process " .. pid .. " ended with exit code 1", offset)
      assert.equal(ours, process.read_file(pid_file))
   end)

   t.it("does not make the first TERM to the old one a second one", function()
      for count = 1, 2 do
         local running = start()
         local held = running:connect()
         held:send_head "GET /held HTTP/1.1\nHost: a"
         running:await_log "held begins"
         local new = running:upgrade()
         running.process:signal(sys.SIGTERM)
         running:await_log "is finishing requests already, since a new program has taken over"
         if count == 2 then
            running.process:signal(sys.SIGTERM)
            held:expect_close()
            running:await_log "stopping now"
         else
            process.write_file(running.values.directory .. "/release", "")
            assert.equal("held", held:read_response().body)
         end
         running:expect_end() -- with status 0
         socket.reset_all()
         new:stop()
      end
   end)

   t.it("is ended with the old one, if that is stopped meanwhile", function()
      local running, path = start()
      program.replace(path, "sleep 60\n")
      running.process:signal(sys.SIGUSR2)
      local pid = tonumber(running:await_log "is started as process (%d+)")
      running:stop()
      assert.is_nil(sys.pidfd(pid))
   end)
end)
