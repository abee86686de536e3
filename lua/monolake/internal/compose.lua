--- Composes neighbouring Lua layers to one function, once, when a site is loaded: `next` between them
--- is then a plain call, and nothing is made per request but the handles.
---
--- The first layer runs unprotected: its error ends the coroutine, and src/script/run.c asks `recover`
--- for the answer. For LuaJIT compiles what comes behind a wait, but not a return out of a pcall that
--- was begun before it; with one layer, the usual case, there is none. Layers behind the first are
--- protected, since those before them go on with the response to their failure.
local core = require "monolake.core"
local Request = require "monolake.internal.request"
local Layer = require "monolake.internal.layer"
local Response = require "monolake.internal.response"
local Upstream = require "monolake.internal.upstream"
local errors = require "monolake.internal.errors"
local wait = require "monolake.internal.wait"

local Reply = Response.Reply
local raw_yield, next_verb = wait.yield, wait.verbs.next
local cancelled = errors.cancelled

--- What went wrong in a layer, for the log and on_error.
local Trouble = {}

local function trouble_of(text, value, traceback)
   return setmetatable({ text = text, value = value, traceback = traceback }, Trouble)
end

--- What an error of a layer becomes in xpcall: failures stay, all else gets its traceback.
local function with_traceback(err)
   if errors.is_failure(err) or getmetatable(err) == Trouble then
      return err
   end
   local text = type(err) == "string" and err or tostring(err)
   return trouble_of(text, err, debug.traceback(text, 2))
end

--- The native rest of the chain. The only place where a chain's Lua waits for what is below it.
local function native_next(req)
   if getmetatable(req) ~= Request then
      error("next: expected the request, not " .. type(req), 2)
   end
   local address, code = raw_yield(next_verb, req[1])
   if address then
      return Response.of(req, address)
   elseif code == -22 then
      error("next can be called only while its own layer is running", 2)
   end
   error(cancelled, 0)
end

local function plain_failure(req, trouble)
   return Response.fail(req, 500, trouble.text)
end

--- What a layer gave that is no response of its request.
local function name_of(value)
   local kind = getmetatable(value)
   if kind == Response then
      return "a response of another request"
   elseif kind == Layer then
      return "a layer, which belongs into a chain; " .. Layer.hint
   elseif kind == Upstream then
      return "an upstream; " .. Layer.hint
   end
   return value == nil and "nothing" or "a " .. type(value)
end

--- Turns whatever a layer gave into a response.
local function accept(req, value, label)
   local kind = getmetatable(value)
   if kind == Reply then
      return Response.from(req, value)
   elseif kind == Response and value[1] == req[1] and value[2] == req[2] then
      return value
   end
   local text = ("%s must return a response, but returned %s"):format(label, name_of(value))
   error(trouble_of(text, text, text), 0)
end

--- What fails in our own code is what the layer has returned: it is named in place of ours.
local function blame(text, label)
   local rest = text:match "^lua/monolake/internal/[%w_]+%.lua:%d+: (.*)$"
   return rest and label .. ": " .. rest or text
end

local function fail(req, trouble, site, label)
   if trouble == cancelled then
      error(cancelled, 0)
   elseif errors.is_failure(trouble) then
      return Response.fail(req, trouble.status, trouble.message)
   elseif getmetatable(trouble) ~= Trouble then -- memory was exhausted: no handler of xpcall has run
      trouble = trouble_of(tostring(trouble), trouble, debug.traceback(tostring(trouble), 2))
   end
   trouble.text, trouble.traceback = blame(trouble.text, label), blame(trouble.traceback, label)
   core.log_failure(trouble.traceback)
   local handler = site.on_error
   if not handler then
      return plain_failure(req, trouble)
   end
   local ok, result = xpcall(handler, with_traceback, trouble.value, req)
   if ok then
      ok, result = xpcall(accept, with_traceback, req, result, "the function of on_error")
   end
   if ok then
      return result
   elseif result == cancelled then
      error(cancelled, 0)
   end
   core.log_failure(result.traceback or result.message)
   return plain_failure(req, trouble, label)
end

--- What a layer gave that is not just a response of its request.
local function settle(ok, value, req, site, label)
   if ok then
      ok, value = xpcall(accept, with_traceback, req, value, label)
      if ok then
         return value
      end
   end
   return fail(req, value, site, label)
end

--- `next` of the layer before this one.
local function edge(layer, next, site, label)
   return function(req)
      local ok, res = xpcall(layer, with_traceback, req, next)
      if ok and getmetatable(res) == Response and res[2] == req[2] and res[1] == req[1] then
         return res
      end
      return settle(ok, res, req, site, label)
   end
end

--- What src/script/layer.c calls: both return the response's address.
--- @param layers { fn: function, label: string }[]
--- @param site table whose on_error answers for failures
--- @return fun(address: number, generation: number): number
--- @return fun(address: number, generation: number, err: any, traceback: string): number recovers from
---         an error of the former
return function(layers, site)
   local next = native_next
   for i = #layers, 2, -1 do
      next = edge(layers[i].fn, next, site, layers[i].label)
   end
   local first, label = layers[1].fn, layers[1].label

   local function run(address, generation)
      local req = Request.of(address, generation)
      req[8] = site
      local res = first(req, next)
      if getmetatable(res) ~= Response or res[2] ~= generation or res[1] ~= address then
         res = accept(req, res, label)
      end
      return res[3]
   end

   local function recover(address, generation, err, traceback)
      local trouble = err
      if not errors.is_failure(err) and getmetatable(err) ~= Trouble then
         local text = type(err) == "string" and err or tostring(err)
         trouble = trouble_of(text, err, text .. "\n" .. traceback)
      end
      return fail(Request.of(address, generation), trouble, site, label)[3]
   end

   return run, recover
end
