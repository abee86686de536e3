-- The plain proxy, one with the hook, one with a hook that makes garbage, those of TLS and HTTP/2, and one of
-- layer 4.
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

-- About 10 KB of garbage a request, beside 20,000 objects that live on and are replaced by and by (there from
-- the first request on, so that they are no burden to other rows). The longest call is told, in CPU time:
-- that does not run while others have the core.
local ffi = require "ffi"
ffi.cdef "struct bench_time { long s, ns; }; int clock_gettime(int, struct bench_time *);"
local THREAD_CPU, LIVE = 3, 20000
local time = ffi.new "struct bench_time"
local live, turn, longest_us = {}, 0, 0

local function cpu_us()
   ffi.C.clock_gettime(THREAD_CPU, time)
   return tonumber(time.s) * 1e6 + tonumber(time.ns) / 1e3
end

local function make_garbage(req)
   for i = #live + 1, LIVE do
      live[i] = { name = "live " .. i }
   end
   for i = 1, 60 do
      turn = turn + 1
      local entry = { name = req.path .. turn, number = i, tags = { i, turn } }
      if i == 1 then
         live[turn % LIVE + 1] = entry
      end
   end
end

ml.listen {
   address = "127.0.0.1:@garbage_port@",
   chain = {
      function(req, next)
         if req.path == "/longest" then
            local told = ("%.0f"):format(longest_us)
            longest_us = 0
            return ml.text("", { headers = { ["x-longest-us"] = told } })
         end
         local start_us = cpu_us()
         make_garbage(req)
         longest_us = math.max(longest_us, cpu_us() - start_us)
         return next(req)
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
