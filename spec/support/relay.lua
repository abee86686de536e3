--- A relay between two ends of a spec that behaves as networks do: it delays, cuts into pieces, loses,
--- stalls and resets. Runs as tasks of the spec that starts it.
---
---     local relay = t.relay.start(origin.address, { delay = 0.01, piece = 7 })
---     ... relay.address ...
---     relay:stall()          -- takes and gives nothing more, and says nothing of it
local socket = require "spec.support.socket"
local tasks = require "spec.support.tasks"

local HOURS = 3600

local relay = {}

---@class spec.Relay
---@field address string what to connect to
---@field forth integer bytes that went to the target
---@field back integer bytes that came from there
local Relay = {}
Relay.__index = Relay

--- Lets the others run, and this task only when nothing is stalled.
local function pass(self)
   while self.stalled do
      tasks.sleep(0.005)
   end
end

--- What becomes of received bytes: false if they are the last that this connection sees.
local function hand_on(self, pair, to, bytes, name)
   if self.loses then
      return true
   end
   for from = 1, #bytes, self.piece or #bytes do
      local piece = bytes:sub(from, from + (self.piece or #bytes) - 1)
      if self.delay then
         tasks.sleep(self.delay)
      end
      pass(self)
      if not to.fd or not to:try_send(piece, HOURS) then
         pair:reset()
         return false
      end
      self[name] = self[name] + #piece
      if self.reset_after and self[name] >= self.reset_after then
         pair:reset()
         return false
      end
   end
   return true
end

local function pump(self, pair, from, to, name)
   while from.fd do
      pass(self)
      local ok, why = from:try_fill(HOURS)
      if ok then
         local bytes = from.buffer
         from.buffer = ""
         if not hand_on(self, pair, to, bytes, name) then
            return
         end
      elseif ok == nil or why then
         return pair:reset()
      else
         pass(self)
         return to.fd and to:half_close()
      end
   end
end

local Pair = {}
Pair.__index = Pair

function Pair:reset()
   self.client:reset()
   self.target:reset()
end

local function serve(self)
   while self.listener.fd do
      local client = self.listener:accept(HOURS)
      local target = socket.connect(self.target, { name = "relay" })
      client.buffer = self.before or ""
      local pair = setmetatable({ client = client, target = target }, Pair)
      self.pairs[#self.pairs + 1] = pair
      tasks.start(pump, self, pair, client, target, "forth")
      tasks.start(pump, self, pair, target, client, "back")
   end
end

--- Starts one in front of an address, at an address of its own. Options: `delay` (seconds, before each
--- piece), `piece` (bytes; as they come), `reset_after` (bytes in one direction), `listener` (a
--- spec.Listener to use), `before` (bytes that go to the target together with the client's first).
---@return spec.Relay
function relay.start(target, options)
   local self = setmetatable({ target = target, forth = 0, back = 0, pairs = {} }, Relay)
   for name, value in pairs(options or {}) do
      self[name] = value
   end
   self.listener = self.listener or socket.listen { name = "relay" }
   self.address = self.listener.address
   tasks.start(serve, self)
   return self
end

--- Takes nothing more from either side, so that they are held up; `go_on` ends it.
function Relay:stall()
   self.stalled = true
end

function Relay:go_on()
   self.stalled = false
end

--- From now on bytes vanish on their way: each end finds the other silent.
function Relay:lose()
   self.loses = true
end

--- Resets every connection.
function Relay:reset()
   for _, pair in ipairs(self.pairs) do
      pair:reset()
   end
end

return relay
