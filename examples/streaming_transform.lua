--- Changes bodies while they pass, however long they are: nothing is held back but the few bytes in
--- which a word may be cut.
---
---     ./dev run examples/streaming_transform.lua
---     curl http://127.0.0.1:8080/
local ml = require "monolake"

local WORD, REPLACEMENT = "colour", "color"

local function americanize(req, next)
   req.headers["accept-encoding"] = nil -- compressed bodies cannot be changed
   local res = next(req)
   if (res.headers["content-type"] or ""):find "^text/" then
      res:map(function(chunk)
         return (chunk:gsub(WORD, REPLACEMENT))
      end, { overlap = #WORD - 1 })
   end
   return res
end

ml.listen {
   address = "127.0.0.1:8080",
   chain = { americanize, ml.proxy { "127.0.0.1:8081", name = "origin" } },
}

-- An origin to try it with: a body that is made while it is sent.
ml.listen {
   address = "127.0.0.1:8081",
   chain = function()
      local count = 0
      return ml.response {
         headers = { ["content-type"] = "text/plain" },
         body = function()
            count = count + 1
            if count <= 5 then
               ml.sleep(0.2)
               return ("line %d: a colour\n"):format(count)
            end
         end,
      }
   end,
}
