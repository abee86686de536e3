--- The options of the PROXY protocol: `proxy_protocol` of listeners, `send_proxy` of upstreams.
local core = require "monolake.core"
local check = require "monolake.internal.check"
local cidr = require "monolake.internal.cidr"

local proxied = {}

--- Protocols (enum upstream_protocol) whose connections carry requests of many clients at a time.
local SHARING = { [1] = "HTTP/2", [3] = "Thrift", [5] = "HTTP/2" }

local UDP = 4

local ACCEPT = { from = "any", timeout = "duration", optional = "flag" }

--- Checks what a listener's `proxy_protocol` says. Returns what makes the native side of it.
---@param options table
---@param level integer whose line the error blames, as for error()
---@return fun(): userdata
function proxied.accept(options, level)
   local checked = check.options("listen: proxy_protocol", options, ACCEPT, level + 1)
   local from = checked.from and cidr.parts("listen: proxy_protocol: from", checked.from, level + 1) or {}
   if #from == 0 then
      error('listen: proxy_protocol: expected who may send headers: from = { "10.0.0.0/8", "unix:" }',
         level + 1)
   end
   return function()
      return core.proxy_accept(from, checked.timeout or 5000, checked.optional or false)
   end
end

local V1, V2 = 1, 2 -- SEND_PROXY_* of src/proxy/upstream.h, as are those of TLVS
local TLVS = { alpn = 4, authority = 8, ssl = 16, unique_id = 32, crc32c = 64 }

local SEND = { version = "count", tlvs = "table" }

local function tlv_bits(list, level)
   local bits, seen = 0, {}
   for i = 1, #list do
      local value = TLVS[list[i]]
      if not value then
         error('upstream: send_proxy: tlvs: expected "alpn", "authority", "ssl", "unique_id" or "crc32c", ' ..
            "not " .. check.show(list[i]), level + 1)
      end
      bits = bits + (seen[value] and 0 or value)
      seen[value] = true
   end
   return bits
end

--- Checks what an upstream's `send_proxy` says. Returns SEND_PROXY_* of src/proxy/upstream.h.
---@param value string|table "v1", "v2", { version =, tlvs = }
---@param protocol integer|nil of the upstream: enum upstream_protocol
---@param level integer whose line the error blames, as for error()
---@return integer
function proxied.send(value, protocol, level)
   local options = value == "v1" and { version = V1 } or value == "v2" and { version = V2 } or value
   if type(options) ~= "table" then
      error('upstream: send_proxy: expected "v1", "v2" or { version = 2, tlvs = { "ssl" } }, not ' ..
         check.show(value), level + 1)
   end
   if SHARING[protocol] then
      error(("upstream: send_proxy: connections of %s are shared by clients: a header would speak for all")
         :format(SHARING[protocol]), level + 1)
   elseif protocol == UDP then
      error("upstream: send_proxy: headers are not sent in datagrams", level + 1)
   end
   local checked = check.options("upstream: send_proxy", options, SEND, level + 1)
   local version = checked.version or V2
   if version ~= V1 and version ~= V2 then
      error("upstream: send_proxy: version: expected 1 or 2, not " .. version, level + 1)
   elseif version == V1 and checked.tlvs then
      error("upstream: send_proxy: tlvs need version 2", level + 1)
   end
   return version + tlv_bits(checked.tlvs or {}, level + 1)
end

return proxied
