--- What runs out is told of, costs nobody else anything, and is used again when it is there.
local ffi = require "ffi"
local busted = require "busted"
local faults = require "spec.support.faults"
local h2 = require "spec.support.h2"
local t = require "spec.support"

local process, program, sys = t.process, t.program, t.sys

ffi.cdef "unsigned getuid(void); int getpid(void);"
local is_root = ffi.C.getuid() == 0

local REQUEST = "GET / HTTP/1.1\nHost: a"
local SETPRIV = "setpriv --reuid 65534 --regid 65534 --clear-groups"

--- A named pipe that only its owner may open. Nobody reads it, but that there is a reader.
local function unread_pipe()
   local path = process.directory() .. "/pipe"
   process.run { "mkfifo", "-m", "600", path }
   return path, assert(io.open(path, "r+"))
end

local LOGGING_SITE = [[
   local ml = require "monolake"
   local long = ("x"):rep(3000)
   ml.listen { address = "unix:${directory}/socket", chain = {
      ml.access_log(${access_log}),
      function(req)
         if req.path == "/print" then
            print("printed", long)
         elseif req.path ~= "/quiet" then
            ml.log.info(long)
         end
         return ml.text(tostring(ml.stats().log_messages_dropped))
      end,
   } }
]]

t.on_both_backends("a log that nobody reads", function(backend)
   --- Starts the program with standard output (1) or error (2) in a pipe that only root may open.
   local function start(stream, how, access_log)
      local path, held = unread_pipe()
      local directory = process.directory()
      process.run { "chmod", "777", directory }
      local redirect = 'for site do :; done; chmod -R a+rX "${site%%/*}"; exec %s "$@" %d<>%s'
      local running = program.start { io = backend, site = LOGGING_SITE, listeners = 0,
         program = how and program.public_copy(),
         arguments = how == "becomes" and { "--user", "nobody" } or nil,
         values = { directory = directory, access_log = ("%q"):format(access_log or "/dev/null") },
         prefix = { "sh", "-c", redirect:format(how == "starts as" and SETPRIV or "", stream, path), "sh" } }
      running.address = "unix:" .. directory .. "/socket"
      t.eventually("the program to listen", function()
         return pcall(running.exchange, running, "GET /quiet HTTP/1.1\nHost: a")
      end)
      return running, path, held
   end

   local function served(client, path)
      local response = client:exchange(("GET %s?%s HTTP/1.1\nHost: a"):format(path, ("u"):rep(1000)))
      assert.equal(200, response.status)
      return tonumber(response.body)
   end

   --- More than a pipe holds, and what lines are gathered in.
   local function fill(running, path)
      local client = running:connect()
      for _ = 1, 200 do
         served(client, path)
      end
      client:close()
   end

   for _, how in ipairs { false, "becomes", "starts as" } do
      local whose = how and (" where the program " .. how .. " a user who may not open it") or ""

      t.it("on standard error stops nobody" .. whose, function()
         if how and not is_root then
            return pending "needs root"
         end
         local running, path, held = start(2, how)
         fill(running, "/")
         local dropped = served(running, "/quiet")
         assert.is_true(dropped > 10, "dropped: " .. dropped)
         running.process:signal(sys.SIGHUP) -- the supervisor logs, too
         local reader = process.start({ "cat", path }, process.directory())
         t.eventually("the missing ones to be told of", function()
            served(running, "/")
            return reader:stdout():match "\n[^\n]* warn [^\n]*%d+ messages were dropped here"
         end)
         running.process:signal(sys.SIGHUP) -- of the first one it may have been unable to tell
         t.eventually("the reload", function()
            return reader:stdout():match "generation %d serves"
         end)
         held:close()
         running:stop()
         reader:stop()
      end)

      t.it("on standard output stops nobody" .. whose, function()
         if how and not is_root then
            return pending "needs root"
         end
         local running, path, held = start(1, how, "stdout")
         fill(running, "/quiet")
         running:reload()
         running:await_log "access log stdout: [^\n]*%d+ lines were dropped"
         local reader = process.start({ "cat", path }, process.directory())
         t.eventually("a line of a request that comes then", function()
            served(running, "/quiet")
            return reader:stdout():match "GET /quiet"
         end)
         held:close()
         running:stop()
         reader:stop()
      end)

      t.it("and that scripts print stops nobody" .. whose, function()
         if how and not is_root then
            return pending "needs root"
         end
         local running, path, held = start(1, how)
         fill(running, "/print")
         local dropped = served(running, "/quiet")
         assert.is_true(dropped > 10, "dropped: " .. dropped)
         running:await_log "warn [^\n]*standard output took no more: what a script printed is missing"
         local reader = process.start({ "cat", path }, process.directory())
         local line = ("printed\t%s\n"):format(("x"):rep(3000))
         t.eventually("a line that is printed then, whole", function()
            served(running, "/print")
            return reader:stdout():sub(-2 * #line) == line .. line
         end)
         held:close()
         running:stop()
         reader:stop()
      end)
   end
end)

--- Jiffies that a process has computed for.
local function cpu_ticks(pid)
   local user, system = process.read_file(("/proc/%d/stat"):format(pid)):match
      "%) %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ (%d+) (%d+)"
   return user + system
end

if (os.getenv "SPEC_IO" or "epoll") == "epoll" then
   busted.describe("a system call that fails for want of something", function()
      if not faults.possible then
         return pending "no sanitizer lets anything be preloaded before it"
      end
      local broken, running, origin
      busted.setup(function()
         origin = t.socket.listen()
         broken = faults.new()
         running = program.start { io = "epoll", prefix = broken.prefix, site = [[
            local ml = require "monolake"
            ml.listen { address = "127.0.0.1:0", chain = ml.router {
               ["/local"] = ml.text "local",
               ["/*"] = ml.proxy { "${origin}", name = "origin" },
            } }
         ]], values = { origin = origin.address } }
      end)
      busted.teardown(function()
         origin:close()
         running:stop()
         process.remove_directories()
      end)

      local function get(client, path)
         return client:exchange(("GET %s HTTP/1.1\nHost: a"):format(path))
      end

      for _, case in ipairs {
         { "EMFILE", "Too many open files; trying again [^\n]*ulimit" },
         { "ENFILE", "Too many open files in system; trying again [^\n]*fs%.file%-max" },
         { "ENOMEM", "Cannot allocate memory; trying again\n" },
         { "ENOBUFS", "No buffer space available; trying again\n" },
      } do
         t.it(("accept4 with %s is tried again, and others are served"):format(case[1]), function()
            local client, offset = running:connect(), #running:log()
            assert.equal("local", get(client, "/local").body)
            broken:set { accept4 = faults[case[1]] }
            local late = running:connect():send_head "GET /local HTTP/1.1\nHost: a"
            running:await_log("cannot accept on [^\n]*" .. case[2], offset)
            local worker = running:workers()[1]
            local began, ticks = sys.clock(), cpu_ticks(worker)
            assert.is_true(late:silent(0.3))
            assert.is_true(cpu_ticks(worker) - ticks < 50 * (sys.clock() - began), "it spins")
            assert.equal("local", get(client, "/local").body)
            broken:set {}
            assert.equal("local", late:read_response().body)
         end)
      end

      t.it("socket with ENFILE answers 503, and blames no origin", function()
         local client, offset = running:connect(), #running:log()
         broken:set { socket = faults.ENFILE }
         assert.equal(503, get(client, "/").status)
         running:await_log("the system has no file descriptor left: raise fs.file%-max", offset)
         broken:set {}
         client:send_head "GET / HTTP/1.1\nHost: a"
         local upstream = origin:accept()
         upstream:read_request()
         upstream:respond(200, "hello")
         assert.equal("hello", client:read_response().body)
      end)

      for _, case in ipairs { { "send", "ENOBUFS" }, { "send", "ENOMEM" }, { "recv", "ENOMEM" },
         { "epoll_ctl", "ENOMEM" } } do
         t.it(("%s with %s ends that connection only"):format(case[1], case[2]), function()
            local worker = running:workers()[1]
            local client = running:connect()
            if case[1] ~= "epoll_ctl" then
               assert.equal("local", get(client, "/local").body)
            end
            broken:set { [case[1]] = faults[case[2]] }
            client:try_send "GET /local HTTP/1.1\r\nHost: a\r\n\r\n"
            client = case[1] == "epoll_ctl" and running:connect() or client
            client:expect_close()
            broken:set {}
            assert.equal("local", running:exchange("GET /local HTTP/1.1\nHost: a").body)
            assert.equal(worker, running:workers()[1])
         end)
      end
   end)
end

--- Longer than any time-out, ticket or entry lives.
local DAY_S = 86400

t.on_both_backends("a clock that jumps", function(backend)
   if not faults.possible then
      return
   end
   t.on_both_libraries("", function(library)
      for name, offset_s in pairs { forth = DAY_S, back = -DAY_S } do
         t.it(name .. " changes the date, but no timer", function()
            local broken = faults.new()
            local running = program.start(t.with_tls(backend, library, {
               prefix = broken.prefix, listeners = 2, site = [[
                  local ml = require "monolake"
                  local dict = ml.shared("kept", { size = "1m" })
                  local function remember(req)
                     if req.path == "/set" then
                        dict:set("key", "there", { ttl = "10m" })
                     end
                     return ml.text(tostring(dict:get "key"))
                  end
                  ml.listen { address = "127.0.0.1:0", chain = remember }
                  ml.listen { address = "127.0.0.1:0", tls = { cert = "a.pem", key = "a.key" },
                     chain = function(req) return ml.text(tostring(req.tls.resumed)) end }
               ]] }))
            local function visit(session)
               local client = assert(t.tls_socket.try_connect(running.addresses[2], { session = session }))
               local body = client:exchange(REQUEST).body
               session = client:session()
               client:close()
               return body, session
            end
            local function day_of(response)
               return response:get("date"):match "%d+ %a+ %d+"
            end

            local client = running:connect()
            local before = client:exchange "GET /set HTTP/1.1\nHost: a"
            local _, session = visit()
            broken:set { clock_offset_s = offset_s }
            local after = t.eventually("another date", function()
               local response = client:exchange(REQUEST) -- the connection has not run out of time
               return day_of(response) ~= day_of(before) and response
            end)
            assert.equal(os.date("!%d %b %Y", os.time() + offset_s), day_of(after))
            assert.equal("there", after.body)
            visit(session) -- resumed or not
            assert.equal("true", (visit(select(2, visit()))))
            assert.is_true(client:silent(0.1))
            broken:set {}
            assert.equal("there", client:exchange(REQUEST).body)
            visit(session)
         end)
      end
   end)
end)

t.on_both_backends("processes that cannot be started", function(backend)
   t.it("leave the old site, the old program and the other workers serving, and are tried again", function()
      if not is_root then
         return pending "needs a user of its own"
      end
      local own_user = tostring(1000000 + ffi.C.getpid()) -- whose processes nobody else counts for
      local directory = process.directory()
      process.run { "chmod", "777", directory }
      local running = program.start { io = backend, workers = 2, program = program.public_copy(),
         prefix = { "sh", "-c", 'for site; do :; done; chmod -R a+rX "${site%/*}"; exec setpriv --reuid ' ..
            own_user .. ' --regid 65534 --clear-groups "$@"', "sh" },
         site = [[
            local ml = require "monolake"
            ml.listen { address = "127.0.0.1:0", chain = ml.text "hello" }
         ]] }
      local function limit(count)
         local _, err, status = process.run { "setpriv", "--reuid", own_user, "--regid", "65534",
            "--clear-groups", "prlimit", "--pid", tostring(running.process.pid), "--nproc=" .. count .. ":" }
         assert(status == 0, err)
      end
      local function serves()
         return running:exchange(REQUEST).body == "hello"
      end

      limit(1)
      running:reload "error [^\n]*reload failed[^\n]*Resource temporarily unavailable[^\n]*old site serves"
      assert.is_true(serves())
      local offset = #running:log()
      running.process:signal(sys.SIGUSR2)
      running:await_log("error [^\n]*upgrade[^\n]*Resource temporarily unavailable", offset)
      assert.is_true(serves())
      local first = running:workers()[1]
      sys.kill(first, sys.SIGKILL)
      running:await_log("error [^\n]*worker 0[^\n]*Resource temporarily unavailable", offset)
      limit(1000)
      t.eventually("the worker to be started again", function()
         local workers = running:workers()
         return #workers == 2 and workers[1] ~= first and workers[2] ~= first
      end)
      running:reload()
      for _ = 1, 10 do
         assert.is_true(serves())
      end
   end)
end)

t.on_both_backends("clients that reset", function(backend)
   t.it("while they are written to end nothing else", function()
      local running = program.start { io = backend, site = [[
         local ml = require "monolake"
         local large = ("x"):rep(4 * 1024 * 1024)
         ml.listen { address = "127.0.0.1:0", protocols = { "h1", "h2c" }, chain = function(req)
            return ml.text(req.path == "/large" and large or "hello")
         end }
      ]] }
      local worker = running:workers()[1]
      for _ = 1, 20 do
         local client = running:connect():send_head "GET /large HTTP/1.1\nHost: a"
         client:read_some()
         client:reset()
      end
      assert.equal("hello", running:exchange(REQUEST).body)
      assert.equal(worker, running:workers()[1])
   end)
end)

--- Executes what follows in a network of its own, which has these ports only.
local FEW_PORTS = [[ip link set lo up && echo "%d %d" >/proc/sys/net/ipv4/ip_local_port_range && exec "$@"]]

t.on_both_backends("ports towards an origin", function(backend)
   local possible = process.installed "ip" and os.execute "unshare -n true 2>/dev/null" == 0

   --- Clients come by a socket in the file system; the origin is in the same network as the program.
   local function start(first, last)
      local directory = process.directory()
      local running = program.start { io = backend, listeners = 2, values = { directory = directory },
         prefix = { "unshare", "-n", "sh", "-c", FEW_PORTS:format(first, last), "sh" }, site = [[
            local ml = require "monolake"
            ml.listen { address = "unix:${directory}/socket", chain = ml.router {
               ["/one"] = ml.proxy { "127.0.0.1:8080", name = "one" },
               ["/two"] = ml.proxy { "127.0.0.1:8080", name = "two" },
               ["/shed"] = function() return ml.text(tostring(ml.stats().idle_connections_shed.peer)) end,
            } }
            ml.listen { address = "127.0.0.1:8080", chain = function()
               while not io.open "${directory}/go" do
                  ml.sleep(0.01)
               end
               return ml.text "hello"
            end }
         ]] }
      running.address = "unix:" .. directory .. "/socket"
      return running, directory .. "/go"
   end

   t.it("that are all in use answer 503 at once, and are used again", function()
      if not possible then
         return pending "a network of its own is not permitted here"
      end
      local running, go = start(40000, 40003)
      local clients = {}
      for i = 1, 4 do
         clients[i] = running:connect():send_head "GET /one HTTP/1.1\nHost: a"
      end
      local refused = running:connect()
      t.eventually("the ports to be in use", function()
         return refused:exchange("GET /two HTTP/1.1\nHost: a").status == 503
      end)
      running:await_log "no local port is left for that address: widen net.ipv4.ip_local_port_range"
      process.write_file(go, "")
      for _, client in ipairs(clients) do
         assert.equal("hello", client:read_response().body)
      end
      -- All four are idle now, for the other upstream.
      assert.equal("hello", refused:exchange("GET /two HTTP/1.1\nHost: a").body)
      assert.is_true(tonumber(refused:exchange("GET /shed HTTP/1.1\nHost: a").body) >= 1)
   end)
end)

t.on_both_backends("a worker whose memory is bounded", function(backend)
   --- Every request gets an answer, or the connection ends. Returns how many got one.
   local function load_it(running)
      local answered = 0
      local function try(fn)
         return t.start_task(function()
            local ok, err = pcall(fn)
            answered = answered + (ok and 1 or 0)
            assert(ok or not tostring(err):find "timeout", err)
         end)
      end
      local requests = {}
      for i = 1, 24 do
         requests[#requests + 1] = try(function()
            running:exchange(REQUEST)
         end)
         requests[#requests + 1] = try(function()
            running:exchange("POST /body HTTP/1.1\nHost: a\nContent-Length: 100000", ("b"):rep(100000))
         end)
         requests[#requests + 1] = try(function()
            running:exchange("GET /lua HTTP/1.1\nHost: a")
         end)
         if i % 4 == 0 then
            requests[#requests + 1] = try(function()
               local client = h2.connect(running.address)
               assert(client:get("/body").status)
               client:close()
            end)
         end
      end
      for _, request in ipairs(requests) do
         request:join()
      end
      return answered
   end

   t.it("answers or closes, whatever the bound, and recovers", function()
      if not faults.possible then
         return pending "sanitizers map terabytes"
      end
      local running = program.start { io = backend, site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", protocols = { "h1", "h2c" }, chain = function(req)
            if req.path == "/lua" then
               local all = {}
               for i = 1, 1000 do
                  all[i] = ("x"):rep(1000) .. i
               end
               return ml.text(table.concat(all))
            end
            return ml.text(req:body() or "")
         end }
      ]] }
      local supervisor = running.process.pid
      assert.is_true(load_it(running) > 70)
      for _, more_kib in ipairs { 0, 200, 1000, 4000 } do
         local worker = t.eventually("a worker", function()
            return running:workers()[1]
         end)
         local bound = (process.memory_kib(worker, "VmSize") + more_kib) * 1024
         process.run { "prlimit", "--pid", tostring(worker), ("--as=%d:"):format(bound) }
         load_it(running)
         process.run { "prlimit", "--pid", tostring(worker), "--as=unlimited:" }
         t.eventually("it to serve again", function()
            return pcall(running.exchange, running, "GET /lua HTTP/1.1\nHost: a")
         end)
      end
      assert.is_true(load_it(running) > 70)
      assert.equal(supervisor, running.process.pid)
      assert.is_falsy(running.process:has_ended())
   end)
end)
