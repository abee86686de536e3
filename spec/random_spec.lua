--- math.random of sites: ids and choices of one worker are not those of another, nor those of the last start.
local t = require "spec.support"

local SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = function()
   return ml.text(("%.17g"):format(math.random()))
end }
]]

t.on_both_backends("math.random", function(backend)
   local function first_number(running)
      return running:exchange("GET / HTTP/1.1\nHost: a").body
   end

   t.it("begins elsewhere in each process, and at each reload", function()
      local one = t.program.start { io = backend, site = SITE }
      local two = t.program.start { io = backend, site = SITE }
      local first = first_number(one)
      assert.not_equal(first, first_number(two))
      one:reload()
      assert.not_equal(first, first_number(one))
   end)
end)
