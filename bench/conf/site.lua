-- Two listeners: the plain proxy, and one with the hook.
local ml = require "monolake"
local origin = ml.upstream { "127.0.0.1:@origin@" }

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
