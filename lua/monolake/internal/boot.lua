--- The first of the program's own modules that runs in a new state. Returns what C asks for.
require("monolake.internal.sandbox").set_library()

local body = require "monolake.internal.body"
local site = require "monolake.internal.site"

return {
   handles = require "monolake.internal.handles",
   load_site = site.load,
   next_chunk = body.next_chunk,
   map_chunk = body.map_chunk,
   conn_closed = require("monolake.internal.conn").closed,
}
