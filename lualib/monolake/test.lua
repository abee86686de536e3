--- Specs of policies: layers and whole sites, run by the very code that serves them in production.
---
---     local t = require "monolake.test"
---     local ml = require "monolake"
---
---     it("turns strangers away", function()
---        local res = t.call(require "auth", t.request { path = "/private" })
---        assert.are.equal(401, res.status)
---     end)
---
--- Under plain `busted --lua=luajit` nothing is served: requests run through chains in memory. The
--- same specs run over real sockets with `monolake-lua test spec/`: sites by the real program on free
--- ports, whose log is shown when a spec fails, and layers by its HTTP server and client. There
--- responses carry the fields that a server adds (Date, Content-Length, Connection), and requests
--- `Via`.
---@module monolake.test
local ml = require "monolake"
local check = require "monolake.internal.check"
local build = require "monolake.internal.build"
local harness = require "monolake.internal.harness"
local fields = require "monolake.test.fields"
local server = require "monolake.test.server"

local t = {}

local BODY_MAX = 64 * 1024 * 1024

-- --- Requests ----------------------------------------------------------------------------------

local REQUEST = {
   method = "text", path = "text", headers = "table", body = "text", host = "text", ip = "text",
   scheme = "text", tls = "table", chunked = "flag", timeout = "duration",
}

---@class monolake.test.Request
---@field method string "GET"
---@field path string with the query: "/search?q=1"
---@field headers monolake.test.Fields
---@field host string
---@field body string|nil
local Request = {}

local function check_request(options, extra, level)
   local kinds = REQUEST
   if extra then
      kinds = setmetatable({}, { __index = REQUEST })
      for name, kind in pairs(REQUEST) do
         kinds[name] = kind
      end
      for name, kind in pairs(extra) do
         kinds[name] = kind
      end
   end
   local checked = check.options("request", options, kinds, level + 1)
   if (checked.path or "/"):sub(1, 1) ~= "/" then
      error(("request: path: expected \"/...\", not %q"):format(checked.path), level + 1)
   end
   return checked
end

local function make_request(options, extra, level)
   local checked = check_request(options, extra, level + 1)
   return setmetatable({
      method = checked.method or "GET",
      path = checked.path or "/",
      headers = fields.read(checked.headers or {}),
      host = checked.host or "localhost",
      body = checked.body,
      chunked = checked.chunked,
      ip = checked.ip,
      scheme = checked.scheme or checked.tls and "https" or nil,
      tls = checked.tls,
      timeout = (checked.timeout or 30000) / 1000,
   }, Request), checked
end

--- A request for `call`. Options: `method` ("GET"), `path` with the query ("/"), `headers`
--- ({ name = value }, a list as value for several, or a list of { name, value }), `host`
--- ("localhost"), `body` (a string), `chunked` (the body's length is not declared), `timeout` (30 s),
--- and what only requests in memory can choose: `ip` of the client ("127.0.0.1"), `scheme` ("http")
--- and `tls`, what layers find in req.tls: { version = "TLSv1.3", client = { subject = "CN=alice" } }.
---@param options table|string a string is the path
---@return monolake.test.Request
function t.request(options)
   if type(options) == "string" then
      options = { path = options }
   end
   local request = make_request(options, nil, 2)
   return request
end

--- The request as the harness takes it.
local function native_request(request, address)
   return {
      method = request.method,
      target = request.path,
      host = request.host,
      headers = request.headers,
      body = request.body,
      chunked = request.chunked,
      remote = request.ip and request.ip .. ":40000" or nil,
      scheme = request.scheme,
      tls = request.tls,
      timeout = request.timeout,
      address = address,
   }
end

-- --- Responses ---------------------------------------------------------------------------------

--- What a layer or a site has answered.
---@class monolake.test.Response
---@field status integer
---@field headers monolake.test.Fields
---@field body string
---@field trailers monolake.test.Fields
---@field interim integer[] the statuses of interim responses (103, ...), in order
---@field error string|nil in memory: why the response is one of the proxy's own
---@field forwarded monolake.test.Seen|nil of `call`: the request as it got to the leaf

--- A request as it got to a leaf or to an origin.
---@class monolake.test.Seen
---@field method string
---@field path string without the query
---@field query string|nil
---@field host string
---@field headers monolake.test.Fields
---@field body string of origins and of `call` without a leaf

local function response_of(result)
   result.headers = fields.of(result.headers)
   result.trailers = fields.of(result.trailers)
   return result
end

local function seen_of(req)
   local list = {}
   for name, value in req.headers:pairs() do
      list[#list + 1] = { name, value }
   end
   return {
      method = req.method,
      path = req.path,
      query = req.query,
      host = req.host,
      headers = fields.of(list),
   }
end

-- --- Layers ------------------------------------------------------------------------------------

--- Stands behind the layers under test: notes what arrives, then goes on to the leaf.
local function note_taker(notes)
   return function(req, next)
      notes.seen = seen_of(req)
      return next(req)
   end
end

local function empty_leaf(notes)
   return function(req)
      notes.seen.body = req:body { max = BODY_MAX }
      return ml.text ""
   end
end

local function deliver(target, request)
   if not server.program or request.ip or request.scheme then
      return harness.call(target, native_request(request))
   end
   local served = harness.serve(target)
   local result, why = harness.fetch(native_request(request, served:address()))
   served:close()
   return result, why
end

--- Runs a request through layers and what stands behind them.
---@param layer function|table a layer, or a list of them
---@param request monolake.test.Request|table|string as for `request`
---@param leaf function|table|nil what answers behind them: a layer; 200 with an empty body
---@return monolake.test.Response|nil
---@return string|nil why there is no complete response
function t.call(layer, request, leaf)
   if getmetatable(request) ~= Request then
      if type(request) == "string" then
         request = { path = request }
      end
      request = make_request(request or {}, nil, 2)
   end
   local notes = {}
   local target = harness.compile({ layer, note_taker(notes), leaf or empty_leaf(notes) },
      check.where(2))
   local result, why = deliver(target, request)
   if not result then
      return nil, why
   end
   result.forwarded = notes.seen
   return response_of(result)
end

-- --- Origins -----------------------------------------------------------------------------------

--- A scripted origin: a server of the spec's own.
---@class monolake.test.Origin
---@field address string "127.0.0.1:40123"
---@field requests monolake.test.Seen[] what has arrived, in order
local Origin = {}
Origin.__index = Origin

--- Stops serving; connections are closed.
function Origin:close()
   self.server:close()
end

--- Starts an origin at a free port. It serves while a spec waits for a response.
---@param handler function|table|nil a layer that answers; 200 with an empty body
---@return monolake.test.Origin
function t.origin(handler)
   local origin = setmetatable({ requests = {} }, Origin)
   local function record(req, next)
      local seen = seen_of(req)
      seen.body = req:body { max = BODY_MAX }
      table.insert(origin.requests, seen)
      return next(req)
   end
   local target = harness.compile({ record, handler or ml.text "" }, check.where(2))
   origin.server = harness.serve(target)
   origin.address = origin.server:address()
   return origin
end

-- --- Sites -------------------------------------------------------------------------------------

--- A site under test.
---@class monolake.test.App
---@field origins table<string, monolake.test.Origin> those that `upstreams` has made of functions
local App = {}
App.__index = App

--- Addresses and origins in place of a site's upstreams.
local function stand_ins(upstreams)
   local addresses, origins = {}, {}
   for name, value in pairs(upstreams) do
      if getmetatable(value) == Origin then
         addresses[name] = { value.address }
      elseif type(value) == "string" then
         addresses[name] = { value }
      else
         origins[name] = t.origin(value)
         addresses[name] = { origins[name].address }
      end
   end
   return addresses, origins
end

local function load_site(path, upstreams)
   build.override { upstreams = upstreams }
   local ok, result = pcall(harness.load, path)
   build.override {}
   if not ok then
      error(result, 0)
   end
   return result
end

local function count_addresses(listeners)
   local count = 0
   for _, listener in ipairs(listeners) do
      listener.first = count + 1
      count = count + #listener.addresses
   end
   return count
end

--- Loads a site. Options: `upstreams`, by name what stands in for them: a layer that answers (an
--- origin is made of it), an origin, or an address.
---@param path string
---@param options { upstreams: table }|nil
---@return monolake.test.App
function t.app(path, options)
   options = check.options("app", options or {}, { upstreams = "table" }, 2)
   local addresses, origins = stand_ins(options.upstreams or {})
   local app = setmetatable({ origins = origins, listeners = load_site(path, addresses) }, App)
   if server.program then
      app.server = server.start(path, addresses, count_addresses(app.listeners))
   end
   return app
end

local function listener_of(self, address, level)
   if not address then
      return self.listeners[1], 1
   end
   local names = {}
   for _, listener in ipairs(self.listeners) do
      for i, name in ipairs(listener.addresses) do
         if name == address then
            return listener, i
         end
         names[#names + 1] = name
      end
   end
   error(("the site does not listen at %q%s"):format(address, check.suggest(address, names)), level + 1)
end

local function app_request(self, options, level)
   local request, checked = make_request(options, { listener = "text" }, level + 1)
   local listener, index = listener_of(self, checked.listener, level + 1)
   local result, why
   if not self.server then
      result, why = harness.call(listener, native_request(request))
   elseif request.ip or request.scheme then
      error("request: ip, scheme and tls can be chosen in memory only", level + 1)
   else
      local address = self.server.addresses[listener.first + index - 1]
      result, why = harness.fetch(native_request(request, address))
   end
   if result then
      return response_of(result)
   end
   return nil, why
end

--- Sends a request to the site. Options are those of `monolake.test.request` and `listener`: which of
--- the site's addresses, as it writes them (default: the first).
---@param options table
---@return monolake.test.Response|nil
---@return string|nil why there is no complete response
function App:request(options)
   local res, why = app_request(self, options, 2)
   return res, why
end

local function with(method, path, body, options)
   local all = { method = method, path = path, body = body }
   for name, value in pairs(options or {}) do
      all[name] = value
   end
   return all
end

--- As `request`, of GET.
---@param path string
---@param options table|nil
---@return monolake.test.Response|nil
---@return string|nil
function App:get(path, options)
   local res, why = app_request(self, with("GET", path, nil, options), 2)
   return res, why
end

--- As `request`, of POST.
---@param path string
---@param body string
---@param options table|nil
---@return monolake.test.Response|nil
---@return string|nil
function App:post(path, body, options)
   local res, why = app_request(self, with("POST", path, body, options), 2)
   return res, why
end

--- The summary tree of the site, as `monolake-lua -t` prints it.
---@return string
function App:describe()
   return harness.describe(self.listeners[1])
end

--- Ends the server and the origins that were made for it.
function App:close()
   if self.server then
      self.server:stop()
   end
   for _, origin in pairs(self.origins) do
      origin:close()
   end
end

return t
