--- TLS of listeners: what is agreed on, by the client's offers and the listener's options.
local t = require "spec.support"

local cjson = require "cjson"

local tls_socket = t.tls_socket

--- Listeners that answer with what a script sees of TLS; `tls` of each by name.
local LISTENERS = {
   { "plain", '{ cert = "a.pem", key = "a.key" }' },
   { "names", [[{ certificates = {
      { cert = "a.pem", key = "a.key" }, { cert = "rsa.pem", key = "rsa.key" },
      { cert = "wild.pem", key = "wild.key" }, ml.certificate { cert = "b.pem", key = "b.key" },
      { cert = "client.pem", key = "client.key", names = { "given.example" } } } }]] },
   { "strict", [[{ cert = "a.pem", key = "a.key", strict_sni = true,
      certificates = { { cert = "wild.pem", key = "wild.key" } } }]] },
   { "old", '{ cert = "a.pem", key = "a.key", max_version = "1.2" }' },
   { "new", '{ cert = "a.pem", key = "a.key", min_version = "1.3" }' },
   { "chosen", [[{ cert = "a.pem", key = "a.key", ciphers = { "chacha20-poly1305", "aes256-gcm" },
      groups = { "secp384r1", "x25519" } }]] },
   { "stapling", '{ cert = "a.pem", key = "a.key", ocsp = "a.ocsp" }' },
   { "optional", '{ cert = "a.pem", key = "a.key", client_auth = "optional", client_ca = "ca.pem" }' },
   { "required", '{ cert = "a.pem", key = "a.key", client_ca = "ca.pem" }' },
}

local function site()
   local lines = { 'local ml = require "monolake"', [[
      local function about(req)
         return ml.json { scheme = req.scheme, tls = req.tls or ml.json.null }
      end]] }
   for _, listener in ipairs(LISTENERS) do
      lines[#lines + 1] = ('ml.listen { address = "127.0.0.1:0", tls = %s, chain = { about } }')
         :format(listener[2])
   end
   lines[#lines + 1] = 'ml.listen { address = "127.0.0.1:0", chain = { about } }'
   return table.concat(lines, "\n")
end

t.on_every_tls("TLS", function(backend, library)
   local running = t.serve(function()
      return t.with_tls(backend, library, { site = site(), listeners = #LISTENERS + 1 })
   end)

   local function address(name)
      for i, listener in ipairs(LISTENERS) do
         if listener[1] == name then
            return running().addresses[i]
         end
      end
      return running().addresses[#LISTENERS + 1]
   end

   --- What the client and the script see of a connection.
   local function agree(name, options)
      local client = tls_socket.connect(address(name), options)
      local seen = cjson.decode(client:exchange("GET / HTTP/1.1\nHost: a").body)
      local agreed = client:agreed()
      client:close()
      return agreed, seen.tls, seen
   end

   --- The alert or the like that a handshake is refused with, at the latest when bytes are read.
   local function refused(name, options)
      local client, why = tls_socket.try_connect(address(name), options)
      if client then
         client:send_head "GET / HTTP/1.1\nHost: a"
         local ok
         ok, why = client:try_fill()
         assert.is_nil(ok, "it was not refused")
      end
      return why
   end

   t.it("shows what was agreed on to scripts", function()
      local agreed, tls, seen = agree "plain"
      assert.same({ version = "TLSv1.3", cipher = "TLS_AES_128_GCM_SHA256", alpn = "http/1.1",
         resumed = false, name = "a.example", certificate = "a" }, agreed)
      assert.same({ version = "TLSv1.3", cipher = "TLS_AES_128_GCM_SHA256", alpn = "http/1.1",
         name = "a.example", resumed = false }, tls)
      assert.equal("https", seen.scheme)
      agreed, tls = agree("plain", { max = "1.2" })
      assert.equal("TLSv1.2", agreed.version)
      assert.same({ version = "TLSv1.2", cipher = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
         alpn = "http/1.1", name = "a.example", resumed = false }, tls)
   end)

   t.it("is nothing on a listener without it", function()
      local client = running():connect { address = address "none" }
      assert.same({ scheme = "http", tls = cjson.null },
         cjson.decode(client:exchange("GET / HTTP/1.1\nHost: a").body))
   end)

   t.it("refuses old versions", function()
      for _, version in ipairs { "1.0", "1.1" } do
         assert.equal("tlsv1 protocol version", refused("plain", { min = version, max = version,
            ciphers = "DEFAULT:@SECLEVEL=0" }))
      end
   end)

   t.it("keeps to the versions of its options", function()
      assert.equal("TLSv1.2", agree("old").version)
      assert.equal("tlsv1 protocol version", refused("old", { min = "1.3" }))
      assert.equal("TLSv1.3", agree("new").version)
      assert.equal("tlsv1 protocol version", refused("new", { max = "1.2" }))
   end)

   t.it("agrees on HTTP/1.1, or on nothing with a client that offers nothing", function()
      assert.equal("http/1.1", agree("plain", { alpn = { "spdy/1", "http/1.1" } }).alpn)
      local agreed, tls = agree("plain", { alpn = {} })
      assert.is_nil(agreed.alpn)
      assert.is_nil(tls.alpn)
      assert.equal("tlsv1 no application protocol", refused("plain", { alpn = { "spdy/1", "other" } }))
   end)

   t.it("shows the certificate for a name", function()
      for name, certificate in pairs {
         ["a.example"] = "a", ["www.a.example"] = "a", ["A.Example"] = "a", ["x.w.example"] = "wild",
         ["b.example"] = "b", ["given.example"] = "client", ["b.example."] = "b", ["x.w.example."] = "wild",
      } do
         local agreed, tls = agree("names", { name = name, verify = false })
         assert.equal(certificate, agreed.certificate, name)
         assert.equal(name:lower():gsub("%.$", ""), tls.name)
      end
      for _, name in ipairs { "x.y.w.example", "w.example", "unknown.example", "x.b.example", false } do
         local agreed, tls = agree("names", { name = name, verify = false })
         assert.equal("a", agreed.certificate)
         assert.equal(name or nil, tls.name)
      end
   end)

   t.it("prefers ECDSA, and shows RSA to those who know nothing else", function()
      for _, version in ipairs { "1.2", "1.3" } do
         assert.equal("a", agree("names", { max = version, min = version,
            signatures = "rsa_pss_rsae_sha256:ecdsa_secp256r1_sha256" }).certificate)
         assert.equal("rsa", agree("names", { max = version, min = version,
            signatures = "rsa_pss_rsae_sha256:rsa_pkcs1_sha256" }).certificate)
      end
      assert.equal("rsa", agree("names", { max = "1.2", ciphers = "ECDHE-RSA-AES256-GCM-SHA384" })
         .certificate)
   end)

   t.it("refuses unknown names if it is told to", function()
      assert.equal("a", agree("strict").certificate)
      assert.equal("wild", agree("strict", { name = "x.w.example" }).certificate)
      for _, name in ipairs { "unknown.example", "w.example", false } do
         assert.equal("tlsv1 unrecognized name", refused("strict", { name = name, verify = false }))
      end
   end)

   t.it("keeps to the ciphers and groups of its options, in their order", function()
      assert.equal("TLS_CHACHA20_POLY1305_SHA256", agree("chosen").cipher)
      assert.equal("TLS_AES_256_GCM_SHA384", agree("chosen", { groups = "X25519",
         suites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384" }).cipher)
      assert.equal("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", agree("chosen", { max = "1.2" }).cipher)
      for _, options in ipairs { { suites = "TLS_AES_128_GCM_SHA256", min = "1.3" }, { groups = "P-256" },
         { groups = "P-256", max = "1.2" }, { ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256", max = "1.2" } } do
         assert.matches("handshake failure", refused("chosen", options))
      end
   end)

   t.it("asks for another key share if the first one does not fit", function()
      for _, listener in ipairs { "chosen", "optional" } do
         local groups = listener == "chosen" and "P-256:X25519" or "X448:P-384"
         local agreed = agree(listener, { groups = groups, min = "1.3" })
         assert.equal("a", agreed.certificate)
      end
   end)

   t.it("refuses what is weak", function()
      for _, cipher in ipairs { "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES256-SHA384", "AES128-GCM-SHA256",
         "DHE-RSA-AES128-GCM-SHA256" } do
         assert.matches("handshake failure", refused("names", { max = "1.2", ciphers = cipher }))
      end
   end)

   t.it("staples a response to who asks for it", function()
      for _, version in ipairs { "1.2", "1.3" } do
         assert.equal(t.certificates.text "a.ocsp",
            agree("stapling", { max = version, status = true }).status)
         assert.is_nil(agree("stapling", { max = version }).status)
         assert.is_nil(agree("plain", { max = version, status = true }).status)
      end
   end)

   t.it("asks for a client's certificate and tells scripts of it", function()
      for _, version in ipairs { "1.2", "1.3" } do
         for _, listener in ipairs { "optional", "required" } do
            local _, tls = agree(listener, { max = version, certificate = "client" })
            assert.equal("CN=client", tls.client.subject)
            assert.equal("CN=Spec-CA", tls.client.issuer)
            assert.matches("^%x+$", tls.client.serial)
            assert.matches("^" .. ("%x"):rep(64) .. "$", tls.client.fingerprint)
            assert.equal("email:client@example, URI:spiffe://client", tls.client.names)
         end
         local _, tls = agree("optional", { max = version })
         assert.is_nil(tls.client)
         _, tls = agree("plain", { max = version, certificate = "client" })
         assert.is_nil(tls.client)
      end
   end)

   t.it("refuses a client without a certificate, or with one that it cannot trust", function()
      local missing = { ["1.2"] = "handshake failure", ["1.3"] = "certificate required" }
      for version, alert in pairs(missing) do
         assert.matches(alert, refused("required", { max = version }))
         for _, listener in ipairs { "optional", "required" } do
            assert.equal("tlsv1 unknown ca", refused(listener, { max = version, certificate = "stranger" }))
            assert.matches("certificate expired",
               refused(listener, { max = version, certificate = "expired" }))
         end
      end
   end)
end)
