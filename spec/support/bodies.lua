--- Large bodies, each side run as a process of its own: luajit spec/support/bodies.lua MODE ...
--- What they find out goes to standard output, a "name value" on each line.
---
---     origin MIB_PER_SECOND                   GET /BYTES is answered with so many bytes; what is sent
---                                             by POST is taken slowly and compared
---     read ADDRESS BYTES MIB_PER_SECOND [VERSION]
---                                             takes them slowly and compares them
---     write ADDRESS BYTES                     sends them
package.path = "./?.lua;" .. package.path

local ffi = require "ffi"
local sys = require "spec.support.sys"

ffi.cdef "int memcmp(const void *a, const void *b, size_t count);"

local MIB = 1048576

local epoll = sys.epoll_create()
local modes = {}

local function report(name, value)
   io.write(name, " ", tostring(value), "\n")
   io.flush()
end

--- A MiB in which every eight bytes tell where they are.
local function block()
   local words = {}
   for i = 1, MIB / 8 do
      words[i] = ("%08x"):format(i)
   end
   return table.concat(words)
end

local function wait(fd, interest)
   sys.epoll_arm(epoll, fd, interest)
   while sys.epoll_turn(epoll, 10, function() end) == 0 do end
end

local function send_all(fd, bytes)
   local offset = 0
   while offset < #bytes do
      local sent, why, code = sys.send(fd, bytes, offset)
      if sent then
         offset = offset + sent
      elseif code == sys.EAGAIN then
         wait(fd, sys.WRITE)
      else
         return nil, why
      end
   end
   return true
end

local function receive_head(fd)
   local buffer = ""
   while not buffer:find("\r\n\r\n", 1, true) do
      local bytes, _, code = sys.recv(fd)
      if bytes == "" or not bytes and code ~= sys.EAGAIN then
         return nil
      elseif not bytes then
         wait(fd, sys.READ)
      end
      buffer = buffer .. (bytes or "")
   end
   local _, head_end = buffer:find("\r\n\r\n", 1, true)
   return buffer:sub(1, head_end), buffer:sub(head_end + 1)
end

--- Compares what was received with what the origin sends from that place on.
local function compare(expected, place, bytes)
   local offset = 0
   while offset < #bytes do
      local from = (place + offset) % MIB
      local count = math.min(#bytes - offset, MIB - from)
      if ffi.C.memcmp(ffi.cast("const char *", bytes) + offset, ffi.cast("const char *", expected) + from,
            count) ~= 0 then
         return false
      end
      offset = offset + count
   end
   return true
end

--- Takes so many bytes behind those that are there, not faster than that. Returns how many came and
--- whether they were right.
local function receive_slowly(fd, rest, count, mib_per_second)
   local expected, begun = block(), sys.clock()
   local received, right = #rest, compare(expected, 0, rest)
   while received < count and right do
      local ahead = received / (mib_per_second * MIB) - (sys.clock() - begun)
      if ahead > 0.01 then
         sys.epoll_turn(epoll, ahead, function() end)
      end
      local bytes, _, code = sys.recv(fd)
      if bytes and bytes ~= "" then
         right = compare(expected, received, bytes)
         received = received + #bytes
      elseif not bytes and code == sys.EAGAIN then
         wait(fd, sys.READ)
      else
         break
      end
   end
   return received, right
end

local function send_blocks(fd, count)
   local mib, ok = block(), true
   while ok and count > 0 do
      ok = send_all(fd, count < MIB and mib:sub(1, count) or mib)
      count = count - MIB
   end
   return ok
end

local function answer(fd, head, rest, mib_per_second)
   local get = head:match "^GET /(%d+) "
   if get then
      return send_all(fd, ("HTTP/1.1 200 OK\r\nContent-Length: %.0f\r\n\r\n"):format(get)) and
         send_blocks(fd, tonumber(get))
   end
   local length = tonumber(head:lower():match "\r\ncontent%-length: (%d+)\r\n")
   local received, right = receive_slowly(fd, rest, length, mib_per_second)
   local text = ("%.0f %s"):format(received, tostring(right))
   return send_all(fd, ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#text, text))
end

function modes.origin(mib_per_second)
   local listener = assert(sys.listen("127.0.0.1:0", { receive_buffer = 65536 }))
   report("listening", "127.0.0.1:" .. sys.port(listener))
   while true do
      wait(listener, sys.READ)
      local fd = sys.accept(listener)
      local head, rest = receive_head(fd)
      while head and answer(fd, head, rest, tonumber(mib_per_second)) do
         head, rest = receive_head(fd)
      end
      sys.close(fd)
   end
end

function modes.read(address, count, mib_per_second, version)
   local fd = assert(sys.connect(address, { receive_buffer = 65536 }))
   wait(fd, sys.WRITE)
   local begun = sys.clock()
   assert(send_all(fd, ("GET /%.0f HTTP/%s\r\nHost: load.example\r\n\r\n"):format(count, version or "1.1")))
   local head, rest = receive_head(fd)
   assert(head and head:find "^HTTP/1.1 200 ", "no proper response")
   local received, right = receive_slowly(fd, rest, tonumber(count), tonumber(mib_per_second))
   report("seconds", sys.clock() - begun)
   report("result", ("%.0f %s"):format(received, tostring(right)))
end

function modes.write(address, count)
   local fd = assert(sys.connect(address, {}))
   wait(fd, sys.WRITE)
   local begun = sys.clock()
   assert(send_all(fd, ("POST / HTTP/1.1\r\nHost: load.example\r\nContent-Length: %.0f\r\n\r\n")
      :format(count)))
   assert(send_blocks(fd, tonumber(count)), "the body was not taken")
   local head, rest = receive_head(fd)
   assert(head and head:find "^HTTP/1.1 200 ", "no proper response")
   report("seconds", sys.clock() - begun)
   report("result", rest)
end

modes[arg[1]](unpack(arg, 2))
