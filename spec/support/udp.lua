--- Datagrams for specs: sockets whose waits are bounded.
local socket = require "spec.support.socket"
local sys = require "spec.support.sys"
local tasks = require "spec.support.tasks"

---@class spec.Udp
---@field address string|nil of a bound one
local Udp = {}
Udp.__index = Udp

--- The next datagram and who sent it; nil and "timeout" or "refused".
function Udp:try_receive(seconds)
   while true do
      local bytes, from, code = sys.recv_from(self.fd)
      if bytes then
         return bytes, from
      elseif code == sys.ECONNREFUSED then
         return nil, "refused"
      elseif code ~= sys.EAGAIN then
         error(("%s: %s"):format(self.name, from), 0)
      elseif not tasks.wait(self.fd, "read", seconds) then
         return nil, "timeout"
      elseif not self.fd then -- another task has closed it meanwhile
         return nil, "closed"
      end
   end
end

--- The next datagram and who sent it.
function Udp:receive(seconds)
   local bytes, from = self:try_receive(seconds)
   if not bytes then
      error(("%s: %s before a datagram came"):format(self.name, from), 0)
   end
   return bytes, from
end

--- Whether nothing comes for so long.
function Udp:silent(seconds)
   local bytes, why = self:try_receive(seconds)
   return bytes == nil and why == "timeout"
end

---@param to string|nil where a socket that is not connected sends to
function Udp:send(bytes, to)
   assert(sys.send_to(self.fd, bytes, to))
   return self
end

--- Hands datagrams of `size` bytes, of which the last may be shorter, to the kernel as one. False where it
--- does not take them.
function Udp:send_run(bytes, size, to)
   if not sys.send_runs(self.fd, size) then
      return false
   end
   self:send(bytes, to)
   return sys.send_runs(self.fd, 0)
end

--- As many datagrams as are named, which must be these, in this order.
function Udp:expect(datagrams)
   local from
   for i, expected in ipairs(datagrams) do
      local bytes
      bytes, from = self:receive()
      if bytes ~= expected then
         error(("%s: datagram %d has %d bytes, or others; not %d"):format(self.name, i, #bytes, #expected), 2)
      end
   end
   return from
end

--- Sends and returns the answer.
function Udp:ask(bytes, seconds)
   return self:send(bytes):receive(seconds)
end

--- Answers what comes, in a task, until it is closed: with what `answer(bytes, from)` returns.
function Udp:serve(answer)
   tasks.start(function()
      while self.fd do
         local bytes, from = self:try_receive(3600)
         local reply = bytes and answer(bytes, from)
         if reply then
            sys.send_to(self.fd, reply, from)
         end
      end
   end)
   return self
end

function Udp:close()
   if self.fd then
      socket.untrack(self)
      tasks.forget(self.fd)
      sys.close(self.fd)
      self.fd = nil
   end
end

Udp.reset = Udp.close

local udp = {}

local function wrap(options, name)
   local fd = assert(sys.udp(options))
   local opened = setmetatable({ fd = fd, name = name }, Udp)
   socket.track(opened)
   return opened
end

--- A socket at an address, by default at a free port of 127.0.0.1.
---@return spec.Udp
function udp.bind(address, name)
   address = address or "127.0.0.1:0"
   local opened = wrap({ bind = address }, name or "origin")
   opened.address = address:gsub(":0$", ":" .. sys.port(opened.fd))
   return opened
end

--- A socket that sends to an address and hears from nobody else.
---@return spec.Udp
function udp.connect(address, name)
   return wrap({ connect = (address:gsub("^udp:", "")) }, name or "client")
end

--- What a relay makes of `count` datagrams of a flow, which is no multiple of `lose` and one: their numbers
--- as they arrive.
local function surviving(options, count)
   local numbers, held = {}, nil
   for number = 1, count do
      local place = number % options.lose
      if options.swap and place == 1 then
         held = number
      elseif place ~= 0 then
         numbers[#numbers + 1] = number
         numbers[#numbers + 1] = held
         held = nil
      end
   end
   return numbers
end

--- A relay in front of an address, for each sender by a socket of its own. Of what is sent it loses every
--- `lose`th, and with `swap` the first behind such a one is passed on behind the second. `expected(count)`
--- gives the numbers of those that arrive of so many, in their order; `taken` is how many have come. What
--- comes back passes as it is.
function udp.relay(target, options)
   local entry = udp.bind(nil, "relay")
   local flows = {}

   local function begin(from)
      local exit = udp.connect(target, "relay")
      exit:serve(function(bytes)
         entry:send(bytes, from)
      end)
      return { exit = exit, count = 0 }
   end

   entry.taken = 0
   entry.expected = function(count)
      return surviving(options, count)
   end
   return entry:serve(function(bytes, from)
      local flow = flows[from] or begin(from)
      flows[from] = flow
      flow.count = flow.count + 1
      entry.taken = entry.taken + 1
      local place = flow.count % options.lose
      if options.swap and place == 1 then
         flow.held = bytes
      elseif place ~= 0 then
         flow.exit:send(bytes)
         if flow.held then
            flow.exit:send(flow.held)
            flow.held = nil
         end
      end
   end)
end

--- An address at which nobody listens.
function udp.refusing_address()
   local opened = udp.bind()
   local address = opened.address
   opened:close()
   return address
end

return udp
