-- build.lua makes these; `opened` holds the native side, for each site.

--- A group of peers, made by `ml.upstream`.
---@class monolake.Upstream
---@field name string
local Upstream = {}
Upstream.__index = Upstream

return Upstream
