--- More requests than a worker can serve: what is offered does not wait for what is answered. Each request
--- keeps the worker busy for a while, so that what it can serve is little.
require "spec.support.http"
local program = require "spec.support.program"
local sys = require "spec.support.sys"
local tasks = require "spec.support.tasks"

local overload = {
   BUSY_SECONDS = 0.005,  -- of the worker, for one request
   PATIENCE_SECONDS = 1,  -- an answer that comes later is of no use to the client
   MULTIPLES = { 0.5, 1, 2, 3 },
}

local SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", ${bounds} chain = {
   function()
      local began = ml.now()
      repeat until ml.now() - began >= ${busy}
      return ml.text "served"
   end,
} }
]]

--- Starts the program with the bounds of a listener, such as "active_max = 50,".
---@return spec.Program
function overload.start(backend, bounds)
   return program.start { io = backend, site = SITE,
      values = { bounds = bounds, busy = overload.BUSY_SECONDS } }
end

---@class spec.Overload what came of it
---@field rate number requests a second that were offered
---@field goodput number answered in time, a second
---@field refused number answered 503, a second
---@field lost number too late or not at all, a second
---@field p99_ms number of those that were answered in time
---@field rss_kib integer of the worker, at its highest

--- Offers requests at a rate, on as many connections as that takes.
---@return spec.Overload
function overload.offer(running, rate, seconds)
   local idle, pending, times = {}, {}, {}
   local good, refused, rss_kib = 0, 0, 0

   local function ask()
      local client = table.remove(idle) or running:connect()
      local began = sys.clock()
      client:send_head "GET / HTTP/1.1\nHost: a"
      local response = client:read_response { seconds = 10 * overload.PATIENCE_SECONDS }
      local took = sys.clock() - began
      if response.status == 503 then
         refused = refused + 1
      elseif response.status == 200 and took <= overload.PATIENCE_SECONDS then
         good = good + 1
         times[#times + 1] = took
      end
      idle[#idle + 1] = client
   end

   local began = sys.clock()
   for i = 1, rate * seconds do
      local due = began + i / rate - sys.clock()
      if due > 0 then
         tasks.sleep(due)
      end
      pending[i] = tasks.start(function()
         pcall(ask)
      end)
      if i % 50 == 0 then
         rss_kib = math.max(rss_kib, running:rss_kib())
      end
   end
   local took = sys.clock() - began
   for _, task in ipairs(pending) do
      task:join(30)
   end
   for _, client in ipairs(idle) do
      client:close()
   end
   table.sort(times)
   return { rate = rate, goodput = good / took, refused = refused / took,
      lost = (#pending - good - refused) / took, rss_kib = rss_kib,
      p99_ms = 1000 * (times[math.ceil(#times * 0.99)] or 0 / 0) }
end

--- What the worker can serve a second, on a machine that others use too.
function overload.capacity(running, seconds)
   local clients, served = {}, 0
   local over = sys.clock() + seconds
   for i = 1, 4 do
      clients[i] = tasks.start(function()
         local client = running:connect()
         while sys.clock() < over do
            client:exchange "GET / HTTP/1.1\nHost: a"
            served = served + 1
         end
         client:close()
      end)
   end
   for _, client in ipairs(clients) do
      client:join(30)
   end
   return served / seconds
end

--- At each multiple of what the worker can serve.
---@return spec.Overload[]
function overload.curve(running, seconds)
   local capacity = overload.capacity(running, seconds)
   local points = {}
   for i, multiple in ipairs(overload.MULTIPLES) do
      points[i] = overload.offer(running, multiple * capacity, seconds)
   end
   return points
end

return overload
