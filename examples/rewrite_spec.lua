local t = require "monolake.test"
local ml = require "monolake"

describe("the rewrite example", function()
   local app

   setup(function()
      app = t.app("examples/rewrite.lua", {
         upstreams = {
            origin = function(req)
               return ml.text("", {
                  status = req.path == "/moves" and 302 or 200,
                  headers = { location = "/there", ["x-powered-by"] = "secret" },
               })
            end,
         },
      })
   end)

   teardown(function()
      app:close()
   end)

   local function seen()
      return table.remove(app.origins.origin.requests)
   end

   it("moves the version from the path to a field", function()
      app:get "/api/v2/users?sort=name"
      local request = seen()
      assert.are.equal("/users", request.path)
      assert.are.equal("2", request.headers["x-api-version"])
      assert.are.equal("sort=name&page=1", request.query)
   end)

   it("keeps a page that was asked for", function()
      app:get "/api/v1/users?page=7"
      assert.are.equal("page=7", seen().query)
   end)

   it("moves redirects back below the version and hides the origin's software", function()
      local res = app:get "/api/v1/moves"
      assert.are.equal(302, res.status)
      assert.are.equal("/api/v1/there", res.headers.location)
      assert.is_nil(res.headers["x-powered-by"])
   end)

   it("redirects the old name", function()
      local res = app:get "/old-api/users/7"
      assert.are.equal(308, res.status)
      assert.are.equal("/api/v1/users/7", res.headers.location)
      assert.are.equal("/api/v1/a%20b%3Fc", app:get("/old-api/a%20b%3Fc").headers.location)
   end)

   it("knows nothing else", function()
      assert.are.equal(404, app:get("/users").status)
   end)
end)
