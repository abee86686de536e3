--- Percent-encoding (RFC 3986), for paths and queries that are put together. `req.args` and `req.params`
--- are decoded already, `req.path` and `req.query` are not.
---@module monolake.uri
local uri = {}

local function encode_byte(byte)
   return ("%%%02X"):format(byte:byte())
end

local function decode_byte(digits)
   return string.char(tonumber(digits, 16))
end

--- Encodes all bytes but letters, digits, "-", ".", "_" and "~": for one segment of a path, or one name or
--- value of a query.
---@param text string
---@return string
function uri.encode(text)
   return (text:gsub("[^%w%-._~]", encode_byte))
end

--- As `encode`, but leaves "/": for a whole path, or the rest that a route's "*name" has matched.
---@param path string
---@return string
function uri.encode_path(path)
   return (path:gsub("[^%w%-._~/]", encode_byte))
end

--- The text that was encoded, or nil if a "%" is not followed by two hexadecimal digits. A "+" stays one.
---@param text string
---@return string|nil
function uri.decode(text)
   if text:gsub("%%%x%x", ""):find("%", 1, true) then
      return nil
   end
   return (text:gsub("%%(%x%x)", decode_byte))
end

return uri
