--- LuaJIT's ffi as sites get it: the same, but an error in a finalizer is logged. It would come up wherever
--- memory happens to be collected, in another request's layer or where nobody can catch it.
local core = require "monolake.core"
local ffi = require "ffi"

local function guarded(finalizer)
   if type(finalizer) ~= "function" then
      return finalizer
   end
   return function(object)
      local ok, why = pcall(finalizer, object)
      if not ok then
         core.log(0, "a finalizer of the site failed: " .. tostring(why))
      end
   end
end

local site_ffi = {}
for name, value in pairs(ffi) do
   site_ffi[name] = value
end

function site_ffi.gc(object, finalizer)
   return ffi.gc(object, guarded(finalizer))
end

function site_ffi.metatype(ctype, metatable)
   local copy = {}
   for name, value in pairs(metatable) do
      copy[name] = value
   end
   copy.__gc = guarded(copy.__gc)
   return ffi.metatype(ctype, copy)
end

return site_ffi
