--- What a message is in Thrift: `req.thrift` and `res.thrift`.
---
--- Places in a handle: 1 the request's address, 2 its generation, 3 the message's address.
local ffi = require "ffi"
local C = require "monolake.internal.ffi"
local Headers = require "monolake.internal.headers"
local check = require "monolake.internal.check"
local errors = require "monolake.internal.errors"
local properties = require "monolake.internal.properties"

local raise = errors.raise_access
local text_of = ffi.string
local out = ffi.new "struct script_text"
local seqid_out = ffi.new "int32_t[1]"
local idempotent_out, timeout_out = ffi.new "double[1]", ffi.new "double[1]"

--- A message of Thrift, as far as its head tells. The timeout of a call, which takes 0.25 or "250ms", is
--- how long its reply may take, instead of the upstream's `response_timeout`.
---@class monolake.Thrift
---@field method string "add"; "Calculator:add" of a multiplexed service
---@field seqid integer that of the call, as the client knows it
---@field type string "call" or "oneway"; of a response "reply" or "exception"
---@field protocol string "binary" or "compact"
---@field transport string "framed", "ttheader" or "theader"
---@field headers monolake.ThriftHeaders
---@field idempotent boolean of a call: it may be sent again where that may help; can be assigned
---@field timeout number|nil of a call: in seconds; can be assigned
local getters, setters = {}, {}

local METHOD, TYPE, PROTOCOL, TRANSPORT = 0, 1, 2, 3

local function text_getter(field)
   return function(self)
      local found = C.script_thrift_text(self[1], self[2], self[3], field, out)
      if found < 0 then
         raise(found, nil, 3)
      end
      return text_of(out.ptr, out.len)
   end
end

getters.method = text_getter(METHOD)
getters.type = text_getter(TYPE)
getters.protocol = text_getter(PROTOCOL)
getters.transport = text_getter(TRANSPORT)

function getters.seqid(self)
   local found = C.script_thrift_seqid(self[1], self[2], self[3], seqid_out)
   if found < 0 then
      raise(found, nil, 2)
   end
   return seqid_out[0]
end

--- Sets what is not negative; returns both.
local function options(self, idempotent, timeout_ms)
   idempotent_out[0], timeout_out[0] = idempotent, timeout_ms
   local found = C.script_thrift_options(self[1], self[2], idempotent_out, timeout_out)
   if found < 0 then
      raise(found, nil, 3)
   end
   return idempotent_out[0] > 0, timeout_out[0]
end

function getters.idempotent(self)
   local idempotent = options(self, -1, -1)
   return idempotent
end

function getters.timeout(self)
   local _, ms = options(self, -1, -1)
   return ms > 0 and ms / 1000 or nil
end

function setters.idempotent(self, value)
   if type(value) ~= "boolean" then
      error("req.thrift.idempotent must be true or false, not " .. type(value), 3)
   end
   options(self, value and 1 or 0, -1)
end

function setters.timeout(self, value)
   options(self, -1, value == nil and 0 or check.value("req.thrift.timeout", value, "duration", 3))
end

--- The key-values of a header: keys are texts, or whole numbers, which only TTHeader has. Messages
--- without a header (framed) carry none.
---@class monolake.ThriftHeaders
---@field [string|integer] string|nil
local KeyValues = {}

local PART_NUMBERS = 2

--- The fields that a key is among, and the name it has there.
local function place(self, key)
   if type(key) ~= "number" then
      return self[1], key
   elseif key % 1 ~= 0 or key < 0 or key > 65535 then
      error("a numeric key is a whole number from 0 to 65535, not " .. key, 3)
   end
   return self[2], ("%d"):format(key)
end

--- Iterates over all: `for key, value in req.thrift.headers:pairs() do`.
local function pairs_of(self)
   local texts, numbers = Headers.methods.pairs(self[1]), Headers.methods.pairs(self[2])
   return function()
      local key, value
      if texts then
         key, value = texts()
         if key then
            return key, value
         end
         texts = nil
      end
      key, value = numbers()
      return tonumber(key), value
   end
end

function KeyValues.__index(self, key)
   if key == "pairs" then
      return pairs_of
   end
   local fields, name = place(self, key)
   local value = Headers.methods.get(fields, name)
   return value
end

function KeyValues.__newindex(self, key, value)
   local fields, name = place(self, key)
   Headers.methods.set(fields, name, value)
end

function getters.headers(self)
   local texts = Headers.of(self[1], self[2], self[3])
   local numbers = Headers.of(self[1], self[2], self[3], PART_NUMBERS)
   local headers = setmetatable({ texts, numbers }, KeyValues)
   rawset(self, "headers", headers)
   return headers
end

local Thrift = properties("a message of Thrift", getters, setters, {})

--- @param address number of the request
--- @param generation number
--- @param message number address of the request or response
--- @return monolake.Thrift|nil
function Thrift.of(address, generation, message)
   local found = C.script_thrift_text(address, generation, message, METHOD, out)
   if found < 0 then
      raise(found, nil, 3)
   elseif found == 0 then
      return nil
   end
   local thrift = setmetatable({ address, generation, message }, Thrift)
   return thrift
end

return Thrift
