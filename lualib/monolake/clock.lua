--- Clocks.
---@module monolake.clock
require "monolake.core" -- brings monolake.internal.* where a plain LuaJIT asks
local C = require "monolake.internal.ffi"

local clock = {}

--- Seconds since 1970-01-01 UTC, with microseconds.
---@return number
function clock.now()
   return C.script_now()
end

--- Seconds of a clock that never jumps; its zero is arbitrary.
---@return number
function clock.monotonic()
   return C.script_clock()
end

--- Microseconds of a clock that never jumps; its zero is arbitrary.
---@return number
function clock.now_us()
   return C.script_clock() * 1e6
end

return clock
