--- Bytes that are known by their place in a stream, sent from one socket to another with whatever is in
--- between: any that is lost, doubled or out of order is found at once.
---
---     local flow = flow.start(client, peer, { piece = 100, pause = 0.001 })
---     ...
---     flow:stop() -- waits until all that was sent has come
local sys = require "spec.support.sys"
local tasks = require "spec.support.tasks"

local flow = {}

---@class spec.Flow
---@field sent integer bytes that the sending socket has taken
---@field received integer bytes that have come, all of them right
local Flow = {}
Flow.__index = Flow

local PERIOD = 65521 -- a prime: no size of a piece or a buffer divides it
local CHUNK_MAX = 262144

local block
do
   local bytes, seed = {}, 1
   for i = 1, PERIOD do
      seed = (seed * 16807) % 2147483647
      bytes[i] = string.char(seed % 256)
   end
   block = table.concat(bytes):rep(math.ceil(CHUNK_MAX / PERIOD) + 1)
end

--- The bytes of the stream from a place on.
local function bytes_at(place, count)
   local from = place % PERIOD
   return block:sub(from + 1, from + count)
end

--- Takes what has come and checks it.
local function check(self, bytes)
   if bytes ~= bytes_at(self.received, #bytes) then
      error(("%s: wrong bytes among %d behind the first %d"):format(self.name, #bytes, self.received), 0)
   end
   self.received = self.received + #bytes
end

--- Sends some bytes. False if the socket takes none.
function Flow:send_some(count)
   local sent, err, code = sys.send(self.from.fd, bytes_at(self.sent, math.min(count, CHUNK_MAX)), 0)
   if not sent then
      assert(code == sys.EAGAIN, err)
      return false
   end
   self.sent = self.sent + sent
   return true
end

--- Sends until nobody takes any more, which is when nothing has been taken for a while.
function Flow:fill()
   local quiet_since = sys.clock()
   while sys.clock() - quiet_since < 0.15 do
      if self:send_some(CHUNK_MAX) then
         quiet_since = sys.clock()
      else
         tasks.sleep(0.005)
      end
   end
end

--- Receives until all that was sent has come.
function Flow:drain(seconds)
   while self.received < self.sent do
      check(self, assert(self.to:read_some(seconds), "the end came early"))
   end
end

--- Receives some bytes, at most so many.
function Flow:take_some(max)
   assert(self.to:try_fill(nil, max), "the end came early")
   check(self, self.to.buffer)
   self.to.buffer = ""
end

local function send_main(self)
   while not self.stopping do
      if not self:send_some(self.piece) then
         tasks.wait(self.from.fd, "write")
      elseif self.pause then
         tasks.sleep(self.pause)
      else
         tasks.sleep(0)
      end
   end
end

local function receive_main(self)
   while not (self.stopped and self.received == self.sent) do
      local ok, why = self.to:try_fill(0.05)
      if ok then
         check(self, self.to.buffer)
         self.to.buffer = ""
      elseif why ~= "timeout" then
         local text = "%s: %s behind %d of %d bytes"
         error(text:format(self.name, why or "closed", self.received, self.sent), 0)
      end
   end
end

--- A flow that nobody keeps going but the caller.
function flow.between(from, to, options)
   local self = setmetatable({ from = from, to = to, sent = 0, received = 0 }, Flow)
   for name, value in pairs(options or {}) do
      self[name] = value
   end
   self.name = self.name or "flow"
   return self
end

--- One that sends pieces of that size until it is stopped, `pause` seconds apart.
---@param options { piece: integer, pause: number|nil, name: string|nil }
function flow.start(from, to, options)
   local self = flow.between(from, to, options)
   self.sender = tasks.start(send_main, self)
   self.receiver = tasks.start(receive_main, self)
   return self
end

--- Waits until so many more bytes have come.
function Flow:await(count, seconds)
   local goal = self.received + count
   tasks.eventually("bytes of " .. self.name, function()
      return self.received >= goal or (self.receiver.err and error(self.receiver.err, 0))
   end, seconds)
end

--- Ends the sending, waits for what is on its way.
function Flow:stop()
   self.stopping = true
   self.sender:join()
   self.stopped = true
   self.receiver:join(20 * tasks.patience)
end

return flow
