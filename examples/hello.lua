--- A proxy and, so that it has something to talk to, an origin; both in one program.
---
---     ./dev run
---     curl -i http://127.0.0.1:8080/
local ml = require "monolake"

-- The proxy: whatever comes back from the origin gets one more field.
ml.listen {
   address = "127.0.0.1:8080",
   chain = {
      function(req, next)
         local res = next(req)
         res.headers["x-served-by"] = "monolake-lua"
         return res
      end,
      ml.proxy { "127.0.0.1:8081", name = "origin" },
   },
}

-- The origin.
ml.listen {
   address = "127.0.0.1:8081",
   chain = function(req)
      return ml.text(("Hello! You asked for %s.\n"):format(req.path))
   end,
}
