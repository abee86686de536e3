--- Header fields in a spec: a list of { name, value } that is also read by name.
local fields = {}

---@class monolake.test.Fields
---@field [string] string|nil the first field of that name, whatever its case
local methods = {}
local Fields = {}

--- The first field of that name, or nil.
---@param name string
---@return string|nil
function methods:get(name)
   local wanted = name:lower()
   for _, field in ipairs(self) do
      if field[1]:lower() == wanted then
         return field[2]
      end
   end
   return nil
end

--- Every value of that name, in order.
---@param name string
---@return string[]
function methods:all(name)
   local wanted, values = name:lower(), {}
   for _, field in ipairs(self) do
      if field[1]:lower() == wanted then
         values[#values + 1] = field[2]
      end
   end
   return values
end

function Fields.__index(self, name)
   if type(name) ~= "string" then
      return nil
   end
   return methods[name] or methods.get(self, name)
end

--- Makes fields of a list of { name, value }.
---@param list string[][]
---@return monolake.test.Fields
function fields.of(list)
   return setmetatable(list, Fields)
end

local function add(list, name, value)
   for _, one in ipairs(type(value) == "table" and value or { value }) do
      list[#list + 1] = { name, tostring(one) }
   end
end

--- Makes fields of what a spec writes: { name = value }, { name = { value, value } }, or a list of
--- { name, value } where the order matters.
---@param written table
---@return monolake.test.Fields
function fields.read(written)
   local list, names = {}, {}
   for _, field in ipairs(written) do
      add(list, field[1], field[2])
   end
   for name in pairs(written) do
      if type(name) == "string" then
         names[#names + 1] = name
      end
   end
   table.sort(names)
   for _, name in ipairs(names) do
      add(list, name, written[name])
   end
   return fields.of(list)
end

return fields
