local t = require "monolake.test"
local ml = require "monolake"

describe("the auth_request example", function()
   local app, verdict

   setup(function()
      app = t.app("examples/auth_request.lua", {
         upstreams = {
            auth = function()
               return verdict
            end,
            stable = ml.text "stable",
            canary = ml.text "canary",
         },
      })
   end)

   before_each(function()
      verdict = ml.text("", { headers = { ["x-user"] = "ali" } })
   end)

   teardown(function()
      app:close()
   end)

   local function last(name)
      local requests = app.origins[name].requests
      return requests[#requests]
   end

   it("asks who may pass, and tells the origin who it is", function()
      local res = app:post("/orders?id=7", "data",
         { headers = { cookie = "session=1", ["x-user"] = "root" } })
      assert.are.equal("stable", res.body)
      local asked, passed = last "auth", last "stable"
      assert.are.same({ "GET", "/verify", "", "session=1", "/orders" },
         { asked.method, asked.path, asked.body, asked.headers.cookie, asked.headers["x-original-path"] })
      assert.are.same({ "POST", "/orders", "id=7", "data" },
         { passed.method, passed.path, passed.query, passed.body })
      assert.are.same({ "ali" }, passed.headers:all "x-user")
   end)

   it("turns away whom the service does not know", function()
      verdict = ml.text("", { status = 403 })
      assert.are.equal(401, app:get("/").status)
   end)

   it("lets nobody pass when the service fails", function()
      verdict = ml.text("", { status = 500 })
      local res = app:get "/"
      assert.are.same({ 503, "5" }, { res.status, res.headers["retry-after"] })
   end)

   it("chooses the version by a cookie", function()
      assert.are.equal("canary", app:get("/", { headers = { cookie = "a=b; version=next" } }).body)
      assert.are.equal("stable", app:get("/", { headers = { cookie = "version=other" } }).body)
   end)
end)
