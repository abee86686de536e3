local t = require "monolake.test"
local ml = require "monolake"

describe("the gRPC example", function()
   local app

   setup(function()
      app = t.app("examples/grpc.lua", {
         upstreams = { greeter = ml.text "from the greeter", orders = ml.text "from the orders" },
      })
   end)

   teardown(function()
      app:close()
   end)

   local function status_of(res)
      assert.are.equal(200, res.status)
      assert.are.equal("application/grpc", res.headers["content-type"])
      return res.headers["grpc-status"]
   end

   it("finds services by their paths", function()
      assert.are.equal("from the greeter", app:post("/helloworld.Greeter/SayHello", "").body)
      assert.are.equal("12", status_of(app:post("/other.Service/Call", "")))
   end)

   it("asks for a token where one is needed", function()
      assert.are.equal("7", status_of(app:post("/shop.Orders/List", "")))
      local res = app:post("/shop.Orders/List", "", { headers = { authorization = "Bearer open-sesame" } })
      assert.are.equal("from the orders", res.body)
   end)
end)
