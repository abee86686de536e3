--- Reading and replacing the bodies of messages, the same for requests and responses.
---
--- Places in a message's handle: 1 the request's address, 2 its generation, 3 the message's address,
--- 4 the whole body as text, once it was read.
local C = require "monolake.internal.ffi"
local errors = require "monolake.internal.errors"
local handles = require "monolake.internal.handles"
local wait = require "monolake.internal.wait"

local raise = errors.raise_access
local raw_yield, verbs = wait.yield, wait.verbs

local body = {}

local MAX_DEFAULT = { [true] = 1048576, [false] = 8388608 }

--- Before the body of a request is touched: the upstream may still be sending it on, behind a response
--- that came early.
local function reclaim(self, level)
   if self[1] ~= self[3] or C.script_body_busy(self[1], self[2]) == 0 then
      return
   end
   wait.check("body")
   if raw_yield(verbs.reclaim, self[1]) < 0 then
      error("a body can be changed only in the layers of its own request", level + 1)
   end
end

local BEING_MADE = "the body is being made by a function of its own: it cannot be read or replaced there"

local function address_of(self, take, level)
   local address = C.script_body_address(self[1], self[2], self[3], take and 1 or 0)
   if address < 0 then
      raise(address, BEING_MADE, level + 1)
   end
   return address
end

local function is_request(self)
   return self[1] == self[3]
end

local function limit_of(self, options)
   if options == nil then
      return MAX_DEFAULT[is_request(self)]
   end
   if type(options) ~= "table" then
      error("body: expected a table of options such as { max = 65536 }", 3)
   end
   for name in pairs(options) do
      if name ~= "max" then
         error(("body: unknown option %q: the only one is \"max\""):format(tostring(name)), 3)
      end
   end
   local max = options.max or MAX_DEFAULT[is_request(self)]
   if type(max) ~= "number" or max < 0 or max ~= max then
      error("body: \"max\" must be a number of bytes", 3)
   end
   return math.min(max, 2 ^ 53)
end

--- The whole body as a string. It stays readable for later layers and the upstream. A body over the
--- bound raises an error that answers with 413 unless it is caught.
function body.read_all(self, options)
   local max = limit_of(self, options)
   reclaim(self, 2)
   local address = address_of(self, false, 2)
   local text = self[4]
   if not text then
      wait.check("body")
      local code
      text, code = raw_yield(verbs.buffer, address, max, self[1])
      if code then
         errors.raise_body(code, is_request(self))
      end
      self[4] = text
   end
   if #text > max then
      errors.raise_body(-90, is_request(self))
   end
   return text
end

local function next_piece(state)
   address_of(state, false, 2)
   local text, code = raw_yield(verbs.read, state[4], 0, state[1])
   if code then
      errors.raise_body(code, is_request(state))
   end
   return text
end

--- An iterator over the body as it arrives. The message is left with an empty body.
function body.chunks(self)
   wait.check("chunks")
   reclaim(self, 2)
   self[4] = false
   local address = address_of(self, true, 2)
   return next_piece, { self[1], self[2], self[3], address }
end

local function add_stream(self, stream)
   local request = handles[self[1]]
   if not request or request[2] ~= self[2] then
      errors.raise_access(-1, nil, 3)
   end
   local streams = request[5]
   if not streams then
      streams = {}
      request[5] = streams
   end
   streams[#streams + 1] = stream
   return #streams
end

--- Replaces the body by a string, or by what an iterator function gives until it returns nil.
function body.assign(self, value)
   reclaim(self, 2)
   self[4] = false
   local result
   if type(value) == "function" then
      result = C.script_body_stream(self[1], self[2], self[3], add_stream(self, value), 0)
   elseif type(value) == "string" then
      result = C.script_body_set(self[1], self[2], self[3], value, #value)
   elseif value == nil then
      result = C.script_body_set(self[1], self[2], self[3], "", 0)
   else
      error("body: expected a string, an iterator function or nil, not " .. type(value), 3)
   end
   if result < 0 then
      raise(result, BEING_MADE, 3)
   end
end

--- Changes the body as it passes; see monolake.Response:map.
function body.map(self, fn, overlap)
   self[4] = false
   local stream = { fn = fn, overlap = overlap, carry = "" }
   local result = C.script_body_stream(self[1], self[2], self[3], add_stream(self, stream), 1)
   if result < 0 then
      raise(result, BEING_MADE .. "; at most 32 functions can change one body", 3)
   end
end

local function stream_of(address, generation, index)
   local request = handles[address]
   assert(request and request[2] == generation, "a body outlived its request")
   return request[5][index]
end

--- Called by src/script/body.c: the next piece of an iterator, nil at its end.
function body.next_chunk(address, generation, index)
   local chunk = stream_of(address, generation, index)()
   if chunk ~= nil and type(chunk) ~= "string" then
      error("an iterator of a body must return strings, then nil; it returned a " .. type(chunk), 0)
   end
   return chunk
end

--- Called by src/script/body.c: a piece as the function of `map` changes it.
function body.map_chunk(address, generation, index, chunk, last)
   local stream = stream_of(address, generation, index)
   local window = stream.carry .. chunk
   if window == "" and not last then
      return ""
   end
   local result = stream.fn(window, last)
   if type(result) ~= "string" then
      error("the function of map must return a string; it returned a " .. type(result), 0)
   end
   if last or stream.overlap == 0 then
      return result
   end
   local cut = math.max(#result - stream.overlap, 0)
   stream.carry = result:sub(cut + 1)
   return result:sub(1, cut)
end

return body
