--- Upstreams that offer HTTP/2 and HTTP/1.1 by ALPN and take what the origin picks: our own listeners
--- are the origins, behind a relay that counts connections and leads to one or the other.
local t = require "spec.support"

local SITE = [[
local ml = require "monolake"
local tls = { cert = "a.pem", key = "a.key" }
local function answer(req)
   return ml.text(("HTTP/%.1f"):format(req.version))
end
ml.listen { address = "127.0.0.1:0", chain = { ml.proxy { "https://${origin}", name = "auto",
   protocol = "auto", fail_max = 0, retries = 0, tls = { ca = "ca.pem", name = "a.example" } } } }
ml.listen { address = "127.0.0.1:0", tls = tls, chain = answer, protocols = { "h1" } }
ml.listen { address = "127.0.0.1:0", tls = tls, chain = answer, protocols = { "h1", "h2" } }
]]
local H1, BOTH = 2, 3

t.on_every_tls("an upstream that agrees on its protocol", function(backend, library)
   local origin, proxy = t.proxied(backend, t.with_tls(backend, library, { site = SITE, listeners = 3 }))
   local relay

   --- From now on new connections lead to this listener.
   local function lead_to(listener)
      relay = relay or t.relay.start("", { listener = origin })
      relay.target = proxy().addresses[listener]
   end

   local function ask()
      local client = proxy():connect { address = proxy().addresses[1] }
      client:send_head "GET / HTTP/1.1\nHost: a.example"
      return client
   end

   local function expect(version)
      local response = ask():read_response()
      assert.equal(200, response.status)
      assert.equal(version, response.body)
   end

   --- Many first requests at once, and how many connections they took.
   local function crowd(version)
      local before, clients = #relay.pairs, {}
      for i = 1, 20 do
         clients[i] = ask()
      end
      for i = 1, 20 do
         assert.equal(version, clients[i]:read_response().body)
      end
      return #relay.pairs - before
   end

   t.it("takes h2 where it is picked, goes back to h1 and to h2 again as the origin changes", function()
      lead_to(BOTH)
      assert.equal(1, crowd "HTTP/2.0")
      expect "HTTP/2.0"
      assert.equal(1, #relay.pairs)

      relay:reset()
      lead_to(H1)
      expect "HTTP/1.1"
      local opened = #relay.pairs
      expect "HTTP/1.1" -- on the connection that is there
      assert.equal(opened, #relay.pairs)

      relay:reset()
      lead_to(BOTH)
      expect "HTTP/2.0"
      opened = #relay.pairs
      assert.equal(0, crowd "HTTP/2.0")
      assert.equal(opened, #relay.pairs)
   end)
end)

describe("an upstream with nothing to agree by", function()
   t.it("is refused, and so are PROXY headers where clients share connections", function()
      local function refusal(options)
         local _, err = t.program.check { site = ([[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = { ml.proxy { %s, protocol = "auto" } } }
]]):format(options) }
         return err
      end
      assert.matches('protocol = "auto" is agreed on by TLS', refusal '"127.0.0.1:80"', 1, true)
      assert.matches("send_proxy", refusal '"https://127.0.0.1:80", send_proxy = "v1"', 1, true)
   end)
end)
