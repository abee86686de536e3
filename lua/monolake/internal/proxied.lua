--- The options of the PROXY protocol: `proxy_protocol` of listeners.
local core = require "monolake.core"
local check = require "monolake.internal.check"
local cidr = require "monolake.internal.cidr"

local proxied = {}

local ACCEPT = { from = "any", timeout = "duration", optional = "flag" }

--- Checks what a listener's `proxy_protocol` says. Returns what makes the native side of it.
---@param options table
---@param level integer whose line the error blames, as for error()
---@return fun(): userdata
function proxied.accept(options, level)
   local checked = check.options("listen: proxy_protocol", options, ACCEPT, level + 1)
   local from = checked.from and cidr.parts("listen: proxy_protocol: from", checked.from, level + 1) or {}
   if #from == 0 then
      error('listen: proxy_protocol: expected who may send headers: from = { "10.0.0.0/8", "unix:" }', level + 1)
   end
   return function()
      return core.proxy_accept(from, checked.timeout or 5000, checked.optional or false)
   end
end

return proxied
