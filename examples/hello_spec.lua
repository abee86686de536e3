local t = require "monolake.test"

describe("the hello example", function()
   local app

   setup(function()
      app = t.app("examples/hello.lua", {
         upstreams = { origin = require("monolake").text "from the origin" },
      })
   end)

   teardown(function()
      app:close()
   end)

   it("adds a field to what the origin answers", function()
      local res = assert(app:get "/a/path?with=query")
      assert.are.equal(200, res.status)
      assert.are.equal("from the origin", res.body)
      assert.are.equal("monolake-lua", res.headers["X-Served-By"])
      local seen = app.origins.origin.requests[1]
      assert.are.equal("/a/path", seen.path)
      assert.are.equal("with=query", seen.query)
   end)

   it("serves the origin as well", function()
      local res = assert(app:get("/you", { listener = "127.0.0.1:8081" }))
      assert.are.equal("Hello! You asked for /you.\n", res.body)
   end)
end)
