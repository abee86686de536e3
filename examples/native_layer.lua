--- A layer in C beside one in Lua: both wrap what stands behind them.
---
---     ./dev run examples/native_layer.lua
---     curl -i http://127.0.0.1:8080/
local ml = require "monolake"

-- ./dev run compiles examples/native/timing.c to build/examples/timing.so.
local build = os.getenv "MONOLAKE_BUILD" or "../build"

ml.listen {
   address = "127.0.0.1:8080",
   chain = {
      ml.native(build .. "/examples/timing.so", "origin"),
      function(req, next)
         ml.sleep(0.005)
         return next(req)
      end,
      ml.text "Look at the fields.\n",
   },
}
