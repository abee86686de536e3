-- build.lua makes these; `opened` holds the native side, for each site.

--- HTTP behind layer 4, made by `ml.http`: a layer of layer 4, and what `conn:serve` takes.
---@class monolake.Http
local Http = {}
Http.__index = Http

return Http
