--- UDP: a resolver behind one address. Names that are blocked are not asked for, clients of the office
--- have resolvers of their own, and those that do not answer are passed over.
---
---     ./dev run examples/dns.lua
---     dig -p 5353 @127.0.0.1 example.com
local ml = require "monolake"

local public = ml.upstream { "9.9.9.9:53", "149.112.112.112:53", name = "public", protocol = "udp" }
local office = ml.upstream { "10.0.0.53:53", name = "office", protocol = "udp" }

local BLOCKED = { ["ads.example"] = true, ["tracker.example"] = true }
local FLOW = { responses_max = 1, idle_timeout = "5s" } -- a query, its answer

--- The name that a query asks for, in lower case; nil if it is none (RFC 1035, 4.1).
local function name_of(query)
   local labels, at = {}, 13
   local length = query:byte(at)
   while length and length > 0 and length < 64 do
      labels[#labels + 1] = query:sub(at + 1, at + length)
      at = at + 1 + length
      length = query:byte(at)
   end
   return length == 0 and table.concat(labels, "."):lower() or nil
end

--- Is it that name, or one below it?
local function blocked(name)
   while name do
      if BLOCKED[name] then
         return true
      end
      name = name:match "^[^.]+%.(.+)$"
   end
   return false
end

--- A flow that is closed is not answered: its client gives up by itself.
local function resolve(flow)
   local name = name_of(flow:peek())
   if not name or blocked(name) then
      ml.log.info("%s asks for %s: not answered", flow.ip, name or "nothing that we can read")
      return flow:close()
   end
   flow:splice(flow.ip:match "^10%." and office or public, FLOW)
end

ml.listen { udp = "127.0.0.1:5353", l4 = { ml.access_log(), resolve } }
