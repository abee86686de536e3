--- The request as layers see it.
---
--- Places in a handle: 1 and 3 the request's address, 2 its generation, 4 the body as text once it was
--- read, 5 the functions behind bodies, 6 headers, 7 ctx, 8 the site. Nothing else is kept, so that
--- whatever is asked for after the end of the request raises an error. All have a slot in the array from the
--- start: a table that grows while a request is handled costs more than all the rest.
local ffi = require "ffi"
local core = require "monolake.core"
local C = require "monolake.internal.ffi"
local Headers = require "monolake.internal.headers"
local Pairs = require "monolake.internal.args"
local body = require "monolake.internal.body"
local errors = require "monolake.internal.errors"
local forward = require "monolake.internal.forward"
local handles = require "monolake.internal.handles"
local properties = require "monolake.internal.properties"
local Thrift = require "monolake.internal.thrift"

local raise = errors.raise_access
local text_of = ffi.string
local out, name_out = ffi.new "struct script_text", ffi.new "struct script_text"
local Request -- the metatable of handles, made below

--- What a TLS handshake agreed on.
---@class monolake.TLS
---@field version string "TLSv1.3"
---@field cipher string as IANA names it: "TLS_AES_128_GCM_SHA256"
---@field name string|nil the server's name that the client asked for (SNI), in lower case
---@field alpn string|nil "http/1.1"
---@field resumed boolean
---@field client monolake.TLSClient|nil the client's certificate, verified against `client_ca`

--- The certificate that a client has shown.
---@class monolake.TLSClient
---@field subject string distinguished name (RFC 4514): "CN=alice,O=Example"
---@field issuer string
---@field serial string hexadecimal
---@field fingerprint string SHA-256 of the certificate, hexadecimal
---@field names string|nil of subjectAltName: "DNS:a.example, URI:spiffe://b"

--- What a proxy in front has said of its client by the PROXY protocol, beside the addresses, which are
--- those of the request or connection. All of it is that proxy's word.
---@class monolake.Proxy
---@field version integer 1 or 2, of the protocol
---@field ip string the address of the proxy itself; "unix:" for a unix socket
---@field port integer
---@field authority string|nil the name that the client asked for (SNI or the like)
---@field alpn string|nil the protocol that was agreed on with the client
---@field unique_id string|nil of the connection; any bytes
---@field ssl monolake.ProxyTLS|nil the client's TLS; nil for a client in the clear
---@field tlvs table<integer, string> all values as they came, by their types: tlvs[0xEA]

--- What a proxy in front has said of its client's TLS.
---@class monolake.ProxyTLS
---@field version string|nil "TLSv1.3"
---@field cn string|nil the common name in the client's certificate
---@field cipher string|nil
---@field sig_alg string|nil of the certificate that the proxy has shown
---@field key_alg string|nil of the key of that certificate
---@field verified boolean the client has shown a certificate, and the proxy has verified it

--- The request as layers see it. What can be assigned says so; `ctx` and everything below `headers`,
--- `args`, `cookies` and `trailers` can be changed too. After the request's end every access raises an
--- error.
---@class monolake.Request
---@field method string "GET"; of Thrift "CALL" or "ONEWAY"; can be assigned
---@field path string "/users/7", without the query, as it was sent (not decoded); can be assigned
---@field query string|nil "a=1&b=2"; can be assigned, nil removes it
---@field args monolake.Pairs the query's parameters, decoded
---@field headers monolake.Headers
---@field cookies monolake.Pairs
---@field trailers monolake.Headers the fields behind a chunked body, after it has been read
---@field scheme string "http" or "https"
---@field tls monolake.TLS|nil what the handshake agreed on; nil for a connection in the clear
---@field thrift monolake.Thrift|nil what the call is in Thrift; nil for requests of HTTP
---@field proxy monolake.Proxy|nil what a proxy in front has said of the client (`proxy_protocol`)
---@field host string the authority that was asked for: "example.org:8080"; can be assigned
---@field ip string the client's address; can be assigned, where a proxy in front has told of it by a field
---@field port integer the client's port; 0 behind a change of ip
---@field local_ip string the address that it has connected to
---@field local_port integer
---@field id integer a number that no other request of this worker has
---@field version number 1.0, 1.1 or 2.0; 0 for Thrift
---@field params table<string, string> what the route's pattern has matched, decoded: see monolake.uri
---@field ctx table free for the layers' own use
local methods = {}
local getters, setters = {}, {}

local METHOD, PATH, QUERY, SCHEME, HOST, IP, PORT, ID, VERSION = 0, 1, 2, 3, 4, 5, 6, 7, 8
local LOCAL_IP, LOCAL_PORT = 9, 10

local function text_getter(field)
   return function(self)
      local found = C.script_request_text(self[1], self[2], field, out)
      if found > 0 then
         return text_of(out.ptr, out.len)
      elseif found < 0 then
         raise(found, nil, 3)
      end
      return nil
   end
end

local function number_getter(field)
   return function(self)
      local number = C.script_request_number(self[1], self[2], field)
      if number < 0 then
         raise(number, nil, 3)
      end
      return number
   end
end

local function text_setter(field, name)
   return function(self, value)
      local text = value
      if value == nil and field == QUERY then
         text = nil
      elseif type(value) ~= "string" then
         error(("req.%s must be a string, not %s"):format(name, type(value)), 3)
      end
      local result = C.script_request_set(self[1], self[2], field, text, text and #text or 0)
      if result < 0 then
         raise(result, ("not a valid %s: %q"):format(name, tostring(value)), 3)
      end
   end
end

getters.method = text_getter(METHOD)
getters.path = text_getter(PATH)
getters.query = text_getter(QUERY)
getters.scheme = text_getter(SCHEME)
getters.host = text_getter(HOST)
getters.ip = text_getter(IP)
getters.port = number_getter(PORT)
getters.local_ip = text_getter(LOCAL_IP)
getters.local_port = number_getter(LOCAL_PORT)
getters.id = number_getter(ID)

local version_number = number_getter(VERSION)
function getters.version(self)
   return version_number(self) / 10
end

setters.method = text_setter(METHOD, "method")
setters.path = text_setter(PATH, "path")
function setters.ctx(self, value)
   if type(value) ~= "table" then
      error("req.ctx must be a table, not " .. type(value), 3)
   end
   self[7] = value
end

setters.query = text_setter(QUERY, "query")
setters.host = text_setter(HOST, "host")
setters.ip = text_setter(IP, "ip")

function setters.body(self, value)
   body.assign(self, value)
end

function getters.tls(self)
   local info = core.tls_info(self[1], self[2])
   if info == false then
      raise(-1, nil, 2)
   end
   rawset(self, "tls", info)
   return info
end

function getters.thrift(self)
   local thrift = Thrift.of(self[1], self[2], self[1])
   if thrift then
      rawset(self, "thrift", thrift)
   end
   return thrift
end

function getters.proxy(self)
   local info = core.proxy_info(self[1], self[2])
   if info == false then
      raise(-1, nil, 2)
   end
   rawset(self, "proxy", info)
   return info
end

-- The tables below are made when first asked for. They raise by themselves after the request's end.

function getters.headers(self)
   local headers = self[6]
   if not headers then
      headers = Headers.of(self[1], self[2], self[3])
      self[6] = headers
   end
   return headers
end

function getters.trailers(self)
   local trailers = Headers.trailers_of(self[1], self[2], self[3])
   rawset(self, "trailers", trailers)
   return trailers
end

function getters.args(self)
   local args = Pairs.of(self, Pairs.query)
   rawset(self, "args", args)
   return args
end

function getters.cookies(self)
   local cookies = Pairs.of(self, Pairs.cookies)
   rawset(self, "cookies", cookies)
   return cookies
end

function getters.ctx(self)
   local ctx = self[7]
   if not ctx then
      ctx = {}
      self[7] = ctx
   end
   return ctx
end

local Params = {}

local function param_pairs(self)
   local index = -1
   return function()
      index = index + 1
      local found = C.script_param_at(self[1], self[2], index, name_out, out)
      if found < 0 then
         raise(found)
      elseif found == 0 then
         return nil
      end
      return text_of(name_out.ptr, name_out.len), text_of(out.ptr, out.len)
   end
end

function Params.__index(self, name)
   if name == "pairs" then
      return param_pairs
   elseif type(name) ~= "string" then
      return nil
   end
   local found = C.script_param(self[1], self[2], name, #name, out)
   if found > 0 then
      return text_of(out.ptr, out.len)
   elseif found < 0 then
      raise(found)
   end
   return nil
end

function Params.__newindex()
   error("req.params cannot be changed: it tells what the route has matched", 2)
end

function getters.params(self)
   local params = setmetatable({ self[1], self[2] }, Params)
   rawset(self, "params", params)
   return params
end

--- The whole body as a string. Later layers and the upstream still get it. `req.body = text` puts another in
--- its place, as does a function that returns it piece by piece. A body over `max` bytes
--- (1 MiB unless given) raises an error, which answers with 413 unless it is caught.
---@param options { max: integer }|nil
---@return string
function methods:body(options)
   return body.read_all(self, options)
end

--- Iterates over the body as it arrives: `for chunk in req:chunks() do`. What was read this way does
--- not reach the upstream.
---@return fun(state: table): string|nil
---@return table
function methods:chunks()
   return body.chunks(self)
end

--- Adds a member to the request's line in access logs that write JSON: the user, an id, which upstream was
--- chosen, how long something took. Each name once, and none that the line has of its own. False, and
--- nothing is added, where there is no more room: all of it may take 512 bytes.
---@param name string letters, digits, "_", "-" and "."
---@param value string|number|boolean
---@return boolean
function methods:log(name, value)
   if type(name) ~= "string" or not name:find "^[%w_.-]+$" then
      error(('log: expected a name of letters, digits, "_", "-" and ".", not "%s"'):format(tostring(name)), 2)
   end
   local kind = type(value)
   local finite = kind == "number" and value - value == 0
   if kind ~= "string" and kind ~= "boolean" and not finite then
      error(("log: %s: expected a string, a finite number or a boolean, not %s"):format(name,
         kind == "number" and tostring(value) or kind), 2)
   end
   local text = tostring(value)
   local result = C.script_request_log(self[1], self[2], name, text, #text, kind ~= "string" and 1 or 0)
   if result < 0 then
      raise(result, nil, 2)
   end
   return result > 0
end

--- Sends the request, as it is now, to an upstream, and gives its response, as `next` does in front of
--- `ml.proxy`: for choosing one by anything that is known of a request.
---
---     local function by_cookie(req)
---        return req:forward(req.cookies.canary == "1" and canary or stable)
---     end
---
--- Like `next` it may be called again, for a try elsewhere, say. The body can be sent once more if it was
--- small enough to be at hand, or was read by `req:body()` before; else the second response is a 502.
---@param upstream monolake.Upstream made by ml.upstream when the site was loaded
---@return monolake.Response
function methods:forward(upstream)
   local res = forward.send("forward", self, upstream, self)
   return res
end

--- Asks an upstream something with a request of its own, and gives the response: for a service that knows
--- who may pass, say. Nothing of the client's request is sent or lost but what the options name.
---
---     local verdict = req:fetch(auth, { path = "/verify", headers = { cookie = req.headers.cookie } })
---     if verdict.status ~= 200 then
---        return ml.text("no", { status = 403 })
---     end
---     req.headers["x-user"] = verdict.headers["x-user"]
---     return next(req)
---
--- Options: `method` ("GET"), `path` with the query ("/"), `headers` ({ name = value }, a list as value for
--- several), `host` (what the client has asked for), `body` (a string), `timeout` (none but those of the
--- upstream, and what the client's request has left) and `max` ("1m"), what the response's body may have.
---
--- Waits for all of the response, which lasts as long as the client's request. An upstream that fails, or a
--- body that is too long, gives a response of 502, 503 or 504 with `error`, as with `next`. It is not the
--- client's response: `ml.response` makes one of what is in it.
---@param upstream monolake.Upstream made by ml.upstream when the site was loaded
---@param options table|nil
---@return monolake.Response
function methods:fetch(upstream, options)
   local request, max = forward.make(self, upstream, options, Request.of)
   local res = forward.send("fetch", self, upstream, request, max)
   return res
end

Request = properties("a request", getters, setters, methods)

--- The handle of a request; the same one for all layers.
---@param address number
---@param generation number
---@return monolake.Request
function Request.of(address, generation)
   local handle = handles[address]
   if not handle or handle[2] ~= generation then
      handle = setmetatable({ address, generation, address, false, false, false, false, false }, Request)
      handles[address] = handle
   end
   return handle
end

return Request
