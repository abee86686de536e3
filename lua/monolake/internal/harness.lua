--- Chains in a plain LuaJIT: what monolake.test is made of. See src/script/harness.h.
---
--- A request is a table { method, target, host, headers = { { name, value }, ... }, body, chunked,
--- remote, scheme, tls, version, timeout }, a result one of { status, headers = { { name, value }, ... },
--- body, trailers, interim, error }.
local core = require "monolake.core"
local build = require "monolake.internal.build"
local Request = require "monolake.internal.request"
local site = require "monolake.internal.site"

local harness = {}

local function in_site(path, fn)
   core.site_open(path)
   local ok, result = pcall(site.building, fn)
   local handle = core.site_close()
   if not ok then
      error(result, 0)
   end
   return handle, result
end

--- Compiles a layer, a function or a list of both.
--- @param value any
--- @param where string|nil for messages
--- @return { site: userdata, chain: userdata }
function harness.compile(value, where)
   local handle, chain = in_site(where or "spec", function()
      build.open_loose()
      return build.chain(value, where or "spec")
   end)
   return { site = handle, chain = chain }
end

--- Loads a site's script; returns what serves each of its listeners.
--- @param path string
--- @return { site: userdata, chain: userdata, addresses: string[] }[]
function harness.load(path)
   core.site_open(path)
   local ok, why = pcall(site.load, path)
   local handle = core.site_close()
   if not ok then
      error(why, 0)
   end
   local served = core.site_listeners(handle)
   for _, listener in ipairs(served) do
      listener.site = handle
   end
   return served
end

local function result_of(job, seconds)
   if not job:wait(seconds) then
      job:cancel()
      job:wait(1)
      return nil, "no response within " .. seconds .. " seconds"
   end
   return job:result()
end

--- Runs a request through what `compile` or `load` returned; the event loop turns meanwhile.
--- @return table|nil result
--- @return string|nil why there is none
function harness.call(target, request)
   local job = core.start(target.site, target.chain, request)
   if request.tls then
      rawset(Request.of(job:request()), "tls", request.tls) -- before any layer asks
   end
   return result_of(job, request.timeout or 30)
end

--- Serves at an address (port 0: a free one); returns an object with port(), address(), close().
function harness.serve(target, address)
   return core.serve(target.site, target.chain, address or "127.0.0.1:0")
end

--- Sends a request to request.address by the program's own client.
--- @return table|nil result
--- @return string|nil why there is none
function harness.fetch(request)
   return result_of(core.fetch(request), request.timeout or 30)
end

--- The summary tree of what was loaded.
function harness.describe(target)
   return core.site_describe(target.site)
end

return harness
