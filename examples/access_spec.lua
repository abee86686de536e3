local t = require "monolake.test"

describe("the access example", function()
   local app

   setup(function()
      app = t.app "examples/access.lua"
   end)

   teardown(function()
      app:close()
   end)

   it("shows private pages to the office", function()
      local res = app:get "/admin"
      assert.are.equal(200, res.status)
      assert.are.equal("welcome\n", res.body)
   end)

   it("believes addresses, not what is said of them", function()
      local function ask(claim)
         return app:get("/", { headers = { ["x-real-ip"] = claim } }).body
      end
      assert.matches("does not say", ask "192.0.2.1", 1, true)
      assert.matches("does say", ask "10.1.2.3", 1, true)
      assert.matches("does not say", ask "; drop table", 1, true)
   end)
end)
