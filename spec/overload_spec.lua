--- More requests than a worker can serve: some are told so at once, and the others do not notice.
local t = require "spec.support"
local h2 = require "spec.support.h2"

local process = t.process

t.on_both_backends("under overload", function(backend)
   local directory = process.directory()
   local origin, proxy = t.proxied(backend, {
      site = [[
         local ml = require "monolake"
         local origin = ml.proxy { "${origin}", name = "origin" }
         ml.listen { address = "127.0.0.1:0", active_max = 2, protocols = { "h1", "h2c" },
            chain = { ml.access_log "${directory}/access.log", origin } }
         ml.listen { address = "127.0.0.1:0", chain = ml.text "unbounded" }
         ml.listen { address = "127.0.0.1:0", queue_time_max = "50ms", chain = {
            function(req)
               if req.path == "/busy" then
                  ml.log.info "busy"
                  local began, file = ml.now(), nil
                  repeat
                     file = file or io.open "${directory}/go"
                  until file and ml.now() - began > 0.1
                  file:close()
               end
               return ml.text "served"
            end,
         } }
         ml.listen { address = "127.0.0.1:0", active_max = 2, protocols = { "h1", "h2c" }, chain = origin }
         ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy(ml.upstream { "${origin}", name = "bytes" }) }
      ]],
      listeners = 5,
      values = { directory = directory },
   })

   local function connect(listener)
      return proxy():connect { address = proxy().addresses[listener] }
   end

   --- A request that the origin has got and does not answer yet.
   local function hold()
      local client = connect(1)
      client:send_head "GET /held HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      upstream:read_request()
      return client, upstream
   end

   t.it("answers 503 while active_max requests are under way, and only then", function()
      local offset = #proxy():log()
      local first, first_upstream = hold()
      local second, second_upstream = hold()
      local client = connect(1)
      local refused = client:exchange "GET / HTTP/1.1\nHost: a"
      assert.equal(503, refused.status)
      assert.equal("1", refused:get "retry-after")
      assert.equal("unbounded", connect(2):exchange("GET / HTTP/1.1\nHost: a").body)
      local streams = h2.connect(proxy().addresses[1])
      assert.equal(503, streams:get("/").status)
      assert.is_nil(origin:try_accept())
      t.eventually("both to be in the access log", function()
         local _, count = process.read_file(directory .. "/access.log"):gsub('" 503 ', "")
         return count == 2
      end)
      proxy():await_log("warn [^\n]*overload: a request is answered 503: more requests are under way", offset)

      first_upstream:respond(200, "one")
      assert.equal("one", first:read_response().body)
      client:send_head "GET /again HTTP/1.1\nHost: a"
      first_upstream:read_request()
      first_upstream:respond(200, "again")
      assert.equal("again", client:read_response().body)
      second_upstream:respond(200, "two")
      assert.equal("two", second:read_response().body)
   end)

   local function switch_protocols(held)
      local upstream = origin:accept()
      upstream:read_request_head()
      held[#held + 1] = upstream:send_head(("HTTP/1.1 101 Switching Protocols\nConnection: upgrade\n" ..
         "Upgrade: websocket\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
   end

   t.it("does not count tunnels, which may be quiet for hours, as requests under way", function()
      local held, streams = {}, h2.connect(proxy().addresses[4])
      for _ = 1, 3 do
         held[#held + 1] = connect(5):send "bytes"
         held[#held + 1] = origin:accept()
         assert.equal("bytes", held[#held]:read(5))

         held[#held + 1] = connect(4):send_head(
            "GET / HTTP/1.1\nHost: a\nConnection: upgrade\nUpgrade: websocket\n" ..
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
         switch_protocols(held)
         assert.equal(101, held[#held - 1]:read_response_head().status)

         local fields = h2.get { [":method"] = "CONNECT", { "sec-websocket-version", "13" } }
         table.insert(fields, 1, { ":protocol", "websocket" })
         local id = streams:request(fields, { open = true })
         switch_protocols(held)
         assert.equal(200, streams:head(id).status)
      end
      local client = connect(4)
      client:send_head "GET / HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      upstream:read_request()
      upstream:respond(200, "served")
      assert.equal("served", client:read_response().body)
      for _, socket in ipairs(held) do
         socket:close()
      end
      streams:close()
   end)

   t.it("does not count tunnels that another process has opened either", function()
      local bytes = t.socket.listen()
      local running = t.program.start { io = backend, listeners = 2, site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", active_max = 1, chain = ml.text "served" }
         ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy(ml.upstream { "${bytes}", name = "bytes" }) }
      ]], values = { bytes = bytes.address } }
      local held = {}
      for i = 1, 4, 2 do
         held[i] = running:connect({ address = running.addresses[2] }):send "bytes"
         held[i + 1] = bytes:accept()
         assert.equal("bytes", held[i + 1]:read(5))
      end
      local new = running:upgrade()
      running:expect_end() -- all tunnels have moved
      assert.equal("served", new:exchange("GET / HTTP/1.1\nHost: a").body)
      for _, socket in ipairs(held) do
         socket:close()
      end
   end)

   t.it("answers 503 to who has waited longer than queue_time_max", function()
      local clients = {}
      for i = 1, 3 do
         clients[i] = connect(3)
         assert.equal("served", clients[i]:exchange("GET / HTTP/1.1\nHost: a").body)
      end
      local offset = #proxy():log()
      clients[1]:send_head "GET /busy HTTP/1.1\nHost: a"
      proxy():await_log("info [^\n]*busy", offset)
      clients[2]:send_head "GET /busy HTTP/1.1\nHost: a"
      clients[3]:send_head "GET /busy HTTP/1.1\nHost: a"
      process.write_file(directory .. "/go", "")
      assert.equal(200, clients[1]:read_response().status)
      local statuses = { clients[2]:read_response().status, clients[3]:read_response().status }
      table.sort(statuses)
      assert.same({ 200, 503 }, statuses)
      os.remove(directory .. "/go")
   end)
end)
