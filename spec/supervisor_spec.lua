--- The running program beside its traffic: readiness, listeners, the service manager, workers that die.
local t = require "spec.support"

local process, program, socket, sys = t.process, t.program, t.socket, t.sys

local used_backend -- by the specs of a group

-- Every answer says which worker gave it.
local SITE = [[
local ml = require "monolake"
local ffi = require "ffi"
ffi.cdef "int getpid(void);"
ml.listen { address = ${addresses}, chain = { function() return ml.text(tostring(ffi.C.getpid())) end } }
]]

local function start(addresses, options)
   options = options or {}
   options.site = SITE
   options.io = options.io or used_backend
   options.values = { addresses = addresses or '"127.0.0.1:0"' }
   return program.start(options)
end

local function is_socket(path)
   return os.execute("test -S " .. path) == 0
end

--- An idle connection would be waited for a while.
local function stop(running)
   socket.reset_all()
   running:stop()
end

--- One request; returns the pid of the worker that answered.
local function ask(client)
   return tonumber(client:exchange("GET / HTTP/1.1\nHost: a").body)
end

local function ask_anew(running, address)
   local client = running:connect { address = address }
   local pid = ask(client)
   client:close()
   return pid
end

--- Runs the program where it cannot start. Returns standard error.
local function fails_to_start(addresses, arguments)
   local directory = process.directory()
   process.write_file(directory .. "/site.lua", (SITE:gsub("%${addresses}", addresses)))
   local argv = { program.path, "--io", used_backend, "-w", "2" }
   for _, argument in ipairs(arguments or {}) do
      argv[#argv + 1] = argument
   end
   argv[#argv + 1] = directory .. "/site.lua"
   local out, err, status = process.run(argv)
   assert.equal("", out)
   assert.equal(1, status)
   return err
end

t.on_both_backends("the program", function(backend)
   before_each(function()
      used_backend = backend
   end)

   t.it("prints each bound address with its real port", function()
      local path = process.directory() .. "/site.sock"
      local running = start(('{ "127.0.0.1:0", "[::1]:0", "127.0.0.1:0", "unix:%s" }'):format(path),
         { listeners = 4, workers = 2 })
      local addresses = running.addresses
      assert.equal(4, #addresses)
      assert.matches("^127%.0%.0%.1:[1-9]%d*$", addresses[1])
      assert.matches("^%[::1%]:[1-9]%d*$", addresses[2])
      assert.matches("^127%.0%.0%.1:[1-9]%d*$", addresses[3])
      assert.not_equal(addresses[1], addresses[3])
      assert.equal("unix:" .. path, addresses[4])
      for _, address in ipairs(addresses) do
         assert.is_number(ask_anew(running, address))
      end
      stop(running)
      assert.is_false(is_socket(path))
   end)

   t.it("takes over the socket's file of a process that died, not of one that lives", function()
      local path = process.directory() .. "/site.sock"
      local address = ('"unix:%s"'):format(path)
      local first = start(address)
      assert.matches("cannot listen on unix:" .. path:gsub("%p", "%%%0") .. ": Address already in use",
         fails_to_start(address))
      assert.is_number(ask_anew(first))
      first:kill() -- its workers end with it
      t.eventually("the end of the workers", function()
         return not socket.try_connect(address:match '"(.*)"')
      end)
      assert.is_true(is_socket(path))
      local second = start(address)
      assert.is_number(ask_anew(second))
      stop(second)
   end)

   t.it("refuses an address that another program or instance listens on", function()
      local listener = socket.listen()
      assert.matches("cannot listen on " .. listener.address .. ": Address already in use",
         fails_to_start(('"%s"'):format(listener.address)))
      listener:close()
      local running = start()
      assert.matches("Address already in use", fails_to_start(('"%s"'):format(running.address)))
      stop(running)
   end)

   t.it("refuses the same address twice", function()
      local address = socket.refusing_address()
      assert.matches(address .. " is listened on twice",
         fails_to_start(('{ "%s", "%s" }'):format(address, address)))
   end)

   t.it("keeps its process id in a file while it runs", function()
      local path = process.directory() .. "/pid"
      process.write_file(path, "an older and longer text\n")
      local running = start(nil, { arguments = { "--pid", path } })
      assert.equal(running.process.pid .. "\n", process.read_file(path))
      stop(running)
      assert.is_nil(io.open(path))
      assert.matches("cannot write the pid file /nowhere/pid: No such file or directory",
         fails_to_start('"127.0.0.1:0"', { "--pid", "/nowhere/pid" }))
   end)

   t.it("starts one worker for each CPU that it may use", function()
      local running = start(nil, { prefix = { "taskset", "1" }, arguments = { "-w", "3" } })
      assert.equal(3, #running:workers())
      stop(running)
      local path = process.directory() .. "/site.lua"
      process.write_file(path, (SITE:gsub("%${addresses}", '"127.0.0.1:0"')))
      local alone = process.start({ "taskset", "1", program.path, path }, process.directory())
      t.eventually("the program to listen", function()
         return alone:stdout():match "listening on"
      end)
      assert.equal(1, #process.children(alone.pid))
      assert.equal(0, alone:stop())
   end)

   t.it("logs at the level that was asked for", function()
      local errors_only = start(nil, { arguments = { "--log-level", "error" } })
      ask_anew(errors_only)
      stop(errors_only)
      assert.equal("", errors_only:log())

      local talkative = start(nil, { arguments = { "--log-level", "debug" } })
      local client = talkative:connect()
      client:send("GET / HTTP/1.1\r\n\r\n")
      assert.equal(400, client:read_response().status)
      talkative:await_log("%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ info %[worker 0%] request of " ..
         "127%.0%.0%.1:%d+ is refused: ")
      stop(talkative)
   end)
end)

t.on_both_backends("a service manager", function(backend)
   before_each(function()
      used_backend = backend
   end)

   local path, fd

   local function hear()
      assert(t.tasks.wait(fd, "read"), "the service manager heard nothing")
      return sys.recv(fd)
   end

   local function start_as_service(name)
      path = process.directory() .. "/" .. name
      fd = assert(sys.datagrams(path))
      return start(nil, { prefix = { "env", "NOTIFY_SOCKET=" .. path } })
   end

   after_each(function()
      t.tasks.forget(fd)
      sys.close(fd)
   end)

   t.it("hears of readiness, reloads and the end", function()
      local running = start_as_service "notify"
      assert.equal("READY=1", hear())
      local before = sys.clock()
      running.process:signal(sys.SIGHUP)
      local microseconds = hear():match "^RELOADING=1\nMONOTONIC_USEC=(%d+)$"
      assert.is_true(microseconds / 1e6 >= before - 0.001 and microseconds / 1e6 <= sys.clock())
      assert.equal("READY=1", hear())
      stop(running)
      assert.equal("STOPPING=1", hear())
   end)

   t.it("hears which program serves behind an upgrade, and of no end of the one before it", function()
      local running = start_as_service "notify"
      assert.equal("READY=1", hear())
      local new = running:upgrade()
      local heard = { hear(), hear() }
      table.sort(heard)
      -- The new program's own word, and that of whom the manager watches.
      assert.same({ ("MAINPID=%d\nREADY=1"):format(new.process.pid), "READY=1" }, heard)
      running:expect_end()
      -- What the old one has said before its end is there by now.
      new.process:signal(sys.SIGHUP)
      assert.matches("^RELOADING=1\n", hear())
      assert.equal("READY=1", hear())
      stop(new)
      assert.equal("STOPPING=1", hear())
      assert.is_nil(sys.recv(fd))
   end)

   t.it("that does not listen holds up nobody", function()
      local running = start_as_service "notify"
      assert.equal("READY=1", hear())
      for _ = 1, 10 do -- more words than its socket takes usually (net.unix.max_dgram_qlen)
         running:reload()
      end
      stop(running)
   end)

   t.it("hears that a failed reload is over", function()
      local running = start_as_service "notify"
      assert.equal("READY=1", hear())
      running:write("site.lua", "error 'on purpose'")
      running.process:signal(sys.SIGHUP)
      assert.matches("^RELOADING=1\n", hear())
      assert.equal("READY=1", hear())
      stop(running)
   end)
end)

describe("the choice of the back end", function()
   teardown(process.remove_directories)

   t.it("falls back to epoll where io_uring is forbidden, and says so", function()
      local running = start(nil, { io = "auto",
         prefix = { "luajit", "spec/support/without_io_uring.lua" } })
      assert.matches("warn %[worker 0%] io_uring is not available: forbidden here; using epoll",
         running:log())
      assert.is_number(ask_anew(running))
      stop(running)
   end)

   t.it("ends where io_uring is asked for and forbidden", function()
      local path = process.directory() .. "/site.lua"
      process.write_file(path, (SITE:gsub("%${addresses}", '"127.0.0.1:0"')))
      local out, err, status = process.run { "luajit", "spec/support/without_io_uring.lua", program.path,
         "--io", "io_uring", path }
      assert.equal("", out)
      assert.matches("error %[worker 0%] io_uring is not available: forbidden here", err)
      assert.equal(1, status)
   end)

   t.it("says nothing of it where epoll is asked for", function()
      local running = start(nil, { io = "epoll" })
      assert.is_number(ask_anew(running))
      assert.is_nil(running:log():find "io_uring")
      stop(running)
   end)
end)

t.on_both_backends("a worker that is killed", function(backend)
   --- A connection to each of the workers, by pid.
   local function connections(running, count)
      local by_pid, found = {}, 0
      while found < count do
         local client = running:connect()
         local pid = ask(client)
         if by_pid[pid] then
            client:close()
         else
            by_pid[pid] = client
            found = found + 1
         end
      end
      return by_pid
   end

   t.it("is started again while the others go on", function()
      local running = start(nil, { io = backend, workers = 2 })
      local by_pid = connections(running, 2)
      local victim, survivor = next(by_pid), next(by_pid, (next(by_pid)))
      sys.kill(victim, sys.SIGKILL)
      by_pid[victim]:expect_close()
      assert.equal(survivor, ask(by_pid[survivor]))
      running:await_log("error %[supervisor%] worker %d %(pid " .. victim .. "%) was ended by signal 9")
      for _ = 1, 20 do
         assert.not_equal(victim, ask_anew(running))
      end
      assert.is_nil(connections(running, 2)[victim])
      assert.equal(survivor, ask(by_pid[survivor]))
      stop(running)
   end)

   t.it("is killed when a layer never gives way, and started again", function()
      local running = program.start { io = backend, workers = 2, arguments = { "--script-timeout", "0.2" },
         site = [[
            local ml = require "monolake"
            local ffi = require "ffi"
            ffi.cdef "int getpid(void);"
            ml.listen { address = "127.0.0.1:0", chain = { ml.router {
               ["/loop"] = function() while true do end end,
               ["/interpreted"] = function()
                  while true do
                     jit.off(function() end) -- nothing that is compiled
                  end
               end,
               ["/"] = function() return ml.text(tostring(ffi.C.getpid())) end,
            } } }
         ]] }
      local by_pid = connections(running, 2)
      local victim, survivor = next(by_pid), next(by_pid, (next(by_pid)))
      by_pid[victim]:send_head "GET /loop HTTP/1.1\nHost: a"
      for _ = 1, 10 do
         assert.equal(survivor, ask(by_pid[survivor]))
      end
      by_pid[victim]:expect_close()
      running:await_log "worker %d has not reacted for %d+ ms: does a layer loop%? It is interrupted"
      running:await_log "at request %d+: GET a/loop"
      running:await_log "worker %d has not reacted for %d+ ms: does a layer loop%? It is killed"
      assert.matches("in Lua at [^\n]*site.lua:5\n", running:log())
      by_pid = connections(running, 2)
      assert.is_nil(by_pid[victim])
      assert.equal(survivor, ask(by_pid[survivor]))
      local offset = #running:log()
      victim = next(by_pid)
      assert.equal(500, by_pid[victim]:exchange("GET /interpreted HTTP/1.1\nHost: a").status)
      assert.matches("site.lua:[78]: the script did not finish within 200 ms: does it loop%?\n" ..
         "stack traceback:", running:log(offset))
      assert.equal(victim, ask(by_pid[victim]))
   end)

   t.it("tells of the call that blocks it; a call that a signal ends costs its request only", function()
      local fifo = process.directory() .. "/fifo"
      assert(os.execute("mkfifo " .. fifo) == 0)
      local running = program.start { io = backend, arguments = { "--script-timeout", "0.2" },
         values = { fifo = fifo }, site = [[
            local ml = require "monolake"
            local ffi = require "ffi"
            ffi.cdef "unsigned sleep(unsigned);"
            ml.listen { address = "127.0.0.1:0", chain = { ml.router {
               ["/open"] = function() io.open("${fifo}"):close() end,
               ["/sleep"] = function() ffi.C.sleep(3600) end,
               ["/counts"] = function()
                  local silent = ml.stats().workers_silent
                  return ml.text(silent.interrupted .. " " .. silent.killed)
               end,
               ["/"] = ml.text "hello",
            } } }
         ]] }
      local worker = running:workers()[1]
      local client = running:connect()
      assert.equal(500, client:exchange("GET /sleep HTTP/1.1\nHost: a").status)
      assert.same({ worker }, running:workers())
      client:send_head "GET /open HTTP/1.1\nHost: a"
      running:await_log "at request %d+: GET a/open"
      running:await_log "worker 0 [^\n]* It is killed"
      client:expect_close()
      assert.equal("2 1", running:exchange("GET /counts HTTP/1.1\nHost: a").body)
      assert.matches("in Lua at a function in C\n.*in Lua at [^\n]*site.lua:5\n", running:log())
      assert.equal("hello", running:exchange("GET / HTTP/1.1\nHost: a").body)
      stop(running)
   end)

   t.it("comes back with the script that serves, whatever has become of its files", function()
      local running = start(nil, { io = backend, files = { ["part.lua"] = "return 'old'" } })
      running:write("site.lua", 'require("monolake").listen { address = "127.0.0.1:0",' ..
         ' chain = { require("monolake").text(require "part") } }')
      running.process:signal(sys.SIGHUP)
      running:await_log "generation 2 serves"
      running:write("site.lua", "error 'on purpose'")
      os.remove(running:path "part.lua")
      running.process:signal(sys.SIGHUP)
      running:await_log "reload failed, the old site serves on: [^\n]*on purpose"
      local victim = running:workers()[1]
      local client = running:connect()
      client:exchange "GET / HTTP/1.1\nHost: a" -- the worker has accepted it
      sys.kill(victim, sys.SIGKILL)
      client:expect_close()
      assert.equal("old", running:exchange("GET / HTTP/1.1\nHost: a").body)
      assert.not_equal(victim, running:workers()[1])
   end)

   t.it("again and again comes back later each time, and does not hold up a reload", function()
      local running = start(nil, { io = backend })
      running:kill_often()
      running:write("site.lua", (SITE:gsub("tostring%(.*%(%)%)", '"new"')))
      local begun = sys.clock()
      running.process:signal(sys.SIGHUP)
      running:await_log "(generation 2 serves)"
      assert.is_true(sys.clock() - begun < 4 * t.tasks.patience)
      assert.equal("new", running:exchange("GET / HTTP/1.1\nHost: a").body)
      stop(running)
   end)
end)

t.on_both_backends("standard output and error", function(backend)
   --- Starts the program under a shell's redirections; its listener is a local socket.
   local function start_redirected(redirections)
      local directory = process.directory()
      local address = "unix:" .. directory .. "/site.sock"
      process.write_file(directory .. "/site.lua", (SITE:gsub("%${addresses}", ("%q"):format(address))))
      local running = process.start({ "bash", "-c", 'exec "$0" "$@" ' .. redirections, program.path, "--io",
         backend, "--log-level", "debug", directory .. "/site.lua" }, directory)
      local client = t.eventually("the program to listen", function()
         return socket.try_connect(address)
      end)
      return running, client, address
   end

   for what, redirections in pairs {
      ["may be closed"] = "<&- >&- 2>&-",
      ["may be pipes that nobody reads"] = "> >(:) 2> >(:)",
      ["may be full"] = "> /dev/full 2> /dev/full",
   } do
      t.it(what, function()
         local running, client, address = start_redirected(redirections)
         local worker = ask(client)
         local refused = socket.connect(address)
         refused:send "GET / HTTP/1.1\r\n\r\n" -- is logged
         assert.equal(400, refused:read_response().status)
         refused:expect_close()
         refused:close()
         running:signal(sys.SIGHUP) -- is logged, too
         sys.kill(worker, sys.SIGKILL) -- even by the supervisor
         client:expect_close()
         assert.not_equal(worker, t.eventually("an answer of another worker", function()
            local another = socket.try_connect(address)
            local ok, pid = pcall(ask, another) -- the kernel may still accept for the dead one
            return ok and pid
         end))
         socket.reset_all()
         assert.equal(0, running:stop())
      end)
   end
end)
