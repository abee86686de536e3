--- TLS to origins: who is trusted, what is shown, and what their connections carry.
local t = require "spec.support"

local program, tls_socket = t.program, t.tls_socket

local REQUEST = "GET / HTTP/1.1\nHost: a"
local MIB = 1048576

local SITE = [[
local ml = require "monolake"
local function proxy(tls, options)
   options = options or {}
   options[1] = "https://${origin}"
   options.tls = tls
   options.fail_max = 1000000
   ml.listen { address = "127.0.0.1:0", chain = { ml.proxy(options) } }
end
proxy({ ca = "ca.pem", name = "a.example" }, { name = "trusting" })
proxy({ ca = "ca.pem", name = "a.example" }, { name = "forgetful", idle_max = 0 })
proxy({ ca = "ca.pem", name = "other.example" }, { name = "another name" })
proxy({ ca = "ca.pem" }, { name = "by address" })
proxy({ ca = "other.pem", name = "a.example" }, { name = "another authority" })
proxy({ name = "a.example" }, { name = "the system's authorities" })
proxy({ insecure = true, name = "a.example" }, { name = "insecure" })
proxy({ ca = "ca.pem", name = "a.example", cert = "client.pem", key = "client.key" }, { name = "known" })
proxy({ ca = "ca.pem", name = "a.example", min_version = "1.3" }, { name = "modern" })
proxy({ ca = "ca.pem", name = "a.example" }, { name = "hurried", connect_timeout = "200ms", retries = 0 })
proxy({ ca = "ca.pem", name = "a.example." }, { name = "absolute" })
]]
local TRUSTING, FORGETFUL, ANOTHER_NAME, BY_ADDRESS, ANOTHER_AUTHORITY, SYSTEM, INSECURE, KNOWN, MODERN,
   HURRIED, ABSOLUTE = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local COUNT = 11

t.on_every_tls("TLS to an origin", function(backend, library)
   local origin, proxy = t.proxied(backend, t.with_tls(backend, library, { site = SITE, listeners = COUNT }))
   local server = tls_socket.server { certificate = "a" }

   local function connect(listener)
      return proxy():connect { address = proxy().addresses[listener] }
   end

   --- A request that has come to the origin.
   local function under_way(listener, head, with)
      local client = connect(listener)
      client:send_head(head or REQUEST)
      local upstream = (with or server):accept(origin:accept())
      upstream:read_request_head()
      return client, upstream
   end

   --- The origin does this with each connection, beside the spec.
   local function serve(handle)
      t.start_task(function()
         while true do
            handle(origin:accept(3600))
         end
      end)
   end

   --- The origin handshakes in vain; returns the alerts that it sees.
   local function serve_in_vain(with)
      local alerts = {}
      serve(function(accepted)
         local upstream, why = with:try_accept(accepted)
         if upstream then -- in TLS 1.3 the client may find out later than the server
            why = select(2, upstream:try_fill())
            upstream:close()
         end
         alerts[#alerts + 1] = why
      end)
      return alerts
   end

   local function ask(listener)
      local client = connect(listener)
      local status = client:exchange(REQUEST).status
      client:close()
      return status
   end

   t.it("verifies the name that it was told, and sends it", function()
      for _, version in ipairs { "1.2", "1.3" } do
         local with = tls_socket.server { certificate = "a", max = version }
         local client, upstream = under_way(FORGETFUL, nil, with)
         assert.equal("a.example", upstream:agreed().name)
         assert.equal("TLSv" .. version, upstream:agreed().version)
         upstream:respond(200, "answer")
         assert.equal("answer", client:read_response().body)
      end
   end)

   t.it("leaves out the dot that makes a name absolute", function()
      local client, upstream = under_way(ABSOLUTE)
      assert.equal("a.example", upstream:agreed().name)
      upstream:respond(200, "answer")
      assert.equal("answer", client:read_response().body)
   end)

   local doubtful = {
      ["another name"] = { ANOTHER_NAME },
      ["the address alone, which is not in the certificate"] = { BY_ADDRESS },
      ["another authority"] = { ANOTHER_AUTHORITY },
      ["an authority that the system does not know"] = { SYSTEM },
      ["an expired certificate"] = { TRUSTING, "expired" },
   }
   for what, case in pairs(doubtful) do
      t.it("refuses " .. what, function()
         local alerts = serve_in_vain(tls_socket.server { certificate = case[2] or "a" })
         assert.equal(502, ask(case[1]))
         t.eventually("an alert", function()
            return alerts[1]
         end)
         for _, alert in ipairs(alerts) do
            assert.is_true(alert:find "certificate" ~= nil or alert:find "unknown ca" ~= nil, alert)
         end
      end)
   end

   t.it("logs why it refuses", function()
      local own = program.start(t.with_tls(backend, library, { site = [[
         require("monolake").listen {
            address = "127.0.0.1:0",
            chain = { require("monolake").proxy {
               "https://${origin}", tls = { ca = "other.pem", name = "a.example" } } },
         }]], values = { origin = origin.address } }))
      serve_in_vain(server)
      assert.equal(502, own:exchange(REQUEST).status)
      own:await_log "TLS handshake with the origin a.example at 127.0.0.1:%d+ failed: [^\n]*certificate"
   end)

   t.it("takes anything if it is told to, and warns of that", function()
      local client, upstream = under_way(INSECURE, nil, tls_socket.server { certificate = "expired" })
      upstream:respond(200, "answer")
      assert.equal("answer", client:read_response().body)
      proxy():await_log 'upstream "insecure" is insecure'
   end)

   t.it("shows its certificate to those who ask for it", function()
      local _, upstream = under_way(KNOWN, nil, tls_socket.server { certificate = "a", verify = true })
      assert.equal("client", upstream:agreed().certificate)
      _, upstream = under_way(FORGETFUL, nil, tls_socket.server { certificate = "a", verify = true })
      assert.is_nil(upstream:agreed().certificate)
   end)

   t.it("keeps to the versions of its options", function()
      local _, upstream = under_way(MODERN)
      assert.equal("TLSv1.3", upstream:agreed().version)
      serve_in_vain(tls_socket.server { certificate = "a", max = "1.2" })
      assert.equal(502, ask(MODERN))
   end)

   t.it("keeps connections, and resumes sessions on new ones", function()
      local client, upstream = under_way(TRUSTING)
      upstream:respond(200, "1")
      client:read_response()
      for i = 2, 5 do
         client:send_head(REQUEST)
         upstream:read_request()
         upstream:respond(200, tostring(i))
         assert.equal(tostring(i), client:read_response().body)
      end
      upstream:close()
      for _, version in ipairs { "1.2", "1.3" } do
         local with = tls_socket.server { certificate = "a", max = version }
         for _ = 1, 2 do
            client, upstream = under_way(FORGETFUL, nil, with)
            upstream:respond(200, "")
            client:read_response()
         end
         assert.is_true(upstream:agreed().resumed)
      end
   end)

   t.it("sends a request again when the kept connection was closed", function()
      for _, how in ipairs { "close", "truncate", "reset" } do
         local client, upstream = under_way(TRUSTING)
         upstream:respond(200, "first")
         client:read_response()
         upstream[how](upstream)
         client:send_head(REQUEST)
         upstream = server:accept(origin:accept())
         upstream:read_request()
         upstream:respond(200, "second")
         assert.equal("second", client:read_response().body)
         upstream:close()
      end
   end)

   t.it("carries large bodies both ways", function()
      local bytes = ("0123456789abcdef"):rep(5 * MIB / 16)
      local head = ("POST / HTTP/1.1\nHost: a\nContent-Length: %d"):format(#bytes)
      local client, upstream = under_way(FORGETFUL, head)
      local sending = t.start_task(function()
         client:send(bytes)
      end)
      assert.is_true(upstream:read(#bytes) == bytes)
      sending:join()
      sending = t.start_task(function()
         upstream:respond(200, bytes)
      end)
      assert.is_true(client:read_response().body == bytes)
      sending:join()
   end)

   t.it("carries tunnels and their ends", function()
      local client, upstream = under_way(FORGETFUL,
         "GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket")
      upstream:send_head "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket"
      assert.equal(101, client:read_response_head().status)
      client:send("ping"):half_close()
      assert.equal("ping", upstream:read_all())
      upstream:send "pong"
      upstream:close()
      assert.equal("pong", client:read_all())
   end)

   t.it("takes an end for one only if it is said", function()
      local client, upstream = under_way(FORGETFUL)
      upstream:send_head "HTTP/1.1 200 OK"
      upstream:send "all"
      upstream:close()
      assert.equal("all", client:read_response().body)

      client, upstream = under_way(FORGETFUL)
      upstream:send_head "HTTP/1.1 200 OK"
      upstream:send "half"
      client:read_response_head()
      assert.equal("half", client:read_chunk())
      upstream:truncate()
      client:expect_close() -- without the last chunk
   end)

   t.it("answers for an origin that does not speak TLS", function()
      serve(function(upstream)
         upstream:read_some()
         upstream:send "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
         upstream:close()
      end)
      assert.equal(502, ask(TRUSTING))
   end)

   t.it("limits the time of a handshake", function()
      local client = connect(HURRIED)
      local begun = t.sys.clock()
      client:send_head(REQUEST)
      origin:accept()
      local status = client:read_response().status
      assert.is_true(status == 504 or status == 502, status)
      assert.is_true(t.sys.clock() - begun < 5 * t.tasks.patience)
   end)
end)

t.on_both_libraries("checking TLS to origins", function(library)
   local cases = {
      ['ml.upstream { "https://a", "b:1" }'] = "upstream: some peers are https:// and others are not",
      ['ml.upstream { "https://a", tls = { ca = "nowhere.pem" } }'] = "upstream: tls: ca: cannot open ",
      ['ml.upstream { "https://a", tls = { ca = "a.key" } }'] = "there is no certificate in ",
      ['ml.upstream { "https://a", tls = { cert = "a.pem", key = "b.key" } }'] =
         "the private key does not belong to the certificate",
      ['ml.upstream { "https://a", tls = { insecur = true } }'] =
         'upstream: tls: unknown option "insecur"; did you mean "insecure"?',
      ['ml.upstream { "https://a", tls = { ciphers = { "rc4" } } }'] = "upstream: tls: ciphers: ",
   }
   for code, why in pairs(cases) do
      t.it("refuses " .. code, function()
         local _, err, status, path = program.check {
            site = 'local ml = require "monolake"\n' .. code,
            files = t.certificates.all(),
            arguments = { "--tls", library },
         }
         assert.equal(1, status)
         assert.equal(1, err:find(path .. ":2: ", 1, true), err)
         assert.truthy(err:find(why, 1, true), err)
      end)
   end
end)

t.on_every_tls("the system's authorities", function(backend, library)
   t.it("are read again by a reload when they have changed", function()
      local authorities = t.process.directory() .. "/authorities.pem"
      local files = t.certificates.all()
      t.process.write_file(authorities, files["other.pem"])
      local origin, server = t.socket.listen(), tls_socket.server { certificate = "a" }
      t.start_task(function()
         while true do
            local upstream = server:try_accept(origin:accept(3600))
            if upstream then
               upstream:read_request()
               upstream:respond(200, "trusted")
               upstream:close()
            end
         end
      end)
      local running = program.start(t.with_tls(backend, library, {
         prefix = { "/usr/bin/env", "SSL_CERT_FILE=" .. authorities }, values = { origin = origin.address },
         site = [[
            local ml = require "monolake"
            ml.listen { address = "127.0.0.1:0",
               chain = { ml.proxy { "https://${origin}", tls = { name = "a.example" }, name = "origin" } } }
         ]] }))
      assert.equal(502, running:exchange(REQUEST).status)
      t.process.write_file(authorities, files["ca.pem"])
      running:reload()
      assert.equal("trusted", running:exchange(REQUEST).body)
      t.process.write_file(authorities, files["other.pem"] .. "\n")
      running:reload()
      assert.equal(502, running:exchange(REQUEST).status)
      running:stop()
      origin:close()
   end)
end)
