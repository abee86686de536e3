--- Prints how a worker does below, at and above what it can serve, with and without the bounds that a
--- listener can have: ./dev overload [SECONDS]
package.path = "./?.lua;" .. package.path

local overload = require "spec.support.overload"
local process = require "spec.support.process"
local tasks = require "spec.support.tasks"

local SECONDS = tonumber(arg[1]) or 5
local BOUNDS = {
   { "none", "" },
   { "active_max 100, queue_time_max 100ms", 'active_max = 100, queue_time_max = "100ms",' },
}

print(("%g ms of the worker for a request, %g s for each line; 0.5, 1, 2, 3 x what it served before."):format(
   1000 * overload.BUSY_SECONDS, SECONDS))
print "| back end | bounds | offered/s | in time/s | 503/s | late or lost/s | p99 ms | RSS KiB |"
print "|---|---|---:|---:|---:|---:|---:|---:|"
tasks.run(function()
   for _, backend in ipairs { "io_uring", "epoll" } do
      for _, bounds in ipairs(BOUNDS) do
         local running = overload.start(backend, bounds[2])
         for _, point in ipairs(overload.curve(running, SECONDS)) do
            print(("| %s | %s | %d | %d | %d | %d | %.0f | %d |"):format(backend, bounds[1], point.rate,
               point.goodput, point.refused, point.lost, point.p99_ms, point.rss_kib))
         end
         running:stop()
      end
   end
end)
process.remove_directories()
