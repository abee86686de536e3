--- TLS with clients that are not ours: curl, nghttp, h2load, openssl s_client, gnutls-cli and Python's ssl
--- module.
local t = require "spec.support"

local certificates, process = t.certificates, t.process

local SITE = [[
local ml = require "monolake"
local function about(req)
   local tls = req.tls
   return ("%s %s %s"):format(tls.version, tls.alpn or "none", tls.client and tls.client.subject or "nobody")
end
local chain = { ml.router {
   ["GET /about"] = function(req) return ml.text(about(req)) end,
   ["POST /echo"] = function(req) return ml.response { body = req:body() } end,
} }
local tls = { cert = "chain.pem", key = "a.key", ocsp = "a.ocsp",
   certificates = { { cert = "rsa.pem", key = "rsa.key" }, { cert = "b.pem", key = "b.key" } } }
ml.listen { address = "127.0.0.1:0", chain = chain, tls = tls }
tls.client_ca = "ca.pem"
ml.listen { address = "127.0.0.1:0", chain = chain, tls = tls }
]]
local OPEN, DEMANDING = 1, 2

local PYTHON = [[
import socket, ssl, sys
port, ca = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=ca)
context.set_alpn_protocols(["http/1.1"])
raw = socket.create_connection(("127.0.0.1", port))
with context.wrap_socket(raw, server_hostname="a.example") as tls:
    tls.sendall(b"GET /about HTTP/1.0\r\nHost: a.example\r\n\r\n")
    data = b""
    while True:
        piece = tls.recv(65536)
        if not piece:
            break
        data += piece
    print(data.split(b"\r\n\r\n", 1)[1].decode())
]]

t.on_every_tls("clients that are not ours", function(backend, library)
   local running = t.serve(function()
      return t.with_tls(backend, library, { site = SITE, listeners = 2,
         files = {
            ["client.py"] = PYTHON,
            ["large"] = ("0123456789abcdef"):rep(60000),
            ["chain.pem"] = certificates.text "a.pem" .. certificates.text "ca.pem",
         } })
   end)

   local function port(listener)
      return running().addresses[listener]:match ":(%d+)$"
   end

   local function path(name)
      return running():path(name)
   end

   --- Runs it; @name stands for a file beside the site.
   local function run(command)
      local argv = {}
      for word in command:gmatch "%S+" do
         argv[#argv + 1] = word:gsub("@(%w[%w.]+)", path)
      end
      return process.run(argv)
   end

   local function curl(listener, target, options)
      local out, err, status = run(("curl -sS --resolve a.example:%s:127.0.0.1 --cacert @ca.pem %s " ..
         "https://a.example:%s%s"):format(port(listener), options or "", port(listener), target))
      return out, status, err
   end

   t.it("curl: versions and protocols", function()
      assert.equal("TLSv1.3 http/1.1 nobody", (curl(OPEN, "/about", "--http1.1")))
      assert.equal("TLSv1.3 h2 nobody", (curl(OPEN, "/about", "--http2")))
      assert.equal("TLSv1.3 none nobody", (curl(OPEN, "/about", "--no-alpn")))
      assert.equal("TLSv1.2 http/1.1 nobody", (curl(OPEN, "/about", "--http1.1 --tls-max 1.2")))
   end)

   t.it("curl: large bodies", function()
      for _, options in ipairs { "--http1.1", "--http2", "--http1.1 --tls-max 1.2" } do
         local out = curl(OPEN, "/echo", options .. " --data-binary @@large -H Expect:")
         assert.is_true(out == process.read_file(path "large"), options)
      end
   end)

   t.it("curl: client certificates and stapled responses", function()
      assert.equal("TLSv1.3 http/1.1 CN=client",
         (curl(DEMANDING, "/about", "--http1.1 --cert @client.pem --key @client.key")))
      local _, status = curl(DEMANDING, "/about", "--http1.1")
      assert.not_equal(0, status)
      _, status = curl(OPEN, "/about", "--cert-status")
      assert.equal(0, status)
   end)

   t.it("nghttp: HTTP/2, agreed on by ALPN", function()
      local out, err, status = run(("nghttp -v -m 20 https://127.0.0.1:%s/about"):format(port(OPEN)))
      assert.equal(0, status, err)
      local _, count = out:gsub("TLSv1.3 h2 nobody", "")
      assert.equal(20, count, out)
      out = run(("nghttp --data @large https://127.0.0.1:%s/echo"):format(port(OPEN)))
      assert.is_true(out == process.read_file(path "large"))
   end)

   t.it("h2load: HTTP/2 and HTTP/1 on many connections", function()
      local command = "h2load -n 400 -c 8 -m 16 %s --connect-to=127.0.0.1:%s https://a.example:%s/about"
      for _, options in ipairs { "", "--h1", "--tls13-ciphers=TLS_CHACHA20_POLY1305_SHA256" } do
         local out, err, status = run(command:format(options, port(OPEN), port(OPEN)))
         assert.equal(0, status, err)
         assert.matches("Application protocol: " .. (options == "--h1" and "http/1.1" or "h2"), out)
         assert.matches("400 succeeded, 0 failed, 0 errored, 0 timeout", out)
         assert.matches("TLS Protocol: TLSv1.3", out)
      end
   end)

   t.it("openssl s_client: certificate, staple, session", function()
      local out = run(("openssl s_client -connect 127.0.0.1:%s -servername a.example -CAfile @ca.pem " ..
         "-verify_return_error -status -alpn http/1.1"):format(port(OPEN)))
      assert.matches("Verify return code: 0 %(ok%)", out)
      assert.matches("OCSP Response Status: successful", out)
      assert.matches("ALPN protocol: http/1.1", out)
      assert.matches("subject=CN = a\n", out)
      assert.matches("Peer Temp Key: X25519", (out:gsub("Server Temp Key", "Peer Temp Key")))
      out = run(("openssl s_client -connect 127.0.0.1:%s -servername b.example -tls1_2"):format(port(OPEN)))
      assert.matches("subject=CN = b\n", out)
      assert.matches("Secure Renegotiation IS supported", out)
      assert.matches("Extended master secret: yes", out)
      assert.matches("Compression: NONE", out)
   end)

   t.it("gnutls-cli: certificate, staple, resumption", function()
      local command = "gnutls-cli 127.0.0.1 -p %s --sni-hostname a.example --verify-hostname a.example " ..
         "--x509cafile @ca.pem --alpn http/1.1"
      for _, priority in ipairs { "NORMAL", "NORMAL:-VERS-ALL:+VERS-TLS1.2" } do
         local out, err, status = run((command .. " --priority " .. priority):format(port(OPEN)))
         assert.equal(0, status, err)
         assert.matches("The certificate is trusted", out)
         assert.matches("Handshake was completed", out)
         assert.matches("OCSP status request", out)
      end
      command = command .. " --resume --waitresumption --priority NORMAL:-VERS-TLS1.3"
      local out = run(command:format(port(OPEN)))
      assert.matches("This is a resumed session", out)
   end)

   t.it("Python: an end that counts as one", function()
      local out, err = run(("python3 @client.py %s @ca.pem"):format(port(OPEN)))
      assert.equal("TLSv1.3 http/1.1 nobody\n", out, err)
   end)
end)
