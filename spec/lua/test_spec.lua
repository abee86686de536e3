local t = require "monolake.test"
local ml = require "monolake"

describe("monolake.test", function()
   it("checks what a spec writes", function()
      local function refusal(options)
         local _, why = pcall(function()
            local request = t.request(options)
            return request
         end)
         return why
      end
      assert.matches('unknown option "metod"; did you mean "method"?', refusal { metod = "GET" }, 1, true)
      assert.matches('test_spec.lua:%d+: request: path: expected "/...", not "x"', refusal { path = "x" })
      assert.matches("request: body: expected a string", refusal { body = 7 }, 1, true)
   end)

   it("says why there is no response in time", function()
      local res, why = t.call(function()
         ml.sleep(10)
         return ml.text ""
      end, t.request { path = "/", timeout = 0.05 })
      assert.is_true(res == nil or res.status == 504)
      assert.is_true(res ~= nil or type(why) == "string")
   end)

   it("lets a policy see a client's certificate", function()
      local function policy(req)
         local client = req.tls and req.tls.client
         return ml.text(req.scheme .. " " .. (client and client.subject or "nobody"))
      end
      local known = t.request { path = "/", tls = { version = "TLSv1.3", client = { subject = "CN=alice" } } }
      assert.are.equal("https CN=alice", t.call(policy, known).body)
      assert.are.equal("https nobody", t.call(policy, t.request { path = "/", tls = {} }).body)
      assert.are.equal("http nobody", t.call(policy, t.request { path = "/" }).body)
   end)

   it("keeps what an origin has seen", function()
      local origin = t.origin(function(req)
         return ml.text("for " .. req.path, { status = 202, headers = { a = { "1", "2" } } })
      end)
      local res = assert(t.call(ml.proxy(origin.address),
         t.request { method = "PUT", path = "/x?y", body = "data", headers = { b = { "3", "4" } } }))
      origin:close()
      assert.are.same({ 202, "for /x" }, { res.status, res.body })
      assert.are.same({ "1", "2" }, res.headers:all "A")
      local seen = origin.requests[1]
      assert.are.same({ "PUT", "/x", "y", "data" }, { seen.method, seen.path, seen.query, seen.body })
      assert.are.same({ "3", "4" }, seen.headers:all "B")
   end)

   it("carries large bodies both ways", function()
      local body = ("0123456789"):rep(100000)
      local origin = t.origin(function(req)
         return ml.text(req:body { max = 2097152 })
      end)
      local request = t.request { method = "POST", path = "/", body = body }
      local res = assert(t.call(ml.proxy(origin.address), request))
      origin:close()
      assert.are.equal(#body, #res.body)
      assert.is_true(res.body == body)
   end)

   it("names the nearest listener", function()
      local app = t.app "examples/hello.lua"
      local ok, why = pcall(app.get, app, "/", { listener = "127.0.0.1:8082" })
      app:close()
      assert.is_false(ok)
      assert.matches('the site does not listen at "127.0.0.1:8082"; did you mean', why, 1, true)
   end)

   it("names the nearest upstream", function()
      local ok, why = pcall(t.app, "examples/routing.lua", { upstreams = { apii = ml.text "never asked" } })
      assert.is_false(ok)
      assert.matches('app: the site has no upstream "apii"; did you mean "api"?', why, 1, true)
   end)

   it("fails on a site that does not exist or does not load", function()
      assert.is_false((pcall(t.app, "no/such/site.lua")))
   end)
end)
