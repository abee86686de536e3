--- What testssl.sh finds in the default configuration of a listener with TLS: nothing above LOW. It takes
--- some minutes, so it runs under SPEC_LOAD=full only.
local t = require "spec.support"

local cjson = require "cjson"

local SECONDS = 1500
local SEVERE = { MEDIUM = true, HIGH = true, CRITICAL = true, FATAL = true, WARN = true }
local FINDINGS_MIN = 150 -- a run that was cut short has fewer; the usual one has 168

-- What is found of other things than the program.
local EXCUSED = {
   cert_expirationStatus = "certificates of specs are valid for ten days",
   cert_notAfter = "the same",
   cert_revocation = "their authority, which a run makes for itself, has no responder and no list",
   security_headers = "what browsers may do with a page (Content-Security-Policy) is for the site to say",
   engine_problem = "the openssl command that asks lacks ciphers of GOST, which the program does not have",
}

local SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", tls = { cert = "chain.pem", key = "a.key", ocsp = "a.ocsp",
   certificates = { { cert = "rsa.pem", key = "rsa.key" } } }, chain = { ml.text "hello" } }
]]

t.on_both_libraries("testssl.sh", function(library)
   local function findings_of(address, directory)
      local path = directory .. "/findings.json"
      local out, err = t.process.run({ "testssl", "--quiet", "--color", "0", "--warnings", "off", "--nodns",
         "none", "--add-ca", directory .. "/ca.pem", "--ip", "127.0.0.1", "--jsonfile", path,
         "a.example:" .. address:match "%d+$" }, SECONDS)
      local text = t.process.read_file(path)
      assert(text ~= "", out .. err)
      return cjson.decode(text)
   end

   t.it("finds nothing above LOW", function()
      if not t.full_load then
         return pending "it takes minutes: run with SPEC_LOAD=full"
      elseif not t.process.installed "testssl" then
         return pending "apt-get install --no-install-recommends testssl.sh"
      end
      local running = t.program.start(t.with_tls("io_uring", library, { site = SITE,
         files = { ["chain.pem"] = t.certificates.text "a.pem" .. t.certificates.text "ca.pem" } }))
      local findings, severe = findings_of(running.address, running.directory), {}
      for _, one in ipairs(findings) do
         if SEVERE[one.severity] and not EXCUSED[one.id:match "^%S+"] then
            severe[#severe + 1] = ("%s %s: %s"):format(one.severity, one.id, one.finding)
         end
      end
      assert.equal("", table.concat(severe, "\n"))
      assert.is_true(#findings >= FINDINGS_MIN, #findings .. " findings only")
   end)
end)
