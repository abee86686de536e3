--- So many requests a minute for each client, counted over all workers; and what Prometheus reads.
---
---     ./dev run examples/rate_limit.lua
---     curl -i http://127.0.0.1:8080/
---     curl http://127.0.0.1:8080/metrics
local ml = require "monolake"

local REQUESTS_MAX, WINDOW_SECONDS = 10, 60

local seen = ml.shared("requests of clients", { size = "10m" }) -- about 80,000 clients
local office = ml.cidr { "127.0.0.0/8", "::1" }

local function limited(req, next)
   local count, why = seen:incr(req.ip, 1, 0, WINDOW_SECONDS)
   if not count then
      ml.log.warn("a request is not counted: " .. why) -- rather serve it than not
   elseif count > REQUESTS_MAX then
      local seconds = tostring(math.ceil(seen:ttl(req.ip) or WINDOW_SECONDS))
      return ml.text("too many requests\n", { status = 429, headers = { ["retry-after"] = seconds } })
   end
   return next(req)
end

local function private(req, next)
   if not office:contains(req) then
      return ml.text("not found\n", { status = 404 })
   end
   return next(req)
end

ml.listen {
   address = "127.0.0.1:8080",
   chain = ml.router {
      ["/metrics"] = { private, ml.metrics() },
      ["/busy"] = { private, function()
         local stats = ml.stats()
         return ml.json { connections = stats.connections_open, failures = stats.responses["5xx"] }
      end },
      ["/*"] = { limited, ml.text "hello\n" },
   },
}
