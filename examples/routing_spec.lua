local t = require "monolake.test"
local ml = require "monolake"

describe("the routing example", function()
   local app

   setup(function()
      app = t.app("examples/routing.lua", { upstreams = { api = ml.text "from the API" } })
   end)

   teardown(function()
      app:close()
   end)

   it("answers health checks, but only those", function()
      assert.are.equal("ok", app:get("/healthz").body)
      assert.are.equal("from the API", app:post("/healthz", "").body)
   end)

   it("knows users by their numbers", function()
      local res = app:get "/users/7"
      assert.are.equal("application/json", res.headers["content-type"])
      assert.are.equal('{"id":"7"}', res.body)
   end)

   it("serves files", function()
      local res = app:get "/static/style.css"
      assert.are.equal("text/css; charset=utf-8", res.headers["content-type"])
      assert.matches("^body {", res.body)
      assert.matches("<title>monolake%-lua</title>", app:get("/static/").body)
      assert.are.equal(404, app:get("/static/nothing").status)
   end)

   it("hands everything else to the API", function()
      assert.are.equal("from the API", app:get("/anything/else").body)
   end)

   it("marks whatever it answers", function()
      for _, path in ipairs { "/healthz", "/users/7", "/static/style.css", "/other" } do
         assert.are.equal("monolake-lua", app:get(path).headers["x-served-by"])
      end
   end)
end)
