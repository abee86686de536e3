--- The program's log. Each function takes a text, or a format and its arguments as string.format does.
---@module monolake.log
local core = require "monolake.core"

local log = {}

local function text_of(format, ...)
   if select("#", ...) == 0 then
      return tostring(format)
   end
   local ok, text = pcall(string.format, format, ...)
   if not ok then
      error("log: " .. text, 3)
   end
   return text
end

---@param format string
function log.error(format, ...)
   core.log(0, (text_of(format, ...)))
end

---@param format string
function log.warn(format, ...)
   core.log(1, (text_of(format, ...)))
end

---@param format string
function log.info(format, ...)
   core.log(2, (text_of(format, ...)))
end

--- Written only with `--log-level debug`.
---@param format string
function log.debug(format, ...)
   core.log(3, (text_of(format, ...)))
end

return log
