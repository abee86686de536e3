--- gRPC: services by their paths, a policy on metadata, and answers of gRPC's own for what is refused.
---
---     ./dev run examples/grpc.lua
---
--- Point a client at 127.0.0.1:8080 (without TLS); services are expected at 127.0.0.1:50051 and 50052.
local ml = require "monolake"

local PERMISSION_DENIED, UNIMPLEMENTED = 7, 12

--- An answer without a message: gRPC calls it trailers-only.
local function refuse(status, message)
   return ml.response {
      status = 200,
      headers = {
         ["content-type"] = "application/grpc",
         ["grpc-status"] = tostring(status),
         ["grpc-message"] = message,
      },
   }
end

--- Calls need a token in their metadata.
local function authorized(req, next)
   if req.headers["authorization"] ~= "Bearer open-sesame" then
      return refuse(PERMISSION_DENIED, "a token is needed")
   end
   return next(req)
end

local greeter = ml.upstream { "127.0.0.1:50051", name = "greeter", protocol = "h2" }
local orders = ml.upstream { "127.0.0.1:50052", name = "orders", protocol = "h2" }

ml.listen {
   address = "127.0.0.1:8080",
   protocols = { "h2c" }, -- with tls = { ... } it is h2, which clients choose by ALPN
   chain = ml.router {
      ["POST /helloworld.Greeter/*"] = ml.proxy(greeter),
      ["POST /shop.Orders/*"]        = { authorized, ml.proxy(orders) },
      ["/*"]                         = refuse(UNIMPLEMENTED, "no such service"),
   },
}
