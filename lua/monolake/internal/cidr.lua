--- Sets of addresses: ml.cidr and the options `allow` and `deny` of listeners.
---
--- A set holds, from place 1 on, the addresses of its native parts (of its texts, of each file), which
--- `parts` keeps alive.
local core = require "monolake.core"
local C = require "monolake.internal.ffi"
local Conn = require "monolake.internal.conn"
local Request = require "monolake.internal.request"
local check = require "monolake.internal.check"
local errors = require "monolake.internal.errors"

local cidr = {}

--- A set of addresses, made by `ml.cidr`.
---@class monolake.CidrSet
local Set = {}
Set.__index = Set

--- Is an address in the set? Of a text that is no IP address it is neither true nor false: nil, and
--- that it is none. A request or a connection stands for its client's address, which costs less than
--- its text.
---@param what string|monolake.Request|monolake.Conn "192.0.2.1", "2001:db8::1", req, conn
---@return boolean|nil, string|nil
function Set:contains(what)
   local class = getmetatable(what)
   local is_handle = class == Request or class == Conn
   if not is_handle and type(what) ~= "string" then
      error("contains: expected an address, a request or a connection, not " .. type(what), 2)
   end
   for i = 1, #self do
      local found
      if is_handle then
         found = C.script_cidr_request(self[i], what[1], what[2])
      else
         found = C.script_cidr_text(self[i], what, #what)
      end
      if found == 1 then
         return true
      elseif found == -2 then
         return nil, "not an IP address"
      elseif found < 0 then
         errors.raise_access(found, nil, 2)
      end
   end
   return false
end

local function set_of(parts)
   local set = { parts = parts }
   for i, part in ipairs(parts) do
      set[i] = core.cidr_address(part)
   end
   return setmetatable(set, Set)
end

local function list_part(what, texts, level)
   local part, why = core.cidr_list(texts)
   if not part then
      error(("%s: %s"):format(what, why), level + 1)
   end
   return part
end

--- The part of a file, which a site reads once.
local function file_part(what, path, files, level)
   local site = files.site()
   if not site then
      error(what .. ": a file can be read only while a site is loaded", level + 1)
   end
   path = files.beside(path)
   site.cidr_files = site.cidr_files or {}
   local part, why = site.cidr_files[path], nil
   if not part then
      part, why = core.cidr_file(path)
      site.cidr_files[path] = part
   end
   return part or error(("%s: %s"):format(what, why), level + 1)
end

--- @param options table|string prefixes, and files as `file`
--- @param files { beside: fun(path: string): string, site: fun(): table|nil }
--- @param level integer whose line is blamed, as for error()
--- @return monolake.CidrSet
function cidr.set(options, files, level)
   if type(options) == "string" then
      options = { options }
   end
   local checked = check.options("cidr", options, { file = "any" }, level + 1, true)
   local texts, parts = {}, {}
   for i = 1, #options do
      texts[i] = check.value("cidr: a prefix", options[i], "text", level + 1)
   end
   if #texts > 0 then
      parts[1] = list_part("cidr", texts, level + 1)
   end
   local paths = type(checked.file) == "table" and checked.file or { checked.file }
   for _, path in ipairs(paths) do
      parts[#parts + 1] = file_part("cidr", check.value("cidr: file", path, "text", level + 1), files,
         level + 1)
   end
   return set_of(parts)
end

--- The native parts of what stands for a set in an option: a set, a text, or a list of both.
--- @param what string for messages
function cidr.parts(what, value, level)
   local list = (getmetatable(value) == Set or type(value) ~= "table") and { value } or value
   local texts, parts = {}, {}
   for i = 1, #list do
      local one = list[i]
      if getmetatable(one) == Set then
         for _, part in ipairs(one.parts) do
            parts[#parts + 1] = part
         end
      elseif type(one) == "string" then
         texts[#texts + 1] = one
      else
         error(("%s: expected prefixes (\"10.0.0.0/8\") and sets, not a %s"):format(what, type(one)),
            level + 1)
      end
   end
   for name in pairs(list) do
      if type(name) ~= "number" or name > #list then
         error(("%s: expected a list; for files write ml.cidr { file = ... }"):format(what), level + 1)
      end
   end
   if #texts > 0 then
      parts[#parts + 1] = list_part(what, texts, level + 1)
   end
   return parts
end

return cidr
