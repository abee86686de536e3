-- The site of a soak: every kind of listener before the same origins. What stands in ${...} is filled
-- in by spec/soak/program.py for each reload.
local ml = require "monolake"
local ffi = require "ffi"
ffi.cdef "int getpid(void);"

ml.options { grace = "${grace}" }

local ORIGINS = { "127.0.0.1:${http_1}", "127.0.0.1:${http_2}" }

local function origin(name, options)
   options.name, options.fail_max, options.fail_timeout = name, 2, "1s"
   options.idle_timeout, options.connect_timeout, options.response_timeout = "2s", "30s", "60s"
   for i, address in ipairs(ORIGINS) do
      options[i] = address
   end
   return ml.upstream(options)
end

-- Written all the time by all workers, whichever of them dies meanwhile; the small one evicts.
local counts = ml.shared("counts", { size = "1m" })
local churn = ml.shared("churn", { size = "64k" })

local function count_and_churn()
   churn:set("key " .. math.random(2000), ("v"):rep(math.random(200)))
   churn:delete("key " .. math.random(2000))
   return (counts:incr("requests", 1, 0))
end

-- What each path does on its way to the origin; what it returns is the field x-count of the answer.
local before = {
   ["/shared"] = count_and_churn,
   ["/sleep"] = function() ml.sleep(math.random() * 0.3) end,
   ["/loop"] = function() while true do end end,
   ["/interpreted"] = function()
      while true do
         jit.off(function() end) -- nothing that is compiled
      end
   end,
}

local function same(piece)
   return piece
end

local function whoami()
   return ml.text(tostring(ffi.C.getpid()), { headers = { ["x-id"] = "whoami" } })
end

-- What is forwarded by it meets no Lua.
local function native(upstream)
   return ml.router { ["/whoami"] = whoami, ["/*"] = ml.proxy(upstream) }
end

local function scripted(req, next)
   local act = before[req.path]
   local count = act and act(req)
   local res = next(req)
   if count then
      res.headers["x-count"] = tostring(count)
   end
   res.headers["x-version"] = "${version}"
   if req.path == "/map" then
      res:map(same)
   end
   return res
end

local scripted_origin, plain_origin = origin("scripted", { balance = "least_conn" }), origin("plain", {})
local TLS = { cert = "a.pem", key = "a.key" }

ml.listen { address = "127.0.0.1:${plain}", idle_timeout = "20s", head_timeout = "3s",
   chain = native(plain_origin) }
ml.listen { address = "127.0.0.1:${moving}", chain = native(plain_origin) }
ml.listen { address = "127.0.0.1:${lua}", chain = ml.router {
   ["/whoami"] = whoami, ["/*"] = { scripted, ml.proxy(scripted_origin) } } }
ml.listen { address = "127.0.0.1:${tls}", tls = TLS, chain = native(plain_origin) }
ml.listen { address = "127.0.0.1:${h2c}", protocols = { "h2c" }, chain = native(plain_origin) }
ml.listen { address = "127.0.0.1:${tcp}", l4 = ml.tcp_proxy { "127.0.0.1:${echo_1}", "127.0.0.1:${echo_2}",
   name = "tunnel", fail_max = 2, fail_timeout = "1s", connect_timeout = "30s" } }
ml.listen { udp = "127.0.0.1:${udp}", l4 = ml.udp_proxy({ "127.0.0.1:${udp_1}", "127.0.0.1:${udp_2}",
   name = "datagrams" }, { idle_timeout = "5s" }) }
-- Further listeners, each on a line of its own: ${more}
