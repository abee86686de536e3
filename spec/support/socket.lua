--- Byte streams for specs: raw bytes out, exact bytes in, every way of ending. All waits are bounded;
--- running out of time is an error that says what was waited for.
local sys = require "spec.support.sys"
local tasks = require "spec.support.tasks"

---@class spec.Socket
---@field buffer string received and not yet taken
local Socket = {}
Socket.__index = Socket

local open = {} -- to be closed when the spec ends

local function wrap(fd, name)
   local socket = setmetatable({ fd = fd, name = name, buffer = "", ended = false }, Socket)
   open[socket] = true
   return socket
end

local function excerpt(bytes)
   if #bytes > 300 then
      bytes = bytes:sub(1, 300) .. ("... (%d bytes)"):format(#bytes)
   end
   return ("%q"):format(bytes)
end

function Socket:fail(what)
   error(("%s: %s; received so far: %s"):format(self.name, what, excerpt(self.buffer)), 0)
end

--- Sends all the bytes, or what the peer takes of them before it closes or the time is over: then
--- returns nil, "closed" or "timeout", and the number of bytes that went.
function Socket:try_send(bytes, seconds)
   local offset = 0
   while offset < #bytes do
      local count, err, code = sys.send(self.fd, bytes, offset)
      if count then
         offset = offset + count
      elseif code ~= sys.EAGAIN then
         return nil, "closed", offset, err
      elseif not tasks.wait(self.fd, "write", seconds) then
         return nil, "timeout", offset
      elseif not self.fd then -- another task has closed it meanwhile
         return nil, "closed", offset
      end
   end
   return true
end

--- Sends all the bytes.
function Socket:send(bytes, seconds)
   local ok, why, offset = self:try_send(bytes, seconds)
   if not ok then
      self:fail(("%s after sending %d of %d bytes"):format(why, offset, #bytes))
   end
   return self
end

--- Sends a byte as urgent data.
function Socket:send_urgent()
   assert(sys.send_urgent(self.fd, "!"))
   return self
end

--- Receives some bytes into the buffer. False at the end of the stream; nil and "reset" or
--- "timeout".
function Socket:try_fill(seconds, max)
   while not self.ended do
      local bytes, _, code = sys.recv(self.fd, max)
      if bytes == "" then
         self.ended = true
      elseif bytes then
         self.buffer = self.buffer == "" and bytes or self.buffer .. bytes
         return true
      elseif code == sys.ECONNRESET then
         self.ended = true
         return nil, "reset"
      elseif code ~= sys.EAGAIN then
         self:fail "receiving failed"
      elseif not tasks.wait(self.fd, "read", seconds) then
         return nil, "timeout"
      elseif not self.fd then -- another task has closed it meanwhile
         return nil, "closed"
      end
   end
   return false
end

--- Receives some bytes; the end of the stream is an error.
function Socket:fill(what, seconds)
   local ok, why = self:try_fill(seconds)
   if not ok then
      self:fail(("%s before %s"):format(why or "closed", what))
   end
end

--- Takes exactly so many bytes.
function Socket:read(count, seconds)
   local parts, have = { self.buffer }, #self.buffer
   while have < count do
      self.buffer = ""
      self:fill(("%d bytes had come"):format(count), seconds)
      parts[#parts + 1] = self.buffer
      have = have + #self.buffer
   end
   local all = table.concat(parts)
   self.buffer = all:sub(count + 1)
   return all:sub(1, count)
end

--- Takes what is there, waiting for at least a byte; nil at the end of the stream.
function Socket:read_some(seconds)
   if self.buffer == "" then
      local ok, why = self:try_fill(seconds)
      if ok == nil then
         self:fail(why .. " while waiting for bytes")
      elseif not ok then
         return nil
      end
   end
   local bytes = self.buffer
   self.buffer = ""
   return bytes
end

--- Takes up to and including the given text.
function Socket:read_until(text, seconds)
   local from = 1
   while true do
      local _, last = self.buffer:find(text, from, true)
      if last then
         local bytes = self.buffer:sub(1, last)
         self.buffer = self.buffer:sub(last + 1)
         return bytes
      end
      from = math.max(1, #self.buffer - #text + 2)
      self:fill(("%q"):format(text), seconds)
   end
end

--- Takes everything up to the end of the stream. A reset is an error.
function Socket:read_all(seconds)
   local parts = { self.buffer }
   self.buffer = ""
   while true do
      local ok, why = self:try_fill(seconds)
      if ok == nil then
         self.buffer = table.concat(parts)
         self:fail(why .. " before the end of the stream")
      elseif not ok then
         return table.concat(parts)
      end
      parts[#parts + 1] = self.buffer
      self.buffer = ""
   end
end

--- The peer must close now, by FIN or RST, without another byte.
---@return string how "closed" or "reset"
function Socket:expect_close(seconds)
   if self.buffer ~= "" then
      self:fail "expected the connection to be closed, not more bytes"
   end
   local ok, why = self:try_fill(seconds)
   if ok or why == "timeout" then
      self:fail("expected the connection to be closed, not " .. (why or "more bytes"))
   end
   return why or "closed"
end

--- Whether the peer is silent and open for so long. For short proofs that nothing is sent.
function Socket:silent(seconds)
   if self.buffer ~= "" then
      return false
   end
   local ok, why = self:try_fill(seconds)
   return ok == nil and why == "timeout"
end

--- Ends the sending side only.
function Socket:half_close()
   sys.shutdown(self.fd)
   return self
end

local function leave(self, how)
   if self.fd then
      open[self] = nil
      tasks.forget(self.fd)
      how(self.fd)
      self.fd = nil
   end
end

function Socket:close()
   leave(self, sys.close)
end

--- Closes with a RST.
function Socket:reset()
   leave(self, sys.reset)
end

---@class spec.Listener
---@field address string what to connect to
local Listener = {}
Listener.__index = Listener

--- Waits for a connection.
---@return spec.Socket
function Listener:accept(seconds)
   while true do
      local fd, err, code = sys.accept(self.fd)
      if fd then
         self.accepted = self.accepted + 1
         return wrap(fd, self.name .. " connection")
      end
      assert(code == sys.EAGAIN, err)
      if not tasks.wait(self.fd, "read", seconds) then
         error(self.name .. ": nobody connected", 0)
      end
   end
end

--- A connection that is already there, or nil.
function Listener:try_accept()
   local fd = sys.accept(self.fd)
   if fd then
      self.accepted = self.accepted + 1
      return wrap(fd, self.name .. " connection")
   end
end

--- Drops connections that nobody has accepted.
function Listener:drop_pending()
   local socket = self:try_accept()
   while socket do
      socket:reset()
      socket = self:try_accept()
   end
end

function Listener:close()
   if self.fd then
      tasks.forget(self.fd)
      sys.close(self.fd)
      self.fd = nil
   end
end

local socket = {}

--- Listens at an address, by default at a free port of 127.0.0.1.
---@param options table|nil `address`, `name`, `backlog`, `receive_buffer` (bytes)
---@return spec.Listener
function socket.listen(options)
   options = options or {}
   local address = options.address or "127.0.0.1:0"
   local fd = assert(sys.listen(address, options))
   if not address:match "^unix:" then
      address = address:gsub(":0$", ":" .. sys.port(fd))
   end
   return setmetatable({ fd = fd, address = address, name = options.name or "origin", accepted = 0 },
      Listener)
end

--- Connects; nil and the error's number if nobody accepts.
function socket.try_connect(address, options)
   options = options or {}
   local fd, err, code = sys.connect(address, options)
   if not fd then
      return nil, code, err
   end
   local opened = wrap(fd, options.name or "client")
   assert(tasks.wait(fd, "write", options.seconds), "connecting took too long")
   code = sys.socket_error(fd)
   if code ~= 0 then
      opened:close()
      return nil, code
   end
   return opened
end

---@return spec.Socket
function socket.connect(address, options)
   local opened, code = socket.try_connect(address, options)
   if not opened then
      error(("cannot connect to %s: error %d"):format(address, code), 2)
   end
   return opened
end

--- An address at which nobody listens.
function socket.refusing_address()
   local listener = socket.listen()
   local address = listener.address
   listener:close()
   return address
end

--- Has something closed, by its `reset`, with what specs leave open.
function socket.track(opened)
   open[opened] = true
end

function socket.untrack(opened)
   open[opened] = nil
end

--- Closes, with a RST, every connection that a spec has left open.
function socket.reset_all()
   local left = {}
   for opened in pairs(open) do
      left[#left + 1] = opened
   end
   for _, opened in ipairs(left) do
      opened:reset()
   end
end

socket.Socket = Socket

return socket
