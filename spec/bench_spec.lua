--- What the benchmark computes of what it has measured.
local t = require "spec.support"

describe("the benchmark", function()
   t.it("computes ratios, costs and other programs' CPU as its own tests say", function()
      local _, said, status = t.process.run({ "/usr/bin/python3", "bench/lib/test_report.py" }, 60)
      assert.are.equal(0, status, said)
   end)
end)
