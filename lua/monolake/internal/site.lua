--- Loads a site's script in surroundings of its own.
local core = require "monolake.core"
local build = require "monolake.internal.build"
local sandbox = require "monolake.internal.sandbox"

local function directory_of(path)
   return path:match "^(.*)/[^/]*$" or "."
end

--- Runs `fn` while core's present site takes what it makes; raises what it raises, with a traceback.
local function building(fn)
   local token = build.begin()
   local ok, result = xpcall(function()
      local value = fn()
      build.finish(token, true)
      return value
   end, debug.traceback)
   if not ok then
      build.finish(token, false)
      error(result, 0)
   end
   return result
end

--- Runs a script in surroundings of its own; it adds to the site that is being built.
local function run(path)
   local directory = directory_of(path)
   local surroundings = sandbox.new(directory, core.add_file)
   build.in_directory(directory)
   surroundings:load(path)(path)
   surroundings.on_file = nil -- what requests load later is not watched
end

local function load_site(path)
   building(function()
      run(path)
   end)
end

return { building = building, run = run, load = load_site }
