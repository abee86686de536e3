--- JSON, by lua-cjson with settings of its own: numbers keep 14 digits, an empty Lua table is an
--- object, and what cannot be expressed is an error.
---@module monolake.json
local cjson = require("cjson").new()

cjson.encode_number_precision(14)
cjson.encode_invalid_numbers(false)
cjson.decode_invalid_numbers(false)
cjson.encode_sparse_array(true)

local json = {}

--- Stands for JSON's null.
json.null = cjson.null

--- cjson writes "\/" for "/", which only text inside HTML needs.
local function plain_slash(escaped)
   return escaped == "/" and "/" or nil
end

--- The JSON text of a value; raises an error for functions, cycles and the like.
---@param value any
---@return string
function json.encode(value)
   local text = cjson.encode(value)
   if text:find("\\/", 1, true) then
      text = text:gsub("\\(.)", plain_slash)
   end
   return text
end

--- The value of a JSON text, or nil and what is wrong with it.
---@param text string
---@return any, string|nil
function json.decode(text)
   local ok, value = pcall(cjson.decode, text)
   if ok then
      return value
   end
   return nil, value
end

return json
