--- Thrift: services by the names of their methods, a policy on key-values of the header, times and
--- retries by method.
---
---     ./dev run examples/thrift.lua
---
--- Point a client at 127.0.0.1:9090: framed, or in a header (TTHeader, THeader), in the binary or the
--- compact protocol. Servers are expected at 127.0.0.1:9091 and 9092, and at 9093 for orders.
local ml = require "monolake"

--- What only reads may be asked for again where a connection broke.
local accounts = ml.upstream { "127.0.0.1:9091", "127.0.0.1:9092", name = "accounts", protocol = "thrift",
   response_timeout = "2s", idempotent = { "get*", "list*" } }

--- A server that works on many calls of a connection at once: calls share connections.
local orders = ml.upstream { "127.0.0.1:9093", name = "orders", protocol = "thrift", calls_max = 64 }

--- Calls need a token, which the header carries.
local function authorized(req, next)
   if req.thrift.headers["token"] ~= "open-sesame" then
      return ml.thrift.exception("a token is needed")
   end
   return next(req)
end

--- Reports take their time.
local function patient(req, next)
   req.thrift.timeout = "30s"
   return next(req)
end

--- Says which calls fail.
local function watched(req, next)
   local res = next(req)
   if res.status ~= 200 then
      ml.log.warn("%s of %s failed: %s", req.thrift.method, req.ip, res.error or "an exception")
   end
   return res
end

ml.listen {
   address = "127.0.0.1:9090",
   thrift = {
      ml.access_log(),
      watched,
      ml.router {
         ["/listReports"] = { patient, ml.proxy(accounts) },
         ["/dropAccount"] = { authorized, ml.proxy(accounts) },
         ["/Orders/*"] = ml.proxy(orders), -- of a multiplexed service: "Orders:place"
         ["/*"] = ml.proxy(accounts),
      },
   },
}
