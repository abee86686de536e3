--- Who may pass is asked of a service (nginx: auth_request), and who has the cookie goes to the new version.
---
---     ./dev run examples/auth_request.lua
---     curl -i http://127.0.0.1:8080/
---     curl -i http://127.0.0.1:8080/ -H "Cookie: session=open-sesame"
---     curl -i http://127.0.0.1:8080/ -H "Cookie: session=open-sesame; version=next"
local ml = require "monolake"

local auth = ml.upstream { "127.0.0.1:8081", name = "auth", response_timeout = "2s" }
local stable = ml.upstream { "127.0.0.1:8082", name = "stable" }
local canary = ml.upstream { "127.0.0.1:8083", name = "canary" }

--- Only a 200 of the service lets a request pass. What it says of the user goes on to the origin, in place
--- of what the client has claimed.
local function authorized(req, next)
   local verdict = req:fetch(auth, { path = "/verify", headers = {
      cookie = req.headers.cookie,
      ["x-original-path"] = req.path,
   } })
   if verdict.error or verdict.status >= 500 then
      return ml.text("try again later\n", { status = 503, headers = { ["retry-after"] = "5" } })
   elseif verdict.status ~= 200 then
      return ml.text("who are you?\n", { status = 401 })
   end
   req.headers["x-user"] = verdict.headers["x-user"]
   return next(req)
end

--- The upstream is chosen by a cookie, and for one in a hundred of the others by their address.
local function by_version(req)
   local chosen = req.cookies.version == "next" or ml.hash.crc32(req.ip) % 100 == 0
   return req:forward(chosen and canary or stable)
end

ml.listen { address = "127.0.0.1:8080", chain = { authorized, by_version } }

-- A service and two origins to try it with.
ml.listen {
   address = "127.0.0.1:8081",
   chain = function(req)
      local known = req.cookies.session == "open-sesame"
      return ml.text("", { status = known and 200 or 401, headers = { ["x-user"] = known and "ali" or nil } })
   end,
}
for port, version in pairs { [8082] = "stable", [8083] = "next" } do
   ml.listen {
      address = "127.0.0.1:" .. port,
      chain = function(req)
         return ml.text(("Hello, %s, from %s.\n"):format(req.headers["x-user"], version))
      end,
   }
end
