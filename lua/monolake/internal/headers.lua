--- The fields of a message as scripts see them: `req.headers["x-name"]`. Nothing is copied before it
--- is asked for, and nothing is kept, as native layers may change fields as well.
---
--- Places in a handle: 1 the request's address, 2 its generation, 3 the message's address, 4 the part.
local ffi = require "ffi"
local C = require "monolake.internal.ffi"
local errors = require "monolake.internal.errors"

local text_of = ffi.string
local raise = errors.raise_access
local name_out, value_out = ffi.new "struct script_text", ffi.new "struct script_text"
local position = ffi.new "uint32_t[1]"

---@class monolake.Headers
---@field [string] string|nil
local methods = {}
local Headers = { methods = methods }

local function check_name(name, level)
   if type(name) ~= "string" then
      error("a field name must be a string, not " .. type(name), level + 1)
   end
end

local function check_value(value, level)
   local kind = type(value)
   if kind == "number" then
      return tostring(value)
   elseif kind ~= "string" then
      error("a field value must be a string, not " .. kind, level + 1)
   end
   return value
end

local function invalid(name, value)
   return ("not a valid field: %q: %q"):format(name, value)
end

--- The first field of that name, or nil.
---@param name string
---@return string|nil
function methods:get(name)
   check_name(name, 2)
   local found = C.script_header_get(self[1], self[2], self[3], self[4], name, #name, value_out)
   if found > 0 then
      return text_of(value_out.ptr, value_out.len)
   elseif found < 0 then
      raise(found, nil, 3)
   end
   return nil
end

--- Replaces all fields of that name by one; nil removes them; a list makes one of each value.
---@param name string
---@param value string|number|string[]|nil
function methods:set(name, value)
   check_name(name, 2)
   local result
   if value == nil then
      result = C.script_header_remove(self[1], self[2], self[3], self[4], name, #name)
   elseif type(value) == "table" then
      result = C.script_header_remove(self[1], self[2], self[3], self[4], name, #name)
      for i = 1, #value do
         self:add(name, value[i])
      end
   else
      value = check_value(value, 2)
      result = C.script_header_set(self[1], self[2], self[3], self[4], name, #name, value, #value)
   end
   if result < 0 then
      raise(result, invalid(name, value), 3)
   end
end

--- Adds a field; others of that name stay.
---@param name string
---@param value string|number
function methods:add(name, value)
   check_name(name, 2)
   value = check_value(value, 2)
   local result = C.script_header_add(self[1], self[2], self[3], self[4], name, #name, value, #value)
   if result < 0 then
      raise(result, invalid(name, value), 2)
   end
end

local function next_field(self, at)
   position[0] = at
   local found = C.script_header_next(self[1], self[2], self[3], self[4], position, name_out, value_out)
   if found < 0 then
      raise(found, nil, 2)
   elseif found == 0 then
      return nil
   end
   return position[0], text_of(name_out.ptr, name_out.len), text_of(value_out.ptr, value_out.len)
end

--- Every value of that name, in order.
---@param name string
---@return string[]
function methods:all(name)
   check_name(name, 2)
   local wanted, values = name:lower(), {}
   for _, field, value in next_field, self, 0 do
      if #field == #wanted and field:lower() == wanted then
         values[#values + 1] = value
      end
   end
   return values
end

--- Iterates over all fields in their order: `for name, value in headers:pairs() do`.
---@return fun(): string|nil, string|nil
function methods:pairs()
   local at = 0
   return function()
      local name, value
      at, name, value = next_field(self, at or 0)
      return name, value
   end
end

function Headers.__index(self, name)
   local method = methods[name]
   if method then
      return method
   end
   if type(name) ~= "string" then
      error("a field name must be a string, not " .. type(name), 2)
   end
   local found = C.script_header_get(self[1], self[2], self[3], self[4], name, #name, value_out)
   if found > 0 then
      local value = text_of(value_out.ptr, value_out.len)
      return value
   elseif found < 0 then
      raise(found)
   end
   return nil
end

function Headers.__newindex(self, name, value)
   if type(name) == "string" and type(value) == "string" then
      local result =
         C.script_header_set(self[1], self[2], self[3], self[4], name, #name, value, #value)
      if result < 0 then
         raise(result, invalid(name, value))
      end
      return
   end
   methods.set(self, name, value)
end

local PART_HEADERS, PART_TRAILERS = 0, 1

--- @param address number of the request
--- @param generation number
--- @param message number address of the request or response
--- @param part number|nil the fields of the head, unless given
function Headers.of(address, generation, message, part)
   -- Not a tail call: LuaJIT compiles no function that ends with one to a built-in.
   local headers = setmetatable({ address, generation, message, part or PART_HEADERS }, Headers)
   return headers
end

function Headers.trailers_of(address, generation, message)
   local trailers = setmetatable({ address, generation, message, PART_TRAILERS }, Headers)
   return trailers
end

return Headers
