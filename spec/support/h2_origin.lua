--- A raw HTTP/2 origin for specs: it takes connections with prior knowledge, sorts what comes by streams,
--- and answers with frames built by hand, valid or not.
local h2 = require "spec.support.h2"

---@class spec.H2Request
---@field id integer of the stream
---@field fields string[][]
---@field body string all of it, behind `read_body`
---@field trailers string[][]|nil
---@field ended boolean
---@field reset integer|nil the code of a RST_STREAM
local Request = {}
Request.__index = Request

--- The value of a field of the head; of the trailers with `trailers`.
function Request:get(name, trailers)
   for _, field in ipairs(trailers and self.trailers or self.fields) do
      if field[1] == name then
         return field[2]
      end
   end
end

---@class spec.H2Origin: spec.H2Client
local Origin = setmetatable({}, { __index = h2.Client })
Origin.__index = Origin

local origin = {}

--- Waits for a connection and its preface; sends SETTINGS (of { [id] = value }) unless `silent` is set.
---@param listener spec.Listener
---@param options { settings: table|nil, silent: boolean|nil, manual: boolean|nil }|nil
---@return spec.H2Origin
function origin.accept(listener, options)
   options = options or {}
   local self = h2.over(listener:accept(), Origin, options)
   self.waiting = {}
   assert(self.socket:read(#h2.PREFACE) == h2.PREFACE, "no preface of HTTP/2")
   if not options.silent then
      self:frame(h2.SETTINGS, 0, 0, h2.settings(options.settings))
   end
   return self
end

function Origin:stream(id)
   local stream = self.streams[id]
   if not stream then
      stream = setmetatable({ id = id, parts = {}, ended = false }, Request)
      self.streams[id] = stream
   end
   return stream
end

function Origin:take_fields(stream, fields)
   if stream.fields then
      stream.trailers = fields
      return
   end
   stream.fields = fields
   table.insert(self.waiting, stream)
end

--- Waits for the head of the next request.
---@return spec.H2Request
function Origin:read_request(seconds)
   local request = self:pump(function()
      return table.remove(self.waiting, 1)
   end, seconds)
   return request or self.socket:fail "the connection ended before a request"
end

--- Waits for the end of a request. Returns its body.
function Origin:read_body(request, seconds)
   self:pump(function()
      return request.ended or request.reset
   end, seconds)
   request.body = table.concat(request.parts)
   return request.body
end

--- Waits until the request is reset. Returns the code.
function Origin:reset_of(request, seconds)
   return self:pump(function()
      return request.reset
   end, seconds)
end

--- Sends a head: a status and more fields.
---@param options { fields: string[][]|nil, last: boolean|nil }|nil
function Origin:head(request, status, options)
   options = options or {}
   local fields = { { ":status", tostring(status) } }
   for _, field in ipairs(options.fields or {}) do
      fields[#fields + 1] = field
   end
   local flags = h2.END_HEADERS + (options.last and h2.END_STREAM or 0)
   return self:frame(h2.HEADERS, flags, request.id, h2.block(fields))
end

--- Sends trailers.
function Origin:trailers(request, fields)
   return self:frame(h2.HEADERS, h2.END_HEADERS + h2.END_STREAM, request.id, h2.block(fields))
end

--- Sends DATA.
function Origin:data(request, bytes, last)
   return self:frame(h2.DATA, last and h2.END_STREAM or 0, request.id, bytes)
end

--- Sends a whole response.
function Origin:respond(request, status, body, fields)
   self:head(request, status, { fields = fields, last = not body })
   if body then
      self:data(request, body, true)
   end
   return self
end

function Origin:reset(request, code)
   return self:frame(h2.RST_STREAM, 0, request.id, h2.u32(code))
end

function Origin:say_goaway(last_id, code)
   return self:frame(h2.GOAWAY, 0, 0, h2.u32(last_id) .. h2.u32(code or h2.NO_ERROR))
end

return origin
