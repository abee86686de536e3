--- A strict reader of HTTP/1 messages, for both ends of a spec. It accepts nothing that RFC 9112 does
--- not allow a sender to send: every line ends with CRLF, every field is well-formed, framing is exact.
local Socket = require("spec.support.socket").Socket

local http = {}

---@class spec.Message
---@field line string the start line
---@field fields string[][] name and value, in order
---@field status integer|nil of a response
---@field reason string|nil of a response
---@field method string|nil of a request
---@field target string|nil of a request
---@field version string "1.1"
---@field framing string|nil "none", "length", "chunked" or "close", when the body has been read
---@field body string|nil
---@field trailers spec.Message|nil
local Message = {}
Message.__index = Message

--- All values of a field, in order.
function Message:all(name)
   local values = {}
   for _, field in ipairs(self.fields) do
      if field[1]:lower() == name:lower() then
         values[#values + 1] = field[2]
      end
   end
   return values
end

--- The value of a field that may stand there once; nil if it does not.
function Message:get(name)
   local values = self:all(name)
   if #values > 1 then
      error(("%s stands there %d times"):format(name, #values), 2)
   end
   return values[1]
end

--- Whether a comma-separated field has this element, in whatever case.
function Message:has(name, element)
   for _, value in ipairs(self:all(name)) do
      for part in value:gmatch "[^,]+" do
         if part:match("^%s*(.-)%s*$"):lower() == element:lower() then
            return true
         end
      end
   end
   return false
end

local TOKEN = "^[!#$%%&'*+%-.^_`|~%w]+$"

local function parse_field(socket, line)
   local name, value = line:match "^([^:]*):[ \t]*(.-)[ \t]*$"
   if not name or not name:match(TOKEN) or value:find "[%z\1-\8\10-\31\127]" then
      socket:fail(("not a header field: %q"):format(line))
   end
   return { name, value }
end

--- Lines up to an empty one, without their ends.
local function read_lines(socket, seconds)
   local lines = {}
   while true do
      local line = socket:read_until("\n", seconds)
      if not line:match "\r\n$" or line:sub(1, -3):find "[\r%z]" then
         socket:fail(("not a line that ends with CRLF: %q"):format(line))
      end
      line = line:sub(1, -3)
      if line == "" then
         return lines
      end
      lines[#lines + 1] = line
   end
end

local function read_fields(socket, lines, first)
   local fields = {}
   for i = first, #lines do
      fields[#fields + 1] = parse_field(socket, lines[i])
   end
   return fields
end

local function read_head(socket, seconds)
   local lines = read_lines(socket, seconds)
   if #lines == 0 then
      socket:fail "an empty line before the head"
   end
   return setmetatable({ line = lines[1], fields = read_fields(socket, lines, 2) }, Message)
end

--- Reads the head of a request.
---@return spec.Message
function Socket:read_request_head(seconds)
   local message = read_head(self, seconds)
   message.method, message.target, message.version = message.line:match "^(%S+) (%S+) HTTP/(1%.[01])$"
   if not message.method then
      self:fail(("not a request line: %q"):format(message.line))
   end
   return message
end

--- Reads the head of a response, an interim one included.
---@return spec.Message
function Socket:read_response_head(seconds)
   local message = read_head(self, seconds)
   local status
   message.version, status, message.reason = message.line:match "^HTTP/(1%.[01]) (%d%d%d) ([^%c]*)$"
   if not status then
      self:fail(("not a status line: %q"):format(message.line))
   end
   message.status = tonumber(status)
   return message
end

--- Reads the size line of a chunk.
function Socket:read_chunk_size(seconds)
   local line = self:read_until("\n", seconds)
   local digits = line:match "^(%x+)\r\n$" or line:match "^(%x+);[^%c]*\r\n$"
   if not digits or #digits > 12 then
      self:fail(("not a chunk size: %q"):format(line))
   end
   return tonumber(digits, 16)
end

--- Reads the data of one chunk, nil at the last one.
function Socket:read_chunk(seconds)
   local size = self:read_chunk_size(seconds)
   if size == 0 then
      return nil
   end
   local data = self:read(size, seconds)
   local ending = self:read(2, seconds)
   if ending ~= "\r\n" then
      self:fail(("a chunk of %d bytes ends with %q"):format(size, ending))
   end
   return data
end

local function read_chunked(socket, message, seconds)
   local parts = {}
   for data in function() return socket:read_chunk(seconds) end do
      parts[#parts + 1] = data
   end
   message.framing = "chunked"
   message.body = table.concat(parts)
   message.chunks = parts
   message.trailers = setmetatable({ fields = read_fields(socket, read_lines(socket, seconds), 1) }, Message)
end

--- The framing that the fields announce: "chunked", "length" and the number, or "none".
function Message:announced()
   local coding, length = self:all "transfer-encoding", self:all "content-length"
   if #coding > 0 then
      assert(#coding == 1 and coding[1]:lower() == "chunked", "an odd transfer coding")
      assert(#length == 0, "Transfer-Encoding beside Content-Length")
      assert(self.version == "1.1", "Transfer-Encoding in HTTP/1.0")
      return "chunked"
   elseif #length > 0 then
      assert(#length == 1 and length[1]:match "^%d+$", "an odd Content-Length")
      return "length", tonumber(length[1])
   end
   return "none"
end

local function read_announced(socket, message, seconds)
   local framing, length = message:announced()
   message.framing, message.body = framing, ""
   if framing == "chunked" then
      read_chunked(socket, message, seconds)
   elseif framing == "length" then
      message.body = socket:read(length, seconds)
   end
end

--- Reads a whole request.
---@return spec.Message
function Socket:read_request(seconds)
   local message = self:read_request_head(seconds)
   read_announced(self, message, seconds)
   return message
end

--- Reads the body of a response of which the head has been read.
---@param options { method: string|nil, seconds: number|nil }|nil the method that it answers
function Socket:read_response_body(message, options)
   options = options or {}
   local bodyless = options.method == "HEAD" or message.status == 204 or message.status == 304
   if bodyless then
      message.framing, message.body = "none", ""
      return message
   end
   if message:announced() == "none" then
      message.framing, message.body = "close", self:read_all(options.seconds)
      return message
   end
   read_announced(self, message, options.seconds)
   return message
end

--- Reads a whole response; an interim one is an error.
---@param options { method: string|nil, seconds: number|nil }|nil
---@return spec.Message
function Socket:read_response(options)
   options = options or {}
   local message = self:read_response_head(options.seconds)
   if message.status < 200 then
      self:fail(("expected a final response, not %d"):format(message.status))
   end
   return self:read_response_body(message, options)
end

--- Sends a request and reads its response. The request is a text whose line ends may be "\n".
---@return spec.Message
function Socket:exchange(head, body, options)
   self:send(http.head(head) .. (body or ""))
   return self:read_response(options)
end

--- A head from readable text: the lines trimmed, ended with CRLF, an empty line behind them.
---@param text string
function http.head(text)
   local lines = {}
   for line in text:gmatch "[^\r\n]+" do
      line = line:match "^%s*(.-)%s*$"
      if line ~= "" then
         lines[#lines + 1] = line
      end
   end
   return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

--- Sends a head written as readable text, and a body.
function Socket:send_head(text, body)
   return self:send(http.head(text) .. (body or ""))
end

--- Answers with a status, a text body of known length and further fields.
---@param status integer|nil default: 200
---@param body string|nil
---@param fields string|nil further lines, as for `http.head`
function Socket:respond(status, body, fields)
   body = body or ""
   return self:send(http.head(("HTTP/1.1 %d Status\nContent-Length: %d\n%s"):format(status or 200, #body,
      fields or "")) .. body)
end

--- Data as one chunk; "" as the last one, without trailers.
function http.chunk(data)
   if data == "" then
      return "0\r\n\r\n"
   end
   return ("%x\r\n%s\r\n"):format(#data, data)
end

return http
