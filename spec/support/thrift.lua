--- Messages of Thrift for scripted clients and origins, written and read by code that shares nothing
--- with the program; and the services of the Calculator in Python and C++.
local bit = require "bit"
local process = require "spec.support.process"
local tasks = require "spec.support.tasks"

local thrift = { CALL = 1, REPLY = 2, EXCEPTION = 3, ONEWAY = 4 }

local byte, char = string.byte, string.char

local function number(value, count)
   local bytes = {}
   for i = count, 1, -1 do
      bytes[i] = char(value % 256)
      value = math.floor(value / 256)
   end
   return table.concat(bytes)
end

local function read_number(bytes, at, count)
   local value = 0
   for i = at, at + count - 1 do
      value = value * 256 + byte(bytes, i)
   end
   return value, at + count
end

local function varint(value)
   local bytes = ""
   while value >= 128 do
      bytes = bytes .. char(value % 128 + 128)
      value = math.floor(value / 128)
   end
   return bytes .. char(value)
end

local function read_varint(bytes, at)
   local value, scale = 0, 1
   while true do
      local one = byte(bytes, at)
      value, scale, at = value + one % 128 * scale, scale * 128, at + 1
      if one < 128 then
         return value, at
      end
   end
end

function thrift.frame(bytes)
   return number(#bytes, 4) .. bytes
end

--- A message's bytes, without a frame: { method =, seqid =, type =, args =, compact = }.
local function message_bytes(message)
   local kind, name, args = message.type or thrift.CALL, message.method or "add", message.args or "\0"
   if message.compact then
      return char(0x82, kind * 32 + 1) .. varint(message.seqid or 1) .. varint(#name) .. name .. args
   end
   return "\128\1\0" .. char(kind) .. number(#name, 4) .. name .. number(message.seqid or 1, 4) .. args
end

--- A framed message; with `headers` (a list of { key, value }) or `header` one in TTHeader, whose inside
--- is framed, too, with `inner_frame`.
function thrift.message(message)
   local bytes = message_bytes(message)
   if not (message.header or message.headers) then
      return thrift.frame(bytes)
   end
   local texts, numbers, counts = "", "", { 0, 0 }
   for _, pair in ipairs(message.headers or {}) do
      local key, value = pair[1], number(#pair[2], 2) .. pair[2]
      if type(key) == "number" then
         numbers, counts[2] = numbers .. number(key, 2) .. value, counts[2] + 1
      else
         texts, counts[1] = texts .. number(#key, 2) .. key .. value, counts[1] + 1
      end
   end
   local area = char(message.compact and 2 or 0, 0)
   area = area .. (counts[1] > 0 and "\1" .. number(counts[1], 2) .. texts or "")
   area = area .. (counts[2] > 0 and "\16" .. number(counts[2], 2) .. numbers or "")
   area = area .. (message.token and "\17" .. number(#message.token, 2) .. message.token or "")
   area = area .. ("\0"):rep(-#area % 4)
   return thrift.frame("\16\0" .. number(message.flags or 0, 2)
      .. number(message.header_seqid or message.seqid or 1, 4) .. number(#area / 4, 2) .. area
      .. (message.inner_frame and thrift.frame(bytes) or bytes))
end

local function read_area(message, bytes, at, last)
   message.headers = {}
   at = at + 2
   while at <= last do
      local kind
      kind, at = read_number(bytes, at, 1)
      if kind == 17 then
         local length
         length, at = read_number(bytes, at, 2)
         message.token, at = bytes:sub(at, at + length - 1), at + length
      elseif kind ~= 0 then
         local count, key, length
         count, at = read_number(bytes, at, 2)
         for _ = 1, count do
            length, at = read_number(bytes, at, 2)
            key = length
            if kind == 1 then
               key, at = bytes:sub(at, at + length - 1), at + length
            end
            length, at = read_number(bytes, at, 2)
            message.headers[key], at = bytes:sub(at, at + length - 1), at + length
         end
      end
   end
end

--- Reads the next message from a socket: the fields that `thrift.message` takes, headers by their keys.
function thrift.read(socket)
   local length = read_number(socket:read(4), 1, 4)
   local bytes, at, message = socket:read(length), 1, {}
   if bytes:sub(1, 2) == "\16\0" then
      local size
      message.flags = read_number(bytes, 3, 2)
      message.header_seqid = read_number(bytes, 5, 4)
      size = read_number(bytes, 9, 2) * 4
      read_area(message, bytes, 11, 10 + size)
      at = 11 + size
      if byte(bytes, at) < 128 then
         message.inner_frame, at = true, at + 4
      end
   end
   if byte(bytes, at) == 0x82 then
      message.compact = true
      message.type = bit.rshift(byte(bytes, at + 1), 5)
      message.seqid, at = read_varint(bytes, at + 2)
      length, at = read_varint(bytes, at)
      message.method, at = bytes:sub(at, at + length - 1), at + length
   else
      message.type = byte(bytes, at + 3)
      length, at = read_number(bytes, at + 4, 4)
      message.method, at = bytes:sub(at, at + length - 1), at + length
      message.seqid, at = read_number(bytes, at, 4)
   end
   message.args = bytes:sub(at)
   return message
end

--- The kind and the text of an exception in the binary protocol.
function thrift.exception(message)
   assert(message.type == thrift.EXCEPTION, "not an exception")
   local length = read_number(message.args, 4, 4)
   return read_number(message.args, 8 + length + 3, 4), message.args:sub(8, 7 + length)
end

-- --- Services that are not ours ------------------------------------------------------------------

local PYTHON = "/usr/bin/python3"
local SOURCES = "spec/support/"

local function hash(bytes)
   local sum = 5381
   for i = 1, #bytes do
      sum = (sum * 33 + byte(bytes, i)) % 2 ^ 32
   end
   return sum
end

local function run(argv)
   local out, err, status = process.run(argv, 300)
   assert(status == 0, ("%s failed:\n%s%s"):format(argv[1], out, err))
end

--- Where the generated code and the program in C++ lie: beside what was built, by what they were made
--- of, since compiling takes seconds.
local function prepare()
   local idl, source = SOURCES .. "calculator.thrift", SOURCES .. "thrift_service.cpp"
   local sources = process.read_file(idl) .. process.read_file(source)
   local build = os.getenv "MONOLAKE_BUILD" or "build"
   local directory = ("%s/spec-thrift-%08x"):format(build, hash(sources))
   local program = directory .. "/service"
   if process.read_file(program) ~= "" then
      return directory
   end
   run { "mkdir", "-p", directory }
   run { "thrift", "--gen", "py", "-out", directory, idl }
   run { "thrift", "--gen", "cpp:no_skeleton", "-out", directory, idl }
   run { "g++", "-O0", "-g0", "-I" .. directory, "-o", program .. ".new", source,
      directory .. "/Calculator.cpp", directory .. "/calculator_types.cpp", "-lthriftz", "-lthrift" }
   run { "mv", program .. ".new", program }
   return directory
end

local function argv_of(language, role, ...)
   local directory = prepare()
   if language == "python" then
      return { PYTHON, SOURCES .. "thrift_service.py", directory, role, ... }
   end
   return { directory .. "/service", role, ... }
end

--- Starts a server. Returns its process and its address.
function thrift.serve(language, encoding)
   local running = process.start(argv_of(language, "server", encoding), process.directory())
   local address
   tasks.eventually("the Thrift server", function()
      address = running:stdout():match "listening on (%S+)\n"
      return address or running:has_ended()
   end)
   assert(address, running:stderr())
   return running, address
end

--- Starts a client of an address with one of its cases.
function thrift.start_client(language, encoding, address, case)
   return process.start(argv_of(language, "client", encoding, address, case), process.directory())
end

--- Runs one to its end, which must be a good one.
function thrift.call(language, encoding, address, case)
   local client = thrift.start_client(language, encoding, address, case)
   assert(client:wait(60 * tasks.patience), case)
   assert(client:stdout() == case .. " ok\n",
      ("%s %s %s: %s"):format(language, encoding, case, client:stderr()))
end

return thrift
