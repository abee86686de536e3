--- The response as layers see it, and replies: responses that a layer describes before there is a
--- request to answer.
---
--- Places in a handle: 1 the request's address, 2 its generation, 3 the response's address, 4 the body
--- as text once it was read, 5 headers.
local ffi = require "ffi"
local C = require "monolake.internal.ffi"
local Headers = require "monolake.internal.headers"
local body = require "monolake.internal.body"
local check = require "monolake.internal.check"
local errors = require "monolake.internal.errors"
local properties = require "monolake.internal.properties"
local Thrift = require "monolake.internal.thrift"

local raise = errors.raise_access
local ACCESS_INVALID = -2
local text_of = ffi.string
local out = ffi.new "struct script_text"

---@class monolake.Response
---@field status integer can be assigned
---@field headers monolake.Headers
---@field trailers monolake.Headers
---@field thrift monolake.Thrift|nil what an origin of Thrift or `ml.thrift.exception` has answered
---@field error string|nil why the response is one of the proxy's own (502, 504, ...)
local methods = {}
local getters, setters = {}, {}

function getters.status(self)
   local status = C.script_response_status(self[1], self[2], self[3])
   if status < 0 then
      raise(status, nil, 3)
   end
   return status
end

function setters.status(self, value)
   if type(value) ~= "number" then
      error("res.status must be a number, not " .. type(value), 3)
   end
   local result = C.script_response_set_status(self[1], self[2], self[3], value)
   if result < 0 then
      raise(result, "not a status of a final response (200 to 599): " .. value, 3)
   end
end

function getters.error(self)
   local found = C.script_response_error(self[1], self[2], self[3], out)
   if found > 0 then
      return text_of(out.ptr, out.len)
   elseif found < 0 then
      raise(found, nil, 3)
   end
   return nil
end

function getters.headers(self)
   local headers = self[5]
   if not headers then
      headers = Headers.of(self[1], self[2], self[3])
      self[5] = headers
   end
   return headers
end

function getters.trailers(self)
   local trailers = Headers.trailers_of(self[1], self[2], self[3])
   rawset(self, "trailers", trailers)
   return trailers
end

function getters.thrift(self)
   local thrift = Thrift.of(self[1], self[2], self[3])
   return thrift
end

function setters.body(self, value)
   body.assign(self, value)
end

--- The whole body as a string; it is still sent to the client. `res.body = text` puts another in its place,
--- as does a function that returns it piece by piece, as for `ml.response`. Over `max` bytes (8 MiB unless
--- given) an error is raised, which answers with 502 unless it is caught.
---@param options { max: integer }|nil
---@return string
function methods:body(options)
   return body.read_all(self, options)
end

--- Iterates over the body as it arrives; the response is left with an empty body.
---@return fun(state: table): string|nil
---@return table
function methods:chunks()
   return body.chunks(self)
end

--- Changes the body while it passes: `fn(chunk, last)` returns what takes the chunk's place. With
--- `overlap` the last so many bytes of what fn returned are kept back and begin the next chunk, so
--- that a pattern of up to overlap + 1 bytes is found wherever the chunks are cut; a replacement must
--- then not contain what it replaces. The length of the body becomes unknown: it is sent chunked.
---
--- A body with a content-encoding is not touched: then `false` and the reason are returned. Remove
--- "accept-encoding" from the request to get plain bodies.
---@param fn fun(chunk: string, last: boolean): string
---@param options { overlap: integer }|nil
---@return boolean, string|nil
function methods:map(fn, options)
   if type(fn) ~= "function" then
      error("map: expected a function, not " .. type(fn), 2)
   end
   options = check.options("map", options or {}, { overlap = "count" }, 2)
   local encoding = self.headers["content-encoding"]
   if encoding and encoding:lower() ~= "identity" then
      return false, "the body is encoded: " .. encoding
   end
   body.map(self, fn, options.overlap or 0)
   return true
end

local Response = properties("a response", getters, setters, methods)

--- @param req monolake.Request
--- @param address number
--- @return monolake.Response
function Response.of(req, address)
   if address < 0 then
      raise(address, "not a status of a final response (200 to 599)", 3)
   end
   local res = setmetatable({ req[1], req[2], address, false, false }, Response)
   return res -- no tail call: see Headers.of
end

--- The response to a failure: a short public text; `why` is for res.error and the log.
function Response.fail(req, status, why)
   return Response.of(req, C.script_response_fail(req[1], req[2], status, why, #why))
end

---@class monolake.Reply
---@field status integer
---@field headers table<string, string|string[]>
---@field body string|fun(): string|nil
local Reply = {}
Reply.__index = Reply
Response.Reply = Reply

--- Makes a response of a reply.
---@param req monolake.Request
---@param reply monolake.Reply
---@return monolake.Response
function Response.from(req, reply)
   if reply.exception then
      local made = C.script_thrift_exception(req[1], req[2], reply.exception, reply.body, #reply.body)
      if made == ACCESS_INVALID then
         error("a request of HTTP cannot be answered by an exception of Thrift", 0)
      end
      return Response.of(req, made)
   end
   local kind, content = reply.kind or "", reply.body
   local text = type(content) == "string" and content or ""
   local address = C.script_response_make(req[1], req[2], reply.status, kind, #kind, text, #text)
   local res = Response.of(req, address)
   for name, value in pairs(reply.headers) do
      res.headers[name] = value
   end
   if type(content) == "function" then
      body.assign(res, content)
   end
   return res
end

return Response
