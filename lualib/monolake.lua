--- monolake: what a site's script works with.
---
---     local ml = require "monolake"
---     local api = ml.upstream { "127.0.0.1:9001", "127.0.0.1:9002", name = "api" }
---
---     ml.listen {
---        address = "127.0.0.1:8080",
---        chain = {
---           function(req, next)
---              local res = next(req)
---              res.headers["x-served-by"] = "monolake-lua"
---              return res
---           end,
---           ml.proxy(api),
---        },
---     }
---
--- A layer is one of three things: a function `(req, next)` that returns a response, or what one of the
--- factories below has made, or a list of layers. A function may wait anywhere; it may answer by itself, go
--- on to the layers behind it by `next(req)`, more than once if need be (a body is sent again if it was
--- small, or was read by `req:body()`), or send the request to an upstream that it chooses by `req:forward`.
---
--- Layer 4, connections of any protocol, is served by chains of their own (`l4` in place of `chain`), of
--- layers `(conn, next)`, which return nothing:
---
---     ml.listen {
---        address = "127.0.0.1:3306",
---        l4 = {
---           function(conn, next)
---              if conn.ip == "192.0.2.7" then
---                 return conn:reset()
---              end
---              local connected, why = next(conn)
---           end,
---           ml.tcp_proxy { "10.0.0.5:3306", "10.0.0.6:3306", name = "db" },
---        },
---     }
---
--- They connect the connection to a peer (`next` and `conn:splice` return when that has happened);
--- what is then carried both ways costs no Lua. Nothing is carried before all layers have returned, so a
--- layer that waits behind `next` (for a log over the network, say) keeps the greeting of a server that
--- speaks first from its client for so long: such work belongs into `conn:on_close`. A connection that no
--- layer has connected is closed; an error in a layer resets it.
---
--- With `udp` in place of `address` these layers are run for each flow of datagrams, that is for what
--- one client's address and port sends to one of ours, when its first datagram has come:
---
---     local resolvers = ml.upstream { "10.0.0.5:53", "10.0.0.6:53", name = "dns", protocol = "udp" }
---     ml.listen { udp = ":53", l4 = ml.udp_proxy(resolvers, { responses_max = 1 }) }
---
--- Durations are seconds, or texts such as "250ms", "30s", "5m", "1h"; sizes are bytes, or texts such
--- as "16k", "1m".
---@module monolake

require "monolake.core" -- brings monolake.internal.* where a plain LuaJIT asks
local build = require "monolake.internal.build"
local check = require "monolake.internal.check"
local shared = require "monolake.internal.shared"
local stats = require "monolake.internal.stats"
local wait = require "monolake.internal.wait"
local Reply = require("monolake.internal.response").Reply
local base64 = require "monolake.base64"
local clock = require "monolake.clock"
local hash = require "monolake.hash"
local json = require "monolake.json"
local log = require "monolake.log"
local uri = require "monolake.uri"

---@alias monolake.Next fun(req: monolake.Request): monolake.Response
---@alias monolake.ConnNext fun(conn: monolake.Conn): true|nil, string|nil
---@alias monolake.ConnLayer fun(conn: monolake.Conn, next: monolake.ConnNext)
---@alias monolake.FlowOptions { idle_timeout: any, total_timeout: any, responses_max: integer|nil }
---@alias monolake.Layer fun(req: monolake.Request, next: monolake.Next): monolake.Response|monolake.Reply

-- Factories never end in a tail call: that would take their frame, by which errors find the line of
-- the script, off the stack.

local ml = {}

--- The program's log: the module monolake.log.
ml.log = log

--- Hashes of strings: the module monolake.hash.
ml.hash = hash

--- Base64: the module monolake.base64.
ml.base64 = base64

--- Percent-encoding: the module monolake.uri.
ml.uri = uri

--- Options beside what they belong to would be passed over in silence.
local function refuse_more(what, more, example)
   if more ~= nil then
      error(("%s: options stand in the same table: ml.%s { %s }"):format(what, what, example), 3)
   end
end

--- Serves requests at one or more addresses.
---
--- Options: `address` (a text or a list: "127.0.0.1:8080", "[::1]:0", "unix:/run/site.sock", ":8080"
--- for that port of every address) or, in its place, `udp` (the same without unix sockets),
--- `chain`, or `l4` for a chain of layer 4, or `thrift` for calls of Thrift (see below), and limits:
--- `head_timeout` (10 s), `body_timeout` (30 s, between two reads), `send_timeout` (30 s without
--- progress), `idle_timeout` (75 s),
--- `tunnel_idle_timeout` (1 h), `half_closed_timeout` (as that; of a tunnel of which one side has ended),
--- `keepalive` (60 s; of layer 4 and tunnels: TCP asks a client that is silent for so long whether it is
--- still there, and one that does not answer three times, a third of that apart, has failed; 0: never),
--- `ack_timeout` (none; of these: a client has failed that does not acknowledge bytes, or has no room for
--- them, for so long, for which the kernel has 15 minutes or any time; silent ones are then asked until it),
--- `total_timeout` (none; of a request with its answer, the tunnel that it opens included, of a connection
--- of layer 4, and of a flow of UDP), `setup_timeout` (60 s; layer 4: until its layers have connected a
--- connection to a peer), for `udp` listeners `flows_max` (16384; per worker: beyond it a new flow takes
--- the place of the oldest one whose client has said nothing since it was answered, or is refused if there is
--- none), `flow_queue_max` (16 datagrams of a flow that wait for its layers), `receive_buffer` and
--- `send_buffer` of the socket (those of the system), `request_line_max` (8k), `head_max` (32k),
--- `headers_max` (100), `body_max` (none), `requests_max` (none; per connection), `connections_max` (none;
--- per worker; the longest idle connections are closed when others wait for their places), and against
--- overload, each answered with a quick 503 and Retry-After that no layer sees: `active_max` (none; while
--- more requests, of any listener, are under way in the worker; tunnels, which may be quiet for hours, are
--- none) and `queue_time_max` (none; how long a request may have waited in the worker before anybody came
--- to it: what comes later would only make all others late). `protocols` ({ "h1", "h2" }; a list of "h1",
--- "h2", which TLS clients choose by ALPN, and "h2c", HTTP/2 in the clear for clients that know it
--- beforehand).
--- For HTTP/2: `h2_streams_max` (128 at once on a connection; 1 or more), `h2_window` (65535 bytes; how far
--- a request's body may be ahead of its reader: raise it for uploads over long ways, which go at most so
--- far per round trip; every stream may hold as much memory), and what a connection may do in 10 s before
--- it is closed with ENHANCE_YOUR_CALM: `h2_resets_max` (200 requests given up, if that is most of them),
--- `h2_faults_max` (100 stream errors), `h2_control_max` (1000 frames that carry nothing, beyond those
--- that requests and data bring with them).
---
--- Who may connect, whatever is spoken: `deny` and `allow`, each a prefix, a set (see `cidr`) or a list
--- of both. Who is in `deny` is refused, and with `allow` everybody who is not in that; their order does
--- not matter. `connections_per_source` (none) bounds the connections of one client: of one IPv4
--- address, or of one /64 of IPv6; `source_prefix_v4` (32) and `source_prefix_v6` (64) say how many bits
--- make a source. Clients that are refused get a reset before anything else is done for them, and a line
--- in the log, at most one a second. Unix sockets have no sources. Of UDP, flows are what is counted, and
--- datagrams that may begin none are dropped. Where a proxy in front sends headers (`proxy_protocol`), all
--- this is for the clients that they name, and `from` alone says who may send them.
---
--- How many: `accept_rate` (none), connections a second, of which `accept_burst` (as many as in a second)
--- may come at once, and `connections_total_max` (none). Who comes beyond these waits in the kernel's
--- queue. Of UDP, `accept_rate` counts new flows, whose datagrams are dropped where they are too many:
--- those of flows that go on are not. All of these hold for each address of the listener and count over
--- all workers; `connections_total_max` may be passed by one for each worker. Reloads change them for new
--- connections; those that came while there was no `connections_per_source` stay uncounted.
---
--- Last, `tls`:
---
---     tls = { cert = "site.pem", key = "site.key" }
---
--- Options of `tls`: `cert` (the certificate and those above it), `key` (default: in the same file),
--- `ocsp` (a response to staple, DER), `names` (that it serves; default: those in it), and further
--- ones as `certificates`, a list of such tables: which one is shown is decided by the name that a
--- client asks for (SNI), wildcards included, and by the kinds of keys that it knows, ECDSA before
--- RSA; where no name fits, by the first, or with `strict_sni` the handshake is refused. Files are PEM
--- and lie beside the script if the path is relative; the PEM text itself will do, too, but a key that a
--- script holds stays in memory, while those of files are wiped when they are loaded. Then
--- `client_auth` ("none", "optional", "required") with `client_ca`; `min_version` ("1.2"),
--- `max_version` ("1.3"), `ciphers` (of "aes128-gcm", "aes256-gcm", "chacha20-poly1305", most wanted
--- first), `groups` (of "x25519", "secp256r1", "secp384r1", "secp521r1"), `tickets` (true: sessions are
--- resumed), `library` ("openssl", "gnutls"; default: --tls), `alpn` (for layer 4: names of up to 8
--- protocols to agree on, of 31 bytes at most, most wanted first; none) and
--- `on_client_hello = function(hello) ... end`, which gets { name =, alpn = {...} }, may wait, and
--- returns a certificate (see `certificate`), nil for what the options say, or false to refuse. The
--- limit for it all is `handshake_timeout` (10 s).
---
--- A listener with `thrift = chain` serves calls of Thrift: messages of the binary (strict) and compact
--- protocols, framed or in TTHeader or Apache's THeader without transforms. A call is a request to
--- "/method", or "/Service/method" of a multiplexed service, whose method is "CALL" or "ONEWAY", whose
--- body is the encoded arguments, and which has `req.thrift`; a router routes by path. An answer with a
--- status below 300 is a reply of which the body is the encoded result; another one is an exception with
--- the body's text: 404 is UNKNOWN_METHOD, other failures are INTERNAL_ERROR; see `ml.thrift.exception`.
--- `frame_max` (16m) bounds a message, `calls_max` (32) what a connection may have unanswered, `head_max`
--- and `headers_max` a header. Replies come in the order of the calls, unless a header says that any
--- order will do or `ordered_replies` is false.
---
--- `proxy_protocol` reads who the client is from a header of the PROXY protocol (version 1 or 2) that
--- proxies in front send before all else, TLS included:
---
---     proxy_protocol = { from = { "10.0.0.0/8", "unix:" } }
---
--- Options: `from` (prefixes, and sets of `cidr`, of these proxies, "unix:" for local sockets; from others
--- nothing is read, and they are served as they are), `timeout` (5 s, to the end of the header),
--- `optional` (false: who sends none, or a malformed one, is refused; true: who sends none is served as
--- he is, after `timeout` if he says nothing at all). `req.ip`, `req.port`, logs and forwarded fields
--- follow the header, unless it is LOCAL or UNKNOWN, and so do `allow`, `deny` and
--- `connections_per_source`; the rest is in `req.proxy` or `conn.proxy`.
---@param options table
function ml.listen(options)
   build.listen(options, 2)
end

--- A set of addresses, for `allow` and `deny` of listeners and for layers: positional entries are
--- prefixes and addresses ("10.0.0.0/8", "2001:db8::/32", "192.0.2.1"; "unix:" stands for all clients at
--- unix sockets), and `file` is the name of a file with one on each line, or a list of such names. Bits
--- behind a prefix do not count ("10.1.2.3/8" is "10.0.0.0/8"; a warning says so).
---
---     local blocked = ml.cidr { "192.0.2.0/24", file = "blocked.txt" }
---     ...
---     if blocked:contains(req) then
---        return ml.text("no", { status = 403 })
---     end
---
--- IPv4 addresses that are written as IPv6 ones (::ffff:192.0.2.1) are IPv4 addresses; "::/0" is all of
--- IPv6 and nothing else. In files "#" and ";" begin comments. A file lies beside the script if its path
--- is relative and is part of the site: it is read anew at each reload, --watch looks at it, and a
--- mistake in it is an error with its line ("blocked.txt:7: ..."). A million prefixes take about 17 MB
--- (IPv4) or 26 MB (IPv6) in each worker, and a look-up less than a microsecond.
---
--- Lists can be made at any time, files can be read only while a site is loaded.
---@param options { file: string|string[]|nil }|string
---@return monolake.CidrSet
function ml.cidr(options)
   local set = build.cidr(options, 2)
   return set
end

--- A certificate for `tls.certificates` or to be returned by `on_client_hello`. Options as there: `cert`,
--- `key`, `ocsp`, `names`.
---@param options { cert: string, key: string|nil, ocsp: string|nil, names: string[]|nil }
---@return monolake.Certificate
function ml.certificate(options)
   local certificate = build.certificate(options, 2)
   return certificate
end

--- Names a group of origins. Positional entries are the peers: addresses ("127.0.0.1:80",
--- "host:80", "https://host", "unix:/path") or { address =, weight = }.
---
--- Options: `name` (default: the first peer), `balance` ("round_robin", "least_conn", "random",
--- "hash"), `hash_header` (the field to hash instead of the client's address), `connect_timeout` (5 s),
--- `response_timeout` (60 s), `read_timeout` (60 s), `send_timeout` (60 s), `idle_timeout` (60 s),
--- `keepalive` (60 s) and `ack_timeout` (none; both of layer 4 and of tunnels, as for listeners),
--- `idle_max` (64), `connections_max` (none), `retries` (2), `fail_max` (3), `fail_timeout` (10 s),
--- `forwarded` (false), `x_forwarded` (false), `pass_host` (true), `response_head_max` (64k),
--- and `tls`, which "https://" brings with it.
---
--- Names of hosts are resolved when the site is loaded, which fails if one is not known, and again when their
--- time to live is over. `retries` are for what may be sent twice: a peer that cannot be reached is passed
--- over for another, whatever the request is; one that closes without an answer is asked again, or another
--- is, if the method is idempotent (GET, PUT, DELETE, ...) and the body is at hand. A response, of 503 too,
--- and a peer that does not answer in time end it: a layer may call `next` again. After `fail_max` failures
--- in a row (unreachable, no answer, not in time, malformed; a status is none) a peer is passed over for
--- `fail_timeout`, as long as there are others. Each worker learns this for itself; nobody is asked
--- beforehand. `idle_max` unused connections are kept to each peer, and `connections_max` may be open to it,
--- both by each worker; who finds no room waits for `connect_timeout`, then gets a 503.
---
--- `x_forwarded` adds the client to X-Forwarded-For and sets X-Forwarded-Proto and -Host, `forwarded` does so
--- by RFC 7239. With `pass_host = false` the Host that is sent is the peer's address.
---
--- Options of `tls`: `ca` (a file of authorities; default: those of the system), `name` that peers must
--- prove and are asked for by (default: the host of each), `cert` and `key` to show to origins that
--- ask for them, `min_version`, `max_version`, `ciphers`, `groups`, `library` and `alpn` as for
--- listeners, and `insecure = true`, which verifies nothing and is logged. Sessions are resumed.
---
--- `protocol` is what the peers speak: "h1" (the default), or "h2", which peers by TLS must agree on
--- (ALPN) and others are known to speak, or "auto", which offers both to https:// peers and takes what
--- each one picks, also when it picks otherwise later (for WebSocket, an origin that picks h2 must speak
--- RFC 8441: choose "h1" where it does not), or "tcp", anything else, or "udp" for layer 4, or "thrift",
--- for calls of Thrift (nothing is offered by ALPN for these). Over HTTP/2 requests share connections, at
--- most `streams_max` (100) at a time on each; with `ping_interval` (none), a connection that is silent
--- for so long is asked for a sign of life, and closed if it gives none.
---
--- Calls of Thrift go out in the protocol and transport that they came in, up to `calls_max` (1) at a time
--- on a connection, matched with their replies by sequence ids of its own: raise it for origins that work
--- on more than one call of a connection. A reply may have `frame_max` (16m). `idempotent`, a list of
--- methods ("getUser", "get*"), says what may be called again where a connection broke without an answer;
--- oneway calls may; others are sent again only if nothing of them was sent.
---
--- `send_proxy` has connections to the peers begin with a header of the PROXY protocol, which says who
--- the client is, before TLS and all else: "v1", "v2", or { version = 2, tlvs = { ... } } with what else
--- is told of "alpn", "authority" (the name asked for by SNI), "ssl" (version, cipher, and common name
--- of a verified certificate), "unique_id" and "crc32c" (a checksum). What our TLS does not know is
--- passed on from a proxy in front (`proxy_protocol` of the listener). Connections are then reused for
--- the same client only (address and port); `protocol = "h2"`, "auto" and "thrift", where clients share
--- them, are refused.
---@param options table
---@return monolake.Upstream
function ml.upstream(options)
   local upstream = build.upstream(options, 2)
   return upstream
end

--- A layer that forwards requests to an upstream: one made by `upstream`, or an address or a table of
--- peers and options of which it makes one.
---@param target monolake.Upstream|string|table
---@return table layer
function ml.proxy(target, more)
   refuse_more("proxy", more, '"127.0.0.1:80", retries = 0')
   local layer = build.proxy(target, 2)
   return layer
end

--- A layer of layer 4, which connects to a peer of an upstream and carries bytes both ways until both
--- sides have ended: one made by `upstream`, or an address or a table of peers and options of which it
--- makes one with `protocol = "tcp"`. A peer that cannot be reached is passed over for others
--- (`retries`, `fail_max` and the like of the upstream). Peers by "https://" are spoken to by TLS.
---
--- Options: `idle_timeout`, after which a connection on which nothing was received is reset (default:
--- `tunnel_idle_timeout` of the listener), and `total_timeout` (none).
---@param target monolake.Upstream|string|table
---@param options { idle_timeout: number|string|nil, total_timeout: number|string|nil }|nil
---@return table layer
function ml.tcp_proxy(target, options)
   local layer = build.tcp_proxy(target, options, 2)
   return layer
end

--- A layer for `udp` listeners, which gives a flow a socket to a peer of an upstream (one that was made
--- with `protocol = "udp"`, or an address or a table of peers and options of which it makes one) and
--- carries datagrams both ways, as they are. A peer of which the network says that nobody listens
--- there has failed (`fail_max` of the upstream): its flow ends, and the client's next datagram
--- begins another. Datagrams of a flow that come together are handed on together where the kernel can
--- (UDP_GRO, UDP_SEGMENT), which saves most of their cost; they arrive, and count, as they were sent.
---
--- Options: `idle_timeout` (60 s without a datagram either way), `total_timeout` (none),
--- `responses_max` (none): the flow ends when each of the client's datagrams has had so many answers,
--- as with `responses_max = 1` for DNS; a peer that owes one at the end of the idle time has failed.
---@param target monolake.Upstream|string|table
---@param options monolake.FlowOptions|nil
---@return table layer
function ml.udp_proxy(target, options)
   local layer = build.udp_proxy(target, options, 2)
   return layer
end

--- HTTP behind layer 4: a layer of layer 4 that hands connections on to HTTP, which `detect` may choose
--- and `conn:serve` takes. All that was peeked of the client is still read by it.
---
---     ml.listen { address = ":443", l4 = function(conn, next)
---        local hello = conn:client_hello()
---        if hello and hello.name == "db.example" then
---           return next(conn)
---        end
---        conn:serve(site)
---     end }
---
--- Options: `chain`, `tls`, and the limits that `listen` has for HTTP. What is about accepting
--- connections is the listener's. At a reload its connections are closed in order, as soon as they are
--- idle.
---@param options table
---@return monolake.Http
function ml.http(options)
   local http = build.http(options, 2)
   return http
end

--- A layer of layer 4 that picks by the client's first bytes who serves it: `tls`, `http` (HTTP/1),
--- `h2c` (HTTP/2 in the clear, with prior knowledge; default: `http`) and `other`, each a layer of layer
--- 4, a function or a list of both. Clients that have said too little after `timeout` (5 s), as those do
--- that wait for the server to speak first, are other. What is not given goes on behind this layer.
---
---     ml.listen { address = ":443", l4 = ml.detect {
---        tls = ml.http { chain = site, tls = { cert = "site.pem" } },
---        http = ml.http { chain = site, protocols = { "h1", "h2c" } },
---        other = ml.tcp_proxy "127.0.0.1:22",
---     } }
---@param options { tls: any, http: any, h2c: any, other: any, timeout: number|string|nil }
---@return table layer
function ml.detect(options)
   local layer = build.detect(options, 2)
   return layer
end

--- A layer that picks what answers by method, host and path. Keys are patterns "[METHOD ][host]/path"; values
--- are layers, functions or lists of both, and what they do not answer goes on behind the router.
---
---     ml.router {
---        ["GET /healthz"] = ml.text "ok",
---        ["a.example/*"] = site_a,             -- this host, whatever port the client names
---        ["*.b.example/users/:id"] = users,    -- any host below b.example, but not b.example itself
---        ["/*"] = ml.text("no such host", { status = 421 }),
---     }
---
--- In a path ":name" matches one segment, and a final "*" or "*name" the rest, if only an empty one. The
--- order of routes does not matter, the most specific one wins: an exact host, then the longest wildcard,
--- then none; within a host, segment by segment, a literal, then ":name", then "*"; with equal paths a method
--- before none. HEAD is served by routes of GET. A path that is there for other methods only gets a 405, one
--- that nothing matches goes on behind the router: at the end of the chain that is a 404.
---
--- Paths are compared in normal form (no dot segments, no doubled slashes, decoded), and so is what
--- `req.params` has of them. `req.path`, and what is forwarded, stays as it was sent.
---@param routes table<string, any>
---@return table layer
function ml.router(routes)
   local layer = build.router(routes, 2)
   return layer
end

--- A layer that serves the files below a directory, for GET and HEAD, with entity tags, conditions and
--- ranges. What the final wildcard of a route has matched names the file, so that
--- `["/static/*"] = ml.files "public"` answers /static/a.css with public/a.css. Nothing leaves the
--- directory, by whatever spelling or symbolic link; files whose names begin with a dot are not
--- served, those below .well-known/ excepted.
---
--- Options: `root`, a directory, which lies beside the script if the path is relative; `index`, what
--- answers for a directory ("index.html"); `max_age` of Cache-Control (none is sent). A string is the
--- root. Files are sent as they are: nothing is compressed, and no `.gz` beside them is looked for.
---@param options { root: string, index: string, max_age: number|string }|string
---@return table layer
function ml.files(options, more)
   refuse_more("files", more, 'root = "public", max_age = "1h"')
   local layer = build.files(options, 2)
   return layer
end

--- A layer that writes a line to a log for every request that passes it, when the request has ended, or
--- in a chain of layer 4 for every connection. A string is the path.
---
--- Options: `path` of the log ("stdout"; or "stderr", or a file, which lies beside the script if the path is
--- relative) and `format`: "combined" as of Apache and nginx, or "json"; of connections "text" (client, time,
--- address, peer, bytes from the client, bytes from the peer, seconds, reason) or "json". To the lines of
--- requests in JSON layers can add what else is to be known: `req:log("user", name)`.
---
--- The bytes of a request are those of the body that was sent, without what frames it, in every version of
--- HTTP. Requests that are refused because their head breaks a rule or a limit reach no layer: the logs that
--- a chain begins with have them all the same, with what could be read of them. Of a tunnel (CONNECT,
--- WebSocket and other upgrades) the line is written when that has ended: its bytes are those that were sent
--- to the client, and behind what "combined" has come the bytes received from the client, the seconds that
--- it took, and why it has ended; as JSON `client_bytes` and `reason`: "ended", "idle_timeout",
--- "total_timeout", "client_failed", "peer_failed" or "cancelled".
---
--- SIGUSR1 opens the files anew. Lines that cannot be written at once (a full disk, a reader that
--- stalls) are dropped and counted in the error log; they hold nobody up.
---@param options { path: string, format: string }|string|nil
---@return table layer
function ml.access_log(options, more)
   refuse_more("access_log", more, 'path = "a.log", format = "json"')
   local layer = build.access_log(options, 2)
   return layer
end

--- A layer that answers CONNECT, of HTTP/1 and HTTP/2, with a tunnel to where the client wants to go;
--- other requests pass it. Layers before it may ask who the client is.
---
--- Options: `allow`, where tunnels may go, a list of "host:port", where the host may be "*" or begin
--- with "*." and the port may be "*"; `connect_timeout` (5 s). All else gets a 403.
---@param options { allow: string[], connect_timeout: number|string|nil }
---@return table layer
function ml.tunnel(options)
   local layer = build.tunnel(options, 2)
   return layer
end

--- A native layer from a shared object that was compiled against monolake.h. The configuration is
--- handed to it as JSON.
---@param path string
---@param config any
---@return table layer
function ml.native(path, config)
   local layer = build.native(path, config, json.encode, 2)
   return layer
end

--- Shapes the answer to a request of which a layer has failed. Without it that is a plain 500. The
--- traceback is logged in either case.
---@param handler fun(err: any, req: monolake.Request): monolake.Response|monolake.Reply
function ml.on_error(handler)
   build.on_error(handler, 2)
end

--- Options of the whole site: `grace` (30 s), how long a drain waits for requests to end, and
--- `lua_memory_max` ("1g"), what its Lua may take of memory in each worker.
---
--- A script that takes more gets an error, "not enough memory", as soon as all garbage was collected and
--- nine tenths of that are held still: its request is answered with 500, others go on. Where that much
--- stays when requests are over, for it is kept in tables that never end, the worker loads the site
--- anew, beside the present one as in a reload: no connection is lost, but what the site has kept is.
--- A site that is full again at once is loaded anew at growing distances; at the sixth time, or when
--- requests of old generations hold as much again, the worker ends within two seconds and another takes
--- its place. `ml.stats()` has `lua_memory_bytes` and `lua_memory_restarts`.
---
--- Strings, tables, functions, coroutines, cdata and buffers count; the machine code that LuaJIT makes (at
--- most 40 MiB), what the FFI gets from C's malloc, shared dictionaries and bodies that pass do
--- not. For as long as it takes to note, up to twice the bound may be held. While a reload is under way,
--- each generation has the bound for itself. Write the option before whatever needs more than 1g.
---@param options { grace: number|string|nil, lua_memory_max: number|string|nil }
function ml.options(options)
   build.options(options, 2)
end

local EXCEPTIONS = {
   unknown = 0, unknown_method = 1, invalid_message_type = 2, wrong_method_name = 3,
   bad_sequence_id = 4, missing_result = 5, internal_error = 6, protocol_error = 7,
   invalid_transform = 8, invalid_protocol = 9, unsupported_client_type = 10,
}

--- For chains of listeners with `thrift`.
ml.thrift = {}

--- The answer to a call of Thrift: a TApplicationException, in the client's protocol. Also a layer that
--- always answers with it. The kind is "internal_error" unless it is one of "unknown", "unknown_method",
--- "invalid_message_type", "wrong_method_name", "bad_sequence_id", "missing_result", "protocol_error",
--- "invalid_transform", "invalid_protocol" and "unsupported_client_type".
---@param text string
---@param kind string|nil
---@return monolake.Reply
function ml.thrift.exception(text, kind)
   if type(text) ~= "string" then
      error("thrift.exception: expected a string, not " .. type(text), 2)
   end
   local number = EXCEPTIONS[kind or "internal_error"]
   if not number then
      local names = {}
      for name in pairs(EXCEPTIONS) do
         names[#names + 1] = name
      end
      error(("thrift.exception: unknown kind %q%s"):format(tostring(kind),
         check.suggest(tostring(kind), names)), 2)
   end
   return setmetatable({ status = 500, headers = {}, body = text, exception = number }, Reply)
end

local REPLY = { status = "count", headers = "table", body = "any" }

local function reply(what, body, kind, options, level)
   options = check.options(what, options or {}, { status = "count", headers = "table" }, level + 1)
   return setmetatable({
      status = options.status or 200,
      headers = options.headers or {},
      body = body,
      kind = kind,
   }, Reply)
end

--- A plain-text response; also a layer that always answers with it.
---@param text string
---@param options { status: integer, headers: table }|nil
---@return monolake.Reply
function ml.text(text, options)
   if type(text) ~= "string" then
      error("text: expected a string, not " .. type(text), 2)
   end
   local res = reply("text", text, "text/plain; charset=utf-8", options, 2)
   return res
end

--- `ml.json(value, options)`: a JSON response; also a layer that always answers with it. Options as for
--- `ml.text`: `status`, `headers`. `ml.json.encode`, `ml.json.decode` and `ml.json.null` are those of
--- monolake.json.
ml.json = setmetatable({ encode = json.encode, decode = json.decode, null = json.null }, {
   __call = function(_, value, options)
      local ok, text = pcall(json.encode, value)
      if not ok then
         error("json: " .. tostring(text), 2)
      end
      local res = reply("json", text, "application/json", options, 2)
      return res
   end,
})

--- A response of any kind: `body` is a string or an iterator function, which is called for the next
--- piece whenever the client can take one, until it returns nil. It may wait.
---@param options { status: integer, headers: table, body: string|function }
---@return monolake.Reply
function ml.response(options)
   local checked = check.options("response", options, REPLY, 2)
   local body = checked.body or ""
   if type(body) ~= "string" and type(body) ~= "function" then
      error("response: body: expected a string or an iterator function, not " .. type(body), 2)
   end
   return setmetatable({
      status = checked.status or 200,
      headers = checked.headers or {},
      body = body,
   }, Reply)
end

--- A dictionary that all workers share: strings, numbers and booleans by key, in bounded memory.
---
---     local seen = ml.shared("seen", { size = "10m" })
---     ...
---     local count, why = seen:incr(req.ip, 1, 0, "1m")
---     if count and count > 100 then
---        return ml.text("too many", { status = 429 })
---     end
---
--- Options: `size` (1m; 64k to 64g) of its memory, which is taken as it fills, and `evict` (true: what was
--- not used for longest makes room for what is new; false: when it is full, new entries are refused). An
--- entry takes 128 bytes with up to 72 bytes of key and string, and 128 for each further 120. Key and
--- string together may have 28 KB in the smallest dictionary, 110 KB from 1m on, and a 150th of the size
--- if that is more; a key 64 KB.
---
--- It keeps what is in it over reloads and binary upgrades as long as name, size and `evict` stay; with
--- another size it begins empty, and one that the site does not name any more is gone. A worker that dies
--- in the middle of a change takes nothing along: the change has happened or it has not.
---
--- Dictionaries are named while a site is loaded; naming one again gives the same. In a plain LuaJIT
--- (monolake.test) they work alike, for that process alone, and last as long as it: begin a spec with
--- `flush`.
---@param name string at most 63 bytes
---@param options { size: integer|string|nil, evict: boolean|nil }|nil
---@return monolake.Shared
function ml.shared(name, options)
   local dict = shared.open(name, options, 2)
   return dict
end

--- What the program has counted since it was started, over all workers, those that have died included,
--- and over binary upgrades: a table of numbers, in groups where a count has kinds:
---
---     local stats = ml.stats()
---     stats.connections_open            -- 12
---     stats.responses["5xx"]            -- 3
---     stats.upstream_connects["api"]    -- 7
---
--- The names are those of `metrics` without "monolake_" and "_total". In a plain LuaJIT
--- (monolake.test) it counts what that process does.
---@return table<string, number|table<string, number>>
function ml.stats()
   return stats.gather()
end

--- A layer that answers with the counts of `stats` in the text format that Prometheus reads:
---
---     ml.listen { address = "127.0.0.1:9100", chain = ml.metrics() }
---
--- Names and meanings are in the answer's own HELP lines, and in the README. Any worker answers for all.
--- Counts start at zero with the program, and go on over binary upgrades, in which what the old program
--- still serves is counted with the rest until it has ended. Of upstreams the first 1023 names since then
--- are told apart, all others count as "(others)".
---@return monolake.Layer
function ml.metrics()
   return function()
      local res = reply("metrics", stats.text(), "text/plain; version=0.0.4; charset=utf-8", nil, 2)
      res.headers["cache-control"] = "no-store"
      return res
   end
end

--- `ml.sleep(seconds)`: suspends this request only; for a number of seconds, or "250ms".
---@param seconds number|string
ml.sleep = wait.sleep

--- Seconds since 1970-01-01 UTC, with microseconds.
---@return number
function ml.now()
   return clock.now()
end

return ml
