--- Who may connect, how often, and what strangers may see. The list is read again by HUP and --watch.
---
---     ./dev run examples/access.lua
---     curl -i http://127.0.0.1:8080/admin
local ml = require "monolake"

local office = ml.cidr { "127.0.0.0/8", "10.0.0.0/8", "2001:db8:7::/48" }
local blocked = ml.cidr { file = "blocked.txt" }

--- For the office only; others get a 404, so that they do not even learn that there is something.
local function private(req, next)
   if not office:contains(req) then
      return ml.text("not found\n", { status = 404 })
   end
   return next(req)
end

ml.listen {
   address = "127.0.0.1:8080",
   deny = blocked,                -- reset before anything is spent on them, TLS included
   connections_per_source = 100,  -- of an IPv4 address or a /64 of IPv6, over all workers
   accept_rate = 2000,            -- a second; others wait in the kernel's queue
   connections_total_max = 50000,
   chain = ml.router {
      ["/admin"] = { private, ml.text "welcome\n" },
      ["/*"] = function(req)
         -- What a client says of itself is nil in a set when it is no address at all.
         local claimed = req.headers["x-real-ip"] or ""
         local claims = office:contains(claimed) and "does" or "does not"
         return ml.text(("%s %s say that it is in the office\n"):format(req.ip, claims))
      end,
   },
}
