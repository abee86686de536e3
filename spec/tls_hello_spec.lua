--- on_client_hello: a script picks the certificate, may wait for it, may refuse or fail.
local t = require "spec.support"

local cjson = require "cjson"

local program, tls_socket = t.program, t.tls_socket

local SITE = [[
local ml = require "monolake"
local known = ml.certificate { cert = "b.pem", key = "b.key", names = {} }
local answers = {
   ["b.example"] = function() return known end,
   ["late.example"] = function()
      ml.sleep(0.05)
      return known
   end,
   ["loaded.example"] = function() return ml.certificate { cert = "wild.pem", key = "wild.key" } end,
   ["rsa.example"] = function() return ml.certificate { cert = "rsa.pem", key = "rsa.key" } end,
   ["bad.example"] = function() return ml.certificate { cert = "b.pem", key = "a.key" } end,
   ["refused.example"] = function() return false end,
   ["broken.example"] = function() error "on purpose" end,
   ["wrong.example"] = function() return "b.pem" end,
   ["endless.example"] = function()
      ml.log.info "waits for ever"
      ml.sleep(3600)
   end,
}
local asked
local function pick(hello)
   asked = hello
   local answer = answers[hello.name]
   return answer and answer()
end
local function about(req)
   return ml.json { asked = asked, name = req.tls.name }
end
ml.listen { address = "127.0.0.1:0", chain = { about },
   tls = { cert = "a.pem", key = "a.key", on_client_hello = pick } }
ml.listen { address = "127.0.0.1:0", chain = { about }, tls = { on_client_hello = pick } }
ml.listen { address = "127.0.0.1:0", chain = { about }, handshake_timeout = ${limit},
   tls = { cert = "a.pem", key = "a.key", on_client_hello = pick } }
]]
local WITH_DEFAULT, ALONE, HURRIED = 1, 2, 3
local LIMIT_S = 0.2 * t.tasks.patience

t.on_every_tls("on_client_hello", function(backend, library)
   local running = t.serve(function()
      return t.with_tls(backend, library, { site = SITE, listeners = 3, values = { limit = LIMIT_S } })
   end)

   local function try(listener, name, options)
      options = options or {}
      options.name, options.verify = name, false
      return tls_socket.try_connect(running().addresses[listener], options)
   end

   local function shown(listener, name, options)
      local client = assert(try(listener, name, options))
      assert.equal(200, client:exchange("GET / HTTP/1.1\nHost: a").status)
      local certificate = client:agreed().certificate
      client:close()
      return certificate
   end

   t.it("is told what the client says", function()
      for _, version in ipairs { "1.2", "1.3" } do
         local offers = { max = version, alpn = { "x/1", "http/1.1" } }
         local client = assert(try(WITH_DEFAULT, "B.Example", offers))
         assert.same({ asked = { name = "b.example", alpn = { "x/1", "http/1.1" } }, name = "b.example" },
            cjson.decode(client:exchange("GET / HTTP/1.1\nHost: a").body))
         client = assert(try(WITH_DEFAULT, false, { max = version, alpn = {} }))
         assert.same({ asked = { name = "", alpn = {} } },
            cjson.decode(client:exchange("GET / HTTP/1.1\nHost: a").body))
      end
   end)

   t.it("picks a certificate, loaded before or now, at once or later", function()
      for _, version in ipairs { "1.2", "1.3" } do
         for _, listener in ipairs { WITH_DEFAULT, ALONE } do
            assert.equal("b", shown(listener, "b.example", { max = version }))
            assert.equal("b", shown(listener, "late.example", { max = version }))
            assert.equal("wild", shown(listener, "loaded.example", { max = version }))
            assert.equal("rsa", shown(listener, "rsa.example", { max = version }))
         end
         assert.equal("a", shown(WITH_DEFAULT, "a.example", { max = version }))
         assert.equal("a", shown(WITH_DEFAULT, false, { max = version }))
      end
   end)

   t.it("is asked once when the client has to say hello again", function()
      local client = assert(try(WITH_DEFAULT, "late.example", { groups = "X448:P-256" }))
      assert.equal(200, client:exchange("GET / HTTP/1.1\nHost: a").status)
      assert.equal("b", client:agreed().certificate)
   end)

   t.it("holds up a drain until it has answered", function()
      local proxy = program.start(t.with_tls(backend, library, { site = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = { ml.text "answer" }, tls = {
   cert = "a.pem", key = "a.key",
   on_client_hello = function()
      local directory = debug.getinfo(1).source:match "@(.*)/"
      ml.log.info "asked"
      while not io.open(directory .. "/stopping") do
         ml.sleep(0.01)
      end
   end,
} }]] }))
      local handshaking = t.start_task(tls_socket.connect, proxy.address)
      proxy:await_log "asked"
      proxy.process:signal(t.sys.SIGTERM)
      proxy:await_log "stopping"
      proxy:write("stopping", "")
      local client = handshaking:join()
      assert.equal("answer", client:exchange("GET / HTTP/1.1\nHost: a").body)
      assert.equal("closed", client:expect_close())
      client:close()
      assert.is_true(proxy.process:wait(3 * t.tasks.patience), "it did not end in time")
      program.running[proxy] = nil
   end)

   t.it("refuses with nil where nothing else is configured, or with false", function()
      for _, case in ipairs { { ALONE, "a.example" }, { ALONE, false }, { ALONE, "refused.example" },
         { WITH_DEFAULT, "refused.example" } } do
         local client, why = try(case[1], case[2])
         assert.is_nil(client)
         assert.equal("tlsv1 unrecognized name", why)
      end
   end)

   t.it("refuses also those who resume", function()
      local client = assert(try(WITH_DEFAULT, "b.example"))
      client:exchange "GET / HTTP/1.1\nHost: a"
      local session = client:session()
      assert.is_true(assert(try(WITH_DEFAULT, "b.example", { session = session })):agreed().resumed)
      client = try(WITH_DEFAULT, "refused.example", { session = session })
      assert.is_nil(client)
   end)

   local failures = {
      ["broken.example"] = "site.lua:13: on purpose\nstack traceback:",
      ["wrong.example"] = "on_client_hello must return a certificate, nil or false, not a string",
      ["bad.example"] = "b.pem: the private key does not belong to the certificate",
   }
   for name, why in pairs(failures) do
      t.it("fails for " .. name .. " alone, and the log says why", function()
         local offset = #running():log()
         local client, alert = try(WITH_DEFAULT, name)
         assert.is_nil(client)
         assert.equal("tlsv1 unrecognized name", alert)
         running():await_log((why:gsub("[^%w\n]", "%%%0")), offset)
         assert.equal("b", shown(WITH_DEFAULT, "b.example"))
      end)
   end

   t.it("holds nobody else up, and is given up when the client goes", function()
      local offset = #running():log()
      local connected = running():connect { address = running().addresses[WITH_DEFAULT] }
      t.start_task(function()
         tls_socket.try_handshake(connected, { name = "endless.example" })
      end)
      running():await_log("waits for ever", offset)
      assert.equal("b", shown(WITH_DEFAULT, "b.example"))
      connected:reset()
   end)

   t.it("runs into the limit of the handshake", function()
      local begun, offset = t.sys.clock(), #running():log()
      local client, why = try(HURRIED, "endless.example")
      assert.is_nil(client)
      assert.is_true(why == "truncated" or why == "reset", why)
      local took = t.sys.clock() - begun
      assert.is_true(took > 0.9 * LIMIT_S and took < 10 * LIMIT_S, took)
      running():await_log("the request took longer than it may\nstack traceback", offset)
      assert.equal("b", shown(WITH_DEFAULT, "late.example"))
   end)
end)
