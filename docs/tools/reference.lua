--- The API reference, gathered from the annotations in lualib/ (modules) and lua/ (types).
local annotations = require "docs.tools.annotations"

local reference = {}

local function lua_files(folder)
   local files = {}
   local list = assert(io.popen(("find %s -name '*.lua' | LC_ALL=C sort"):format(folder)))
   for path in list:lines() do
      files[#files + 1] = path
   end
   list:close()
   return files
end

local function items_of(found, object)
   local items = {}
   for _, item in ipairs(found.items) do
      if item.object == object and not item.private and not item.name:find "^_" then
         items[#items + 1] = item
      end
   end
   return items
end

local function add_types(types, found)
   for _, class in ipairs(found.classes) do
      class.items = class.object and items_of(found, class.object) or {}
      types[#types + 1] = class
   end
   for _, alias in ipairs(found.aliases) do
      types[#types + 1] = { alias = alias.name, type = alias.type }
   end
end

--- Modules and types, in the order of the file names.
---@return { modules: table[], types: table[] }
function reference.gather()
   local modules, types = {}, {}
   for _, path in ipairs(lua_files "lualib") do
      local found = annotations.read(path)
      if found.module then
         local module = found.module
         module.object = found.returned
         module.items = items_of(found, found.returned)
         modules[#modules + 1] = module
      end
      add_types(types, found)
   end
   for _, path in ipairs(lua_files "lua") do
      add_types(types, annotations.read(path))
   end
   return { modules = modules, types = types }
end

return reference
