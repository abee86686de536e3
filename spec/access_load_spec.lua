--- A large set of addresses, from end to end: a file of so many lines, what workers take for it, and how long
--- a reload of it takes. A million with SPEC_LOAD=full, which prints its figures.
local t = require "spec.support"

local process, program, socket, sys = t.process, t.program, t.socket, t.sys

local FULL = t.full_load
local LINES = FULL and 1000000 or 50000
-- Of a worker's memory: half of it is the set, half the supervisor's, which workers have in common; twice
-- as much while a reload has both.
local LINE_BYTES_MAX = 40

local SITE = [[
   local ml = require "monolake"
   ml.listen { address = "127.0.0.1:0", chain = ml.text "hi", deny = ml.cidr { file = "list.txt" } }
]]

--- Every other address from 11.0.0.0 on, so that none of them merge; `last` is what the list ends with.
local function list(count, last)
   local lines = {}
   for i = 0, count - 1 do
      lines[#lines + 1] = ("%d.%d.%d.%d"):format(11 + math.floor(i / 8388608), math.floor(i / 32768) % 256,
         math.floor(i / 128) % 256, i % 128 * 2)
   end
   lines[#lines + 1] = last
   return table.concat(lines, "\n")
end

t.on_both_backends("a large set of addresses", function(backend)
   local function refused(running, from)
      local client, code = socket.try_connect(running.address, { from = from .. ":0" })
      if not client then
         return code == sys.ECONNRESET
      end
      client:try_send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
      return not client:try_fill()
   end

   t.it("is small in workers, and reloaded", function()
      local function start(lines)
         return program.start { io = backend, site = SITE, files = { ["list.txt"] = lines } }
      end
      local without = start "127.0.0.2"
      local base_kib = without:rss_kib()
      without:stop()
      local running = start(list(LINES, "127.0.0.2"))
      local rss_kib = running:rss_kib()
      assert.is_true(refused(running, "127.0.0.2"))
      assert.is_false(refused(running, "127.0.0.3"))
      process.write_file(running:path "list.txt", list(LINES, "127.0.0.3"))
      running:forget_peak()
      local started = sys.clock()
      running:reload()
      local seconds = sys.clock() - started
      assert.is_true(refused(running, "127.0.0.3"))
      assert.is_false(refused(running, "127.0.0.2"))
      local peak_kib = running:peak_kib()
      local figures = ("%d lines (%s): RSS %.1f MiB, %.1f without; at most %.1f, reload %.2f s"):format(
         LINES, backend, rss_kib / 1024, base_kib / 1024, peak_kib / 1024, seconds)
      if FULL then
         io.stderr:write("\n   ", figures, "\n")
      end
      if not program.sanitized then
         assert.is_true((rss_kib - base_kib) * 1024 < LINES * LINE_BYTES_MAX + 1048576, figures)
         assert.is_true((peak_kib - base_kib) * 1024 < 2 * LINES * LINE_BYTES_MAX + 2097152, figures)
      end
      running:stop()
   end)
end)
