--- Dictionaries that all workers share: ml.shared.
---
--- Place 1 of one is its address, which `guard` keeps open.
local ffi = require "ffi"
local core = require "monolake.core"
local C = require "monolake.internal.ffi"
local check = require "monolake.internal.check"

local shared = {}

local STRING, NUMBER, BOOLEAN = 1, 2, 3 -- enum shared_type of src/shared/shard.h
local SET, ADD, REPLACE = 0, 1, 2 -- enum shared_how of src/shared/dict.h
local SIZE_MIN, SIZE_MAX, SIZE_USUAL = 64 * 1024, 64 * 1024 ^ 3, 1024 ^ 2
local NAME_MAX = 63
local TTL_MAX_MS = 2 ^ 52

local slot = ffi.new "struct script_shared"
local left = ffi.new "double[1]"
local sums = ffi.new "double[8]"
local string_of = ffi.string

--- What can go wrong that is no mistake of the script's.
local FAILURES = {
   [-16] = "busy", -- EBUSY: whoever holds the lock is stopped
   [-28] = "full", -- ENOSPC
   [-90] = "too long", -- EMSGSIZE
   [-12] = "out of memory", -- ENOMEM
   [-22] = "not a number", -- EINVAL
}

local function failure(code)
   return nil, FAILURES[code] or "error " .. code
end

local function check_key(what, key)
   if type(key) ~= "string" then
      error(("%s: a key is a string, not a %s"):format(what, type(key)), 3)
   end
end

--- Milliseconds: 0 for ever. Numbers are seconds.
local function ttl_of(what, ttl)
   if ttl == nil then
      return 0
   end
   local ms = type(ttl) == "number" and ttl * 1000 or check.value(what .. ": ttl", ttl, "duration", 3)
   if not (ms > 0 and ms < TTL_MAX_MS) then
      error(what .. ": ttl: expected more than 0 seconds", 3)
   end
   return ms < 1 and 1 or ms
end

local function ttl_option(what, options)
   if options == nil then
      return 0
   elseif type(options) ~= "table" then
      error(("%s: expected { ttl = seconds }, not a %s"):format(what, type(options)), 3)
   end
   for name in pairs(options) do
      if name ~= "ttl" then
         error(("%s: unknown option %q%s"):format(what, tostring(name),
            check.suggest(tostring(name), { "ttl" })), 3)
      end
   end
   return ttl_of(what, options.ttl)
end

--- A dictionary that all workers share, made by `ml.shared`.
---
--- Besides what they say, methods return nil and "busy" where a lock could not be had for 50 ms, for the
--- process that holds it is stopped; nothing was done then.
---@class monolake.Shared
local Shared = {}
Shared.__index = Shared

--- The value at a key; nil if there is none, or its time is over.
---@param key string
---@return string|number|boolean|nil, string|nil
function Shared:get(key)
   check_key("get", key)
   local result = C.script_shared_get(self[1], key, #key, slot)
   if result == 0 then
      return nil
   elseif result < 0 then
      return failure(result)
   elseif slot.type == STRING then
      return string_of(slot.ptr, slot.len)
   elseif slot.type == BOOLEAN then
      return slot.number ~= 0
   end
   return slot.number
end

local function put(self, what, how, key, value, ttl_ms)
   local kind = type(value)
   if kind == "string" then
      slot.type, slot.number, slot.ptr, slot.len = STRING, 0, value, #value
   elseif kind == "number" then
      slot.type, slot.number, slot.ptr, slot.len = NUMBER, value, nil, 0
   elseif kind == "boolean" then
      slot.type, slot.number, slot.ptr, slot.len = BOOLEAN, value and 1 or 0, nil, 0
   else
      error(("%s: expected a string, a number or a boolean, not a %s"):format(what, kind), 3)
   end
   return C.script_shared_put(self[1], how, key, #key, slot, ttl_ms)
end

--- Sets a value, whatever was there before. With `ttl` (seconds, or "10s") it is gone after that time.
--- Returns true, or nil and "full" (only with `evict = false`) or "too long".
---@param key string
---@param value string|number|boolean
---@param options { ttl: number|string|nil }|nil
---@return true|nil, string|nil
function Shared:set(key, value, options)
   check_key("set", key)
   local result = put(self, "set", SET, key, value, ttl_option("set", options))
   if result == 1 then
      return true
   end
   return failure(result)
end

--- As `set`, if there is nothing at that key; returns false if there is.
---@param key string
---@param value string|number|boolean
---@param options { ttl: number|string|nil }|nil
---@return boolean|nil, string|nil
function Shared:add(key, value, options)
   check_key("add", key)
   local result = put(self, "add", ADD, key, value, ttl_option("add", options))
   if result >= 0 then
      return result == 1
   end
   return failure(result)
end

--- As `set`, if there is something at that key; returns false if there is not.
---@param key string
---@param value string|number|boolean
---@param options { ttl: number|string|nil }|nil
---@return boolean|nil, string|nil
function Shared:replace(key, value, options)
   check_key("replace", key)
   local result = put(self, "replace", REPLACE, key, value, ttl_option("replace", options))
   if result >= 0 then
      return result == 1
   end
   return failure(result)
end

--- Adds to a number and returns the sum, which nobody else gets for the same change. Where there is
--- nothing yet it begins at `init`, to be gone after `ttl`; what is there keeps the time that it has.
--- Returns nil and "not found" (there is nothing, and no init), "not a number", "full" or "too long".
---@param key string
---@param by number|nil 1 unless given
---@param init number|nil
---@param ttl number|string|nil seconds, or "10s"
---@return number|nil, string|nil
function Shared:incr(key, by, init, ttl)
   check_key("incr", key)
   by = by or 1
   if type(by) ~= "number" or init ~= nil and type(init) ~= "number" then
      error("incr: expected numbers to add and to begin with", 2)
   end
   local result = C.script_shared_incr(self[1], key, #key, by, init and 1 or 0, init or 0,
      ttl_of("incr", ttl), slot)
   if result == 1 then
      return slot.number
   elseif result == 0 then
      return nil, "not found"
   end
   return failure(result)
end

--- Removes an entry. Was there one?
---@param key string
---@return boolean|nil, string|nil
function Shared:delete(key)
   check_key("delete", key)
   local result = C.script_shared_delete(self[1], key, #key)
   if result >= 0 then
      return result == 1
   end
   return failure(result)
end

--- How many seconds an entry has left: math.huge if it stays; nil and "not found" if there is none.
---@param key string
---@return number|nil, string|nil
function Shared:ttl(key)
   check_key("ttl", key)
   local result = C.script_shared_ttl(self[1], key, #key, left)
   if result == 0 then
      return nil, "not found"
   elseif result < 0 then
      return failure(result)
   end
   return left[0] < 0 and math.huge or left[0] / 1000
end

--- Gives an entry another time to stay, from now on; without `ttl` it stays for good. Was there one?
---@param key string
---@param ttl number|string|nil seconds, or "10s"
---@return boolean|nil, string|nil
function Shared:expire(key, ttl)
   check_key("expire", key)
   local result = C.script_shared_expire(self[1], key, #key, ttl_of("expire", ttl))
   if result >= 0 then
      return result == 1
   end
   return failure(result)
end

--- Removes everything.
---@return true|nil, string|nil
function Shared:flush()
   local result = C.script_shared_flush(self[1])
   if result < 0 then
      return failure(result)
   end
   return true
end

--- What it holds, and what has become of the rest: `count` (entries), `bytes_used` and `bytes` (of its
--- memory), `evicted` and `expired` entries, `hits` and `misses` of get, and `repaired`, how often a
--- process died in the middle of a change. Looks at every entry: not for every request.
---@return table<string, number>|nil, string|nil
function Shared:stats()
   local result = C.script_shared_stats(self[1], sums)
   if result < 0 then
      return failure(result)
   end
   return {
      count = sums[0], bytes_used = sums[1], bytes = sums[2], evicted = sums[3], expired = sums[4],
      hits = sums[5], misses = sums[6], repaired = sums[7],
   }
end

--- How many entries it holds. Looks at every one: not for every request.
---@return integer|nil, string|nil
function Shared:count()
   local stats, why = self:stats()
   if not stats then
      return nil, why
   end
   return stats.count
end

local OPTIONS = { size = "bytes", evict = "flag" }

--- @param level integer whose line is blamed, as for error()
--- @return monolake.Shared
function shared.open(name, options, level)
   check.value("shared: a name", name, "text", level + 1)
   if #name == 0 or #name > NAME_MAX or name:find "[%z\n]" then
      error(("shared: a name has 1 to %d bytes, and no line breaks"):format(NAME_MAX), level + 1)
   end
   local checked = check.options("shared", options or {}, OPTIONS, level + 1)
   local size = math.floor(checked.size or SIZE_USUAL)
   if size < SIZE_MIN or size > SIZE_MAX then
      error("shared: size: expected 64k to 64g", level + 1)
   end
   local guard, why = core.shared_open(name, size, checked.evict ~= false)
   if not guard then
      error(("shared: cannot open %q: %s"):format(name, why), level + 1)
   end
   return setmetatable({ core.shared_address(guard), guard = guard }, Shared)
end

return shared
