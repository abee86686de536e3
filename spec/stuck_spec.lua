--- The supervisor among processes that do not do what they should: it is held up by none of them.
local t = require "spec.support"

local program, process, socket, sys = t.program, t.process, t.socket, t.sys

local BACKEND = os.getenv "SPEC_IO" or "auto"

local SITE = [[
local ml = require "monolake"
local ffi = require "ffi"
ffi.cdef "int getpid(void);"
local addresses = {}
for i = 1, ${count} do
   addresses[i] = "127.0.0.1:0"
end
ml.listen { address = addresses, chain = { function() return ml.text("${answer} " .. ffi.C.getpid()) end } }
]]

local function start(options)
   options.io, options.site = options.io or BACKEND, SITE
   options.values = { count = 1, answer = "old" }
   return program.start(options)
end

local function ask(running, address)
   local client = running:connect { address = address }
   local answer, pid = client:exchange("GET / HTTP/1.1\nHost: a").body:match "(%a+) (%d+)"
   client:close()
   return answer, tonumber(pid)
end

local function expect_reload(running)
   running.values.answer = "new"
   running:write("site.lua", SITE)
   running:reload()
   assert.equal("new", (ask(running)))
end

describe("a probe", function()
   teardown(process.remove_directories)

   t.it("that tells more than is kept of it is ended; the reload fails", function()
      local running = start {}
      running:write("site.lua", [[error(("x"):rep(80 * 2 ^ 20))]])
      running:reload "reload failed, [^\n]*: there is no room for what the script has to say: [^\n]*%d MiB"
      assert.equal("old", (ask(running)))
      expect_reload(running)
      assert.same({}, { running:log():match "signal" })
   end)

   t.it("that says no more and does not end is ended", function()
      local running = start { arguments = { "--script-timeout", "0.3" } }
      running:write("site.lua", [[
         local ffi = require "ffi"
         ffi.cdef "int close(int);"
         for fd = 3, 1000 do
            ffi.C.close(fd)
         end
         while true do end
      ]])
      running:reload "reload failed, the old site serves on: "
      assert.equal("old", (ask(running)))
      expect_reload(running)
   end)
end)

t.on_both_backends("a worker that does not read what it is told", function(backend)
   local LISTENERS = 600 -- more messages than the socket to a worker holds

   local function add_listeners(running)
      running.values.count, running.values.answer = LISTENERS, "new"
      running:write("site.lua", SITE)
   end

   --- Each listener answers, whichever of the workers the kernel chooses.
   local function expect_all_serve(running)
      t.eventually("all listeners", function()
         return #running:listening() == LISTENERS
      end)
      for _, address in ipairs(running:listening()) do
         assert.equal("new", (ask(running, address)))
      end
      assert.is_nil(running:log():find "no socket for listener")
   end

   t.it("for a while gets it all when it goes on", function()
      local running = start { io = backend, workers = 2 }
      local workers = running:workers()
      sys.kill(workers[1], sys.SIGSTOP)
      add_listeners(running)
      local offset = #running:log()
      running.process:signal(sys.SIGHUP)
      -- The other one is prepared when it has read all that both were told.
      t.eventually("the other worker's sockets", function()
         return process.descriptors(workers[2]) > LISTENERS
      end)
      sys.kill(workers[1], sys.SIGCONT)
      running:await_log("generation 2 serves", offset)
      assert.same(workers, running:workers())
      expect_all_serve(running)
   end)

   t.it("is ended by the deadline of the reload and started again with all listeners", function()
      local running = start { io = backend, workers = 2, arguments = { "--script-timeout", "0.3" } }
      local workers = running:workers()
      sys.kill(workers[1], sys.SIGSTOP)
      add_listeners(running)
      running:reload "a worker did not load the site in time"
      running:await_log("%(pid " .. workers[1] .. "%)[^\n]*: it is started again")
      assert.equal("old", (ask(running)))
      running:reload()
      expect_all_serve(running)
      socket.reset_all()
   end)
end)
