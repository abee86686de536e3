-- The example by the real program, in front of servers that are not ours.
local t = require "spec.support"
local tls_origin = require "spec.support.tls_origin"

describe("the passthrough example", function()
   local one, ssh, running

   setup(function()
      one, ssh = tls_origin.start "b", t.socket.listen()
      local site = t.process.read_file "examples/passthrough.lua"
      site = site:gsub("one%.example", "b.example"):gsub("127%.0%.0%.1:9443", one.address)
         :gsub("127%.0%.0%.1:22", ssh.address):gsub("127%.0%.0%.1:8443", "127.0.0.1:0")
         :gsub('"2s"', '"200ms"')
      running = t.program.start { io = "auto", site = site, files = {
         ["here.pem"] = t.certificates.text "a.pem" .. t.certificates.text "a.key",
         ["ca.pem"] = t.certificates.text "ca.pem",
      } }
   end)

   teardown(function()
      running:stop(t.sys.SIGINT)
      one:stop()
      ssh:close()
      t.process.remove_directories()
   end)

   local function curl(url)
      local port = running.address:match ":(%d+)$"
      local out, err = t.process.run { "curl", "-sS", "--cacert", running:path "ca.pem",
         "--resolve", ("a.example:%s:127.0.0.1"):format(port), "--resolve",
         ("b.example:%s:127.0.0.1"):format(port), (url:gsub("PORT", port)) }
      return out ~= "" and out or err
   end

   t.it("passes TLS through by name", function()
      assert.matches("s_server", curl "https://b.example:PORT/")
   end)

   t.it("serves the rest itself", function()
      assert.equal("hello by https\n", curl "https://a.example:PORT/")
      assert.equal("hello by http\n", curl "http://a.example:PORT/")
   end)

   t.it("takes those who say nothing to SSH", function()
      local client = running:connect()
      ssh:accept():send "SSH-2.0-server\r\n"
      assert.equal("SSH-2.0-server\r\n", client:read_until "\r\n")
   end)
end)
