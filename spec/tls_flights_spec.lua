--- How many sends a handshake takes: one for each flight, and none where what must be said can go with
--- what comes next. The kernel counts the segments in which they arrive.
local t = require "spec.support"

local sys, tls_socket = t.sys, t.tls_socket

local SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = { ml.text "hello" },
   tls = { cert = "chain.pem", key = "a.key", ocsp = "a.ocsp" } }
ml.listen { address = "127.0.0.1:0", chain = { ml.proxy { "https://${origin}", name = "origin", idle_max = 0,
   tls = { ca = "ca.pem", name = "a.example" } } } }
]]
local REQUEST = "GET / HTTP/1.1\nHost: a"

-- A segment that was sent again on a busy machine counts, too: the best of some connections.
local ATTEMPTS = 5

t.on_every_tls("the flights of a handshake", function(backend, library)
   local origin, proxy = t.proxied(backend, t.with_tls(backend, library, { site = SITE, listeners = 2,
      files = { ["chain.pem"] = t.certificates.text "a.pem" .. t.certificates.text "ca.pem" } }))

   --- The lowest counts of segments that `connect` returns.
   local function fewest(connect)
      local best = connect()
      for _ = 2, ATTEMPTS do
         for i, count in ipairs(connect()) do
            best[i] = math.min(best[i], count)
         end
      end
      return best
   end

   --- Segments from the listener: in the handshake, and with the response.
   local function from_listener(options)
      local client = tls_socket.connect(proxy().addresses[1], options)
      local handshake = sys.data_segments_in(client.fd)
      assert.equal("hello", client:exchange(REQUEST).body)
      local all = sys.data_segments_in(client.fd)
      local session = client:session()
      client:close()
      return { handshake, all }, session
   end

   --- Segments from the upstream, with the request.
   local function from_upstream(server, resumes)
      local client = proxy():connect { address = proxy().addresses[2] }
      client:send_head(REQUEST)
      local upstream = server:accept(origin:accept())
      upstream:read_request_head()
      local all = sys.data_segments_in(upstream.fd)
      assert.equal(resumes or false, upstream:agreed().resumed)
      upstream:respond(200, "hello")
      assert.equal("hello", client:read_response().body)
      client:close()
      upstream:close()
      return { all }
   end

   t.it("of a server of TLS 1.3 are one, and tickets go with the response", function()
      assert.same({ 1, 2 }, fewest(function()
         return (from_listener { min = "1.3", status = true })
      end))
   end)

   t.it("of a server of TLS 1.2 are two", function()
      assert.same({ 2, 3 }, fewest(function()
         return (from_listener { max = "1.2", status = true })
      end))
   end)

   t.it("are no more where a session is resumed", function()
      for version, expected in pairs { ["1.2"] = { 1, 2 }, ["1.3"] = { 1, 2 } } do
         local options = { min = version, max = version }
         local _, session = from_listener(options)
         options.session = session
         assert.same(expected, fewest(function()
            return (from_listener(options))
         end), version)
      end
   end)

   t.it("are one more where the client's key share does not fit", function()
      assert.same({ 2, 3 }, fewest(function()
         return (from_listener { min = "1.3", groups = "X448:P-256" })
      end))
   end)

   t.it("of a client are two, in TLS 1.3 with the request, in TLS 1.2 before it", function()
      for version, expected in pairs { ["1.2"] = { 3 }, ["1.3"] = { 2 } } do
         assert.same(expected, fewest(function()
            -- one that cannot resume what another has begun
            return from_upstream(tls_socket.server { certificate = "a", min = version, max = version })
         end), version)
      end
   end)

   t.it("of a client that resumes are two, with the request", function()
      for _, version in ipairs { "1.2", "1.3" } do
         local server = tls_socket.server { certificate = "a", min = version, max = version }
         from_upstream(server)
         assert.same({ 2 }, fewest(function()
            return from_upstream(server, true)
         end), version)
      end
   end)
end)
