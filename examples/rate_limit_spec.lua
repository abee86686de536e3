local ml = require "monolake"
local t = require "monolake.test"

describe("the rate limit example", function()
   local app

   setup(function()
      app = t.app "examples/rate_limit.lua"
   end)

   teardown(function()
      app:close()
   end)

   it("refuses who asks too often, and says when to come back", function()
      for _ = 1, 10 do
         assert.are.equal(200, app:get("/").status)
      end
      local res = app:get "/"
      assert.are.equal(429, res.status)
      local seconds = tonumber(res.headers["retry-after"])
      assert.is_true(seconds > 50 and seconds <= 60)
   end)

   it("shows what was counted", function()
      local res = app:get "/metrics"
      assert.are.equal(200, res.status)
      assert.matches("^text/plain; version=0.0.4", res.headers["content-type"])
      assert.matches("# TYPE monolake_connections_open gauge\nmonolake_connections_open %d+\n", res.body)
      assert.matches("\nmonolake_responses_total{status=\"4xx\"} %d+\n", res.body)
      assert.is_number(ml.json.decode(app:get("/busy").body).failures)
   end)
end)
