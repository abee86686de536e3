--- Requests that layers send by themselves: see monolake.Request:forward and :fetch.
local ffi = require "ffi"
local C = require "monolake.internal.ffi"
local Response = require "monolake.internal.response"
local Upstream = require "monolake.internal.upstream"
local check = require "monolake.internal.check"
local errors = require "monolake.internal.errors"
local wait = require "monolake.internal.wait"

local raw_yield, forward_verb = wait.yield, wait.verbs.forward
local generation = ffi.new "uint32_t[1]"

local forward = {}

--- The native side of an upstream, in the site whose layer handles the request.
local function native_of(what, req, upstream, level)
   local native = getmetatable(upstream) == Upstream and upstream.opened[req[8]]
   if not native then
      error(what .. ": expected an upstream that ml.upstream has made while the site was loaded", level + 1)
   end
   local name = upstream:of_layer_4()
   if name then
      error(("%s: upstream %q has the protocol %q, which is for layer 4"):format(what, upstream.name, name),
         level + 1)
   end
   return native
end

--- @param what string for messages
--- @param own monolake.Request that of the layer
--- @param upstream monolake.Upstream
--- @param req monolake.Request what is sent
--- @param max number|nil bytes that the body of the response to another one may have
--- @return monolake.Response
function forward.send(what, own, upstream, req, max)
   local native = native_of(what, own, upstream, 3)
   wait.check(what)
   local address, code = raw_yield(forward_verb, own[1], native, req[1], max or 0)
   if address then
      return Response.of(req, address)
   elseif code == -22 then
      error(what .. " can be called only while its own layer is running", 3)
   end
   error(errors.cancelled, 0)
end

local FETCH = { method = "text", path = "text", headers = "table", host = "text", body = "text",
   timeout = "duration", max = "bytes" }

local MAX_BYTES = 1048576

local function fill(req, checked, path, query)
   req.path = path
   req.query = query ~= "" and query or nil
   req.method = checked.method or "GET"
   for name, value in pairs(checked.headers or {}) do
      req.headers[name] = value
   end
   if checked.host then
      req.host = checked.host
   end
   req.body = checked.body
end

--- Makes the request of a fetch. Also returns what the body of the response may have.
--- @param handle_of fun(address: number, generation: number): monolake.Request
function forward.make(own, upstream, options, handle_of)
   native_of("fetch", own, upstream, 3)
   local checked = check.options("fetch", options or {}, FETCH, 3)
   local path, query = (checked.path or "/"):match "^(/[^?]*)%??(.*)$"
   if not path then
      error(("fetch: path: expected \"/...\", not %q"):format(checked.path), 3)
   end
   local address = C.script_fetch_begin(own[1], own[2], checked.timeout or 0, generation)
   if address < 0 then
      errors.raise_access(address, nil, 3)
   end
   local req = handle_of(address, generation[0])
   local ok, why = pcall(fill, req, checked, path, query)
   if not ok then
      error(type(why) == "string" and why:gsub("^[^\n:]+:%d+: ", "fetch: ") or why, 3)
   end
   return req, checked.max or MAX_BYTES
end

return forward
