--- A connection of layer 4 as layers see it.
---
--- Places in a handle: 1 the address of its request, 2 its generation, 3 the site, 4 the address of
--- the response of the last attempt to connect it, 5 the functions of on_close, 6 ctx. Nothing else is
--- kept, so that whatever is asked for after its end raises an error.
local ffi = require "ffi"
local core = require "monolake.core"
local C = require "monolake.internal.ffi"
local Http = require "monolake.internal.http_site"
local Upstream = require "monolake.internal.upstream"
local check = require "monolake.internal.check"
local errors = require "monolake.internal.errors"
local handles = require "monolake.internal.handles"
local properties = require "monolake.internal.properties"
local wait = require "monolake.internal.wait"

local UDP = 4 -- of enum upstream_protocol of src/proxy/upstream.h

local text_of = ffi.string
local out = ffi.new "struct script_text"
local raw_yield, splice_verb = wait.yield, wait.verbs.splice
local peek_verb, hello_verb, detect_verb = wait.verbs.peek, wait.verbs.client_hello, wait.verbs.detect

--- A connection of layer 4 as layers see it. After its end every access raises an error.
---@class monolake.Conn
---@field ip string the client's address; "unix:" for a unix socket
---@field port integer the client's port
---@field local_ip string the address that it has connected to
---@field local_port integer
---@field tls monolake.TLS|nil what the handshake agreed on; nil for a connection in the clear
---@field proxy monolake.Proxy|nil what a proxy in front has said of the client (`proxy_protocol`)
---@field id integer a number that no other connection or request of this worker has
---@field ctx table free for the layers' own use
local methods = {}
local getters, setters = {}, {}

local IP, PORT, ID, LOCAL_IP, LOCAL_PORT = 5, 6, 7, 9, 10
local OVER = -1

local function raise(code, level)
   if code == OVER then
      error("connection handle used after its connection ended", level + 1)
   end
   errors.raise_access(code, nil, level + 1)
end

local function text_getter(field)
   return function(self)
      local found = C.script_request_text(self[1], self[2], field, out)
      if found > 0 then
         return text_of(out.ptr, out.len)
      elseif found < 0 then
         raise(found, 3)
      end
      return nil
   end
end

local function number_getter(field)
   return function(self)
      local number = C.script_request_number(self[1], self[2], field)
      if number < 0 then
         raise(number, 3)
      end
      return number
   end
end

getters.ip = text_getter(IP)
getters.port = number_getter(PORT)
getters.local_ip = text_getter(LOCAL_IP)
getters.local_port = number_getter(LOCAL_PORT)
getters.id = number_getter(ID)

function getters.tls(self)
   local info = core.tls_info(self[1], self[2])
   if info == false then
      raise(OVER, 3)
   end
   rawset(self, "tls", info)
   return info
end

function getters.proxy(self)
   local info = core.proxy_info(self[1], self[2])
   if info == false then
      raise(OVER, 3)
   end
   rawset(self, "proxy", info)
   return info
end

function getters.ctx(self)
   local ctx = self[6]
   if not ctx then
      ctx = {}
      self[6] = ctx
   end
   return ctx
end

function setters.ctx(self, value)
   if type(value) ~= "table" then
      error("conn.ctx must be a table, not " .. type(value), 3)
   end
   self[6] = value
end

local Conn

--- Raises an error unless it is a connection that may still be connected.
local function check_open(self, what, level)
   if getmetatable(self) ~= Conn then
      error(("%s: expected the connection, not %s"):format(what, type(self)), level + 1)
   end
   local state = C.script_conn_state(self[1], self[2], self[4] or 0)
   if state == 1 then
      error(what .. ": the connection has a peer already", level + 1)
   elseif state == 2 then
      error(what .. ": the connection was closed by a layer", level + 1)
   elseif state < 0 then
      raise(state, level + 1)
   end
end

--- True if the last attempt has connected it, else nil and why not.
local function outcome(self)
   local address = self[4]
   local state = C.script_conn_state(self[1], self[2], address or 0)
   if state == 1 then
      return true
   elseif state < 0 then
      raise(state, 3)
   elseif state == 2 then
      return nil, "a layer has closed the connection"
   elseif address and C.script_response_error(self[1], self[2], address, out) > 0 then
      return nil, text_of(out.ptr, out.len)
   end
   return nil, "no layer has connected it to a peer"
end

--- Takes what an attempt has yielded: the address of a response, or nil and an error.
local function settle(self, what, address, code)
   if address then
      self[4] = address
   elseif code == -22 then
      error(what .. " can be called only while its own layer is running", 3)
   else
      error(errors.cancelled, 0)
   end
end

local SPLICE = { idle_timeout = "duration", total_timeout = "duration", responses_max = "count" }

--- Connects to a peer of an upstream that was made by ml.upstream when the site was loaded. Bytes are
--- carried both ways, by native code, as soon as the layers have returned: one that waits behind this
--- holds up what the peer says first. True, or nil and why no peer could be reached: then another
--- upstream may be tried.
---
--- Options: `idle_timeout`, after which a connection on which nothing was received is reset (default:
--- `tunnel_idle_timeout` of the listener), and `total_timeout` (none). For a flow of datagrams, whose
--- upstream must have `protocol = "udp"`, those of `ml.udp_proxy`.
---@param upstream monolake.Upstream
---@param options monolake.FlowOptions|nil
---@return true|nil, string|nil
function methods:splice(upstream, options)
   local native = getmetatable(upstream) == Upstream and upstream.opened[self[3]]
   if not native then
      error("splice: expected an upstream that was made while the site was loaded", 2)
   end
   local idle, total, responses
   if options then
      local checked = check.options("splice", options, SPLICE, 2)
      idle, total, responses = checked.idle_timeout, checked.total_timeout, checked.responses_max
      if idle == 0 and upstream.options.protocol == UDP then
         error("splice: idle_timeout: expected more than 0: a flow has no other end", 2)
      end
   end
   check_open(self, "splice", 2)
   settle(self, "splice", raw_yield(splice_verb, self[1], native, idle, total, responses))
   return outcome(self)
end

--- Has the connection served by HTTP that was made by `ml.http` when the site was loaded, as soon as the
--- layers have returned: with its TLS, if it has some, and with all that the client has sent, peeked at
--- or not. True.
---@param http monolake.Http
---@return true
function methods:serve(http)
   local native = getmetatable(http) == Http and http.opened[self[3]]
   if not native then
      error("serve: expected what ml.http has made while the site was loaded", 2)
   end
   check_open(self, "serve", 2)
   local code = C.script_conn_serve(self[1], self[2], native)
   if code == 0 then
      error("serve: a flow of datagrams cannot be served by HTTP", 2)
   elseif code < 0 then
      error("serve: HTTP with TLS stands behind a listener with TLS", 2)
   end
   return true
end

local PEEK_MAX = 16384 -- L4_PEEK_MAX_BYTES of src/l4/peek.h
local WAIT = { timeout = "duration" }

--- The milliseconds to wait.
local function timeout_of(what, options, default)
   local checked = options and check.options(what, options, WAIT, 3)
   return checked and checked.timeout or default
end

--- What a verb that looks at the client's first bytes has yielded: its value, or nil and why not, which
--- is an error unless it is a text.
local function seen(what, value, why, partial)
   if value or type(why) == "string" then
      return value, why, partial
   elseif why == -22 then
      error(what .. " can be called only while its own layer is running", 3)
   elseif why == -95 then
      error(what .. ": a flow of datagrams has no stream to look at", 3)
   elseif why == -110 then
      error(errors.failure(504, "the connection's layers took longer than they may"), 0)
   elseif why == -12 then
      error("out of memory", 3)
   end
   error(errors.cancelled, 0)
end

local function first_datagram(self, count)
   local found = C.script_conn_datagram(self[1], self[2], out)
   if found < 0 then
      raise(found, 3)
   elseif found == 0 then
      error("peek: the flow's first datagram can be seen only while its layers are running", 3)
   end
   return text_of(out.ptr, count and math.min(count, tonumber(out.len)) or out.len)
end

--- Waits until the client has sent that many bytes (at most 16384), and returns them; fewer if it has
--- sent its last. Nothing is consumed: whoever serves the connection gets them too. nil and "timeout"
--- (and what has come so far) or "closed" (the client has reset the connection).
---
--- Options: `timeout` (10 s).
---
--- Of a flow of datagrams it returns the first one, cut to that many bytes if a number is given. It does
--- not wait, since layers are run when that has come.
---@param count integer|nil
---@param options { timeout: number|string|nil }|nil
---@return string|nil, string|nil, string|nil
function methods:peek(count, options)
   if C.script_conn_is_flow(self[1], self[2]) > 0 then
      return first_datagram(self, count)
   end
   count = check.value("peek", count, "count", 2)
   if count > PEEK_MAX then
      error(("peek: expected at most %d bytes, not %d"):format(PEEK_MAX, count), 2)
   end
   local ms = timeout_of("peek", options, 10000)
   check_open(self, "peek", 2)
   local bytes, why, partial = seen("peek", raw_yield(peek_verb, self[1], count, ms))
   return bytes, why, partial
end

--- What a TLS client says first. Numbers are those of IANA, in the client's order, values that stand
--- for none (GREASE) included; these are left out of versions and fingerprints.
---@class monolake.ClientHello
---@field name string|nil whom it asks for (SNI), in lower case
---@field alpn string[] protocols that it speaks
---@field message string the message as it was sent, without the headers of its records
---@field version string the highest that it offers: "TLSv1.3"
---@field versions string[] all that it offers
---@field legacy_version string that of the message: "TLSv1.2" of all that is newer, too
---@field ciphers integer[]
---@field extensions integer[]
---@field groups integer[]
---@field point_formats integer[]
---@field signature_algorithms integer[]
---@field ja3 string
---@field ja3_hash string|nil its MD5, in hexadecimal; nil where policy forbids MD5
---@field ja4 string

local ClientHello = {}

local LISTS = {
   ciphers = true, extensions = true, groups = true, point_formats = true, signature_algorithms = true,
}
local FINGERPRINTS = { ja3 = true, ja3_hash = true, ja4 = true }

--- Most ask for the name only: the rest is worked out when it is asked for.
function ClientHello.__index(self, name)
   if LISTS[name] then
      core.hello_lists(self, self.message)
   elseif FINGERPRINTS[name] then
      core.hello_fingerprints(self, self.message)
   end
   return rawget(self, name)
end

--- Reads what a TLS client says first, without answering it: for passthrough by name, and for telling
--- clients apart. Nothing is consumed. Messages of up to 16 KiB are read, split over records and
--- arrivals as they may be. nil and why not: "not tls", "malformed", "too large", "timeout" or "closed"
--- (the client has said its last before that).
---
--- Options: `timeout` (10 s).
---@param options { timeout: number|string|nil }|nil
---@return monolake.ClientHello|nil, string|nil
function methods:client_hello(options)
   local ms = timeout_of("client_hello", options, 10000)
   check_open(self, "client_hello", 2)
   local hello, why = seen("client_hello", raw_yield(hello_verb, self[1], ms))
   return hello and setmetatable(hello, ClientHello), why
end

--- Tells by its first bytes what the client speaks: "tls", "http" (HTTP/1), "h2c" (HTTP/2 in the clear)
--- or "other", which includes clients that say too little in time, as those do that wait for the server
--- to speak first. Nothing is consumed. nil and "closed" if the client has reset the connection.
---
--- Options: `timeout` (5 s).
---@param options { timeout: number|string|nil }|nil
---@return string|nil, string|nil
function methods:detect(options)
   local ms = timeout_of("detect", options, 5000)
   check_open(self, "detect", 2)
   local protocol, why = seen("detect", raw_yield(detect_verb, self[1], ms))
   return protocol, why
end

local function finish(self, reset)
   local code = C.script_conn_end(self[1], self[2], reset)
   if code < 0 then
      raise(code, 3)
   end
end

--- Closes the connection (FIN) when the layers have returned; one that has a peer by then is cut at
--- once.
function methods:close()
   finish(self, 0)
end

--- Resets the connection (RST) when the layers have returned; one that has a peer by then at once.
function methods:reset()
   finish(self, 1)
end

--- How a connection went.
---@class monolake.ConnResult
---@field reason string see `conn:on_close`
---@field error string|nil what went wrong: "Connection reset by peer"
---@field client_bytes integer carried from the client to the peer
---@field peer_bytes integer and back
---@field client_packets integer|nil the same in datagrams, of a flow
---@field peer_packets integer|nil
---@field duration number seconds
---@field peer string|nil its address

--- Has `fn(conn, result)` called when the connection has ended; it may wait for up to a minute.
--- Functions run in the order in which they were given.
---
--- `result.reason` is "ended" (both sides have said that they are done), "closed" or "reset" (by a
--- layer, or no layer has connected it), "idle_timeout", "total_timeout", "setup_timeout",
--- "client_failed", "peer_failed", "connect_failed", "layer_failed" (`result.error` says how),
--- "evicted" (a flow that made room for another, see `flows_max`), "cancelled" (this server has ended
--- it) or "served" (it was handed on to HTTP). A flow that `responses_max` has ended has "ended".
---
--- At a binary upgrade (USR2) connections in the clear move to the new program, but not those with a
--- function of on_close, for it lives in the old one: they have the grace period to end.
---@param fn fun(conn: monolake.Conn, result: monolake.ConnResult)
function methods:on_close(fn)
   check.value("on_close", fn, "function", 2)
   local code = C.script_conn_watch(self[1], self[2])
   if code < 0 then
      raise(code, 2)
   end
   local list = self[5]
   if list then
      list[#list + 1] = fn
   else
      self[5] = { fn }
   end
end

Conn = properties("a connection", getters, setters, methods)

Conn.check_open, Conn.settle, Conn.outcome = check_open, settle, outcome

--- The handle of a connection; the same one for all layers.
---@param address number
---@param generation number
---@param site table
---@return monolake.Conn
function Conn.of(address, generation, site)
   local handle = handles[address]
   if not handle or handle[2] ~= generation then
      handle = setmetatable({ address, generation, site, false, false, false }, Conn)
      handles[address] = handle
   end
   return handle
end

--- The address of the response that tells of the connection's fate, or 0: none was tried for.
function Conn.response(self)
   return self[4] or 0
end

--- The response to a failure of a layer.
function Conn.fail(address, generation, why)
   return C.script_response_fail(address, generation, 500, why, #why)
end

local function with_traceback(err)
   return errors.is_failure(err) and err or debug.traceback(tostring(err), 2)
end

--- Runs the functions of on_close; called by src/script/conn.c.
function Conn.closed(address, generation, reason, err, client_bytes, peer_bytes, duration, peer,
                     client_packets, peer_packets)
   local self = handles[address]
   if not self or self[2] ~= generation then
      return
   end
   local result = { reason = reason, error = err, client_bytes = client_bytes, peer_bytes = peer_bytes,
      duration = duration, peer = peer, client_packets = client_packets, peer_packets = peer_packets }
   for _, fn in ipairs(self[5] or {}) do
      local ok, problem = xpcall(fn, with_traceback, self, result)
      if problem == errors.cancelled then
         error(problem, 0)
      elseif not ok then
         core.log_failure(tostring(problem))
      end
   end
end

return Conn
