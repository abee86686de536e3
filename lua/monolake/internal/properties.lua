--- Metatables of requests and responses: properties that are read and assigned through functions,
--- methods, and errors that name the nearest property there is.
local check = require "monolake.internal.check"

--- @param noun string "a request", for messages
--- @param getters table<string, fun(self: table): any>
--- @param setters table<string, fun(self: table, value: any)>
--- @param methods table<string, function>
--- @return table metatable
return function(noun, getters, setters, methods)
   local Class = {}

   local function unknown(verb, name)
      local known, names = {}, {}
      for _, list in ipairs { getters, setters, methods } do
         for property in pairs(list) do
            if not known[property] then
               known[property] = true
               names[#names + 1] = property
            end
         end
      end
      error(("%s has no %q that can be %s%s"):format(noun, tostring(name), verb,
         check.suggest(tostring(name), names)), 3)
   end

   function Class.__index(self, name)
      local getter = getters[name]
      if getter then
         local value = getter(self)
         return value
      end
      local method = methods[name]
      if not method then
         unknown("read", name)
      end
      return method
   end

   function Class.__newindex(self, name, value)
      local setter = setters[name]
      if setter then
         setter(self, value)
      else
         unknown("assigned", name)
      end
   end

   return Class
end
