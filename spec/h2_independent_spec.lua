--- HTTP/2 against implementations that share nothing with ours: python3-h2, which checks all that it gets
--- (spec/support/h2_independent.py), and a suite of what the RFCs ask (spec/support/h2_conformance.py).
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

t.on_every_tls("a conformance suite", function(backend, library)
   local proxy = t.serve(function()
      return t.with_tls(backend, library, { listeners = 2, site = [[
         local ml = require "monolake"
         local function answer(req)
            if req.path == "/slow" then
               ml.sleep(3600)
            end
            req:body()
            return ml.text "some bytes"
         end
         ml.listen { address = "127.0.0.1:0", tls = { cert = "a.pem", key = "a.key" }, chain = { answer } }
         ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, chain = { answer } }
      ]] })
   end)

   for i, how in ipairs { "tls", "clear" } do
      t.it("finds nothing (" .. how .. ")", function()
         local out, err, status = t.process.run({ "/usr/bin/python3", "spec/support/h2_conformance.py",
            proxy().addresses[i], how }, 60 * t.tasks.patience)
         assert.equal(0, status, out .. err)
         assert.is_true(tonumber(out:match "(%d+) ok, 0 failed\n$") >= 120, out)
      end)
   end
end)
