--- Sockets that a service manager opened: the program serves on them and leaves them as they were.
local t = require "spec.support"

local process, program, sys = t.process, t.program, t.sys

local SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:" .. os.getenv "PORT", chain = ml.text "by address" }
ml.listen { address = "unix:" .. os.getenv "SOCKET", chain = ml.text "by path" }
]]

t.on_both_backends("a program that is given its sockets", function(backend)
   local keeper, directory

   local function start(options)
      directory = process.directory()
      local prefix = { "env", "SOCKET=" .. directory .. "/site.sock", "luajit", "spec/support/activated.lua",
         directory .. "/keeper" }
      local running = program.start { io = backend, site = options.site or SITE, workers = 2,
         listeners = options.listeners or 2, prefix = prefix, program = options.program }
      keeper = tonumber(process.read_file(directory .. "/keeper"))
      return running
   end

   after_each(function()
      sys.kill(keeper, sys.SIGKILL)
   end)

   local function ask(running, address)
      local client = running:connect { address = address }
      local response = client:exchange "GET / HTTP/1.1\nHost: a\nConnection: close"
      client:close()
      return response.body
   end

   local function expect_service(running)
      for _ = 1, 8 do
         assert.equal("by address", ask(running, running.addresses[1]))
         assert.equal("by path", ask(running, running.addresses[2]))
      end
   end

   --- The kernel takes clients for whoever comes next.
   local function expect_queue(address)
      local fd = assert(sys.connect(address, {}))
      assert(t.tasks.wait(fd, "write"))
      assert.equal(0, sys.socket_error(fd))
      t.tasks.forget(fd)
      sys.close(fd)
   end

   t.it("serves on them, after reloads as well, and leaves them open", function()
      local running = start {}
      expect_service(running)
      running:reload()
      expect_service(running)
      running:stop()
      assert.is_nil(running:log():find "warn")
      expect_queue(running.addresses[1])
      expect_queue(running.addresses[2])
   end)

   t.it("hands them on to a new program", function()
      local path = program.copy(process.directory())
      local running = start { program = path }
      local new = running:upgrade()
      running:expect_end()
      expect_service(new)
      new:stop()
      expect_queue(new.addresses[1])
      expect_queue(new.addresses[2])
   end)

   t.it("warns of one that the site does not listen on", function()
      local running = start { listeners = 1, site = [[
local ml = require "monolake"
ml.listen { address = "unix:" .. os.getenv "SOCKET", chain = ml.text "by path" }
]] }
      assert.equal("by path", ask(running, running.addresses[1]))
      running:await_log "warn %[supervisor%] the service manager listens on 127.0.0.1:%d+, and the site does"
      running:stop()
   end)
end)
