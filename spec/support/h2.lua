--- A raw HTTP/2 client for specs: frames are built by hand, valid or not; what comes back is sorted by
--- streams. Fields go out as literals without indexing; those of the server are decoded by nghttp2.
local ffi = require "ffi"
local socket = require "spec.support.socket"
local tls_socket = require "spec.support.tls_socket"

ffi.cdef [[
typedef struct nghttp2_hd_inflater nghttp2_hd_inflater;
typedef struct {
   uint8_t *name, *value;
   size_t namelen, valuelen;
   uint8_t flags;
} nghttp2_nv;
int nghttp2_hd_inflate_new(nghttp2_hd_inflater **inflater);
void nghttp2_hd_inflate_del(nghttp2_hd_inflater *inflater);
ssize_t nghttp2_hd_inflate_hd2(nghttp2_hd_inflater *inflater, nghttp2_nv *nv, int *flags,
   const uint8_t *in, size_t len, int final);
int nghttp2_hd_inflate_end_headers(nghttp2_hd_inflater *inflater);
]]
local nghttp2 = ffi.load "libnghttp2.so.14"

local h2 = {
   PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
   DATA = 0, HEADERS = 1, PRIORITY = 2, RST_STREAM = 3, SETTINGS = 4, PUSH_PROMISE = 5, PING = 6,
   GOAWAY = 7, WINDOW_UPDATE = 8, CONTINUATION = 9,
   END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8,
   NO_ERROR = 0, PROTOCOL_ERROR = 1, INTERNAL_ERROR = 2, FLOW_CONTROL_ERROR = 3, SETTINGS_TIMEOUT = 4,
   STREAM_CLOSED = 5, FRAME_SIZE_ERROR = 6, REFUSED_STREAM = 7, CANCEL = 8, COMPRESSION_ERROR = 9,
   ENHANCE_YOUR_CALM = 11,
   MAX_CONCURRENT_STREAMS = 3, INITIAL_WINDOW_SIZE = 4, MAX_FRAME_SIZE = 5, MAX_HEADER_LIST_SIZE = 6,
}

local function byte(number, shift)
   return bit.band(bit.rshift(number, shift), 255)
end

--- Four bytes of a number.
function h2.u32(number)
   return string.char(byte(number, 24), byte(number, 16), byte(number, 8), byte(number, 0))
end

local function read_u32(bytes, at)
   local a, b, c, d = bytes:byte(at, at + 3)
   return ((a * 256 + b) * 256 + c) * 256 + d
end

--- A frame.
function h2.frame(kind, flags, stream, payload)
   payload = payload or ""
   local size = #payload
   return string.char(byte(size, 16), byte(size, 8), byte(size, 0), kind, flags) .. h2.u32(stream) .. payload
end

--- An integer as HPACK writes it behind `first`, of which `bits` are its own.
local function integer(first, bits, value)
   local max = 2 ^ bits - 1
   if value < max then
      return string.char(first + value)
   end
   local out = { string.char(first + max) }
   value = value - max
   while value >= 128 do
      out[#out + 1] = string.char(value % 128 + 128)
      value = math.floor(value / 128)
   end
   out[#out + 1] = string.char(value)
   return table.concat(out)
end
h2.integer = integer

--- A field section of literals: { { name, value }, ... }. `indexed` puts them into the table.
function h2.block(fields, indexed)
   local out = {}
   for _, field in ipairs(fields) do
      out[#out + 1] = (indexed and "\64" or "\0") .. integer(0, 7, #field[1]) .. field[1] ..
         integer(0, 7, #field[2]) .. field[2]
   end
   return table.concat(out)
end

--- The fields of an ordinary GET, with what is given in place of them (false: without) and more behind
--- them: { [":path"] = "/other", { "x-more", "1" } }.
function h2.get(changes)
   changes = changes or {}
   local fields = {}
   local usual = {
      { ":method", "GET" }, { ":scheme", "http" }, { ":authority", "a.example" }, { ":path", "/" },
   }
   for _, field in ipairs(usual) do
      local value = changes[field[1]]
      if value ~= false then
         fields[#fields + 1] = { field[1], value or field[2] }
      end
   end
   for _, field in ipairs(changes) do
      fields[#fields + 1] = field
   end
   return fields
end

function h2.post(changes)
   changes = changes or {}
   changes[":method"] = "POST"
   return h2.get(changes)
end

---@class spec.H2Stream
---@field status integer|nil
---@field fields string[][]|nil of the final head
---@field interim table[] heads of 1xx responses
---@field body string what came so far
---@field trailers string[][]|nil
---@field ended boolean
---@field reset integer|nil the code of a RST_STREAM
---@field held boolean|nil its window is not opened again for what came, see `release`
local Stream = {}
Stream.__index = Stream

--- The value of a field of the head; of the trailers with `trailers`.
function Stream:get(name, trailers)
   for _, field in ipairs(trailers and self.trailers or self.fields) do
      if field[1] == name then
         return field[2]
      end
   end
end

---@class spec.H2Client
---@field socket spec.Socket
---@field goaway integer|nil the code of the last GOAWAY
---@field settings table<integer, integer> of the server
local Client = {}
Client.__index = Client

--- A side of a connection, with the methods of `class`; nothing is sent yet.
---@param options { manual: boolean|nil }
function h2.over(opened, class, options)
   local inflater = ffi.new "nghttp2_hd_inflater *[1]"
   assert(nghttp2.nghttp2_hd_inflate_new(inflater) == 0)
   return setmetatable({
      socket = opened, inflater = ffi.gc(inflater[0], nghttp2.nghttp2_hd_inflate_del),
      manual = options.manual, streams = {}, settings = {}, pings = 0, pings_in = 0,
      updates = {}, next_id = 1,
   }, class)
end

--- Connects; sends the preface and SETTINGS (of { [id] = value }) unless `silent` is set.
---@param address string
---@param options { settings: table|nil, silent: boolean|nil, manual: boolean|nil,
---  receive_buffer: integer|nil, before: string|nil, tls: boolean|nil }|nil
---  `manual`: no window updates for DATA; `before`: bytes in front of it all; `tls`: agreed on by ALPN
---@return spec.H2Client
function h2.connect(address, options)
   options = options or {}
   local opened
   if options.tls then
      opened = tls_socket.connect(address, { alpn = { "h2" } })
   else
      opened = socket.connect(address, { receive_buffer = options.receive_buffer, name = "h2 client" })
   end
   local self = h2.over(opened, Client, options)
   if not options.silent then
      self:send((options.before or "") .. h2.PREFACE ..
         h2.frame(h2.SETTINGS, 0, 0, h2.settings(options.settings)))
   end
   return self
end

--- The payload of SETTINGS.
function h2.settings(values)
   local out = {}
   for id, value in pairs(values or {}) do
      out[#out + 1] = string.char(byte(id, 8), byte(id, 0)) .. h2.u32(value)
   end
   return table.concat(out)
end

function Client:send(bytes, seconds)
   self.socket:send(bytes, seconds)
   return self
end

--- Sends a frame.
function Client:frame(kind, flags, stream, payload)
   return self:send(h2.frame(kind, flags, stream, payload))
end

--- Begins a request; without `body` it is complete. Returns its stream's number.
---@param fields string[][]|nil default: an ordinary GET
---@param options { open: boolean|nil, id: integer|nil }|nil `open`: a body will follow
function Client:request(fields, options)
   options = options or {}
   local id = options.id or self.next_id
   self.next_id = id + 2
   local flags = h2.END_HEADERS + (options.open and 0 or h2.END_STREAM)
   self:frame(h2.HEADERS, flags, id, h2.block(fields or h2.get()))
   return id
end

--- As `request`, its field section in as many frames as it needs.
function Client:long_request(fields)
   local id, block = self.next_id, h2.block(fields)
   self.next_id = id + 2
   local kind, flags = h2.HEADERS, h2.END_STREAM
   for at = 1, #block, 16384 do
      local last = at + 16384 > #block
      self:frame(kind, flags + (last and h2.END_HEADERS or 0), id, block:sub(at, at + 16383))
      kind, flags = h2.CONTINUATION, 0
   end
   return id
end

--- Sends DATA.
function Client:data(id, bytes, last)
   return self:frame(h2.DATA, last and h2.END_STREAM or 0, id, bytes)
end

function Client:stream(id)
   local stream = self.streams[id]
   if not stream then
      stream = setmetatable({ interim = {}, body = "", parts = {}, ended = false }, Stream)
      self.streams[id] = stream
   end
   return stream
end

function Client:decode(block)
   local fields, nv, flags = {}, ffi.new "nghttp2_nv", ffi.new "int[1]"
   local at = 0
   while true do
      local used = nghttp2.nghttp2_hd_inflate_hd2(self.inflater, nv, flags,
         ffi.cast("const uint8_t *", block) + at, #block - at, 1)
      assert(used >= 0, "the server's field section cannot be decoded")
      at = at + tonumber(used)
      if bit.band(flags[0], 2) ~= 0 then
         fields[#fields + 1] = { ffi.string(nv.name, nv.namelen), ffi.string(nv.value, nv.valuelen) }
      end
      if bit.band(flags[0], 1) ~= 0 then
         nghttp2.nghttp2_hd_inflate_end_headers(self.inflater)
         return fields
      end
   end
end

--- Sorts a complete field section of a response.
function Client.take_fields(_, stream, fields)
   local status = tonumber(fields[1][1] == ":status" and fields[1][2])
   if not status then
      assert(stream.status, "trailers without a head")
      stream.trailers = fields
   elseif status < 200 then
      stream.interim[#stream.interim + 1] = { status = status, fields = fields }
   else
      assert(not stream.status, "two final heads")
      stream.status, stream.fields = status, fields
   end
   for _, field in ipairs(fields) do
      assert(field[1] == field[1]:lower(), "a field name in upper case: " .. field[1])
   end
end

local handlers = {}

handlers[h2.HEADERS] = function(self, frame)
   local block = frame.payload
   while bit.band(frame.flags, h2.END_HEADERS) == 0 do
      local more = self:read_frame()
      assert(more.kind == h2.CONTINUATION and more.stream == frame.stream, "no CONTINUATION")
      block, frame.flags = block .. more.payload, bit.bor(frame.flags, more.flags)
   end
   local stream = self:stream(frame.stream)
   self:take_fields(stream, self:decode(block))
   stream.ended = stream.ended or bit.band(frame.flags, h2.END_STREAM) ~= 0
end

handlers[h2.DATA] = function(self, frame)
   local stream = self:stream(frame.stream)
   assert(stream.fields and not stream.ended, "DATA outside of a body")
   stream.parts[#stream.parts + 1] = frame.payload
   stream.ended = bit.band(frame.flags, h2.END_STREAM) ~= 0
   if not self.manual and #frame.payload > 0 then
      local update = h2.u32(#frame.payload)
      self:send(h2.frame(h2.WINDOW_UPDATE, 0, 0, update) ..
         ((stream.ended or stream.held) and "" or h2.frame(h2.WINDOW_UPDATE, 0, frame.stream, update)))
   end
end

handlers[h2.RST_STREAM] = function(self, frame)
   self:stream(frame.stream).reset = read_u32(frame.payload, 1)
end

handlers[h2.SETTINGS] = function(self, frame)
   if bit.band(frame.flags, h2.ACK) ~= 0 then
      self.acknowledged = true
      return
   end
   for at = 1, #frame.payload, 6 do
      local id = frame.payload:byte(at) * 256 + frame.payload:byte(at + 1)
      self.settings[id] = read_u32(frame.payload, at + 2)
   end
   if not self.rude then
      self.socket:try_send(h2.frame(h2.SETTINGS, h2.ACK, 0))
   end
end

handlers[h2.PING] = function(self, frame)
   if bit.band(frame.flags, h2.ACK) ~= 0 then
      self.pings = self.pings + 1
   else
      self.pings_in = self.pings_in + 1
      self:frame(h2.PING, h2.ACK, 0, frame.payload)
   end
end

handlers[h2.WINDOW_UPDATE] = function(self, frame)
   self.updates[frame.stream] = (self.updates[frame.stream] or 0) + read_u32(frame.payload, 1)
end

handlers[h2.GOAWAY] = function(self, frame)
   self.goaway, self.last_id = read_u32(frame.payload, 5), read_u32(frame.payload, 1)
end

--- Reads one frame; nil at the end of the connection.
function Client:read_frame(seconds)
   while #self.socket.buffer < 9 do
      local ok, why = self.socket:try_fill(seconds)
      if ok == nil and why == "timeout" then
         self.socket:fail "no frame came"
      elseif not ok then
         self.closed = why or "closed"
         return nil
      end
   end
   local head = self.socket:read(9)
   local a, b, c, kind, flags, reserved_first = head:byte(1, 6)
   assert(reserved_first < 128, "the reserved bit of a frame is set")
   return { kind = kind, flags = flags, stream = read_u32(head, 6),
      payload = self.socket:read((a * 256 + b) * 256 + c, seconds) }
end

--- Reads and sorts frames until `done()` is true or the connection ends. Returns what `done` did.
function Client:pump(done, seconds)
   while true do
      local result = done()
      if result then
         return result
      end
      local frame = self:read_frame(seconds)
      if not frame then
         return done()
      end
      if handlers[frame.kind] then
         handlers[frame.kind](self, frame)
      end
   end
end

--- Waits for the end of a stream, its reset, or that of the connection.
---@return spec.H2Stream
function Client:response(id, seconds)
   local stream = self:stream(id)
   self:pump(function()
      return stream.ended or stream.reset
   end, seconds)
   stream.body = table.concat(stream.parts)
   return stream
end

--- Waits for the final head of a stream, or for what is said instead.
---@return spec.H2Stream
function Client:head(id, seconds)
   local stream = self:stream(id)
   self:pump(function()
      return stream.status or stream.reset or stream.ended
   end, seconds)
   return stream
end

--- Waits for so many bytes of a stream, and returns them.
function Client:body(id, size, seconds)
   local stream = self:stream(id)
   self:pump(function()
      local body = table.concat(stream.parts)
      stream.parts = { body }
      return #body >= size or stream.ended or stream.reset
   end, seconds)
   return (stream.parts[1] or ""):sub(1, size)
end

--- Sends as much DATA as the server's windows take, until all of it is sent.
function Client:send_body(id, bytes, last)
   local sent = 0
   while sent < #bytes do
      local window = math.min(65535 + (self.updates[id] or 0), 65535 + (self.updates[0] or 0)) - sent
      local size = math.min(window, 16384, #bytes - sent)
      if size > 0 then
         self:data(id, bytes:sub(sent + 1, sent + size), last and sent + size == #bytes)
         sent = sent + size
      else
         local frame = self:read_frame()
         if handlers[frame.kind] then
            handlers[frame.kind](self, frame)
         end
      end
   end
end

--- Takes the rest of a stream that was `held` while the server filled its window.
function Client:release(id)
   local stream = self:stream(id)
   stream.held = false
   return self:frame(h2.WINDOW_UPDATE, 0, id, h2.u32(#table.concat(stream.parts)))
end

--- The code with which a stream is reset; nil if it ends otherwise.
function Client:reset_of(id, seconds)
   local stream = self:stream(id)
   self:pump(function()
      return stream.reset or self.goaway
   end, seconds)
   return stream.reset
end

--- Waits until the server closes. Returns the code of its GOAWAY, or nil.
function Client:close_code(seconds)
   self:pump(function() end, seconds)
   return self.goaway
end

--- All that was sent so far has been seen: a PING came back.
function Client:sync(seconds)
   local before = self.pings
   self:frame(h2.PING, 0, 0, "12345678")
   return self:pump(function()
      return self.pings > before
   end, seconds)
end

--- A GET and its answer.
function Client:get(path, changes)
   changes = changes or {}
   changes[":path"] = path
   return self:response(self:request(h2.get(changes)))
end

function Client:close()
   self.socket:close()
end

h2.Client = Client

return h2
