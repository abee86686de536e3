local t = require "monolake.test"
local ml = require "monolake"

--- The response after `change` has had it.
local function changed(leaf, change)
   return assert(t.call(function(req, next)
      local res = next(req)
      change(res)
      return res
   end, "/", leaf))
end

local function pieces(...)
   local list, i = { ... }, 0
   return function()
      i = i + 1
      return list[i]
   end
end

describe("a response", function()
   it("has a status, headers and a body, which can be changed", function()
      local res = changed(ml.text("old", { status = 201, headers = { a = "1" } }), function(res)
         assert.are.equal(201, res.status)
         assert.are.equal("1", res.headers.A)
         assert.are.equal("old", res:body())
         res.status = 418
         res.headers.a = nil
         res.headers.b = { "1", "2" }
         res.body = "new body"
      end)
      assert.are.equal(418, res.status)
      assert.is_nil(res.headers.a)
      assert.are.same({ "1", "2" }, res.headers:all "b")
      assert.are.equal("new body", res.body)
   end)

   it("keeps its framing right when the body changes", function()
      local res = changed(ml.text "four", function(res)
         res.headers["content-length"] = "4"
         res.body = "longer than that"
      end)
      assert.are.equal("longer than that", res.body)
      assert.is_true(#res.headers:all "content-length" <= 1)
   end)

   it("takes no status that is not one of a final response", function()
      for _, status in ipairs { 0, 99, 101, 600, 1000, -1 } do
         changed(ml.text "", function(res)
            assert.has_error(function() res.status = status end,
               "not a status of a final response (200 to 599): " .. status)
         end)
      end
   end)

   it("names the nearest property for one that it does not have", function()
      changed(ml.text "", function(res)
         local _, err = pcall(function() return res.statu end)
         assert.matches('a response has no "statu" that can be read; did you mean "status"?', err, 1, true)
      end)
   end)

   it("may be made of an iterator, whose pieces are sent as they come", function()
      local res = assert(t.call(function()
         return ml.response { status = 202, headers = { x = "y" }, body = pieces("one ", "two ", "three") }
      end, "/"))
      assert.are.same({ 202, "y", "one two three" }, { res.status, res.headers.x, res.body })
   end)

   it("breaks off when its iterator fails", function()
      local count = 0
      local res, why = t.call(function()
         return ml.response {
            body = function()
               count = count + 1
               if count > 2 then
                  error "on purpose"
               end
               return "piece"
            end,
         }
      end, "/")
      assert.is_nil(res)
      assert.is_string(why)
   end)

   it("can be read piece by piece and answered with something else", function()
      local length = 0
      local res = changed(function()
         return ml.response { body = pieces(("a"):rep(100000), "b") }
      end, function(res)
         for chunk in res:chunks() do
            length = length + #chunk
         end
         res.body = "replaced"
      end)
      assert.are.equal(100001, length)
      assert.are.equal("replaced", res.body)
   end)

   it("is 502 when its body is larger than a layer takes", function()
      local res = changed(ml.text "12345", function(res)
         return res:body { max = 4 }
      end)
      assert.are.equal(502, res.status)
   end)
end)

describe("map", function()
   local function upper(chunk)
      return chunk:upper()
   end

   it("changes a body while it passes, of known length or not", function()
      for _, leaf in ipairs { ml.text "some text", function()
         return ml.response { body = pieces("some", " ", "text") }
      end } do
         assert.are.equal("SOME TEXT", changed(leaf, function(res)
            assert.is_true(res:map(upper))
         end).body)
      end
   end)

   it("may change the length", function()
      local res = changed(ml.text "abc", function(res)
         res:map(function(chunk)
            return (chunk:gsub(".", "%0%0"))
         end)
      end)
      assert.are.equal("aabbcc", res.body)
   end)

   it("tells the function which chunk is the last one", function()
      local res = changed(ml.text "abc", function(res)
         res:map(function(chunk, last)
            return chunk .. (last and "!" or "")
         end)
      end)
      assert.are.equal("abc!", res.body)
   end)

   it("finds words across chunks with an overlap", function()
      local res = changed(function()
         return ml.response { body = pieces("a se", "cr", "et, a secret") }
      end, function(res)
         res:map(function(chunk)
            return (chunk:gsub("secret", "******"))
         end, { overlap = 5 })
      end)
      assert.are.equal("a ******, a ******", res.body)
   end)

   it("works twice on one body", function()
      local res = changed(ml.text "abc", function(res)
         res:map(upper)
         res:map(function(chunk)
            return (chunk:gsub("B", "-"))
         end)
      end)
      assert.are.equal("A-C", res.body)
   end)

   it("may wait", function()
      local res = changed(ml.text "abc", function(res)
         res:map(function(chunk)
            ml.sleep(0.001)
            return chunk:upper()
         end)
      end)
      assert.are.equal("ABC", res.body)
   end)

   it("leaves encoded bodies alone and says so", function()
      local res = changed(ml.text("zipped", { headers = { ["content-encoding"] = "gzip" } }), function(res)
         local done, why = res:map(upper)
         assert.is_false(done)
         assert.matches("gzip", why)
      end)
      assert.are.equal("zipped", res.body)
   end)

   it("breaks the body off when the function fails", function()
      local res = t.call(function(req, next)
         local answer = next(req)
         answer:map(function()
            error "on purpose"
         end)
         return answer
      end, "/", ml.text "abc")
      assert.is_true(res == nil or res.status == 500) -- 500 if nothing had been sent
   end)

   it("checks what it is given", function()
      changed(ml.text "", function(res)
         assert.has_error(function() res:map "x" end, "map: expected a function, not string")
         local _, err = pcall(res.map, res, upper, { overlapp = 1 })
         assert.matches('did you mean "overlap"?', err, 1, true)
      end)
   end)
end)

describe("replies", function()
   it("are texts", function()
      local res = assert(t.call(ml.text("hello", { status = 203, headers = { a = "b" } }), "/"))
      assert.are.same({ 203, "hello", "text/plain; charset=utf-8", "b" },
         { res.status, res.body, res.headers["content-type"], res.headers.a })
   end)

   it("are JSON", function()
      local res = assert(t.call(function(req)
         return ml.json({ path = req.path }, { status = 404 })
      end, "/x"))
      assert.are.same({ 404, '{"path":"/x"}', "application/json" },
         { res.status, res.body, res.headers["content-type"] })
   end)

   it("are checked where they are made", function()
      local line = debug.getinfo(1, "l").currentline
      local _, err = pcall(function()
         local res = ml.text("x", { statsu = 200 })
         return res
      end)
      assert.matches(("response_spec.lua:%d: text: unknown option \"statsu\"; did you mean \"status\"?")
         :format(line + 2), err, 1, true)
      assert.has_error(function() ml.text(7) end, "text: expected a string, not number")
      assert.is_false((pcall(ml.json, function() end)))
   end)
end)
