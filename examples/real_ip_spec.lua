local t = require "monolake.test"
local ml = require "monolake"
local real_ip = dofile "examples/policies/real_ip.lua"

describe("the policy for addresses that proxies tell of", function()
   local function client(proxies, headers)
      return assert(t.call({ real_ip(proxies), function(req)
         return ml.text(req.ip)
      end }, t.request { path = "/", headers = headers })).body
   end

   local function told(...)
      return { ["x-forwarded-for"] = { ... } }
   end

   it("believes whom it knows only", function()
      assert.are.equal("192.0.2.1", client({ "127.0.0.1" }, told "192.0.2.1"))
      assert.are.equal("127.0.0.1", client({ "10.0.0.0/8" }, told "192.0.2.1"))
      assert.are.equal("127.0.0.1", client({ "127.0.0.1" }, {}))
   end)

   it("takes the last one that is no proxy, over lists and fields", function()
      local proxies = { "127.0.0.1", "10.0.0.0/8" }
      assert.are.equal("192.0.2.2", client(proxies, told("1.2.3.4, 192.0.2.2", "10.0.0.7,10.0.0.8")))
      assert.are.equal("2001:db8::1", client(proxies, told "1.2.3.4, 2001:db8::1"))
      assert.are.equal("10.0.0.6", client(proxies, told "10.0.0.6, 10.0.0.7"))
   end)

   it("believes nothing behind what is no address", function()
      assert.are.equal("10.0.0.7", client({ "127.0.0.1", "10.0.0.0/8" }, told "192.0.2.1, unknown, 10.0.0.7"))
      assert.are.equal("127.0.0.1", client({ "127.0.0.1" }, told "; drop table"))
   end)
end)
