local t = require "monolake.test"
local ml = require "monolake"
local bearer = dofile "examples/policies/bearer.lua"

describe("the policy for bearer tokens", function()
   local policy = bearer { ["open-sesame"] = "ali" }

   local function call(headers)
      return assert(t.call(policy, t.request { path = "/", headers = headers }))
   end

   it("turns away who has no token, and says how to get in", function()
      local res = call {}
      assert.are.equal(401, res.status)
      assert.matches("^Bearer ", res.headers["www-authenticate"])
      assert.is_nil(res.forwarded)
   end)

   it("turns away wrong tokens and other schemes", function()
      for _, value in ipairs {
         "Bearer wrong", "Bearer", "Bearer open-sesame x", "Basic b3Blbg==", "open-sesame",
      } do
         assert.are.equal(401, call({ authorization = value }).status, value)
      end
   end)

   it("tells the origin who it is, but not the secret", function()
      local res = call { authorization = "Bearer open-sesame", ["x-user"] = "root" }
      assert.are.equal(200, res.status)
      assert.are.same({ "ali" }, res.forwarded.headers:all "x-user")
      assert.is_nil(res.forwarded.headers.authorization)
   end)
end)

describe("the auth_header example", function()
   it("has the policy in front of the origin", function()
      local app = t.app("examples/auth_header.lua", { upstreams = { origin = ml.text "in" } })
      assert.are.equal(401, app:get("/").status)
      assert.are.equal("in", app:get("/", { headers = { authorization = "Bearer open-sesame" } }).body)
      assert.are.equal(1, #app.origins.origin.requests)
      app:close()
   end)
end)
