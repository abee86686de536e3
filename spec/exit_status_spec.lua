--- The exit statuses that the man page promises. That of a program that another one has taken over from is
--- looked at by all specs of upgrades.
local t = require "spec.support"

local process, program, socket, sys = t.process, t.program, t.socket, t.sys

local BACKEND = os.getenv "SPEC_IO" or "auto"

local SITE = [[
local ml = require "monolake"
ml.options { grace = "${grace}" }
ml.listen { address = "127.0.0.1:0", chain = function() ml.log.info "it begins" ml.sleep(${seconds})
   return ml.text "done" end }
]]

--- A running program with a request that takes so long under way.
local function busy(seconds, grace)
   local running = program.start { io = BACKEND, site = SITE,
      values = { seconds = seconds, grace = grace or "60s" } }
   local client = running:connect()
   client:send_head "GET / HTTP/1.1\nHost: a"
   running:await_log "it begins"
   return running, client
end

local function expect_status(status, running)
   assert.is_true(running.process:wait(), "it does not end")
   assert.equal(status, running.process.status)
   assert.is_nil(running:alarm())
   program.running[running] = nil
end

describe("the exit status", function()
   teardown(process.remove_directories)

   t.it("is 0 when all that ran is finished behind TERM or QUIT", function()
      for _, signal in ipairs { sys.SIGTERM, sys.SIGQUIT } do
         local running, client = busy(0.2)
         running.process:signal(signal)
         assert.equal("done", client:read_response().body)
         expect_status(0, running)
      end
   end)

   t.it("is 0 when the end of the grace period cuts off what is left", function()
      local running, client = busy(60, "100ms")
      running.process:signal(sys.SIGTERM)
      client:expect_close()
      expect_status(0, running)
   end)

   t.it("is 0 when workers that do not end by then are killed", function()
      local running, client = busy(60, "100ms")
      local begun = sys.clock()
      sys.kill(running:workers()[1], sys.SIGSTOP)
      running.process:signal(sys.SIGTERM)
      client:expect_close()
      expect_status(0, running)
      assert.matches("workers that do not end are killed", running:log())
      assert.is_true(sys.clock() - begun < 6 * t.tasks.patience)
   end)

   t.it("is 0 behind INT, and behind a second TERM", function()
      for _, signals in ipairs { { sys.SIGINT }, { sys.SIGTERM, sys.SIGTERM } } do
         local running, client = busy(60)
         for i, signal in ipairs(signals) do
            running.process:signal(signal)
            running:await_log(i == #signals and "stopping now" or "finishing requests")
         end
         client:expect_close()
         expect_status(0, running)
      end
   end)

   t.it("is 1 when the program cannot start", function()
      local taken = socket.listen()
      for what, text in pairs {
         ["the script fails"] = "error 'on purpose'",
         ["an address is taken"] = 'require("monolake").listen { address = "' .. taken.address ..
            '", chain = {} }',
         ["a worker cannot load what the probe could"] = [[
            local probed = debug.getinfo(1).source:match "@(.*)/" .. "/probed"
            assert(not io.open(probed), "on purpose")
            io.open(probed, "w"):close()
            require("monolake").listen { address = "127.0.0.1:0", chain = {} }
         ]],
      } do
         local path = process.directory() .. "/site.lua"
         process.write_file(path, text)
         local out, err, status = process.run { program.path, "--io", BACKEND, "-w", "1", path }
         assert.equal("", out)
         assert.not_equal("", err)
         assert.equal(1, status, what)
      end
      taken:close()
   end)

   t.it("is 2 for wrong options", function()
      local _, _, status = process.run { program.path, "--no-such-option" }
      assert.equal(2, status)
   end)
end)
