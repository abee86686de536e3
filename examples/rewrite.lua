--- Rewriting on both ways: one public name, two services behind it.
---
---     ./dev run examples/rewrite.lua
---     curl -i http://127.0.0.1:8080/api/v1/users?page=2
local ml = require "monolake"

--- Moves /api/v1/... to /..., says which version was meant, and hides what the origin runs on.
local function versions(req, next)
   local version, rest = req.path:match "^/api/v(%d+)(/.*)$"
   if not version then
      return ml.text("no such API\n", { status = 404 })
   end
   req.path = rest
   req.headers["x-api-version"] = version
   req.args.page = req.args.page or "1"

   local res = next(req)
   res.headers.server = nil
   res.headers["x-powered-by"] = nil
   local location = res.headers.location
   if location and location:sub(1, 1) == "/" then
      res.headers.location = "/api/v" .. version .. location
   end
   return res
end

ml.listen {
   address = "127.0.0.1:8080",
   chain = {
      ml.router {
         ["/old-api/*rest"] = function(req)
            local rest = ml.uri.encode_path(req.params.rest) -- parameters are decoded
            return ml.text("", { status = 308, headers = { location = "/api/v1/" .. rest } })
         end,
         ["/*"] = { versions, ml.proxy { "127.0.0.1:8081", name = "origin" } },
      },
   },
}

-- An origin to try it with.
ml.listen {
   address = "127.0.0.1:8081",
   chain = function(req)
      return ml.text(("version %s of %s, page %s\n"):format(
         req.headers["x-api-version"], req.path, req.args.page))
   end,
}
