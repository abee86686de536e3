--- Lets a request pass that carries a token which is known, and tells the origin whose it is.
---
---     bearer { ["secret"] = "alice" }
local ml = require "monolake"

--- Tokens are compared by their hashes, so that the time it takes tells nothing about them.
---@param users table<string, string> user names by token
---@return monolake.Layer
return function(users)
   local by_hash = {}
   for token, user in pairs(users) do
      by_hash[ml.hash.sha256(token)] = user
   end

   return function(req, next)
      local token = (req.headers.authorization or ""):match "^[Bb]earer ([%w%-._~+/]+=*)$"
      local user = token and by_hash[ml.hash.sha256(token)]
      if not user then
         return ml.text("who are you?\n", {
            status = 401,
            headers = { ["www-authenticate"] = 'Bearer realm="example"' },
         })
      end
      req.headers.authorization = nil -- the secret goes no further
      req.headers["x-user"] = user    -- whatever the client claimed is replaced
      return next(req)
   end
end
