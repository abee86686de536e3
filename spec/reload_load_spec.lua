--- Reloads in a row under everything that a soak has (spec/soak): keep-alive and new connections, h2
--- streams, uploads, WebSockets, TCP tunnels, UDP, slow responses across the swap. Some of the sites fail,
--- the others add, move and remove listeners, one of them under traffic that follows it. Not one request
--- may fail, and old generations are freed.
local t = require "spec.support"

local process = t.process

local RELOADS = t.full_load and "1000" or "50"
local SECONDS = (t.full_load and 1800 or 150) * t.tasks.patience

t.on_both_backends("reloads in a row", function(backend)
   t.it("cost no request and leave nothing behind", function()
      local argv = { "/usr/bin/python3", "spec/soak/soak.py", "--reloads", RELOADS, "--seed", "7",
         "--io", backend }
      local running = process.start(argv, process.directory())
      assert.is_true(running:wait(SECONDS), running:stdout())
      local report = running:stdout()
      assert.equal(0, running.status, report .. running:stderr())
      assert.matches("passed: %d+ answered", report)
      assert.matches("requests that faults have cost:\nfaults:", report)
      assert.matches("\n  moving, small +%d+ ", report)
      assert.matches("reload, as the program says +%d+ times, p50 %d+", report)
      assert.matches("generations alive at the end: 1 and 1 in each worker", report)
      if t.full_load then
         io.stderr:write("\n", report:match "how long.-log lines" or report)
      end
   end)
end)
