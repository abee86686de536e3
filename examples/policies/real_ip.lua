--- Believes proxies in front, such as a load balancer, who the client is: the last address in
--- X-Forwarded-For that is none of theirs. Stands in front of all layers that ask for req.ip.
---
---     real_ip { "10.0.0.0/8", "2001:db8:7::/48" }
local ml = require "monolake"

---@param proxies string[] prefixes of their addresses: whoever else sends the field is not believed
---@return monolake.Layer
return function(proxies)
   local trusted = ml.cidr(proxies)

   return function(req, next)
      local addresses = {}
      for address in table.concat(req.headers:all "x-forwarded-for", ","):gmatch "[^,%s]+" do
         addresses[#addresses + 1] = address
      end
      while #addresses > 0 and trusted:contains(req) do -- from the nearest one on
         local address = table.remove(addresses)
         if trusted:contains(address) == nil then
            break -- no address: the rest could be anybody's word
         end
         req.ip = address
      end
      return next(req)
   end
end
