--- Checks of what a script passes to a factory, when it is loaded: an unknown option names the nearest
--- known one, a wrong type says what was expected, both at the line of the script.
local check = {}

local function distance(a, b)
   local row = {}
   for j = 0, #b do
      row[j] = j
   end
   for i = 1, #a do
      local diagonal = row[0]
      row[0] = i
      for j = 1, #b do
         local cost = a:byte(i) == b:byte(j) and 0 or 1
         local best = math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
         diagonal, row[j] = row[j], best
      end
   end
   return row[#b]
end

--- "; did you mean "status"?" for the nearest of the names, or "" if none is near.
--- @param name string
--- @param names string[]
--- @return string
function check.suggest(name, names)
   table.sort(names)
   local nearest, least = nil, math.max(2, math.floor(#name / 2)) + 1
   for _, known in ipairs(names) do
      local d = distance(name:lower(), known)
      if d < least then
         nearest, least = known, d
      end
   end
   return nearest and ("; did you mean %q?"):format(nearest) or ""
end

local function scaled(value, units, what)
   if type(value) == "number" and value >= 0 and value == value and value < 2 ^ 53 then
      return value * units[""]
   elseif type(value) == "string" then
      local number, unit = value:match "^(%d+%.?%d*)%s*(%a*)$"
      local scale = number and units[unit:lower()]
      local result = scale and unit ~= "" and tonumber(number) * scale
      if result and result < 2 ^ 53 then
         return result
      end
   end
   return nil, what
end

local TIMES = { [""] = 1000, ms = 1, s = 1000, m = 60000, h = 3600000 }
local SIZES = { [""] = 1, b = 1, k = 1024, m = 1048576, g = 1073741824 }

local function of_type(name, what)
   return function(value)
      if type(value) == name then
         return value
      end
      return nil, what or "a " .. name
   end
end

local PROTOCOLS = { h1 = 1, h2 = 2, h2c = 4 } -- PROTOCOL_* of src/http/listener_config.h

-- enum upstream_protocol of src/proxy/upstream.h
local UPSTREAM_PROTOCOLS = { h1 = 0, h2 = 1, tcp = 2, thrift = 3, udp = 4, auto = 5 }

local function protocol_bits(list)
   local bits, seen = 0, {}
   for i = 1, type(list) == "table" and #list or 0 do
      local bit = PROTOCOLS[list[i]]
      if not bit then
         return nil, 'a list of "h1", "h2" and "h2c" and nothing else'
      end
      bits = bits + (seen[bit] and 0 or bit)
      seen[bit] = true
   end
   return bits > 0 and bits or nil, 'a list of "h1", "h2" and "h2c"'
end

--- Readers of kinds: the value as it is used, or nil and what was expected.
local kinds = {
   text = of_type("string", "a string"),
   table = of_type "table",
   flag = of_type("boolean", "true or false"),
   ["function"] = of_type "function",
   any = function(value)
      return value
   end,
   count = function(value)
      if type(value) == "number" and value >= 0 and value % 1 == 0 and value < 2 ^ 32 then
         return value
      end
      return nil, "a whole number, 0 or more"
   end,
   duration = function(value)
      local ms, what = scaled(value, TIMES, 'a number of seconds or a text such as "250ms", "30s", "5m"')
      if ms and ms >= 2 ^ 32 then
         return nil, "a shorter time"
      end
      return ms and math.ceil(ms), what -- 0 means something else than little
   end,
   bytes32 = function(value)
      local bytes, what = scaled(value, SIZES, 'a number of bytes or a text such as "16k", "1m"')
      if bytes and bytes >= 2 ^ 32 then
         return nil, "less than 4g"
      end
      return bytes, what
   end,
   bytes = function(value)
      local bytes, what = scaled(value, SIZES, 'a number of bytes or a text such as "16k", "1m"')
      return bytes, what
   end,
   protocol = function(value)
      return UPSTREAM_PROTOCOLS[value], 'one of "auto", "h1", "h2", "tcp", "thrift", "udp"'
   end,
   protocols = protocol_bits,
}

--- Raises an error at the caller's caller's ... line.
function check.fail(message, level)
   error(message, level + 1)
end

--- A value as messages show it.
local function show(value)
   if type(value) == "string" then
      return ("%q"):format(value)
   elseif type(value) == "number" or type(value) == "boolean" then
      return tostring(value)
   end
   return "a " .. type(value)
end

check.show = show

--- Reads one value of a kind: one of those above, or a table of the allowed texts.
--- @param what string for messages
--- @param value any
--- @param kind string|table<string, boolean>
--- @param level integer whose line the error blames, as for error()
function check.value(what, value, kind, level)
   local result, expected
   local nearest = ""
   if type(kind) == "table" then
      result = kind[value] and value or nil
      local names = {}
      for name in pairs(kind) do
         names[#names + 1] = ("%q"):format(name)
      end
      table.sort(names)
      expected = "one of " .. table.concat(names, ", ")
      if result == nil and type(value) == "string" then
         local plain = {}
         for name in pairs(kind) do
            plain[#plain + 1] = name
         end
         nearest = check.suggest(value, plain)
      end
   else
      result, expected = kinds[kind](value)
   end
   if result == nil then
      error(("%s: expected %s, not %s%s"):format(what, expected, show(value), nearest), level + 1)
   end
   return result
end

--- Checks a table of options against { name = kind } and returns a table of what they mean
--- (milliseconds, bytes). Positional entries are passed over if `positional` is set.
--- @param what string the factory, for messages
--- @param options table
--- @param spec table<string, string|table>
--- @param level integer whose line the error blames, as for error()
--- @param positional boolean|nil
function check.options(what, options, spec, level, positional)
   if type(options) ~= "table" then
      error(("%s: expected a table of options, not %s"):format(what, show(options)), level + 1)
   end
   local result = {}
   for name, value in pairs(options) do
      local kind = spec[name]
      if kind then
         result[name] = check.value(what .. ": " .. name, value, kind, level + 1)
      elseif not (positional and type(name) == "number") then
         local names = {}
         for known in pairs(spec) do
            names[#names + 1] = known
         end
         error(("%s: unknown option %q%s"):format(what, tostring(name),
            check.suggest(tostring(name), names)), level + 1)
      end
   end
   return result
end

--- "site.lua:7" of the function `level` levels up, as for error().
--- @param level integer
--- @return string
function check.where(level)
   local info = debug.getinfo(level + 1, "Sl")
   return info and ("%s:%d"):format(info.short_src, info.currentline) or "?"
end

return check
