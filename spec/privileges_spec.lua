--- The site's code runs as another user than the one who started the program: it has no rights to lose.
local ffi = require "ffi"
local t = require "spec.support"

ffi.cdef "unsigned getuid(void);"

local process, program, sys = t.process, t.program, t.sys

local SITE = [[
local ml = require "monolake"
local function status()
   local file = io.open "/proc/self/status"
   local text = file:read "*a"
   file:close()
   return ml.text(text)
end
local origin = ml.upstream { "unix:${private}/site.sock", name = "itself" }
ml.listen { address = { "127.0.0.1:0", "unix:${private}/site.sock" }, chain = { status } }
]]

--- Lets everybody read the site's folder before the program is executed.
local PREFIX = { "sh", "-c", 'for site; do :; done; chmod -R a+rX "${site%/*}"; exec "$@"', "sh" }

local is_root = ffi.C.getuid() == 0

t.on_both_backends("a program that root starts for somebody else", function(backend)
   --- A folder that only root may enter holds one of the sockets.
   local function start(user)
      local private = process.directory()
      process.run { "chmod", "700", private }
      local running = program.start { io = backend, site = SITE, workers = 2, listeners = 2,
         values = { private = private }, arguments = { "--user", user },
         prefix = PREFIX, program = program.public_copy() }
      return running
   end

   local function status_of(running, address)
      local client = running:connect { address = address }
      local body = client:exchange("GET / HTTP/1.1\nHost: a\nConnection: close").body
      client:close()
      return body
   end

   local function expect_nobody(status, group)
      assert.matches("\nUid:\t65534\t65534\t65534\t65534\n", status)
      assert.matches(("\nGid:\t%d\t%d\t%d\t%d\n"):format(group, group, group, group), status)
      assert.matches("\nCapEff:\t0000000000000000\n", status)
      assert.matches("\nCapPrm:\t0000000000000000\n", status)
      assert.matches("\nNoNewPrivs:\t1\n", status)
   end

   t.it("runs workers without rights, on addresses that only root may bind, over reloads", function()
      if not is_root then
         pending "only root can become somebody else"
         return
      end
      local running = start "nobody"
      for _, address in ipairs(running.addresses) do
         expect_nobody(status_of(running, address), 65534)
      end
      running:reload()
      expect_nobody(status_of(running, running.addresses[1]), 65534)
      local victim = running:workers()[1]
      sys.kill(victim, sys.SIGKILL)
      running:await_log("%(pid " .. victim .. "%)[^\n]*: it is started again")
      for _ = 1, 4 do
         expect_nobody(status_of(running, running.addresses[1]), 65534)
      end
      running:stop()
   end)

   t.it("takes the group that is named", function()
      if not is_root then
         pending "only root can become somebody else"
         return
      end
      local running = start "nobody:daemon"
      expect_nobody(status_of(running, running.addresses[1]), 1)
      running:stop()
   end)
end)

--- What each process may do: the lines of /proc/PID/status.
local function rights(pid)
   local status, found = process.read_file(("/proc/%d/status"):format(pid)), {}
   for name, value in status:gmatch "\n(%w+):[ \t]*([^\n]*)" do
      found[name] = value:gsub("[ \t]+", " "):gsub(" $", "")
   end
   return found
end

local function sets(effective, inheritable, ambient, bounding)
   local function text(bits)
      return ("%016x"):format(bits)
   end
   return { CapEff = text(effective), CapPrm = text(effective), CapInh = text(inheritable),
      CapAmb = text(ambient), CapBnd = text(bounding) }
end

local HELLO = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = ml.text "hello" }
]]

local OF_ROOT, NETWORK_AND_SETPCAP, OTHERS = 0x4002, 0x1500, 0xe0
-- OF_ROOT: dac_override, ipc_lock; NETWORK: net_bind_service, net_admin; OTHERS: kill, setgid, setuid
local BIND, CHOWN = 0x400, 0x1

t.on_both_backends("the capabilities", function(backend)
   local function expect_rights(running, supervisor, worker, more)
      local found = rights(running.process.pid)
      for name, value in pairs(supervisor) do
         assert.equal(value, found[name], "supervisor: " .. name)
      end
      assert.equal("0", found.NoNewPrivs) -- an updated program may have file capabilities
      local pids = running:workers()
      assert.equal(2, #pids)
      for _, pid in ipairs(pids) do
         found = rights(pid)
         for name, value in pairs(worker) do
            assert.equal(value, found[name], "worker: " .. name)
         end
         for name, value in pairs(more) do
            assert.equal(value, found[name], "worker: " .. name)
         end
         assert.equal("1", found.NoNewPrivs)
      end
   end

   --- Starts it; its processes have these rights, and so have those of a new program in its place.
   local function check(options, supervisor, worker, more)
      if not is_root then
         pending "only root has any"
         return
      end
      options.io, options.workers = backend, 2
      options.site = HELLO
      local old = program.start(options)
      expect_rights(old, supervisor, worker, more)
      local new = old:upgrade()
      old:expect_end()
      expect_rights(new, supervisor, worker, more)
      new:reload()
      expect_rights(new, supervisor, worker, more)
      assert.equal("hello", new:exchange("GET / HTTP/1.1\nHost: a\nConnection: close").body)
      new:stop()
   end

   t.it("of root's supervisor are those that it needs, its workers of another user have none", function()
      local kept = OF_ROOT + NETWORK_AND_SETPCAP + OTHERS
      check({ arguments = { "--user", "nobody" }, prefix = PREFIX, program = program.public_copy() },
         sets(kept, 0, 0, kept), sets(0, 0, 0, 0), { Uid = "65534 65534 65534 65534", Groups = "65534" })
   end)

   t.it("of root's own workers reach files only", function()
      local kept = OF_ROOT + NETWORK_AND_SETPCAP
      check({}, sets(kept, 0, 0, kept), sets(OF_ROOT, 0, 0, OF_ROOT), { Uid = "0 0 0 0" })
   end)

   t.it("that a user was given stay with the supervisor", function()
      local prefix = { "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
         "--bounding-set=-all,+net_bind_service,+chown", "--inh-caps=-all,+net_bind_service,+chown",
         "--ambient-caps=-all,+net_bind_service,+chown" }
      for i = #PREFIX, 1, -1 do
         table.insert(prefix, 1, PREFIX[i])
      end
      local given = BIND + CHOWN
      check({ prefix = prefix, program = program.public_copy() }, sets(BIND, BIND, BIND, given),
         sets(0, 0, 0, given), { Uid = "65534 65534 65534 65534", Groups = "" })
   end)
end)

describe("the bound of locked memory", function()
   teardown(process.remove_directories)

   t.it("keeps nobody from io_uring whom root starts", function()
      if not is_root then
         pending "this is not root"
         return
      end
      local running = program.start { io = "io_uring", prefix = { "prlimit", "--memlock=4096:4096" },
         site = [[
            local ml = require "monolake"
            ml.listen { address = "127.0.0.1:0", chain = { ml.text "hello" } }
         ]] }
      assert.equal("hello", running:exchange("GET / HTTP/1.1\nHost: a").body)
      running:stop()
   end)
end)

describe("--user", function()
   teardown(process.remove_directories)

   t.it("has to be somebody", function()
      for user, complaint in pairs {
         ["no-such-user"] = '--user: "no-such-user" is not the name of a user here',
         ["nobody:no-such-group"] = '--user: "nobody:no-such-group" is not the name of a group here',
         [":daemon"] = '--user: ":daemon" is not the name of a user',
      } do
         local _, err, status = process.run { program.path, "--user", user, "site.lua" }
         assert.equal(2, status)
         assert.matches(complaint, err, 1, true)
      end
   end)

   t.it("is for root", function()
      if not is_root then
         pending "this is not root"
         return
      end
      local path = program.public_copy()
      local _, err, status = process.run { "setpriv", "--reuid=65534", "--clear-groups", path,
         "--user", "root", "site.lua" }
      assert.equal(2, status)
      assert.matches('--user: "root" is not a user that only root may become', err, 1, true)
   end)
end)
