--- A short ./dev soak: everything at once, with faults, and that the soak sees what it is to see.
local t = require "spec.support"

local process, sys = t.process, t.sys

local MINUTES = t.full_load and "5" or "0.3"
local SECONDS = (t.full_load and 600 or 150) * t.tasks.patience

t.on_both_backends("a soak", function(backend)
   local function soak(minutes)
      local argv = { "/usr/bin/python3", "spec/soak/soak.py", minutes, "--seed", "5", "--io", backend }
      return process.start(argv, process.directory())
   end

   t.it("finds nothing lost, nothing twice and nothing of a stranger", function()
      local running = soak(MINUTES)
      assert.is_true(running:wait(SECONDS), running:stdout())
      assert.equal(0, running.status, running:stdout() .. running:stderr())
      assert.matches("passed: %d+ answered", running:stdout())
   end)

   t.it("tells of a worker that somebody else has killed", function()
      local running = soak "0.1"
      local pid = t.eventually("a worker under load", function()
         for _, child in ipairs(process.children(running.pid)) do
            for _, worker in ipairs(process.children(child)) do
               if process.descriptors(worker) > 25 then
                  return worker
               end
            end
         end
      end)
      sys.kill(pid, sys.SIGKILL)
      assert.is_true(running:wait(SECONDS), running:stdout())
      assert.equal(1, running.status)
      assert.matches("a worker has ended that nobody killed", running:stdout())
      assert.matches("FAILED: %d+ violations, seed 5; the first at", running:stdout())
   end)
end)
