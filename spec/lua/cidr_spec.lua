local t = require "monolake.test"
local ml = require "monolake"

describe("a set of addresses", function()
   local set = ml.cidr { "10.0.0.0/8", "2001:db8::/32", "192.0.2.7" }

   it("contains what its prefixes cover", function()
      assert.is_true(set:contains "10.255.0.1")
      assert.is_true(set:contains "2001:db8:1::")
      assert.is_true(set:contains "::ffff:10.0.0.1")
      assert.is_false(set:contains "192.0.2.8")
      assert.is_false(set:contains "::1")
      assert.is_true(ml.cidr("::/0"):contains "::1")
      assert.is_false(ml.cidr {}:contains "::1")
   end)

   it("says when a text is no address", function()
      for _, text in ipairs { "", "10.0.0.0/8", "10.0.0", "example.org", "10.0.0.1 ", "10.0.0.1\0" } do
         local found, why = set:contains(text)
         assert.is_nil(found)
         assert.are.equal("not an IP address", why)
      end
   end)

   it("takes requests for their clients", function()
      for ip, expected in pairs { ["10.1.2.3"] = true, ["127.0.0.1"] = false } do
         local seen
         t.call(function(req)
            seen = { set:contains(req), set:contains(req.ip) }
            return ml.text ""
         end, t.request { ip = ip })
         assert.are.same({ expected, expected }, seen)
      end
   end)

   it("does not touch requests that have ended", function()
      local kept
      t.call(function(req)
         kept = req
         return ml.text ""
      end, t.request {})
      assert.has_error(function()
         set:contains(kept)
      end)
   end)

   it("may be made of a list at any time, of files only while a site is loaded", function()
      local inner
      t.call(function()
         inner = ml.cidr { "127.0.0.0/8" }
         collectgarbage()
         return ml.text ""
      end, t.request {})
      assert.is_true(inner:contains "127.9.9.9")
      assert.has_error(function()
         ml.cidr { file = "list.txt" }
      end, "cidr: a file can be read only while a site is loaded")
   end)

   it("blames its caller for mistakes", function()
      local function mistake(options)
         local ok, why = pcall(ml.cidr, options)
         assert.is_false(ok)
         return why
      end
      assert.matches('cidr: "10.0.0.0/33" has a prefix of more than 32 bits', mistake { "10.0.0.0/33" }, 1,
         true)
      assert.matches("cidr: a prefix: expected a string, not 7", mistake { 7 }, 1, true)
      assert.matches("unknown option", mistake { path = "x" }, 1, true)
      assert.has_error(function()
         set:contains(nil)
      end, "contains: expected an address, a request or a connection, not nil")
      assert.has_error(function()
         set:contains {}
      end, "contains: expected an address, a request or a connection, not table")
   end)
end)
