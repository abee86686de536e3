local t = require "monolake.test"
local ml = require "monolake"

local TIMING = (os.getenv "MONOLAKE_BUILD" or "build") .. "/examples/timing.so"

describe("the native_layer example", function()
   it("measures what stands behind the layer", function()
      local app = t.app "examples/native_layer.lua"
      local res = assert(app:get "/")
      assert.are.equal("Look at the fields.\n", res.body)
      local ms = res.headers["server-timing"]:match "^origin;dur=([%d.]+)$"
      assert.is_true(tonumber(ms) >= 5 and tonumber(ms) < 5000)
      app:close()
   end)

   it("has a name for the metric of its own", function()
      local res = assert(t.call(ml.native(TIMING), "/"))
      assert.matches("^total;dur=", res.headers["server-timing"])
   end)

   it("refuses other configurations", function()
      local ok, why = pcall(t.call, ml.native(TIMING, { metric = "x" }), "/")
      assert.is_false(ok)
      assert.matches("native_layer_spec.lua:%d+: native layer: .*expected the name of the metric", why)
   end)
end)
