--- Workers and probes under --seccomp: all that serving takes goes on, all else is refused.
local t = require "spec.support"

local process, sys, tls_socket, udp = t.process, t.sys, t.tls_socket, t.udp

local SITE = [[
local ml = require "monolake"
local seen = ml.shared("seen", { size = "1m" })
local origin = ml.upstream { "localhost:${port}", name = "origin" }
local function count(req)
   return ml.text(tostring(seen:incr(req.query or "x", 1, 0)))
end
local chain = { ml.access_log "access.log", ml.router {
   ["GET /count"] = count, ["/files/*"] = ml.files "${directory}", ["/*"] = ml.proxy(origin) } }
ml.listen { address = "127.0.0.1:0", tls = { cert = "a.pem", key = "a.key" }, chain = chain }
ml.listen { address = "127.0.0.1:0", deny = ml.cidr { "192.0.2.0/24", file = "blocked.txt" }, chain = chain }
ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy "localhost:${port}" }
ml.listen { udp = "127.0.0.1:0", l4 = ml.udp_proxy "${datagrams}" }
]]

-- What it does not take: a command, a socket of an odd family, a shell's exec.
local HOSTILE = [[
local ml = require "monolake"
local ffi = require "ffi"
ffi.cdef "int socket(int, int, int); int execve(const char *, char **, char **);"
ml.listen { address = "127.0.0.1:0", chain = ml.router {
   ["GET /command"] = function() return ml.text(tostring((io.popen "true"))) end,
   ["GET /socket"] = function() return ml.text(ffi.C.socket(17, 3, 0) .. " " .. ffi.errno()) end,
   ["GET /execve"] = function() return ml.text(ffi.C.execve("/bin/true", nil, nil)) end,
   ["GET /"] = ml.text "well",
} }
]]

local EPERM = 1
local FILE_BYTES = 500000

t.on_every_tls("--seccomp", function(backend, library)
   local function start(site, options)
      options.site, options.workers = site, 2
      options.arguments = { "--seccomp" }
      return t.program.start(t.with_tls(backend, library, options))
   end

   local function expect_filter(running)
      local pids = running:workers()
      assert.equal(2, #pids)
      for _, pid in ipairs(pids) do
         assert.matches("\nSeccomp:\t2\n", process.read_file(("/proc/%d/status"):format(pid)))
      end
      assert.matches("\nSeccomp:\t0\n", process.read_file(("/proc/%d/status"):format(running.process.pid)))
   end

   local function start_all()
      local origin = t.socket.listen()
      t.serve_requests(origin, function(request, connection)
         local head = ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(#request.target)
         connection:send(head .. request.target)
      end)
      local directory = process.directory()
      process.write_file(directory .. "/large", ("file ... "):rep(2 ^ 16):sub(1, FILE_BYTES))
      local echo = udp.bind():serve(function(bytes) return bytes end)
      return start(SITE, { listeners = 4, files = { ["blocked.txt"] = "198.51.100.0/24\n" },
         values = { port = origin.address:match "%d+$", datagrams = echo.address,
            directory = directory } })
   end

   local count = 0

   --- Requests of each kind on each listener; `tunnel` and `flow` are there already, or made.
   local function serve_all(running, tunnel, flow)
      local tls = tls_socket.connect(running.addresses[1], { name = "a.example",
         ca = t.certificates.all()["ca.pem"] })
      local plain = running:connect { address = running.addresses[2] }
      for _, client in ipairs { tls, plain } do
         count = count + 1
         assert.equal(tostring(count), client:exchange("GET /count HTTP/1.1\nHost: a.example").body)
         assert.equal(FILE_BYTES, #client:exchange("GET /files/large HTTP/1.1\nHost: a.example").body)
         assert.equal("/some", client:exchange("GET /some HTTP/1.1\nHost: a.example").body)
         client:close()
      end
      tunnel = tunnel or running:connect { address = running.addresses[3] }
      assert.equal("/through", tunnel:exchange("GET /through HTTP/1.1\nHost: a").body)
      flow = flow or udp.connect(running.addresses[4])
      assert.equal("datagram", (flow:ask "datagram"))
      return tunnel, flow
   end

   t.it("lets all be served, over reloads, upgrades and restarts", function()
      local running = start_all()
      count = 0
      expect_filter(running)
      local tunnel, flow = serve_all(running)
      running:reload()
      serve_all(running, tunnel, flow)
      tunnel:close()
      running.process:signal(sys.SIGUSR1)
      local victim = running:workers()[1]
      sys.kill(victim, sys.SIGKILL)
      running:await_log("%(pid " .. victim .. "%)[^\n]*: it is started again")
      t.eventually("two workers", function()
         return #running:workers() == 2
      end)
      tunnel = serve_all(running)
      local new = running:upgrade()
      running:expect_end()
      serve_all(new, tunnel)
      expect_filter(new)
      tunnel:close()
      new:stop(sys.SIGINT)
   end)
end)

t.on_both_backends("what --seccomp refuses", function(backend)
   local function get(running, path)
      local client = running:connect()
      client:send_head(("GET %s HTTP/1.1\nHost: a\nConnection: close"):format(path))
      local bytes = client:read_all()
      client:close()
      return bytes:match "\r\n\r\n(.*)"
   end

   local function start()
      local running = t.program.start { io = backend, site = HOSTILE, arguments = { "--seccomp" } }
      running:expect_refusals()
      return running
   end

   t.it("fails, is logged once by its name with the request, and hurts nobody", function()
      local running = start()
      assert.equal("-1 " .. EPERM, get(running, "/socket"))
      running:await_log "the system call socket %(%d+%) is not allowed by %-%-seccomp: it failed"
      running:await_log "at request %d+: GET a/socket"
      local offset = #running:log()
      assert.equal("-1 " .. EPERM, get(running, "/socket"))
      assert.equal("nil", get(running, "/command"))
      assert.equal("well", get(running, "/"))
      assert.equal("", running:log(offset))
   end)

   t.it("ends a worker that only an intruder can have brought to it", function()
      local running = start()
      assert.is_nil(get(running, "/execve"))
      running:await_log "the system call execve %(%d+%) is not allowed by %-%-seccomp: this process ends"
      running:await_log "ended by signal 31 %(Bad system call%): it is started again"
      assert.equal("well", get(running, "/"))
   end)

   t.it("is refused to a site that is loaded, too", function()
      local _, err, status = t.program.check { arguments = { "--seccomp" }, site = [[
local ml = require "monolake"
local command = assert(io.popen "true")
ml.listen { address = "127.0.0.1:0", chain = ml.text(command:read "*a") }
]] }
      assert.equal(1, status)
      assert.matches("site.lua:2: ", err, 1, true)
   end)
end)
