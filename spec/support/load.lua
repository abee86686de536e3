--- Load clients, each run as a process of its own: luajit spec/support/load.lua MODE ...
--- What they find out goes to standard output, a "name value" on each line.
---
---     steady ADDRESS CONNECTIONS STOP_FILE    request after request until the file is there
---     crowd ADDRESS CONNECTIONS ROUNDS STOP_FILE
---                                             all connections at once, a request on each in each
---                                             round, then held until the file is there
package.path = "./?.lua;" .. package.path

local sys = require "spec.support.sys"

local REQUESTS_PER_CONNECTION = 100 -- then a new one, so that accepting is loaded, too
local OPENING_MAX = 250             -- connections under way at a time

local function report(name, value)
   io.write(name, " ", tostring(value), "\n")
   io.flush()
end

local function exists(path)
   local file = io.open(path)
   if file then
      file:close()
   end
   return file ~= nil
end

-- Clients ---------------------------------------------------------------------------------------

local epoll = sys.epoll_create()
local by_fd = {}
local counts = { answered = 0, failed = 0 }
local failures = {} -- reason -> how often

local REQUEST = "GET / HTTP/1.1\r\nHost: load.example\r\n\r\n"

local Client = {}
Client.__index = Client

function Client:open()
   self.fd = assert(sys.connect(self.address, {}))
   self.state, self.buffer, self.served = "opening", "", 0
   by_fd[self.fd] = self
   sys.epoll_arm(epoll, self.fd, sys.WRITE)
end

function Client:close()
   by_fd[self.fd] = nil
   sys.close(self.fd)
   self.state = "closed"
end

function Client:fail(reason)
   counts.failed = counts.failed + 1
   failures[reason] = (failures[reason] or 0) + 1
   self:close()
   self:on_failed()
end

function Client:request()
   self.state = "asking"
   if sys.send(self.fd, REQUEST, 0) ~= #REQUEST then
      return self:fail "the request could not be sent"
   end
   sys.epoll_arm(epoll, self.fd, sys.READ)
end

--- The response in the buffer if it is whole: its status, and whether the connection is closed.
local function parse(buffer)
   local _, head_end = buffer:find("\r\n\r\n", 1, true)
   if not head_end then
      return nil
   end
   local head = buffer:sub(1, head_end):lower()
   local length = tonumber(head:match "\r\ncontent%-length: (%d+)\r\n")
   if length and #buffer < head_end + length then
      return nil
   end
   local right = length and #buffer == head_end + length
   return right and head:match "^http/1%.1 (%d+)" or "no proper response",
      head:find("\r\nconnection: close\r\n", 1, true) ~= nil
end

function Client:receive()
   local bytes, why, code = sys.recv(self.fd)
   if bytes == "" then
      return self:fail(self.buffer == "" and "closed before a response" or "closed within a response")
   elseif not bytes and code ~= sys.EAGAIN then
      return self:fail(why)
   end
   self.buffer = self.buffer .. (bytes or "")
   local status, closing = parse(self.buffer)
   if not status then
      return sys.epoll_arm(epoll, self.fd, sys.READ)
   elseif status ~= "200" then
      return self:fail("status " .. status)
   end
   self.buffer = ""
   self.served = self.served + 1
   counts.answered = counts.answered + 1
   self:on_answered(closing)
end

local function ready(fd)
   local client = by_fd[fd]
   if not client then
      return
   elseif client.state == "opening" then
      local code = sys.socket_error(fd)
      if code ~= 0 then
         return client:fail("connecting failed with error " .. code)
      end
      client.state = "open"
      client:on_opened()
   else
      client:receive()
   end
end

local function turn()
   sys.epoll_turn(epoll, 0.05, ready)
end

local function report_counts()
   report("answered", counts.answered)
   report("failed", counts.failed)
   for reason, count in pairs(failures) do
      report("failure", count .. " x " .. reason)
   end
end

local modes = {}

function modes.steady(address, connections, stop_file)
   local stopping, closed = false, {}
   local client = setmetatable({ address = address }, Client)
   client.__index = client
   client.on_opened = client.request
   client.on_failed = function(self)
      closed[#closed + 1] = self
   end
   client.on_answered = function(self, closing)
      if stopping or closing or self.served >= REQUESTS_PER_CONNECTION then
         self:close()
         closed[#closed + 1] = self
      else
         self:request()
      end
   end
   for i = 1, tonumber(connections) do
      closed[i] = setmetatable({}, client)
   end
   local begun = sys.clock()
   report("begun", connections)
   while not stopping or next(by_fd) do
      local batch = stopping and {} or closed
      closed = {}
      for _, one in ipairs(batch) do
         one:open()
      end
      turn()
      stopping = stopping or exists(stop_file)
   end
   report("seconds", sys.clock() - begun)
   report_counts()
end

function modes.crowd(address, connections, rounds, stop_file)
   connections = tonumber(connections)
   local client = setmetatable({ address = address }, Client)
   client.__index = client
   local clients, opening, opened = {}, 0, 0
   client.on_opened = function()
      opening, opened = opening - 1, opened + 1
   end
   client.on_failed = function() end
   client.on_answered = function() end
   while opened + counts.failed < connections do
      while opening < OPENING_MAX and #clients < connections do
         local new = setmetatable({}, client)
         clients[#clients + 1], opening = new, opening + 1
         new:open()
      end
      turn()
   end
   report("opened", opened)
   local begun = sys.clock()
   for _ = 1, tonumber(rounds) do
      local expected = counts.answered + counts.failed
      for _, one in ipairs(clients) do
         if one.state ~= "closed" then
            expected = expected + 1
            one:request()
         end
      end
      while counts.answered + counts.failed < expected do
         turn()
      end
   end
   report("seconds", sys.clock() - begun)
   report_counts()
   while not exists(stop_file) do
      turn()
   end
end

sys.raise_descriptor_limit()
modes[arg[1]](unpack(arg, 2))
