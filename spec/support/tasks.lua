--- Tasks: coroutines that wait for descriptors and deadlines, so that one spec scripts a client and an
--- origin side by side. `tasks.run` runs one to its end, together with those that it starts.
local sys = require "spec.support.sys"

local tasks = {}

local epoll = sys.epoll_create()
local waiting = {}    -- fd -> { read = task, write = task }
local ready = {}      -- tasks to resume, in order
local timed = {}      -- task -> deadline, for those that wait under one
local current         -- the task that runs

--- How much longer everything may take than on a quiet machine with a plain build.
tasks.patience = tonumber(os.getenv "SPEC_PATIENCE") or 1

--- The deadline of a wait for which the spec gives none, in seconds.
tasks.default_seconds = 10 * tasks.patience

local function arm(fd)
   local waiters = waiting[fd]
   local interest = (waiters.read and sys.READ or 0) + (waiters.write and sys.WRITE or 0)
   if interest > 0 then
      sys.epoll_arm(epoll, fd, interest)
   end
end

local function make_ready(task, result)
   if task.queued or task.done then
      return
   end
   task.queued, task.result = true, result
   timed[task] = nil
   ready[#ready + 1] = task
end

--- Suspends the running task; returns true, or false when the deadline passed.
local function pause(deadline)
   if deadline then
      timed[current] = deadline
   end
   return coroutine.yield()
end

--- Waits until the descriptor is readable ("read") or writable ("write"). False: the deadline passed.
---@param seconds number|nil default: `default_seconds`
function tasks.wait(fd, direction, seconds)
   local task = assert(current, "only a task can wait")
   local waiters = waiting[fd] or {}
   waiting[fd] = waiters
   assert(not waiters[direction], "two tasks wait for the same thing")
   waiters[direction] = task
   arm(fd)
   local ok = pause(sys.clock() + (seconds or tasks.default_seconds))
   waiters[direction] = nil
   return ok
end

--- To be called before a descriptor is closed: whoever waits for it goes on.
function tasks.forget(fd)
   local waiters = waiting[fd]
   if not waiters then
      return
   end
   waiting[fd] = nil
   sys.epoll_forget(epoll, fd)
   for _, task in pairs(waiters) do
      make_ready(task, true)
   end
end

--- Lets the others run for a while. For polling and for pacing, never for hoping.
function tasks.sleep(seconds)
   pause(sys.clock() + seconds)
end

--- Polls until `check` returns something true and returns that; an error when the deadline passes.
---@param what string what is waited for
function tasks.eventually(what, check, seconds)
   local deadline = sys.clock() + (seconds or tasks.default_seconds)
   while true do
      local value = check()
      if value then
         return value
      end
      if sys.clock() > deadline then
         error("in vain waited for " .. what, 2)
      end
      tasks.sleep(0.003)
   end
end

local Task = {}
Task.__index = Task

--- Waits for the task's end and returns what it returned; its error is raised here.
function Task:join(seconds)
   if not self.done then
      self.joiner = current
      assert(pause(sys.clock() + (seconds or tasks.default_seconds)), "a task did not end in time")
   end
   if self.err then
      error(self.err, 0)
   end
   return unpack(self.values)
end

--- Starts a task beside the running one. An error in one that nobody joins fails the spec.
---@param fn fun(...)
function tasks.start(fn, ...)
   local task = setmetatable({ arguments = { n = select("#", ...), ... } }, Task)
   task.thread = coroutine.create(function()
      return fn(unpack(task.arguments, 1, task.arguments.n))
   end)
   make_ready(task, true)
   return task
end

local function with_traceback(thread, err)
   if type(err) == "string" then
      return debug.traceback(thread, err)
   end
   return err
end

local function finish(task, ok, ...)
   if coroutine.status(task.thread) ~= "dead" then
      return
   end
   task.done = true
   if ok then
      task.values = { ... }
   else
      task.err = with_traceback(task.thread, (...))
   end
   if task.joiner then
      make_ready(task.joiner, true)
   end
end

local function run_ready()
   local batch = ready
   ready = {}
   for _, task in ipairs(batch) do
      if not task.done then
         task.queued = false
         current = task
         finish(task, coroutine.resume(task.thread, task.result))
         current = nil
         if task.err and not task.joiner then
            return task
         end
      end
   end
end

local function descriptor_ready(fd, readable, writable)
   local waiters = waiting[fd]
   if not waiters then
      return
   end
   if readable and waiters.read then
      make_ready(waiters.read, true)
      waiters.read = nil
   end
   if writable and waiters.write then
      make_ready(waiters.write, true)
      waiters.write = nil
   end
   arm(fd)
end

local function expire()
   local now, nearest = sys.clock(), math.huge
   for task, deadline in pairs(timed) do
      if deadline <= now then
         make_ready(task, false)
      else
         nearest = math.min(nearest, deadline - now)
      end
   end
   return #ready > 0 and 0 or math.min(nearest, 1)
end

--- Runs `fn` as a task until it has ended, and with it all that it started. Raises its error, or
--- that of a task that nobody joined.
---@param fn fun()
function tasks.run(fn)
   local main = tasks.start(fn)
   local failed
   local next_expiry = 0
   while true do
      failed = run_ready()
      if main.done or failed then
         break
      end
      local seconds = 0
      if #ready == 0 or sys.clock() >= next_expiry then
         seconds = expire()
         next_expiry = sys.clock() + 0.01
      end
      sys.epoll_turn(epoll, seconds, descriptor_ready)
   end
   ready, timed = {}, {}
   for fd in pairs(waiting) do
      sys.epoll_forget(epoll, fd)
   end
   waiting = {}
   local err = main.err or failed and failed.err
   if err then
      error(err, 0)
   end
end

--- Is a task running? Outside of one nothing can wait.
function tasks.running()
   return current ~= nil
end

return tasks
