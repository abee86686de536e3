-- The plain proxy, one with the hook, those of TLS and HTTP/2, and one of layer 4.
local ml = require "monolake"
local origin = ml.upstream { "127.0.0.1:@origin@", idle_max = 512, idle_timeout = 600 }
local grpc_origin = ml.upstream { "127.0.0.1:@grpc_origin@", protocol = "h2" }
local tls = { cert = "@folder@/site.pem", ciphers = { "aes128-gcm" } }

ml.listen {
   address = "127.0.0.1:@port@",
   chain = { ml.proxy(origin) },
}

ml.listen {
   address = "127.0.0.1:@hook_port@",
   chain = {
      function(req, next)
         local value = req.headers["x-bench"]
         local res = next(req)
         res.headers["x-first"] = value
         res.headers["x-second"] = "constant"
         return res
      end,
      ml.proxy(origin),
   },
}

ml.listen {
   address = "127.0.0.1:@tls_port@",
   tls = tls,
   chain = { ml.proxy(origin) },
}

ml.listen {
   address = "127.0.0.1:@h2c_port@",
   protocols = { "h2c" },
   chain = { ml.proxy(origin) },
}

ml.listen {
   address = "127.0.0.1:@grpc_port@",
   tls = tls,
   chain = { ml.proxy(grpc_origin) },
}

ml.listen {
   address = "127.0.0.1:@l4_port@",
   l4 = ml.tcp_proxy { "127.0.0.1:@tcp_origin@", name = "tcp_origin", protocol = "tcp" },
}
