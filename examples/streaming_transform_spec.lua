local t = require "monolake.test"
local ml = require "monolake"

describe("the streaming_transform example", function()
   --- What becomes of a body that arrives in these pieces.
   local function transformed(pieces, kind)
      local app = t.app("examples/streaming_transform.lua", {
         upstreams = {
            origin = function()
               local at = 0
               return ml.response {
                  headers = { ["content-type"] = kind or "text/plain" },
                  body = function()
                     at = at + 1
                     return pieces[at]
                  end,
               }
            end,
         },
      })
      local res = assert(app:get("/", { headers = { ["accept-encoding"] = "gzip" } }))
      local request = app.origins.origin.requests[1]
      app:close()
      return res.body, request
   end

   it("replaces words", function()
      assert.are.equal("one color, two colors", (transformed { "one colour, two colours" }))
   end)

   it("finds a word wherever it is cut", function()
      local text = "a colour here"
      for i = 1, #text - 1 do
         assert.are.equal("a color here", (transformed { text:sub(1, i), text:sub(i + 1) }))
      end
      local bytes = {}
      for byte in text:gmatch "." do
         bytes[#bytes + 1] = byte
      end
      assert.are.equal("a color here", (transformed(bytes)))
   end)

   it("leaves other types alone and asks for plain bodies", function()
      local body, request = transformed({ "colour" }, "image/png")
      assert.are.equal("colour", body)
      assert.is_nil(request.headers["accept-encoding"])
   end)
end)
