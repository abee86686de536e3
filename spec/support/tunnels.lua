--- Both ends of many connections of layer 4, each run as a process of its own:
--- luajit spec/support/tunnels.lua MODE ... What they find out goes to standard output, a "name value"
--- on each line.
---
---     echo                                  sends back what each connection sends
---     hold ADDRESS CONNECTIONS STOP_FILE    opens them, says a word on each and waits for it to come
---                                           back; again when the file is there
package.path = "./?.lua;" .. package.path

local sys = require "spec.support.sys"

local OPENING_MAX = 200 -- connections under way at a time

local epoll = sys.epoll_create()
local modes = {}

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

local function echo(fd)
   local bytes, _, code = sys.recv(fd)
   if bytes and bytes ~= "" then
      assert(sys.send(fd, bytes, 0) == #bytes, "the words are short")
   elseif bytes == "" or code ~= sys.EAGAIN then
      return sys.close(fd)
   end
   sys.epoll_arm(epoll, fd, sys.READ)
end

function modes.echo()
   local listener = assert(sys.listen("127.0.0.1:0", { backlog = 4096 }))
   report("listening", "127.0.0.1:" .. sys.port(listener))
   sys.epoll_arm(epoll, listener, sys.READ)
   while true do
      sys.epoll_turn(epoll, 10, function(fd)
         if fd ~= listener then
            return echo(fd)
         end
         local accepted = sys.accept(listener)
         while accepted do
            sys.epoll_arm(epoll, accepted, sys.READ)
            accepted = sys.accept(listener)
         end
         sys.epoll_arm(epoll, listener, sys.READ)
      end)
   end
end

local WORD = "hello"

--- Says a word on every connection, of which at most so many wait for it at a time.
local function say(connections)
   local waiting, next_one, answered, failed = 0, 1, 0, 0
   while answered + failed < #connections do
      while waiting < OPENING_MAX and next_one <= #connections do
         waiting, next_one = waiting + 1, next_one + 1
         sys.epoll_arm(epoll, connections[next_one - 1], sys.WRITE)
      end
      sys.epoll_turn(epoll, 1, function(fd, readable)
         if not readable then
            sys.send(fd, WORD, 0)
            return sys.epoll_arm(epoll, fd, sys.READ)
         end
         waiting = waiting - 1
         if sys.recv(fd) == WORD then
            answered = answered + 1
         else
            failed = failed + 1
         end
      end)
   end
   return answered
end

function modes.hold(address, count, stop_file)
   local connections = {}
   local held = 0
   while held < tonumber(count) do -- in steps, so that no queue of connections overflows
      local batch = {}
      for i = 1, math.min(OPENING_MAX, tonumber(count) - held) do
         batch[i] = assert(sys.connect(address, {}))
         connections[#connections + 1] = batch[i]
      end
      held = held + #batch
      assert(say(batch) == #batch, "a connection failed")
   end
   report("held", held)
   while not exists(stop_file) do
      sys.epoll_turn(epoll, 0.05, function() end)
   end
   report("alive", say(connections))
end

sys.raise_descriptor_limit()
modes[arg[1]](unpack(arg, 2))
