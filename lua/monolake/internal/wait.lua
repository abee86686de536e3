--- Waiting: a layer's Lua coroutine yields a verb, which src/script/verbs.c performs. Coroutines that
--- a script makes itself hand verbs on to the layer's, so that waiting works inside them too.
local core = require "monolake.core"
local check = require "monolake.internal.check"
local errors = require "monolake.internal.errors"

local raw_yield, raw_resume, raw_create = coroutine.yield, coroutine.resume, coroutine.create
local running, mend = coroutine.running, core.mend

local wait = { verbs = core.verbs, yield = raw_yield }

local ETIMEDOUT = -110

local is_verb = {}
for _, verb in pairs(core.verbs) do
   is_verb[verb] = true
end

-- Coroutines whose verbs are being performed: to others they are no more to be resumed than one that runs.
local waiting = setmetatable({}, { __mode = "k" })

local function go_on(co, ...)
   waiting[co] = nil
   return raw_resume(co, ...)
end

local function relay(co, ok, first, ...)
   if ok and is_verb[first] then
      waiting[co] = true
      return relay(co, go_on(co, raw_yield(first, ...)))
   elseif not ok then
      mend(co)
   end
   return ok, first, ...
end

-- How many resumed each other up to this one. LuaJIT does not count, and they share the stack of C.
local depths = setmetatable({}, { __mode = "k" })
local DEPTH_MAX = 200 -- as in plain Lua

local function resume(co, ...)
   if waiting[co] then
      return false, "cannot resume non-suspended coroutine"
   end
   local depth = (depths[running() or false] or 0) + 1
   if depth > DEPTH_MAX then
      return false, "C stack overflow"
   elseif type(co) == "thread" then
      depths[co] = depth
   end
   return relay(co, raw_resume(co, ...))
end

local function unwrap(ok, ...)
   if ok then
      return ...
   end
   error((...), 0)
end

--- The library "coroutine" for scripts.
wait.coroutine = {
   create = raw_create,
   resume = resume,
   running = running,
   status = function(co)
      return waiting[co] and "normal" or coroutine.status(co)
   end,
   yield = raw_yield,
   isyieldable = coroutine.isyieldable,
   wrap = function(fn)
      local co = raw_create(fn)
      return function(...)
         return unwrap(resume(co, ...))
      end
   end,
}

--- Raises an error unless a layer is running.
--- @param what string
function wait.check(what)
   if not running() then
      error(what .. " can be used only while a request is handled", 3)
   end
end

--- Suspends this request only.
--- @param seconds number|string
function wait.sleep(seconds)
   if type(seconds) == "string" then
      seconds = check.value("sleep", seconds, "duration", 2) / 1000
   end
   if type(seconds) ~= "number" or seconds < 0 or seconds ~= seconds then
      error("sleep: expected a number of seconds, not " .. tostring(seconds), 2)
   end
   wait.check("sleep")
   local result = raw_yield(core.verbs.sleep, seconds)
   if result < 0 then
      error(result == ETIMEDOUT and errors.failure(504, "the request took longer than it may")
         or errors.cancelled, 0)
   end
end

return wait
