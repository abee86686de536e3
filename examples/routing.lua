--- Routes by method and path, static files, JSON, an upstream and an access log.
---
---     ./dev run examples/routing.lua
---     curl -i http://127.0.0.1:8080/users/7
local ml = require "monolake"

local api = ml.upstream { "127.0.0.1:8081", name = "api", balance = "round_robin" }

ml.listen {
   address = "127.0.0.1:8080",
   chain = {
      function(req, next)
         local res = next(req)
         res.headers["x-served-by"] = "monolake-lua"
         return res
      end,
      ml.router {
         ["GET /healthz"] = ml.text "ok",
         ["/users/:id"]   = function(req) return ml.json { id = req.params.id } end,
         ["/static/*"]    = ml.files "public",
         ["/*"]           = { ml.access_log(), ml.proxy(api) },
      },
   },
}

-- An origin to try it with.
ml.listen {
   address = "127.0.0.1:8081",
   chain = function(req)
      return ml.text(("the API was asked for %s\n"):format(req.path))
   end,
}
