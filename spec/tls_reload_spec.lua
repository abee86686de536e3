--- What clients of TLS meet when the site changes under them, what they cannot make of the log, and names
--- that prove nothing.
local t = require "spec.support"

local program, tls_socket = t.program, t.tls_socket

local REQUEST = "GET / HTTP/1.1\nHost: a"

local function site(tls)
   return ([[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", tls = %s, chain = { ml.text "answer" } }
]]):format(tls)
end

t.on_every_tls("a TLS port", function(backend, library)
   local function start(tls)
      return program.start(t.with_tls(backend, library, { site = site(tls) }))
   end

   t.it("that becomes one in the clear closes on who has not shaken hands yet", function()
      local running = start '{ cert = "a.pem", key = "a.key" }'
      local worker = running:workers()[1]
      local silent = running:connect()
      local open = tls_socket.connect(running.address)
      assert.equal("answer", open:exchange(REQUEST).body)
      running:write("site.lua", site "nil")
      running:reload()
      silent:try_send "\22\3\1\0\5hello"
      while silent:try_fill() do
         silent.buffer = ""
      end
      assert.is_true(silent.ended)
      assert.equal("answer", open:exchange(REQUEST).body)
      assert.equal("answer", running:connect():exchange(REQUEST).body)
      assert.same({ worker }, running:workers())
   end)

   t.it("keeps to what a handshake has agreed on while its protocols changed", function()
      local function agreeing(protocols)
         return ([[
            local ml = require "monolake"
            local known = ml.shared("known", { size = "1m" })
            ml.listen { address = "127.0.0.1:0", protocols = %s, chain = { ml.text "answer" },
               tls = { cert = "a.pem", key = "a.key", on_client_hello = function()
                  ml.log.info "a hello has come"
                  while not known:get "reloaded" do
                     ml.sleep(0.01)
                  end
               end } }
            ml.listen { address = "127.0.0.1:0", chain = { function()
               known:set("reloaded", true)
               return ml.text ""
            end } }
         ]]):format(protocols)
      end
      local running = program.start(t.with_tls(backend, library, { listeners = 2,
         site = agreeing '{ "h1", "h2" }' }))
      local body
      local client = t.start_task(function()
         body = tls_socket.connect(running.address, { alpn = { "http/1.1" } }):exchange(REQUEST).body
      end)
      running:await_log "a hello has come"
      running:write("site.lua", agreeing '{ "h2" }')
      running:reload()
      assert.equal(200, running:connect { address = running.addresses[2] }:exchange(REQUEST).status)
      client:join()
      assert.equal("answer", body)
      running:stop()
   end)

   t.it("logs no lines that clients have written", function()
      local running = start '{ cert = "a.pem", key = "a.key", strict_sni = true }'
      for _, name in ipairs { "a\nforged.example", "a/../b.example", "a\127" } do
         local client, why = tls_socket.try_connect(running.address, { name = name })
         assert.is_nil(client)
         assert.equal("tlsv1 unrecognized name", why)
      end
      running:await_log "a name that is none"
      assert.is_nil(running:log():find("forged", 1, true))
   end)
end)

t.on_both_libraries("checking what origins must prove", function(library)
   local cases = {
      ['ml.upstream { "https://127.0.0.1:1", tls = { name = "" } }'] =
         "upstream: tls: name: expected one, not an empty text",
      ['ml.upstream { "unix:/nowhere", tls = {} }'] =
         "upstream: tls: expected a name that unix:/nowhere must prove",
   }
   for code, why in pairs(cases) do
      t.it("refuses " .. code, function()
         local _, err, status, path = program.check {
            site = 'local ml = require "monolake"\n' .. code,
            arguments = { "--tls", library },
         }
         assert.equal(1, status)
         assert.equal(1, err:find(path .. ":2: " .. why, 1, true), err)
      end)
   end
end)
