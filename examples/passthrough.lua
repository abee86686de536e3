--- TLS on one port: passed through by name to servers that end it themselves, ended here for one site,
--- and beside it plain HTTP, and SSH for whoever says nothing.
---
---     openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=here.example \
---        -addext subjectAltName=DNS:here.example -keyout examples/here.pem -out examples/here.pem
---     ./dev run examples/passthrough.lua
---     openssl s_client -connect 127.0.0.1:8443 -servername one.example
---     curl -k --resolve here.example:8443:127.0.0.1 https://here.example:8443/
---     curl http://127.0.0.1:8443/
local ml = require "monolake"

local names = {
   ["one.example"] = ml.upstream { "127.0.0.1:9443", name = "one", protocol = "tcp" },
   ["two.example"] = ml.upstream { "127.0.0.1:9444", name = "two", protocol = "tcp" },
}

-- Passthrough by name: whom a client asks for is read from its hello, which is not answered here.
local function passthrough(conn, next)
   local hello = conn:client_hello { timeout = "5s" }
   local upstream = hello and names[hello.name]
   return upstream and conn:splice(upstream) or next(conn)
end

local site = function(req)
   return ml.text(("hello by %s\n"):format(req.scheme))
end

ml.listen {
   address = "127.0.0.1:8443",
   l4 = ml.detect {
      tls = { passthrough, ml.http { chain = site, tls = { cert = "here.pem" } } },
      http = ml.http { chain = site },
      other = ml.tcp_proxy "127.0.0.1:22",
      timeout = "2s",
   },
}
