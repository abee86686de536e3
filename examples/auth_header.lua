--- Who may pass is decided by a policy in a module of its own, which its spec tests alone.
---
---     ./dev run examples/auth_header.lua
---     curl -i http://127.0.0.1:8080/ -H "Authorization: Bearer open-sesame"
local ml = require "monolake"
local bearer = require "policies.bearer"

ml.listen {
   address = "127.0.0.1:8080",
   chain = {
      bearer { ["open-sesame"] = "ali" },
      ml.proxy { "127.0.0.1:8081", name = "origin" },
   },
}

-- An origin to try it with.
ml.listen {
   address = "127.0.0.1:8081",
   chain = function(req)
      return ml.text(("Hello, %s.\n"):format(req.headers["x-user"]))
   end,
}
