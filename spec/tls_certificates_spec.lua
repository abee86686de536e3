--- Certificates: what is wrong with them is told when a site is checked; reloads bring new ones.
local t = require "spec.support"

local certificates, program, sys, tls_socket = t.certificates, t.program, t.sys, t.tls_socket

local REQUEST = "GET / HTTP/1.1\nHost: a"

local function listen(tls)
   return ([[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", tls = %s, chain = { ml.text "answer" } }
]]):format(tls)
end

t.on_both_libraries("checking certificates", function(library)
   local function check(tls, site)
      local _, err, status, path = program.check {
         site = site or listen(tls),
         files = certificates.all(),
         arguments = { "--tls", library },
      }
      return status, err, path
   end

   local files = certificates.all()
   local cases = {
      ["a missing file"] = { '{ cert = "nowhere.pem" }', "listen: tls: ", "nowhere.pem: No such file" },
      ["a missing key"] = { '{ cert = "a.pem", key = "nowhere.key" }', "nowhere.key: No such file" },
      ["no key"] = { '{ cert = "a.pem" }', "listen: tls: a.pem: there is no private key in the key's file" },
      ["what is no certificate"] = { '{ cert = "site.lua", key = "a.key" }',
         "listen: tls: site.lua: there is no certificate in the chain" },
      ["a damaged certificate"] = { ('{ cert = [[%s]], key = "a.key" }')
         :format(files["a.pem"]:gsub("\n......", "\nAAAAAA", 1)),
         "listen: tls: its text: certificate 1 of the chain is damaged" },
      ["a damaged key"] = { ('{ cert = "a.pem", key = [[%s]] }')
         :format(files["a.key"]:gsub("\n......", "\nAAAAAA", 1)),
         "listen: tls: a.pem: the private key is damaged" },
      ["the key of another certificate"] = { '{ cert = "a.pem", key = "b.key" }',
         "listen: tls: a.pem: the private key does not belong to the certificate" },
      ["an encrypted key"] = { '{ cert = "a.pem", key = "encrypted.key" }',
         "listen: tls: a.pem: the private key is encrypted: store it without a passphrase" },
      ["an OCSP response about another"] = { '{ cert = "b.pem", key = "b.key", ocsp = "a.ocsp" }',
         "listen: tls: b.pem: the OCSP response cannot be used: it is about another certificate" },
      ["an OCSP response that is none"] = { '{ cert = "b.pem", key = "b.key", ocsp = "b.pem" }',
         "listen: tls: b.pem: the OCSP response cannot be used: it cannot be read" },
      ["one of a list"] = { [[{ certificates = { { cert = "a.pem", key = "a.key" },
         { cert = "b.pem", key = "a.key" } } }]],
         "listen: tls: certificates[2]: b.pem: the private key does not belong to the certificate" },
      ["none at all"] = { "{}", "listen: tls: expected cert and key, certificates or on_client_hello" },
      ["an unknown option"] = { '{ cret = "a.pem" }',
         'listen: tls: unknown option "cret"; did you mean "cert"?' },
      ["an unknown option of a certificate"] = { '{ certificates = { { cert = "a.pem", kye = "a.key" } } }',
         'listen: tls: certificates[1]: unknown option "kye"; did you mean "key"?' },
      ["an unknown version"] = { '{ cert = "a.pem", key = "a.key", min_version = "1.1" }',
         'listen: tls: min_version: ' },
      ["versions that exclude each other"] = {
         '{ cert = "a.pem", key = "a.key", min_version = "1.3", max_version = "1.2" }',
         "listen: tls: min_version is above max_version" },
      ["an unknown cipher"] = { '{ cert = "a.pem", key = "a.key", ciphers = { "rc4" } }',
         "listen: tls: ciphers: " },
      ["no cipher at all"] = { '{ cert = "a.pem", key = "a.key", ciphers = {} }',
         "listen: tls: ciphers: expected at least one" },
      ["a group twice"] = { '{ cert = "a.pem", key = "a.key", groups = { "x25519", "x25519" } }',
         'listen: tls: groups: "x25519" stands there twice' },
      ["a name that is none"] = { '{ cert = "a.pem", key = "a.key", names = { "a.example", true } }',
         'listen: tls: names: expected "a.example" or "*.example", not true' },
      ["a name that nothing matches"] = { '{ cert = "a.pem", key = "a.key", names = { "*.*.example" } }',
         'listen: tls: names: expected "a.example" or "*.example", not "*.*.example"' },
      ["a directory"] = { '{ cert = ".", key = "a.key" }', "listen: tls: cannot read ", "Is a directory" },
      ["an unknown group"] = { '{ cert = "a.pem", key = "a.key", groups = { "x25518" } }',
         'listen: tls: groups: ' },
      ["an unknown library"] = { '{ cert = "a.pem", key = "a.key", library = "gnutsl" }', '"gnutls"' },
      ["client_auth alone"] = { '{ cert = "a.pem", key = "a.key", client_auth = "optional" }',
         "listen: tls: client_auth needs client_ca" },
      ["authorities that are none"] = { '{ cert = "a.pem", key = "a.key", client_ca = "a.key" }',
         "listen: tls: there is no certificate in " },
   }
   for what, case in pairs(cases) do
      t.it("refuses " .. what, function()
         local status, err, path = check(case[1])
         assert.equal(1, status, err)
         assert.equal(1, err:find(path .. ":2: ", 1, true), err)
         for i = 2, #case do
            assert.truthy(err:find(case[i], 1, true), err)
         end
         assert.is_nil(err:find("listen: tls: listen:", 1, true))
      end)
   end

   t.it("refuses a bad one of ml.certificate where it is used or made", function()
      local status, err, path = check(nil, [[
local ml = require "monolake"
local one = ml.certificate { cert = "a.pem", key = "b.key" }
ml.listen { address = "127.0.0.1:0", tls = { certificates = { one } }, chain = {} }
]])
      assert.equal(1, status)
      assert.truthy(err:find("certificate: a.pem: the private key does not belong", 1, true), err)
      assert.equal(1, err:find(path, 1, true), err)
   end)

   t.it("only warns of an expired one", function()
      local status, err = check '{ cert = "expired.pem", key = "expired.key" }'
      assert.equal(0, status, err)
      assert.matches("listen: tls: expired.pem: the certificate has expired", err)
   end)

   t.it("is content with a good one, in a file or as a text, with its key in the same or not", function()
      local both = files["a.pem"] .. files["a.key"]
      for _, tls in ipairs { '{ cert = "a.pem", key = "a.key" }', ("{ cert = [[%s]] }"):format(both),
         ("{ cert = [[%s]], key = 'a.key' }"):format(both) } do
         local status, err = check(tls)
         assert.equal(0, status, err)
         assert.is_nil(err:find "expired")
      end
   end)
end)

t.on_every_tls("certificates", function(backend, library)
   local function start(tls, options)
      options = options or {}
      options.site = listen(tls)
      return program.start(t.with_tls(backend, library, options))
   end

   local function shown(client)
      return client:agreed().certificate
   end

   local function ask(client)
      return client:exchange(REQUEST).body
   end

   t.it("are read again at HUP, and connections stay", function()
      local running = start('{ cert = "a.pem", key = "a.key" }', { workers = 2 })
      local old = {}
      for i = 1, 6 do
         old[i] = tls_socket.connect(running.address)
         assert.equal("answer", ask(old[i]))
      end
      running:write("a.pem", certificates.text "renewed.pem")
      running:write("a.key", certificates.text "renewed.key")
      running:reload()
      for i = 1, 6 do
         local client = tls_socket.connect(running.address)
         assert.equal("renewed", shown(client))
         assert.equal("answer", ask(client))
         assert.equal("answer", ask(old[i]))
      end
   end)

   t.it("are watched", function()
      local running = start('{ cert = "a.pem", key = "a.key" }', { arguments = { "--watch" } })
      local offset = #running:log()
      running:write("a.key", certificates.text "renewed.key")
      running:write("a.pem", certificates.text "renewed.pem")
      running:await_log("generation %d+ serves", offset)
      t.eventually("the new certificate", function()
         return shown(tls_socket.connect(running.address)) == "renewed"
      end)
   end)

   t.it("stay those from before if the new ones are bad, and the log says why", function()
      local running = start '{ cert = "a.pem", key = "a.key" }'
      local old = tls_socket.connect(running.address)
      assert.equal("answer", ask(old))
      running:write("a.pem", certificates.text "renewed.pem")
      running:reload("reload failed, the old site serves on: [^\n]*site.lua:2: listen: tls: a.pem: " ..
         "the private key does not belong to the certificate")
      running:write("a.pem", "nothing")
      running:reload "reload failed, [^\n]* there is no certificate in the chain"
      os.remove(running:path "a.pem")
      running:reload "reload failed, [^\n]*a.pem: No such file"
      assert.equal("a", shown(tls_socket.connect(running.address)))
      assert.equal("answer", ask(old))
   end)

   t.it("of a worker that starts anew are those that the others have", function()
      local running = start '{ cert = "a.pem", key = "a.key" }'
      running:write("a.pem", "nothing")
      local worker = running:workers()[1]
      sys.kill(worker, sys.SIGKILL)
      t.eventually("another worker", function()
         local pids = running:workers()
         return pids[1] and pids[1] ~= worker
      end)
      assert.equal("a", shown(tls_socket.connect(running.address)))
   end)

   t.it("of a connection hold on while it handshakes during a reload", function()
      local running = start [[{ on_client_hello = function()
         local directory = debug.getinfo(1).source:match "@(.*)/"
         ml.log.info "asked"
         while not io.open(directory .. "/reloaded") do
            ml.sleep(0.01)
         end
      end, cert = "a.pem", key = "a.key" }]]
      local handshaking = t.start_task(tls_socket.connect, running.address)
      running:await_log "asked"
      running:write("a.pem", certificates.text "renewed.pem")
      running:write("a.key", certificates.text "renewed.key")
      running:reload()
      running:write("reloaded", "")
      local client = handshaking:join()
      assert.equal("a", shown(client))
      assert.equal("answer", ask(client))
   end)
end)
