--- The first of the program's own modules that runs in a new state. Returns what C asks for.
local core = require "monolake.core"
local sandbox = require "monolake.internal.sandbox"

sandbox.set_library()

local body = require "monolake.internal.body"
local build = require "monolake.internal.build"

local function directory_of(path)
   return path:match "^(.*)/[^/]*$" or "."
end

--- Runs a site's script to its end in surroundings of its own; core's present site takes what it
--- makes. Raises what the script raises.
local function load_site(path)
   local surroundings = sandbox.new(directory_of(path), core.add_file)
   local token = build.begin()
   local ok, err = xpcall(function()
      surroundings:load(path)(path)
      build.finish(token, true)
   end, debug.traceback)
   if not ok then
      build.finish(token, false)
      error(err, 0)
   end
end

return {
   handles = require "monolake.internal.handles",
   load_site = load_site,
   next_chunk = body.next_chunk,
   map_chunk = body.map_chunk,
   traceback = function(message)
      return message
   end,
}
