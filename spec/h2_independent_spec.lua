--- HTTP/2 against an implementation that shares nothing with ours: python3-h2, which checks all that
--- it gets (spec/support/h2_independent.py).
local t = require "spec.support"

local SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, chain = {
   function(req)
      if req.path == "/echo" then
         return ml.response { body = req:body() }
      elseif req.path == "/trailers" then
         req:body()
         return ml.text(req.trailers["x-sum"])
      end
      return ml.text(req.method .. " " .. req.path .. " ")
   end,
} }
]]

t.on_both_backends("python3-h2", function(backend)
   local proxy = t.serve { io = backend, site = SITE }

   t.it("finds nothing wrong with us, and its wrongs are found", function()
      local out, err, status = t.process.run({ "/usr/bin/python3", "spec/support/h2_independent.py",
         proxy().address }, 60 * t.tasks.patience)
      assert.equal(0, status, err)
      local _, count = out:gsub("%w+ ok\n", "")
      assert.equal(8, count, out .. err)
   end)
end)
