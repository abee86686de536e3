--- HTTP/2 clients that break the rules: of messages (RFC 9113 section 8), of streams and of frames, and
--- those that keep them and flood us. Nothing of it reaches the origin, and other connections do not
--- notice.
local t = require "spec.support"
local h2 = require "spec.support.h2"

local SITE = [[
local ml = require "monolake"
local origin = ml.upstream { "${origin}", name = "origin" }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, h2_resets_max = 20, h2_faults_max = 20,
   h2_control_max = 50, chain = { ml.proxy(origin) } }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, h2_streams_max = 5, chain = {
   function(req)
      if req.path == "/wait" then
         ml.sleep(3600)
      elseif req.path == "/large-head" then
         return ml.text("", { headers = { ["x-large"] = ("~"):rep(60000) } })
      end
      return ml.text(req.path)
   end,
} }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, h2_control_max = 1000000000,
   send_timeout = "200ms", chain = { ml.text "hello" } }
]]

--- Requests that RFC 9113 calls malformed, by what is wrong with them.
local MALFORMED = {
   ["no :method"] = h2.get { [":method"] = false },
   ["no :scheme"] = h2.get { [":scheme"] = false },
   ["no :path"] = h2.get { [":path"] = false },
   ["no :authority and no Host"] = h2.get { [":authority"] = false },
   ["an empty :path"] = h2.get { [":path"] = "" },
   ["an empty :method"] = h2.get { [":method"] = "" },
   ["an empty :authority"] = h2.get { [":authority"] = "" },
   ["a :method that is no token"] = h2.get { [":method"] = "GE T" },
   ["a :scheme that is not HTTP's"] = h2.get { [":scheme"] = "ftp" },
   ["a :scheme with more in it"] = h2.get { [":scheme"] = "http://a/" },
   ["an absolute :path"] = h2.get { [":path"] = "http://a.example/" },
   ["a :path without a slash"] = h2.get { [":path"] = "index" },
   ["a :path with a space"] = h2.get { [":path"] = "/a b" },
   ["a :path with a fragment"] = h2.get { [":path"] = "/a#b" },
   ["a :path with a line end"] = h2.get { [":path"] = "/a\r\nx: y" },
   ["a :path with a byte above ASCII"] = h2.get { [":path"] = "/\200" },
   ["an asterisk that is not for OPTIONS"] = h2.get { [":path"] = "*" },
   ["user information"] = h2.get { [":authority"] = "user@a.example" },
   ["a :authority with a path"] = h2.get { [":authority"] = "a.example/x" },
   ["a :authority with a bad port"] = h2.get { [":authority"] = "a.example:99999" },
   ["a Host that differs"] = h2.get { { "host", "b.example" } },
   ["two Hosts"] = h2.get { [":authority"] = false, { "host", "a" }, { "host", "a" } },
   ["two :paths"] = h2.get { { ":path", "/again" } },
   ["two :methods"] = { { ":method", "GET" }, { ":method", "GET" }, { ":scheme", "http" }, { ":path", "/" },
      { ":authority", "a" } },
   ["an unknown pseudo-header field"] = { { ":method", "GET" }, { ":scheme", "http" }, { ":path", "/" },
      { ":authority", "a" }, { ":other", "x" } },
   ["a pseudo-header field of responses"] = { { ":method", "GET" }, { ":scheme", "http" }, { ":path", "/" },
      { ":authority", "a" }, { ":status", "200" } },
   ["a pseudo-header field behind others"] = { { ":method", "GET" }, { ":scheme", "http" }, { "x", "y" },
      { ":path", "/" }, { ":authority", "a" } },
   ["a name in upper case"] = h2.get { { "X-Upper", "1" } },
   ["a name with a space"] = h2.get { { "x y", "1" } },
   ["a name with a colon"] = h2.get { { "x:y", "1" } },
   ["an empty name"] = h2.get { { "", "1" } },
   ["a value with NUL"] = h2.get { { "x", "a\0b" } },
   ["a value with CR"] = h2.get { { "x", "a\rb" } },
   ["a value with LF"] = h2.get { { "x", "a\nb" } },
   ["a value that begins with a space"] = h2.get { { "x", " a" } },
   ["a value that ends with a tab"] = h2.get { { "x", "a\t" } },
   ["Connection"] = h2.get { { "connection", "close" } },
   ["Keep-Alive"] = h2.get { { "keep-alive", "timeout=5" } },
   ["Proxy-Connection"] = h2.get { { "proxy-connection", "keep-alive" } },
   ["Transfer-Encoding"] = h2.get { { "transfer-encoding", "chunked" } },
   ["Upgrade"] = h2.get { { "upgrade", "h2c" } },
   ["TE with more than trailers"] = h2.get { { "te", "gzip" } },
   ["two Content-Lengths"] = h2.post { { "content-length", "0" }, { "content-length", "0" } },
   ["a Content-Length that is no number"] = h2.post { { "content-length", "1x" } },
   ["a Content-Length and no body"] = h2.post { { "content-length", "1" } },
   ["CONNECT with a :path"] = { { ":method", "CONNECT" }, { ":authority", "a:1" }, { ":path", "/" } },
   ["CONNECT with a :scheme"] = { { ":method", "CONNECT" }, { ":authority", "a:1" }, { ":scheme", "http" } },
   ["CONNECT without a port"] = { { ":method", "CONNECT" }, { ":authority", "a" } },
   ["CONNECT without a :authority"] = { { ":method", "CONNECT" } },
}

--- Frames that end the connection: the code that RFC 9113 asks for, and what to send.
local FATAL = {
   ["DATA on stream 0"] = { h2.PROTOCOL_ERROR, h2.frame(h2.DATA, 0, 0, "x") },
   ["HEADERS on stream 0"] = { h2.PROTOCOL_ERROR, h2.frame(h2.HEADERS, 5, 0, h2.block(h2.get())) },
   ["HEADERS on an even stream"] = { h2.PROTOCOL_ERROR, h2.frame(h2.HEADERS, 5, 2, h2.block(h2.get())) },
   ["DATA on an idle stream"] = { h2.PROTOCOL_ERROR, h2.frame(h2.DATA, 0, 1, "x") },
   ["RST_STREAM on an idle stream"] = { h2.PROTOCOL_ERROR, h2.frame(h2.RST_STREAM, 0, 1, h2.u32(8)) },
   ["WINDOW_UPDATE on an idle stream"] =
      { h2.PROTOCOL_ERROR, h2.frame(h2.WINDOW_UPDATE, 0, 1, h2.u32(8)) },
   ["WINDOW_UPDATE of 0"] = { h2.PROTOCOL_ERROR, h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.u32(0)) },
   ["a window too large"] = { h2.FLOW_CONTROL_ERROR, h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.u32(2 ^ 31 - 1)) },
   ["a frame too large"] = { h2.FRAME_SIZE_ERROR, h2.frame(h2.DATA, 0, 1, ("x"):rep(16385)) },
   ["PING of 7 bytes"] = { h2.FRAME_SIZE_ERROR, h2.frame(h2.PING, 0, 0, "1234567") },
   ["PING on a stream"] = { h2.PROTOCOL_ERROR, h2.frame(h2.PING, 0, 1, "12345678") },
   ["SETTINGS of 5 bytes"] = { h2.FRAME_SIZE_ERROR, h2.frame(h2.SETTINGS, 0, 0, "12345") },
   ["SETTINGS on a stream"] = { h2.PROTOCOL_ERROR, h2.frame(h2.SETTINGS, 0, 1, "") },
   ["SETTINGS that acknowledge something"] = { h2.FRAME_SIZE_ERROR, h2.frame(h2.SETTINGS, 1, 0, "123456") },
   ["a window setting too large"] =
      { h2.FLOW_CONTROL_ERROR, h2.frame(h2.SETTINGS, 0, 0, h2.settings { [4] = 2 ^ 31 }) },
   ["a frame size setting too small"] =
      { h2.PROTOCOL_ERROR, h2.frame(h2.SETTINGS, 0, 0, h2.settings { [5] = 100 }) },
   ["a push setting of 2"] = { h2.PROTOCOL_ERROR, h2.frame(h2.SETTINGS, 0, 0, h2.settings { [2] = 2 }) },
   ["PUSH_PROMISE"] = { h2.PROTOCOL_ERROR, h2.frame(h2.PUSH_PROMISE, 4, 1, h2.u32(2)) },
   ["CONTINUATION without HEADERS"] = { h2.PROTOCOL_ERROR, h2.frame(h2.CONTINUATION, 4, 1, "") },
   ["another frame inside a head"] = { h2.PROTOCOL_ERROR, h2.frame(h2.HEADERS, 1, 1, h2.block(h2.get())) ..
      h2.frame(h2.PING, 0, 0, "12345678") },
   ["a field section that cannot be decoded"] =
      { h2.COMPRESSION_ERROR, h2.frame(h2.HEADERS, 5, 1, "\255\255\255") },
   ["a table larger than allowed"] =
      { h2.COMPRESSION_ERROR, h2.frame(h2.HEADERS, 5, 1, h2.integer(32, 5, 4097) .. h2.block(h2.get())) },
   ["a table size in the middle of a field section"] =
      { h2.COMPRESSION_ERROR, h2.frame(h2.HEADERS, 5, 1, h2.block(h2.get()) .. "\32") },
   ["a field of index 0"] = { h2.COMPRESSION_ERROR, h2.frame(h2.HEADERS, 5, 1, "\128") },
   ["a field of an index that is not there"] = { h2.COMPRESSION_ERROR, h2.frame(h2.HEADERS, 5, 1, "\190") },
   ["a number of HPACK too large"] =
      { h2.COMPRESSION_ERROR, h2.frame(h2.HEADERS, 5, 1, "\255\255\255\255\255\255\255\255\127") },
   ["a Huffman code that ends in the middle"] =
      { h2.COMPRESSION_ERROR, h2.frame(h2.HEADERS, 5, 1, "\0\1x\129\0") },
   ["RST_STREAM of 3 bytes"] = { h2.FRAME_SIZE_ERROR, h2.frame(h2.RST_STREAM, 0, 1, "123") },
   ["RST_STREAM on stream 0"] = { h2.PROTOCOL_ERROR, h2.frame(h2.RST_STREAM, 0, 0, h2.u32(8)) },
   ["WINDOW_UPDATE of 3 bytes"] = { h2.FRAME_SIZE_ERROR, h2.frame(h2.WINDOW_UPDATE, 0, 0, "123") },
   ["WINDOW_UPDATE of 0 on a stream"] = { h2.PROTOCOL_ERROR,
      h2.frame(h2.HEADERS, 4, 1, h2.block(h2.post())) .. h2.frame(h2.WINDOW_UPDATE, 0, 1, h2.u32(0)) },
   ["PRIORITY of 4 bytes"] = { h2.FRAME_SIZE_ERROR, h2.frame(h2.PRIORITY, 0, 1, h2.u32(0)) },
   ["PRIORITY that depends on itself"] = { h2.PROTOCOL_ERROR,
      h2.frame(h2.PRIORITY, 0, 1, h2.u32(1) .. "\1") },
   ["PRIORITY on stream 0"] = { h2.PROTOCOL_ERROR, h2.frame(h2.PRIORITY, 0, 0, h2.u32(0) .. "\1") },
   ["GOAWAY on a stream"] = { h2.PROTOCOL_ERROR, h2.frame(h2.GOAWAY, 0, 1, h2.u32(0) .. h2.u32(0)) },
   ["a head too large for a frame"] = { h2.FRAME_SIZE_ERROR, h2.frame(h2.HEADERS, 5, 1, ("x"):rep(16385)) },
   ["padding longer than the frame"] =
      { h2.PROTOCOL_ERROR, h2.frame(h2.HEADERS, 5 + 8, 1, "\255" .. h2.block(h2.get())) },
   ["a stream number below the last"] = { h2.PROTOCOL_ERROR, h2.frame(h2.HEADERS, 5, 5, h2.block(h2.get())) ..
      h2.frame(h2.HEADERS, 5, 3, h2.block(h2.get())) },
}

local function sorted(set)
   local names = {}
   for name in pairs(set) do
      names[#names + 1] = name
   end
   table.sort(names)
   return names
end

t.on_both_backends("an HTTP/2 client that breaks the rules", function(backend)
   local origin, proxy = t.proxied(backend, { site = SITE, listeners = 3 })

   local function connect(listener, options)
      return h2.connect(proxy().addresses[listener or 2], options)
   end

   t.it("has malformed requests reset, and those alone", function()
      for _, name in ipairs(sorted(MALFORMED)) do
         local client = h2.connect(proxy().addresses[1])
         local id = client:request(MALFORMED[name])
         if client:reset_of(id) ~= h2.PROTOCOL_ERROR then
            local stream = client:stream(id)
            error(("%s: reset %s, status %s, goaway %s"):format(name, tostring(stream.reset),
               tostring(stream.status), tostring(client.goaway)), 0)
         end
         assert.is_true(client:sync(), name)
         client:close()
      end
      assert.is_nil(origin:try_accept())
      proxy():await_log "request of 127.0.0.1:%d+ is refused: its HTTP/2 fields break a rule"
   end)

   t.it("has well-formed oddities served", function()
      for path, fields in pairs {
         ["/only-host"] = h2.get { [":authority"] = false, { "host", "a" } },
         ["/same-host"] = h2.get { { "host", "A.Example" } },
         ["/te"] = h2.get { { "te", "trailers" } },
         ["/https"] = h2.get { [":scheme"] = "https" },
         ["/empty-value"] = h2.get { { "x", "" } },
         ["/length"] = h2.post { { "content-length", "0" } },
         ["/obs"] = h2.get { { "x", "\228" } },
      } do
         for _, field in ipairs(fields) do
            field[2] = field[1] == ":path" and path or field[2]
         end
         local client = connect()
         local response = client:response(client:request(fields))
         assert.equal(200, response.status, path)
         assert.equal(path, response.body)
      end
      local response = connect():get("*", { [":method"] = "OPTIONS" })
      assert.equal("*", response.body)
   end)

   t.it("has a body reset that is not as long as declared", function()
      for _, bytes in ipairs { "1234", "123456" } do
         local client = h2.connect(proxy().addresses[1])
         local id = client:request(h2.post { { "content-length", "5" } }, { open = true })
         client:data(id, bytes, true)
         assert.equal(h2.PROTOCOL_ERROR, client:reset_of(id))
      end
      origin:drop_pending()
   end)

   t.it("has trailers with pseudo-header fields reset", function()
      local client = connect()
      local id = client:request(h2.post { [":path"] = "/wait" }, { open = true })
      client:frame(h2.HEADERS, h2.END_HEADERS + h2.END_STREAM, id, h2.block { { ":path", "/" } })
      assert.equal(h2.PROTOCOL_ERROR, client:reset_of(id))
   end)

   t.it("loses the connection over what concerns it as a whole", function()
      for _, name in ipairs(sorted(FATAL)) do
         local client = connect()
         client:send(FATAL[name][2])
         assert.equal(FATAL[name][1], client:close_code(), name)
         client:close()
      end
   end)

   t.it("has a stream reset over what concerns that alone", function()
      local client = connect()
      local id = client:request(h2.post { [":path"] = "/wait" }, { open = true })
      client:frame(h2.WINDOW_UPDATE, 0, id, h2.u32(2 ^ 31 - 1))
      assert.equal(h2.FLOW_CONTROL_ERROR, client:reset_of(id))
      assert.equal("/after", client:get("/after").body)
   end)

   t.it("may not send more than its window", function()
      local client = connect()
      local id = client:request(h2.post { [":path"] = "/wait" }, { open = true })
      for _ = 1, 5 do
         client:data(id, ("x"):rep(16384))
      end
      client:pump(function() return client.goaway or client:stream(id).reset end)
      assert.equal(h2.FLOW_CONTROL_ERROR, client.goaway or client:stream(id).reset)
   end)

   t.it("has its settings and pings acknowledged, unknown ones too", function()
      local client = connect(2, { settings = { [h2.MAX_FRAME_SIZE] = 100000, [0x99] = 1 } })
      client:pump(function() return client.acknowledged end)
      client:frame(h2.PING, 0, 0, "\0abcdefg")
      local frame = client:read_frame()
      assert.same({ kind = h2.PING, flags = h2.ACK, stream = 0, payload = "\0abcdefg" }, frame)
   end)

   t.it("may take windows back, below nothing", function()
      local client = connect(2, { manual = true, settings = { [h2.INITIAL_WINDOW_SIZE] = 3 } })
      local id = client:request(h2.get { [":path"] = "/123456" })
      local stream = client:stream(id)
      client:pump(function() return stream.parts[1] end)
      client:frame(h2.SETTINGS, 0, 0, h2.settings { [h2.INITIAL_WINDOW_SIZE] = 0 })
      client:frame(h2.WINDOW_UPDATE, 0, id, h2.u32(3)) -- of -3
      client:sync()
      assert.equal(1, #stream.parts)
      client:frame(h2.WINDOW_UPDATE, 0, id, h2.u32(100))
      assert.equal("/123456", client:response(id).body)
   end)

   t.it("may say that it goes, and is still answered", function()
      local client = connect()
      local id = client:request()
      client:frame(h2.GOAWAY, 0, 0, h2.u32(0) .. h2.u32(0))
      assert.equal("/", client:response(id).body)
      client:close_code()
      assert.equal("closed", client.closed)
   end)

   t.it("gets large heads in pieces", function()
      local client = connect()
      local response = client:get("/large-head")
      assert.equal(200, response.status)
      assert.equal(60000, #response:get "x-large")
   end)

   t.it("is closed on when it does not begin as it must", function()
      local client = connect(2, { silent = true })
      client:send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      client:close_code()
      assert.is_truthy(client.closed)
   end)

   t.it("hears of frames on closed streams", function()
      local client = connect()
      client:get "/"
      client:data(1, "late")
      assert.equal(h2.STREAM_CLOSED, client:close_code())

      client = connect()
      client:get "/"
      client:request(nil, { id = 1 })
      assert.equal(h2.STREAM_CLOSED, client:close_code())

      client = connect()
      local id = client:request(h2.get { [":path"] = "/wait" }) -- half-closed
      client:data(id, "late")
      assert.equal(h2.STREAM_CLOSED, client:close_code())

      client = connect()
      id = client:request(h2.post { [":path"] = "/wait" }, { open = true })
      client:frame(h2.RST_STREAM, 0, id, h2.u32(h2.CANCEL))
      client:data(id, "late")
      assert.equal(h2.STREAM_CLOSED, client:reset_of(id))
      assert.equal("/", client:get("/").body)

      client:frame(h2.WINDOW_UPDATE, 0, id, h2.u32(5)) -- may have crossed our frames
      client:frame(h2.PRIORITY, 0, id, h2.u32(0) .. "\1")
      assert.is_true(client:sync())
   end)

   t.it("has no more streams open than allowed", function()
      local client = connect()
      client:sync()
      assert.equal(5, client.settings[h2.MAX_CONCURRENT_STREAMS])
      for _ = 1, 5 do
         client:request(h2.get { [":path"] = "/wait" })
      end
      client:sync()
      client:request()
      client:pump(function() return client.goaway or client:stream(11).reset end)
      assert.is_true(client.goaway == h2.PROTOCOL_ERROR or client:stream(11).reset == h2.REFUSED_STREAM)
   end)

   t.it("may use padding, priorities and unknown frames", function()
      local client = connect()
      client:frame(250, 255, 0, "unknown")
      client:frame(h2.PRIORITY, 0, 1, h2.u32(0) .. "\1")
      client:frame(h2.HEADERS, h2.END_HEADERS + h2.PADDED + 32, 1,
         "\3" .. h2.u32(0) .. "\9" .. h2.block(h2.post { [":path"] = "/padded" }) .. "\0\0\0")
      client:frame(h2.DATA, h2.END_STREAM + h2.PADDED, 1, "\4body\0\0\0\0")
      assert.equal("/padded", client:response(1).body)
   end)

   t.it("has reserved bits ignored", function()
      local reserved = 2 ^ 31
      local client = connect(2, { settings = { [h2.INITIAL_WINDOW_SIZE] = 1 } })
      local block = h2.block(h2.get { [":path"] = "/123" })
      client:frame(h2.HEADERS, h2.END_HEADERS + h2.END_STREAM, reserved + 1, block)
      client:frame(h2.PING, 0, reserved, "12345678")
      client:frame(h2.WINDOW_UPDATE, 0, reserved + 1, h2.u32(reserved + 100))
      assert.equal("/123", client:response(1).body)
      assert.equal(1, client.pings)
      client:frame(h2.GOAWAY, 0, reserved, h2.u32(reserved) .. h2.u32(0))
      client:close_code()
      assert.equal("closed", client.closed)
   end)

   t.it("may give reasons that nobody knows", function()
      local unknown = h2.u32(0xfedcba98)
      local client = connect()
      local waiting = client:request(h2.get { [":path"] = "/wait" })
      client:frame(h2.RST_STREAM, 0, waiting, unknown)
      assert.equal("/after", client:get("/after").body)
      local last = client:request()
      client:frame(h2.GOAWAY, 0, 0, h2.u32(0) .. unknown .. "and some text")
      assert.equal("/", client:response(last).body)
      client:close_code()
      assert.equal("closed", client.closed)
   end)

   --- Sends until the server has closed, or all is sent.
   local function flood(client, count, make)
      for i = 1, count do
         if not client.socket:try_send(make(i)) then
            break
         end
      end
      return client:close_code()
   end

   t.it("is closed on for floods", function()
      local block = h2.block(h2.get())
      local floods = {
         ["rapid resets"] = function(i)
            local id = i * 2 - 1
            return h2.frame(h2.HEADERS, 5, id, block) .. h2.frame(h2.RST_STREAM, 0, id, h2.u32(h2.CANCEL))
         end,
         ["resets that we are provoked into"] = function(i)
            return h2.frame(h2.HEADERS, 5, i * 2 - 1, h2.block(h2.get { { "x", " a" } }))
         end,
         ["trailers that are refused"] = function(i)
            return h2.frame(h2.HEADERS, 4, i * 2 - 1, h2.block(h2.post())) ..
               h2.frame(h2.HEADERS, 5, i * 2 - 1, ("\144"):rep(150)) -- accept-encoding, by its index
         end,
         ["pings"] = function() return h2.frame(h2.PING, 0, 0, "12345678") end,
         ["settings"] = function() return h2.frame(h2.SETTINGS, 0, 0, h2.settings { [4] = 65535 }) end,
         ["priorities"] = function(i) return h2.frame(h2.PRIORITY, 0, i * 2 + 1, h2.u32(0) .. "\1") end,
         ["window updates"] = function() return h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.u32(1)) end,
         ["unknown frames"] = function() return h2.frame(99, 0, 0, "") end,
         ["empty DATA"] = function(i)
            local head = i == 1 and h2.frame(h2.HEADERS, 4, 1, h2.block(h2.post())) or ""
            return head .. h2.frame(h2.DATA, 0, 1, "")
         end,
      }
      for _, name in ipairs(sorted(floods)) do
         assert.equal(h2.ENHANCE_YOUR_CALM, flood(connect(1), 2000, floods[name]), name)
         origin:drop_pending()
      end
      proxy():await_log "HTTP/2 connection of [%d.:]+ is closed: too many"
   end)

   t.it("is told why also where the answers to what it sent at once would be too many to queue", function()
      local block, parts = h2.block(h2.get { { "x", " a" } }), {}
      for i = 1, 2000 do
         parts[i] = h2.frame(h2.HEADERS, 5, i * 2 - 1, block)
      end
      local client = connect(1)
      client.socket:try_send(table.concat(parts))
      assert.equal(h2.ENHANCE_YOUR_CALM, client:close_code())
   end)

   t.it("is closed on for heads without an end", function()
      local client = connect(1)
      client:frame(h2.HEADERS, h2.END_STREAM, 1, h2.block(h2.get()))
      local code = flood(client, 2000, function()
         return h2.frame(h2.CONTINUATION, 0, 1, "")
      end)
      assert.is_true(code == h2.ENHANCE_YOUR_CALM or code == h2.PROTOCOL_ERROR, tostring(code))

      client = connect(1)
      client:frame(h2.HEADERS, h2.END_STREAM, 1, h2.block(h2.get()))
      code = flood(client, 100, function(i)
         return h2.frame(h2.CONTINUATION, 0, 1, h2.block { { "x-" .. i, ("y"):rep(16000) } })
      end)
      assert.is_true(code == h2.ENHANCE_YOUR_CALM or code == h2.PROTOCOL_ERROR, tostring(code))
   end)

   --- How long another's request takes while 5 clients send some 60 kB that mean 240 MB of fields.
   local function latency_beside_bombs()
      local large = h2.block({ { "x-large", ("b"):rep(4000) } }, true)
      local references = ("\190"):rep(15000) -- index 62, the newest field
      local bomb = h2.frame(h2.HEADERS, 1, 1, h2.block(h2.get()) .. large)
      for i = 1, 4 do
         bomb = bomb .. h2.frame(h2.CONTINUATION, i == 4 and h2.END_HEADERS or 0, 1, references)
      end
      local client, bombs = connect(), {}
      client:sync()
      for i = 1, 5 do
         bombs[i] = connect(1):send(bomb)
      end
      local before = t.sys.clock()
      assert.equal("/", client:get("/").body)
      local took = t.sys.clock() - before
      for i = 1, 5 do
         assert.equal(h2.ENHANCE_YOUR_CALM, bombs[i]:close_code())
         bombs[i]:close()
      end
      return took
   end

   t.it("does not slow others down with references to large fields", function()
      local times = {}
      for i = 1, 9 do
         times[i] = latency_beside_bombs()
      end
      table.sort(times) -- the median: other processes want the processor too
      assert.is_true(times[5] < 0.01 * t.tasks.patience, ("it took %.4f s"):format(times[5]))
   end)

   t.it("is closed on when it has us answer and does not read", function()
      local client = connect(3, { receive_buffer = 4096 })
      local pings = h2.frame(h2.PING, 0, 0, "12345678"):rep(10000)
      t.eventually("the server to close", function()
         return not client.socket:try_send(pings, 5)
      end)
      assert.is_true(proxy():rss_kib() < 400000)
   end)
end)
