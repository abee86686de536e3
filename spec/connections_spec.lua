--- Bounds on connections to origins: who waits, for how long, in which order.
local t = require "spec.support"

t.on_both_backends("connections_max of an upstream", function(backend)
   local origin, proxy = t.proxied(backend, {
      site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", chain = ml.proxy { "${origin}", connections_max = 2 } }
         ml.listen { address = "127.0.0.1:0", chain = ml.proxy {
            "${origin}", name = "impatient", connections_max = 1, connect_timeout = "150ms",
         } }
         ml.listen { address = "127.0.0.1:0", chain = ml.proxy {
            "${origin}", "${nobody}", name = "half", connections_max = 1, retries = 0, fail_max = 1,
            fail_timeout = 60,
         } }
         ml.listen { address = "127.0.0.1:0", chain = ml.proxy {
            "${origin}", name = "narrow", connections_max = 1,
         } }
      ]],
      values = { nobody = t.socket.refusing_address() },
      listeners = 4,
   })

   local function ask(path, listener)
      local client = proxy():connect { address = proxy().addresses[listener or 1] }
      client:send_head(("GET %s HTTP/1.1\nHost: a"):format(path))
      return client
   end

   t.it("is never passed; others wait, and go in their order", function()
      local clients, upstreams = {}, {}
      for i = 1, 2 do
         clients[i] = ask("/" .. i)
         upstreams[i] = origin:accept()
         upstreams[i]:read_request()
      end
      for i = 3, 5 do
         clients[i] = ask("/" .. i)
         t.tasks.sleep(0.12) -- longer than waiters take to look for room again
      end
      assert.is_nil(origin:try_accept())
      for i = 3, 5 do
         upstreams[1]:respond(200, "done")
         assert.equal("/" .. i, upstreams[1]:read_request().target)
      end
      upstreams[1]:respond(200, "last")
      assert.equal("last", clients[5]:read_response().body)
   end)

   t.it("has room again when an origin closes a connection", function()
      local clients, upstreams = {}, {}
      for i = 1, 2 do
         clients[i] = ask("/" .. i)
         upstreams[i] = origin:accept()
         upstreams[i]:read_request()
      end
      clients[3] = ask "/3"
      upstreams[1]:respond(200, "done", "Connection: close"):close()
      local fresh = origin:accept()
      assert.equal("/3", fresh:read_request().target)
      fresh:respond(200, "done")
      assert.equal("done", clients[3]:read_response().body)
   end)

   t.it("is for who has waited longest when connections are closed behind each answer", function()
      local served, answered_at, done = 0, nil, false
      t.start_task(function()
         while true do
            local upstream = origin:accept(3600)
            served = served + 1
            answered_at = upstream:read_request().target == "/patient" and served or answered_at
            upstream:respond(200, "done", "Connection: close")
         end
      end)
      local function insist()
         local client = proxy():connect { address = proxy().addresses[4] }
         while not done do
            client:send_head "GET / HTTP/1.1\nHost: a"
            assert.equal(200, client:read_response().status)
         end
      end
      local eager = { t.start_task(insist), t.start_task(insist) }
      t.eventually("them to be served", function()
         return served > 10
      end)
      local client, asked_at = ask("/patient", 4), served
      assert.equal(200, client:read_response().status)
      done = true
      for _, task in ipairs(eager) do
         task:join(30)
      end
      assert.is_true(answered_at - asked_at < 10, ("%d others went before"):format(answered_at - asked_at))
   end)

   t.it("has room again when a tunnel ends", function()
      local tunnels = {}
      for i = 1, 2 do
         local client = proxy():connect()
         client:send_head "GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: x"
         local upstream = origin:accept()
         upstream:read_request()
         upstream:send_head "HTTP/1.1 101 Switching\nConnection: Upgrade\nUpgrade: x"
         client:read_response_head()
         tunnels[i] = { client, upstream }
      end
      local client = ask "/after"
      assert.is_true(client:silent(0.1))
      tunnels[1][1]:close()
      tunnels[1][2]:expect_close()
      tunnels[1][2]:close()
      local fresh = origin:accept()
      assert.equal("/after", fresh:read_request().target)
      fresh:respond(200, "done")
      assert.equal("done", client:read_response().body)
   end)

   t.it("is no reason to ask a peer that is down while another one is only busy", function()
      local busy = ask("/1", 3)
      local upstream = origin:accept()
      assert.equal(502, ask("/down", 3):read_response().status)
      local client = ask("/2", 3)
      assert.is_true(client:silent(0.15))
      upstream:read_request()
      upstream:respond(200, "one")
      assert.equal("one", busy:read_response().body)
      assert.equal("/2", upstream:read_request().target)
      upstream:respond(200, "two")
      assert.equal("two", client:read_response().body)
   end)

   t.it("has a queue that nobody stands in for ever", function()
      local first = ask("/1", 2)
      local upstream = origin:accept()
      upstream:read_request()
      assert.equal(503, ask("/2", 2):read_response().status)
      upstream:respond(200, "done")
      assert.equal("done", first:read_response().body)
   end)
end)
