--- What the proxy changes in messages on their way (RFC 9110 section 7, RFC 9112).
local t = require "spec.support"

local SITE = [[
   local ml = require "monolake"
   local function serve(options)
      options[1] = "${origin}"
      ml.listen { address = "127.0.0.1:0", chain = ml.proxy(options) }
   end
   serve { name = "plain" }
   serve { name = "x", x_forwarded = true }
   serve { name = "standard", forwarded = true }
   serve { name = "own host", pass_host = false }
   ml.listen { address = "127.0.0.1:0", chain = function(req)
      return ml.text(req.host .. " " .. tostring(req.headers.host))
   end }
]]

t.on_both_backends("on the way to the origin", function(backend)
   local origin, proxy = t.proxied(backend, { site = SITE, listeners = 5 })

   --- The request as the origin gets it.
   local function forwarded(head, body, listener)
      local client = proxy():connect { address = proxy().addresses[listener or 1] }
      client:send(t.head(head) .. (body or ""))
      local upstream = origin:accept()
      local request = upstream:read_request()
      upstream:respond(200, "ok")
      assert.equal("ok", client:read_response().body)
      client:close()
      upstream:close()
      return request
   end

   t.it("end-to-end fields are kept, in their order and with all their values", function()
      local request = forwarded("GET /a?b=c HTTP/1.1\nHost: a.example:8080\n" ..
         "X-One: 1\nx-two: 2\nX-One:  3 \nAccept: */*")
      assert.equal("/a?b=c", request.target)
      assert.equal("a.example:8080", request:get "host")
      assert.same({ "1", "3" }, request:all "x-one")
      local order = {}
      for _, field in ipairs(request.fields) do
         order[#order + 1] = field[1]
      end
      assert.matches("X%-One x%-two X%-One Accept", table.concat(order, " "))
   end)

   t.it("fields between client and proxy are removed, and those that Connection names", function()
      local request = forwarded([[
         GET / HTTP/1.1
         Host: a
         Connection: keep-alive, X-Private, close2
         Connection: x-other
         Keep-Alive: timeout=5
         Proxy-Connection: keep-alive
         Proxy-Authorization: Basic x
         TE: gzip
         X-Private: secret
         x-PRIVATE: secret
         X-Other: secret
         Close2: secret
         X-Public: kept
      ]])
      for _, name in ipairs { "keep-alive", "proxy-connection", "te", "x-private", "x-other", "close2" } do
         assert.same({}, request:all(name))
      end
      assert.equal("kept", request:get "x-public")
      assert.is_false(request:has("connection", "x-private"))
   end)

   t.it("Connection cannot remove what frames or routes a request", function()
      local request = forwarded("POST / HTTP/1.1\nHost: a\n" ..
         "Connection: host, content-length, via\nContent-Length: 2", "ab")
      assert.equal("a", request:get "host")
      assert.equal("2", request:get "content-length")
      assert.equal("ab", request.body)
      assert.matches("monolake%-lua", request:get "via")
   end)

   t.it("TE: trailers is asked for on the proxy's own account", function()
      local request = forwarded "GET / HTTP/1.1\nHost: a\nConnection: TE\nTE: trailers, gzip"
      assert.equal("trailers", request:get "te")
      assert.is_true(request:has("connection", "te"))
   end)

   t.it("Via tells of the proxy and the client's version, behind those before it", function()
      assert.equal("1.1 monolake-lua", forwarded("GET / HTTP/1.1\nHost: a"):get "via")
      assert.equal("1.0 monolake-lua", forwarded("GET / HTTP/1.0\nHost: a"):get "via")
      assert.equal("1.1 first, 2 second, 1.1 monolake-lua",
         forwarded("GET / HTTP/1.1\nHost: a\nVia: 1.1 first\nVia: 2 second"):get "via")
   end)

   t.it("the version is HTTP/1.1", function()
      assert.equal("1.1", forwarded("GET / HTTP/1.0\nHost: a").version)
   end)

   t.it("an absolute target overrides Host", function()
      local request = forwarded "GET http://real.example:81/p?q HTTP/1.1\nHost: forged.example"
      assert.equal("/p?q", request.target)
      assert.equal("real.example:81", request:get "host")
      assert.equal("/", forwarded("GET http://real.example HTTP/1.1\nHost: a").target)
      assert.equal("/?q", forwarded("GET http://real.example?q HTTP/1.1\nHost: a").target)
   end)

   t.it("an absolute target overrides Host for layers, too", function()
      for _, head in ipairs {
         "GET http://real.example/ HTTP/1.1\nHost: forged.example",
         "GET http://real.example/ HTTP/1.0",
      } do
         local client = proxy():connect { address = proxy().addresses[5] }
         assert.equal("real.example real.example", client:exchange(head).body)
      end
   end)

   t.it("OPTIONS * stays as it is", function()
      assert.equal("*", forwarded("OPTIONS * HTTP/1.1\nHost: a").target)
   end)

   t.it("a request for h2c is not passed on", function()
      local request = forwarded([[
         GET / HTTP/1.1
         Host: a
         Connection: Upgrade, HTTP2-Settings
         Upgrade: h2c
         HTTP2-Settings: AAMAAABkAAQAAP__
      ]])
      assert.is_nil(request:get "upgrade")
      assert.is_nil(request:get "http2-settings")
      assert.is_false(request:has("connection", "upgrade"))
   end)

   t.it("nothing is said of the client unless the site wants it", function()
      local request = forwarded("GET / HTTP/1.1\nHost: a\n" ..
         "X-Forwarded-For: 192.0.2.1\nForwarded: for=192.0.2.1")
      assert.equal("192.0.2.1", request:get "x-forwarded-for")
      assert.equal("for=192.0.2.1", request:get "forwarded")
      assert.is_nil(forwarded("GET / HTTP/1.1\nHost: a"):get "x-forwarded-for")
   end)

   t.it("X-Forwarded-* on request", function()
      local request = forwarded("GET / HTTP/1.1\nHost: a.example\nX-Forwarded-Proto: https\n" ..
         "X-Forwarded-For: 192.0.2.1", nil, 2)
      assert.equal("192.0.2.1, 127.0.0.1", request:get "x-forwarded-for")
      assert.equal("http", request:get "x-forwarded-proto")
      assert.equal("a.example", request:get "x-forwarded-host")
   end)

   t.it("Forwarded on request (RFC 7239)", function()
      local request = forwarded("GET / HTTP/1.1\nHost: a.example:80\nForwarded: for=192.0.2.1", nil, 3)
      assert.equal('for=192.0.2.1, for=127.0.0.1;proto=http;host="a.example:80"', request:get "forwarded")
   end)

   t.it("the origin's own name on request", function()
      local request = forwarded("GET / HTTP/1.1\nHost: a.example", nil, 4)
      assert.equal(origin.address, request:get "host")
   end)

   t.it("methods that nobody knows are passed on", function()
      assert.equal("PURGE", forwarded("PURGE / HTTP/1.1\nHost: a").method)
      assert.equal("M-SEARCH", forwarded("M-SEARCH / HTTP/1.1\nHost: a").method)
   end)

   t.it("a POST without a body says that it has none", function()
      assert.equal("0", forwarded("POST / HTTP/1.1\nHost: a"):get "content-length")
      assert.is_nil(forwarded("GET / HTTP/1.1\nHost: a"):get "content-length")
   end)
end)

t.on_both_backends("on the way to the client", function(backend)
   local origin, proxy = t.proxied(backend)

   local function answered(head, body, request)
      local client = proxy():connect()
      client:send_head(request or "GET / HTTP/1.1\nHost: a")
      local upstream = origin:accept()
      upstream:read_request()
      upstream:send(t.head(head) .. (body or ""))
      local response = client:read_response()
      client:close()
      upstream:close()
      return response
   end

   t.it("end-to-end fields are kept, in their order and with all their values", function()
      local response = answered("HTTP/1.1 203 Fine\nSet-Cookie: a=1\nX: y\nSet-Cookie: b=2\n" ..
         "Content-Length: 2", "ok")
      assert.equal(203, response.status)
      assert.same({ "a=1", "b=2" }, response:all "set-cookie")
      assert.equal("y", response:get "x")
   end)

   t.it("fields between proxy and origin are removed, and those that Connection names", function()
      local response = answered([[
         HTTP/1.1 200 OK
         Connection: X-Private, close
         Keep-Alive: timeout=5
         Proxy-Connection: close
         X-Private: secret
         Upgrade: h2c
         Content-Length: 0
      ]])
      for _, name in ipairs { "keep-alive", "proxy-connection", "x-private", "upgrade" } do
         assert.same({}, response:all(name))
      end
      assert.is_false(response:has("connection", "close"))
   end)

   t.it("Connection cannot remove the framing", function()
      local response = answered("HTTP/1.1 200 OK\nConnection: content-length\nContent-Length: 2", "ok")
      assert.equal("ok", response.body)
   end)

   t.it("a Date is kept, or added", function()
      local date = "Sun, 06 Nov 1994 08:49:37 GMT"
      assert.equal(date, answered("HTTP/1.1 200 OK\nContent-Length: 0\nDate: " .. date):get "date")
      assert.matches("^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$",
         answered("HTTP/1.1 200 OK\nContent-Length: 0"):get "date")
   end)

   t.it("statuses that nobody knows are passed on", function()
      assert.equal(299, answered("HTTP/1.1 299 Odd\nContent-Length: 0").status)
      assert.equal(599, answered("HTTP/1.1 599 \nContent-Length: 0").status)
   end)

   t.it("101 that nobody asked for is an error", function()
      assert.equal(502, answered("HTTP/1.1 101 Switching\nConnection: Upgrade\nUpgrade: x").status)
   end)
end)
