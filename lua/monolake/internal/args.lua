--- Ordered lists of names and values that are part of a text: the query, the cookies. The text is
--- the truth: it is parsed when first asked for and again when it has changed, and written back when
--- an entry changes.
local Pairs = {}

---@class monolake.Pairs
---@field [string] string|nil
local methods = {}

-- Private places in a handle: 1 the message's handle, 2 the kind, 3 the parsed text, 4 names, 5 values.
local function entries(self)
   local text = self[2].read(self[1]) or ""
   if text ~= self[3] then
      self[4], self[5] = self[2].parse(text)
      self[3] = text
   end
   return self[4], self[5]
end

local function store(self, names, values)
   self[2].write(self[1], self[2].build(names, values))
end

local function check(name, value, level)
   if type(name) ~= "string" then
      error("a name must be a string, not " .. type(name), level + 1)
   end
   if value ~= nil and type(value) ~= "string" and type(value) ~= "number" then
      error("a value must be a string, not " .. type(value), level + 1)
   end
   return value ~= nil and tostring(value) or nil
end

--- The first value of that name, or nil.
---@param name string
---@return string|nil
function methods:get(name)
   local names, values = entries(self)
   for i = 1, #names do
      if names[i] == name then
         return values[i]
      end
   end
   return nil
end

--- Every value of that name, in order.
---@param name string
---@return string[]
function methods:all(name)
   local names, values = entries(self)
   local found = {}
   for i = 1, #names do
      if names[i] == name then
         found[#found + 1] = values[i]
      end
   end
   return found
end

local function without(names, values, name)
   local kept_names, kept_values, place = {}, {}, nil
   for i = 1, #names do
      if names[i] ~= name then
         kept_names[#kept_names + 1] = names[i]
         kept_values[#kept_values + 1] = values[i]
      else
         place = place or #kept_names + 1
      end
   end
   return kept_names, kept_values, place or #kept_names + 1
end

--- Replaces all values of that name by one, in the place of the first; nil removes them.
---@param name string
---@param value string|number|nil
function methods:set(name, value)
   value = check(name, value, 2)
   local names, values = entries(self)
   local kept_names, kept_values, place = without(names, values, name)
   if value then
      table.insert(kept_names, place, name)
      table.insert(kept_values, place, value)
   end
   store(self, kept_names, kept_values)
end

--- Adds a value at the end; others of that name stay.
---@param name string
---@param value string|number
function methods:add(name, value)
   value = check(name, value, 2)
   local names, values = entries(self)
   names[#names + 1] = name
   values[#values + 1] = value
   store(self, names, values)
end

--- Iterates over all names and values in their order.
---@return fun(): string|nil, string|nil
function methods:pairs()
   local names, values = entries(self)
   local i = 0
   return function()
      i = i + 1
      return names[i], values[i]
   end
end

function Pairs.__index(self, name)
   return methods[name] or methods.get(self, name)
end

function Pairs.__newindex(self, name, value)
   check(name, value, 2)
   methods.set(self, name, value)
end

function Pairs.of(message, kind)
   return setmetatable({ message, kind, false, false, false }, Pairs)
end

local function decode(text)
   return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex)
      return string.char(tonumber(hex, 16))
   end))
end

local function encode(text)
   return (text:gsub("[^%w%-._~]", function(c)
      return ("%%%02X"):format(c:byte())
   end))
end

--- "a=1&b=2" (application/x-www-form-urlencoded).
Pairs.query = {
   read = function(req)
      return req.query
   end,
   write = function(req, text)
      req.query = text
   end,
   parse = function(text)
      local names, values = {}, {}
      for part in text:gmatch "[^&]+" do
         local name, value = part:match "^([^=]*)=(.*)$"
         names[#names + 1] = decode(name or part)
         values[#values + 1] = decode(value or "")
      end
      return names, values
   end,
   build = function(names, values)
      local parts = {}
      for i = 1, #names do
         parts[i] = encode(names[i]) .. "=" .. encode(values[i])
      end
      return #parts > 0 and table.concat(parts, "&") or nil
   end,
}

--- "a=1; b=2" (RFC 6265 section 4.2).
Pairs.cookies = {
   read = function(req)
      local fields = req.headers:all "cookie"
      return fields[2] and table.concat(fields, "; ") or fields[1]
   end,
   write = function(req, text)
      req.headers["cookie"] = text
   end,
   parse = function(text)
      local names, values = {}, {}
      for part in text:gmatch "[^;]+" do
         local name, value = part:match "^%s*([^=]-)%s*=%s*(.-)%s*$"
         if name and name ~= "" then
            names[#names + 1] = name
            values[#values + 1] = value:match '^"(.*)"$' or value
         end
      end
      return names, values
   end,
   build = function(names, values)
      local parts = {}
      for i = 1, #names do
         if names[i]:find "[^%w!#$%%&'*+%-.^_`|~]" or values[i]:find '[%c%s",;\\]' then
            error(("not a valid cookie: %s=%s"):format(names[i], values[i]), 4)
         end
         parts[i] = names[i] .. "=" .. values[i]
      end
      return #parts > 0 and table.concat(parts, "; ") or nil
   end,
}

return Pairs
