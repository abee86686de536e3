--- Builds chains, upstreams and listeners from what a site's script says. Factories only check and
--- describe; the native side is made when a listener (or a test) compiles the chain.
local bit = require "bit"
local core = require "monolake.core"
local check = require "monolake.internal.check"
local compose = require "monolake.internal.compose"
local compose_connections = require "monolake.internal.compose_conn"
local cidr = require "monolake.internal.cidr"
local proxied = require "monolake.internal.proxied"
local tls = require "monolake.internal.tls"
local Http = require "monolake.internal.http_site"
local Layer = require "monolake.internal.layer"
local Upstream = require "monolake.internal.upstream"
local Reply = require("monolake.internal.response").Reply

local build = {}

local option_kinds = core.option_kinds()

--- What is known of the site that is being loaded, or nil: { on_error, upstreams, names }.
local current

function build.current(what, level)
   if not current then
      error(what .. " can be called only while a site is loaded", level + 1)
   end
   return current
end

--- Addresses that are taken in place of those that sites name: { listen = "127.0.0.1:0",
--- upstreams = { name = { address, ... } } }. For monolake.test.
local overrides = { upstreams = {} }

--- @param new { listen: string|nil, upstreams: table<string, string[]>|nil }
function build.override(new)
   overrides = { listen = new.listen, upstreams = new.upstreams or {} }
end

--- Of the script that was run last: of the site while it serves requests.
local directory

--- The path of a file that a script names: relative ones lie beside the script.
--- @param path string
function build.beside(path)
   if path:sub(1, 1) == "/" or not directory then
      return path
   end
   return directory .. "/" .. path
end

local function read_file(path)
   local handle, why = io.open(path, "rb")
   if not handle then
      error("cannot open " .. why, 0)
   end
   local text, reason = handle:read "*a"
   handle:close()
   return text or error(("cannot read %s: %s"):format(path, reason), 0)
end

--- Files that a script names: reading one while the site is loaded makes it part of the site, which
--- --watch looks at. Later it is what is there now.
build.files_beside = {
   beside = build.beside,
   read = function(path)
      local text = current and core.source(path) or read_file(path)
      if current then
         core.add_file(path, text)
      end
      return text
   end,
   --- For private keys.
   secret = function(path)
      local secret, why = core.secret_file(path)
      return secret or error(why, 0)
   end,
   --- What is known of the site that is being loaded, or nil.
   site = function()
      return current
   end,
}

--- What a spec lets stand in for an upstream is never asked if the site has none of that name.
local function check_stand_ins(names)
   for name in pairs(overrides.upstreams) do
      if not names[name] then
         local known = {}
         for one in pairs(names) do
            known[#known + 1] = one
         end
         error(("app: the site has no upstream %q%s"):format(name, check.suggest(name, known)), 0)
      end
   end
end

--- Says where the script lies that is run now.
--- @param path string
function build.in_directory(path)
   directory = path
end

--- Begins a site; whatever is built from now on belongs to it. Returns what to give to finish.
function build.begin()
   local outer = current
   current = { upstreams = {}, names = {}, https = {} }
   return { site = current, outer = outer }
end

--- Ends a site, opened or failed. With `complete`, what no chain uses is opened too.
function build.finish(token, complete)
   if complete then
      check_stand_ins(token.site.names)
      for _, http in ipairs(token.site.https) do
         http:open()
      end
      for _, upstream in ipairs(token.site.upstreams) do
         upstream:open()
      end
   end
   current = token.outer
   if not current then
      tls.wipe_keys()
   end
end

-- --- Layers -----------------------------------------------------------------------------------

--- Describes a native layer.
--- @param label string for the summary tree
--- @param make fun(label: string, kind: string): userdata makes the step when a chain of that kind
--- ("http", "l4", "udp") is compiled
--- @param level integer whose line is blamed for failures
--- @param kind string|nil of chains in which it may stand: "http" (default), "l4", "udp", "any_l4"
--- (either of these two) or "both" (any)
function build.layer(label, make, level, kind)
   return setmetatable({ label = label, make = make, where = check.where(level + 1),
      kind = kind or "http" }, Layer)
end

local function function_label(fn)
   local info = debug.getinfo(fn, "S")
   return ("lua %s:%d"):format(info.short_src, info.linedefined)
end

local function reply_step(reply)
   local fields = {}
   if reply.kind then
      fields[1], fields[2] = "Content-Type", reply.kind
   end
   for name, value in pairs(reply.headers) do
      for _, one in ipairs(type(value) == "table" and value or { value }) do
         fields[#fields + 1] = name
         fields[#fields + 1] = tostring(one)
      end
   end
   local label = ("response %d, %d bytes"):format(reply.status, #reply.body)
   return core.fixed_step(reply.status, fields, reply.body, label)
end

local function append_list(out, list, where, append)
   local count = 0
   for _ in pairs(list) do
      count = count + 1
   end
   if count ~= #list then
      error(where .. ": a chain must be a list without holes or names", 0)
   end
   for i = 1, #list do
      append(out, list[i], where)
   end
end

local KINDS = { http = "HTTP", l4 = "layer 4", udp = "UDP", any_l4 = "layer 4" }

local function fits(kind, chain)
   return kind == chain or kind == "both" or (kind == "any_l4" and chain ~= "http")
end

local function check_kind(layer, kind, where)
   if not fits(layer.kind, kind) then
      error(("%s: %s is a layer of %s and cannot stand in a chain of %s"):format(where, layer.label,
         KINDS[layer.kind], KINDS[kind]), 0)
   end
end

--- Appends layers in their order to `out`, of which `kind` is that of the chain: { fn, label } for
--- Lua, { step } for native ones.
local function append(out, value, where)
   local kind = getmetatable(value)
   if type(value) == "function" then
      out[#out + 1] = { fn = value, label = function_label(value) }
   elseif kind == Layer then
      check_kind(value, out.kind, where)
      local ok, step = pcall(value.make, value.label, out.kind)
      if not ok then
         local placed = type(step) ~= "string" or step:match "^[^\n:]+:%d+: "
         error(placed and step or (value.where .. ": " .. step), 0)
      end
      out[#out + 1] = { step = step }
   elseif kind == Http then
      check_kind(value, out.kind, where)
      out[#out + 1] = { step = core.http_step(value:open(), value.label) }
   elseif kind == Reply and out.kind ~= "http" then
      error(where .. ": a response cannot stand in a chain of layer 4", 0)
   elseif kind == Reply and type(value.body) == "string" and not value.exception then
      out[#out + 1] = { step = reply_step(value) }
   elseif kind == Reply then
      out[#out + 1] = { fn = function() return value end, label = "lua response" }
   elseif type(value) == "table" and kind == nil then
      append_list(out, value, where, append)
   else
      error(("%s: a chain holds functions, layers and lists of them, not a %s"):format(where,
         type(value)), 0)
   end
end

local function run_label(run)
   local labels = {}
   for i, layer in ipairs(run) do
      labels[i] = i == 1 and layer.label or layer.label:gsub("^lua ", "")
   end
   return table.concat(labels, ", ")
end

--- Compiles layers to a native chain: every run of neighbouring functions becomes one step.
--- @param value function|table a layer, a function, or a list of them
--- @param where string "site.lua:7", for messages
--- @param kind string|nil "http" (default), "l4" or "udp"
--- @return userdata
function build.chain(value, where, kind)
   local layers, steps, run = { kind = kind or "http" }, {}, {}
   local of_connections = layers.kind ~= "http"
   local join = of_connections and compose_connections or compose
   append(layers, value, where)
   local function end_run()
      if #run > 0 then
         local handle, recover = join(run, current)
         steps[#steps + 1] = core.lua_step(handle, recover, run_label(run), of_connections)
         run = {}
      end
   end
   for _, layer in ipairs(layers) do
      if layer.fn then
         run[#run + 1] = layer
      else
         end_run()
         steps[#steps + 1] = layer.step
      end
   end
   end_run()
   return core.chain(steps)
end

-- --- Upstreams ---------------------------------------------------------------------------------

local TCP, THRIFT, UDP, AUTO = 2, 3, 4, 5 -- enum upstream_protocol of src/proxy/upstream.h

--- What peers are offered by ALPN, by the protocol that they are to speak; where that may be anything,
--- what the option says.
local OFFERS = { [0] = { "http/1.1" }, [1] = { "h2" }, [THRIFT] = {}, [AUTO] = { "h2", "http/1.1" } }

local BALANCE = { round_robin = true, least_conn = true, random = true, hash = true }

local UPSTREAM = {
   name = "text", balance = BALANCE, hash_header = "text", tls = "table", idempotent = "table",
}
for name, kind in pairs(option_kinds.upstream) do
   UPSTREAM[name] = kind
end
UPSTREAM.send_proxy = "any" -- see proxied.send

--- "https://host" as host:443 and true.
local function split_scheme(address)
   local scheme, rest = address:match "^(https?)://(.*)$"
   if not scheme then
      return address, false
   end
   rest = rest:gsub("/$", "")
   if not rest:find ":%d+$" and not rest:find "^unix:" then
      rest = rest .. (scheme == "https" and ":443" or ":80")
   end
   return rest, scheme == "https"
end

--- The address, the weight and whether it is asked for by TLS.
local function check_peer(peer, level)
   local address, weight = peer, 1
   if type(peer) == "table" then
      local options = check.options("upstream: peer", peer, { address = "text", weight = "count" }, level + 1)
      address, weight = options.address, options.weight or 1
   end
   if type(address) ~= "string" then
      error("upstream: a peer is an address or { address = ..., weight = ... }", level + 1)
   end
   if weight < 1 or weight > 1000 then
      error("upstream: weight: expected 1 to 1000, not " .. weight, level + 1)
   end
   local bare, secure = split_scheme(address)
   local why = core.address_error(bare, true)
   if why then
      error(("upstream: %q: %s"):format(address, why), level + 1)
   end
   return bare, weight, secure
end

--- Peers prove the name that they are known by; paths are none.
local function check_proof(peers, name, level)
   for i = 1, name and 0 or #peers do
      if peers[i]:find "^unix:" then
         error(("upstream: tls: expected a name that %s must prove"):format(peers[i]), level + 1)
      end
   end
end

--- Datagrams go to internet addresses, and as they are.
local function check_datagrams(peers, secure, level)
   if secure then
      error('upstream: tls: there is none for protocol = "udp"', level + 1)
   end
   for i = 1, #peers do
      if peers[i]:find "^unix:" then
         error(('upstream: protocol = "udp" needs internet addresses, not %s'):format(peers[i]), level + 1)
      end
   end
end

--- The peers, their weights and whether they are asked by TLS, which all must have in common.
local function check_peers(options, level)
   local peers, weights, secure = {}, {}, nil
   for i = 1, #options do
      local by_tls
      peers[i], weights[i], by_tls = check_peer(options[i], level + 1)
      if secure ~= nil and by_tls ~= secure then
         error("upstream: some peers are https:// and others are not", level + 1)
      end
      secure = by_tls
   end
   if #peers == 0 then
      error("upstream: expected at least one peer", level + 1)
   end
   return peers, weights, secure
end

--- Names of methods of Thrift.
local function check_idempotent(options, level)
   local names = options.idempotent
   if names and options.protocol ~= THRIFT then
      error('upstream: idempotent is for methods of Thrift (protocol = "thrift")', level + 1)
   end
   for i = 1, names and #names or 0 do
      check.value("upstream: idempotent", names[i], "text", level + 1)
   end
end

local loose = setmetatable({}, { __mode = "k" }) -- made while no site was loaded

--- @param options table positional peers and named options
--- @param level integer whose line is blamed, as for error()
--- @return monolake.Upstream
function build.upstream(options, level)
   if type(options) ~= "table" then
      error("upstream: expected a table of peers and options", level + 1)
   end
   local checked = check.options("upstream", options, UPSTREAM, level + 1, true)
   check_idempotent(checked, level + 1)
   if checked.send_proxy then
      checked.send_proxy = proxied.send(checked.send_proxy, checked.protocol, level + 1)
   end
   local peers, weights, secure = check_peers(options, level + 1)
   local name = checked.name or peers[1]
   local stand_ins = overrides.upstreams[name]
   local client
   if checked.protocol == UDP then
      check_datagrams(peers, secure or checked.tls, level + 1)
   end
   if (secure or checked.tls) and not stand_ins then
      client = tls.client(checked.tls or {}, build.files_beside, OFFERS[checked.protocol or 0], level + 1)
      check_proof(peers, checked.tls and checked.tls.name, level + 1)
   end
   for i = 1, stand_ins and #stand_ins or 0 do
      weights[i] = 1
   end
   if checked.protocol == AUTO and not (secure or checked.tls) then
      error('upstream: protocol = "auto" is agreed on by TLS: peers are https://, or "h1" or "h2"', level + 1)
   end
   if stand_ins and ((checked.protocol or 0) < TCP or checked.protocol == AUTO) then
      checked.protocol = nil -- they speak HTTP/1
   end
   if stand_ins then
      checked.send_proxy = nil
   end
   peers = stand_ins or peers
   local upstream = setmetatable({
      name = name,
      peers = peers,
      weights = weights,
      options = checked,
      tls = client,
      where = check.where(level + 1),
      opened = setmetatable({}, { __mode = "k" }),
   }, Upstream)
   if current then
      local other = current.names[upstream.name]
      if other then
         error(("upstream: another one at %s is named %q already"):format(other.where, upstream.name),
            level + 1)
      end
      current.names[upstream.name] = upstream
      table.insert(current.upstreams, upstream)
   else
      loose[upstream] = true
   end
   return upstream
end

--- Opens those that belong to no site in the one that is being built: specs of layers have such.
function build.open_loose()
   for upstream in pairs(loose) do
      upstream:open()
   end
end

--- "tcp" or "udp" if it is for layer 4, else nil.
function Upstream:of_layer_4()
   local number = self.options.protocol
   return number == TCP and "tcp" or number == UDP and "udp" or nil
end

--- The native side of it in the site that is being built.
function Upstream:open()
   local handle = self.opened[current]
   if not handle then
      local options = self.options
      local ok, result = pcall(function()
         return core.upstream(self.name, self.peers, self.weights, options.balance or "round_robin",
            options.hash_header, options, self.where, self.tls and self.tls.open())
      end)
      if not ok then
         error(self.where .. ": " .. result, 0)
      end
      handle = result
      self.opened[current] = handle
   end
   return handle
end

--- @param target monolake.Upstream|string|table
--- @param level integer whose line is blamed, as for error()
function build.proxy(target, level)
   if type(target) == "string" then
      target = build.upstream({ target }, level + 1)
   elseif getmetatable(target) ~= Upstream then
      target = build.upstream(target, level + 1)
   end
   local protocol = target:of_layer_4()
   if protocol then
      error(("proxy: upstream %q has the protocol %q, which is for layer 4"):format(target.name,
         protocol), level + 1)
   end
   local layer = build.layer("proxy " .. target.name, function(label)
      return core.proxy_step(target:open(), label)
   end, level + 1)
   return layer
end

local function with_protocol(protocol, options)
   local copy = { protocol = protocol }
   for name, value in pairs(options) do
      copy[name] = value
   end
   return copy
end

--- The upstream of a proxy of layer 4: the given one, or one that is made of peers and options.
local function upstream_of(what, target, protocol, level)
   if getmetatable(target) == Upstream then
      return target
   end
   target = type(target) == "string" and { target } or target
   if type(target) ~= "table" then
      error(("%s: expected an upstream, an address or a table of peers, not %s"):format(what,
         type(target)), level + 1)
   end
   local upstream = build.upstream(with_protocol(protocol, target), level + 1)
   return upstream
end

local SPLICE = { idle_timeout = "duration", total_timeout = "duration" }

--- @param target monolake.Upstream|string|table
--- @param options { idle_timeout: number|string|nil, total_timeout: number|string|nil }|nil
--- @param level integer whose line is blamed, as for error()
function build.tcp_proxy(target, options, level)
   target = upstream_of("tcp_proxy", target, "tcp", level + 1)
   if target.options.protocol == UDP then
      error(('tcp_proxy: upstream %q has the protocol "udp"'):format(target.name), level + 1)
   end
   local checked = check.options("tcp_proxy", options or {}, SPLICE, level + 1)
   local layer = build.layer("tcp_proxy " .. target.name, function(label)
      return core.tcp_proxy_step(target:open(), label, checked.idle_timeout, checked.total_timeout)
   end, level + 1, "l4")
   return layer
end

local FLOW = { idle_timeout = "duration", total_timeout = "duration", responses_max = "count" }

--- @param target monolake.Upstream|string|table
--- @param options table|nil
--- @param level integer whose line is blamed, as for error()
function build.udp_proxy(target, options, level)
   target = upstream_of("udp_proxy", target, "udp", level + 1)
   if target.options.protocol ~= UDP then
      error(('udp_proxy: upstream %q needs protocol = "udp"'):format(target.name), level + 1)
   end
   local checked = check.options("udp_proxy", options or {}, FLOW, level + 1)
   if checked.idle_timeout == 0 then
      error("udp_proxy: idle_timeout: expected more than 0: a flow has no other end", level + 1)
   end
   local layer = build.layer("udp_proxy " .. target.name, function(label)
      return core.udp_proxy_step(target:open(), label, checked.idle_timeout, checked.total_timeout,
         checked.responses_max)
   end, level + 1, "udp")
   return layer
end

-- --- Routers -----------------------------------------------------------------------------------

--- @param routes table<string, any> patterns and what answers there
function build.router(routes, level)
   if type(routes) ~= "table" or getmetatable(routes) ~= nil then
      error("router: expected a table of routes", level + 1)
   end
   local patterns, where = {}, check.where(level + 1)
   for pattern in pairs(routes) do
      if type(pattern) ~= "string" then
         error('router: a route is written ["GET /path"] = layer', level + 1)
      end
      patterns[#patterns + 1] = pattern
   end
   table.sort(patterns)
   local label = ("router, %d route%s"):format(#patterns, #patterns == 1 and "" or "s")
   local layer = build.layer(label, function(text)
      local list = {}
      for _, pattern in ipairs(patterns) do
         list[#list + 1] = pattern
         list[#list + 1] = build.chain(routes[pattern], where)
      end
      return core.router_step(list, text)
   end, level + 1)
   return layer
end

-- --- HTTP behind layer 4, detection --------------------------------------------------------------

--- Options of listeners that are about accepting connections, or about other protocols than HTTP.
local NOT_HTTP = {
   connections_max = true, connections_total_max = true, connections_per_source = true,
   source_prefix_v4 = true, source_prefix_v6 = true, accept_rate = true, accept_burst = true,
   setup_timeout = true, frame_max = true, calls_max = true, ordered_replies = true,
   flows_max = true, flow_queue_max = true, receive_buffer = true, send_buffer = true,
}

local HTTP = { chain = "any", tls = "table" }
for name, kind in pairs(option_kinds.listener) do
   HTTP[name] = not NOT_HTTP[name] and kind or nil
end

--- HTTP/2 knows windows from 64 KiB, which clients take as given at first, to 2 GiB; and a connection
--- without streams serves nobody.
local function check_h2(what, checked, level)
   local window = checked.h2_window
   if window and (window < 65535 or window >= 2 ^ 31) then
      error(("%s: h2_window: expected 65535 bytes to less than 2g, not %.0f"):format(what, window), level + 1)
   elseif checked.h2_streams_max == 0 then
      error(('%s: h2_streams_max: expected 1 or more; protocols = { "h1" } turns HTTP/2 off'):format(what),
         level + 1)
   end
end

--- @param options table
function build.http(options, level)
   local site = build.current("http", level + 1)
   local checked = check.options("http", options, HTTP, level + 1)
   check_h2("http", checked, level + 1)
   if checked.chain == nil then
      error("http: expected a chain", level + 1)
   end
   local http = setmetatable({
      label = checked.tls and "http, tls" or "http",
      kind = "l4",
      options = checked,
      where = check.where(level + 1),
      opened = setmetatable({}, { __mode = "k" }),
   }, Http)
   if checked.tls and not overrides.listen then
      http.tls, http.on_hello =
         tls.server(checked.tls, build.files_beside, tls.alpn(checked.protocols), level + 1)
   end
   table.insert(site.https, http)
   return http
end

--- The native side of it in the site that is being built.
function Http:open()
   local handle = self.opened[current]
   if not handle then
      local chain = build.chain(self.options.chain, self.where)
      handle = core.http_site(self.options, chain, self.tls, self.on_hello)
      self.opened[current] = handle
   end
   return handle
end

local DETECT = { tls = "any", http = "any", h2c = "any", other = "any", timeout = "duration" }

--- Kinds of clients in the order of enum l4_protocol of src/l4/detect.h.
local DETECTED = { "tls", "http", "h2c", "other" }

local H2C = 4 -- PROTOCOL_H2C of src/http/listener_config.h

--- HTTP that was named for clients of a kind must be able to speak with them.
local function check_detected(checked, level)
   for _, name in ipairs(DETECTED) do
      local http = getmetatable(checked[name]) == Http and checked[name]
      local secure = http and http.options.tls ~= nil
      if http and name == "tls" and not secure then
         error("detect: tls: expected HTTP that has an option tls", level + 1)
      elseif http and name ~= "tls" and secure then
         error(("detect: %s: expected HTTP without an option tls, as its clients have none"):format(name),
            level + 1)
      elseif http and name == "h2c" and bit.band(http.options.protocols or 0, H2C) == 0 then
         error('detect: h2c: expected HTTP that speaks it: protocols = { "h2c" }', level + 1)
      end
   end
end

--- @param options table
function build.detect(options, level)
   local checked = check.options("detect", options, DETECT, level + 1)
   local known = {}
   for _, name in ipairs(DETECTED) do
      known[#known + 1] = checked[name] ~= nil and name or nil
   end
   if #known == 0 then
      error("detect: expected who serves tls, http, h2c or other", level + 1)
   end
   check_detected(checked, level + 1)
   local where = check.where(level + 1)
   local layer = build.layer("detect", function(label)
      local chains = {}
      for _, name in ipairs(known) do
         chains[name] = build.chain(checked[name], where, "l4")
      end
      chains.h2c = chains.h2c or chains.http
      return core.detect_step(chains, checked.timeout or 5000, label)
   end, level + 1, "l4")
   return layer
end

-- --- Access logs -------------------------------------------------------------------------------

local ACCESS_LOG = { format = { combined = true, json = true, text = true }, path = "text" }

--- What kind of chain a format is for; json has a form for either.
local FORMAT_KINDS = { combined = "http", text = "any_l4" }

--- @param options table|string|nil
function build.access_log(options, level)
   if type(options) == "string" then
      options = { path = options }
   end
   local checked = check.options("access_log", options or {}, ACCESS_LOG, level + 1)
   local path, format = checked.path or "stdout", checked.format
   if path ~= "stdout" and path ~= "stderr" then
      path = build.beside(path)
   end
   local title = "access_log " .. path .. (format and (" (%s)"):format(format) or "")
   local layer = build.layer(title, function(label, kind)
      local usual = kind == "http" and "combined" or "text"
      return core.access_log_step(format or usual, path, label, kind ~= "http")
   end, level + 1, FORMAT_KINDS[format] or "both")
   return layer
end

-- --- Files ---------------------------------------------------------------------------------------

local FILES = { root = "text", index = "text", max_age = "duration" }

--- @param options table|string
function build.files(options, level)
   if type(options) == "string" then
      options = { root = options }
   end
   local checked = check.options("files", options, FILES, level + 1)
   local index = checked.index or "index.html"
   if not checked.root then
      error('files: expected a directory, e.g. files "public"', level + 1)
   elseif index == "" or index:find("/", 1, true) then
      error(("files: index: expected the name of a file, not %q"):format(index), level + 1)
   end
   local root = build.beside(checked.root)
   local layer = build.layer("files " .. root, function(label)
      return core.files_step(root, index, checked.max_age or -1, label)
   end, level + 1)
   return layer
end

-- --- Tunnels ---------------------------------------------------------------------------------------

local TUNNEL = { allow = "table", connect_timeout = "duration" }

--- @param options table
function build.tunnel(options, level)
   local checked = check.options("tunnel", options, TUNNEL, level + 1)
   local allow = checked.allow or {}
   if #allow == 0 then
      error('tunnel: expected where tunnels may go, e.g. allow = { "*.example.com:443" }', level + 1)
   end
   for i = 1, #allow do
      check.value("tunnel: allow", allow[i], "text", level + 1)
   end
   local layer = build.layer("tunnel to " .. table.concat(allow, ", "), function(label)
      return core.connect_step(allow, checked.connect_timeout or 5000, label)
   end, level + 1)
   return layer
end

-- --- Native layers -----------------------------------------------------------------------------

--- @param path string of a shared object
--- @param config any its configuration, handed over as JSON
function build.native(path, config, encode, level)
   path = build.beside(check.value("native", path, "text", level + 1))
   local ok, text = true, "null"
   if config ~= nil then
      ok, text = pcall(encode, config)
   end
   if not ok then
      error("native: the configuration cannot be written as JSON: " .. tostring(text), level + 1)
   end
   local layer = build.layer("native " .. path, function(label)
      return core.native_step(path, text, label)
   end, level + 1)
   return layer
end

-- --- Listeners ---------------------------------------------------------------------------------

function build.certificate(options, level)
   local certificate = tls.certificate(options, build.files_beside, "certificate", level + 1)
   return certificate
end

--- @param options table|string
function build.cidr(options, level)
   local set = cidr.set(options, build.files_beside, level + 1)
   return set
end

--- What listeners that speak no HTTP offer by ALPN; those of layer 4 what their option says.
local LISTENER_ALPN = { thrift = {} }

local LISTEN = {
   address = "any", udp = "any", allow = "any", deny = "any", chain = "any", l4 = "any",
   thrift = "any", tls = "table", proxy_protocol = "table",
}
for name, kind in pairs(option_kinds.listener) do
   LISTEN[name] = kind
end

--- Checks and compiles what says whom a listener lets in.
local function check_admission(checked, level)
   for _, name in ipairs { "allow", "deny" } do
      if checked[name] ~= nil then
         checked[name] = cidr.parts("listen: " .. name, checked[name], level + 1)
      end
   end
   for name, max in pairs { source_prefix_v4 = 32, source_prefix_v6 = 128 } do
      if (checked[name] or 0) > max then
         error(("listen: %s: expected at most %d bits, not %d"):format(name, max, checked[name]), level + 1)
      end
   end
   if checked.accept_burst and not checked.accept_rate then
      error("listen: accept_burst needs accept_rate", level + 1)
   elseif checked.accept_burst and checked.accept_burst < checked.accept_rate / 100 then
      error("listen: accept_burst: expected a hundredth of accept_rate or more, else that is never reached",
         level + 1)
   end
end

--- ":53" stands for that port of every address, of both families.
local function spread(list)
   local out = {}
   for i = 1, #list do
      local port = type(list[i]) == "string" and list[i]:match "^:(%d+)$"
      out[#out + 1] = port and "0.0.0.0:" .. port or list[i]
      out[#out + 1] = port and "[::]:" .. port
   end
   return out
end

--- What was meant by a port alone, or by one of "any address" as other programs write it.
local function suggest_port(address)
   local port = tostring(address):match "^(%d+)$" or tostring(address):match "^%*:(%d+)$"
   return port and ('; did you mean ":%s"?'):format(port) or ""
end

local function addresses_of(what, address, level)
   local list = spread(type(address) == "table" and address or { address })
   for i = 1, #list do
      if type(list[i]) ~= "string" then
         local found = type(list[i]) == "number" and list[i] or type(list[i])
         error(("listen: %s: expected a text or a list of them, not %s%s"):format(what, found,
            suggest_port(found)), level + 1)
      end
      local why = core.address_error(list[i], false)
      if not why and what == "udp" and list[i]:find "^unix:" then
         why = "is no internet address, which UDP needs"
      end
      if why then
         error(("listen: %s %q: %s%s"):format(what, list[i], why, suggest_port(list[i])), level + 1)
      end
   end
   if #list == 0 then
      error('listen: expected an address, e.g. address = "127.0.0.1:8080"', level + 1)
   end
   return list
end

--- What a listener serves, and of which kind it is: "http", "l4" or "thrift".
local function chain_of(checked, level)
   local found, kind
   for option, name in pairs { chain = "http", l4 = "l4", thrift = "thrift" } do
      if checked[option] ~= nil then
         if kind then
            error("listen: expected one chain: for HTTP (chain), for layer 4 (l4) or for Thrift (thrift)",
               level + 1)
         end
         found, kind = checked[option], name
      end
   end
   if not kind then
      error("listen: expected a chain", level + 1)
   end
   return found, kind
end

--- Those of a UDP listener bear a prefix from here on.
local function as_datagrams(addresses)
   for i = 1, #addresses do
      addresses[i] = "udp:" .. addresses[i]
   end
   return addresses
end

--- What is of connections only, and what datagrams have in its place.
local OF_STREAMS = {
   connections_max = "flows_max bounds its flows", connections_total_max = "flows_max bounds its flows",
   tunnel_idle_timeout = "idle_timeout is an option of ml.udp_proxy and conn:splice",
   half_closed_timeout = "idle_timeout is an option of ml.udp_proxy and conn:splice",
   keepalive = "idle_timeout is an option of ml.udp_proxy and conn:splice",
   ack_timeout = "idle_timeout is an option of ml.udp_proxy and conn:splice",
}

local function check_udp(checked, level)
   if checked.address ~= nil then
      error("listen: expected an address or udp, not both: these are two listeners", level + 1)
   elseif checked.l4 == nil then
      error('listen: udp needs a chain of layer 4, e.g. l4 = ml.udp_proxy "10.0.0.5:53"', level + 1)
   elseif checked.tls then
      error("listen: tls: there is none for udp", level + 1)
   elseif checked.proxy_protocol then
      error("listen: proxy_protocol: headers are not read from datagrams", level + 1)
   end
   for name, instead in pairs(OF_STREAMS) do
      if checked[name] then
         error(("listen: %s: there is none for udp; %s"):format(name, instead), level + 1)
      end
   end
end

function build.listen(options, level)
   build.current("listen", level + 1)
   if type(options) == "table" and options.server_name ~= nil then -- nginx's
      error('listen: unknown option "server_name"; hosts are told apart by ' ..
         'ml.router { ["a.example/*"] = layer }', level + 1)
   end
   local checked = check.options("listen", options, LISTEN, level + 1)
   check_h2("listen", checked, level + 1)
   local udp = checked.udp ~= nil
   if udp then
      check_udp(checked, level + 1)
   end
   local addresses = addresses_of(udp and "udp" or "address", udp and checked.udp or checked.address,
      level + 1)
   check_admission(checked, level + 1)
   if overrides.listen then
      local stand_ins = {}
      for i = 1, #addresses do
         stand_ins[i] = overrides.listen
      end
      addresses = stand_ins
   end
   addresses = udp and as_datagrams(addresses) or addresses
   local value, kind = chain_of(checked, level + 1)
   local where = check.where(level + 1)
   local server, on_hello
   if checked.tls then
      local alpn = LISTENER_ALPN[kind]
      if kind == "http" then
         alpn = tls.alpn(checked.protocols)
      end
      server, on_hello = tls.server(checked.tls, build.files_beside, alpn, level + 1)
   end
   local accept = checked.proxy_protocol and proxied.accept(checked.proxy_protocol, level + 1)
   if overrides.listen then
      server, on_hello, accept = nil, nil, nil -- specs send their requests in the clear, and by HTTP/1
      checked.protocols = nil
      checked.allow, checked.deny = nil, nil
   end
   local chain = build.chain(value, where, udp and "udp" or kind == "l4" and "l4" or "http")
   core.listener(addresses, checked, chain, where, server, on_hello, kind ~= "http" and kind or nil,
      accept and accept())
end

local LUA_MEMORY_MIN = 8 * 1048576

function build.options(options, level)
   build.current("options", level + 1)
   local checked = check.options("options", options, { grace = "duration", lua_memory_max = "bytes" },
      level + 1)
   if checked.grace then
      core.set_grace(checked.grace)
   end
   if checked.lua_memory_max then
      if checked.lua_memory_max < LUA_MEMORY_MIN then
         error("options: lua_memory_max: expected 8m or more, for the program's own Lua needs some",
            level + 1)
      end
      core.set_lua_memory_max(checked.lua_memory_max)
   end
end

function build.on_error(handler, level)
   local site = build.current("on_error", level + 1)
   check.value("on_error", handler, "function", level + 1)
   site.on_error = handler
end

return build
