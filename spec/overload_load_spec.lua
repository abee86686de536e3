--- At three times what a worker can serve it does as much as at what it can, and needs no more memory.
local t = require "spec.support"
local overload = require "spec.support.overload"

local SECONDS = t.full_load and 10 or 1
local GROWTH_MAX_KIB = 16 * 1024

t.on_both_backends("under three times the load", function(backend)
   t.it("goodput does not collapse, and memory stays bounded", function()
      local running = overload.start(backend, 'active_max = 100, queue_time_max = "100ms",')
      -- How much of the CPUs others take may change from one rate to the next.
      t.eventually("as much goodput at 3x as at 1x, but for a fifth", function()
         local points = overload.curve(running, SECONDS)
         local at_1, at_3 = points[2], points[4]
         assert(at_1.goodput > 0 and at_3.refused > 0)
         assert(at_3.rss_kib - at_1.rss_kib < GROWTH_MAX_KIB, "memory grows")
         return at_3.goodput >= 0.8 * at_1.goodput
      end, 60)
   end)
end)
