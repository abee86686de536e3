--- The first of the program's own modules that runs in a new state. Returns what C asks for.
require("monolake.internal.sandbox").set_library()

-- Else math.random gives every worker, and every start, the same numbers.
local a, b, c, d, e, f = require("monolake.core").random(6):byte(1, 6)
math.randomseed(((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f)

local body = require "monolake.internal.body"
local site = require "monolake.internal.site"

return {
   handles = require "monolake.internal.handles",
   load_site = site.load,
   next_chunk = body.next_chunk,
   map_chunk = body.map_chunk,
   conn_closed = require("monolake.internal.conn").closed,
}
