--- Thrift through the program: between scripted clients and origins, of which every byte is known, and
--- between Debian's python3-thrift and C++ library (spec/support/thrift_service.py, .cpp).
local busted = require "busted"
local t = require "spec.support"
local certificates = require "spec.support.certificates"
local thrift = require "spec.support.thrift"

local program, sys = t.program, t.sys

local message = thrift.message

local SITE = [[
   local ml = require "monolake"
   ml.options { grace = "10s" }
   local function to(name, options)
      options.name, options.protocol, options.fail_max = name, "thrift", 0
      options[1], options[2] = "${origin}", options.retries ~= 0 and "${origin}" or nil
      return ml.proxy(ml.upstream(options))
   end

   local function layer(req, next)
      local call = req.thrift
      if call.method == "denied" then
         return ml.thrift.exception("not for you", "wrong_method_name")
      elseif call.method == "broken" then
         error "the layer is broken"
      elseif call.method == "hurry" then
         call.timeout = "100ms"
      elseif call.method == "again" then
         call.idempotent = true
      elseif call.method == "cached" then
         return ml.response { body = "\8\0\0\0\0\0\42\0" }
      elseif call.method == "mapped" then
         local pieces = { "ab", "cd" }
         req.body = function() return table.remove(pieces, 1) end
         local res = next(req)
         res:map(function(chunk, last)
            return chunk:rep(2) .. (last and "." or "")
         end)
         return res
      elseif call.method == "read" then
         ml.log.info("the arguments: " .. req:body())
         return next(req)
      elseif call.method == "endless" then
         return ml.response { body = function() return ("x"):rep(100000) end }
      elseif call.method == "failing" then
         return ml.response { body = function() error "no more" end }
      elseif call.method == "spoken" then
         return ml.response { status = 429, body = "slow down\n" }
      end
      local seen = { call.method, call.seqid, call.type, call.protocol, call.transport, req.method,
         req.path }
      call.headers["seen"] = table.concat(seen, " ")
      call.headers["gone"] = nil
      call.headers[6] = (call.headers[6] or "none") .. "!"
      local keys = {}
      for key, value in call.headers:pairs() do
         keys[#keys + 1] = type(key) .. " " .. key .. "=" .. value
      end
      ml.log.info(table.concat(keys, ", "))
      local res = next(req)
      if res.thrift then
         res.thrift.headers["answered"] = res.thrift.type .. " " .. res.thrift.method .. " " .. res.status
      end
      return res
   end

   local plain = to("plain", { response_timeout = "5s", idempotent = { "get*", "exact" } })
   ml.listen { address = "127.0.0.1:0", thrift = plain, frame_max = "2m", head_timeout = "300ms" }
   ml.listen { address = "127.0.0.1:0", thrift = { ml.access_log "access.log", layer, plain } }
   ml.listen { address = "127.0.0.1:0", calls_max = 2, thrift = plain }
   ml.listen { address = "127.0.0.1:0", thrift = to("shared", { calls_max = 4, response_timeout = "300ms",
      connections_max = 1, retries = 0 }) }
   ml.listen { address = "127.0.0.1:0", thrift = ml.router {
      ["/add"] = plain,
      ["/Service/add"] = ml.thrift.exception("by its service", "missing_result"),
      ["ONEWAY /note"] = plain,
      ["/http"] = ml.proxy { "${origin}", name = "http" },
   } }
   ml.listen { address = "127.0.0.1:0", chain = plain }
   ml.listen { address = "127.0.0.1:0", ordered_replies = false, thrift = plain }
]]
local PLAIN, LAYER, TWO, SHARED, ROUTER, HTTP, UNORDERED = 1, 2, 3, 4, 5, 6, 7

t.on_both_backends("Thrift", function(backend)
   local origin, running = t.proxied(backend, { site = SITE, listeners = 7 })

   local function connect(listener)
      return running():connect { address = running().addresses[listener or PLAIN] }
   end

   --- The next call that comes to the origin on a new connection.
   local function accept()
      local peer = origin:accept()
      return peer, thrift.read(peer)
   end

   local function answer(peer, call, more)
      local reply = { type = thrift.REPLY, method = call.method, seqid = call.seqid,
         compact = call.compact, args = "\8\0\0\0\0\0\7\0", header = call.headers and true,
         header_seqid = call.header_seqid, inner_frame = call.inner_frame }
      for name, value in pairs(more or {}) do
         reply[name] = value
      end
      peer:send(message(reply))
   end

   local function assert_exception(client, seqid, kind, text)
      local reply = thrift.read(client)
      local found, why = thrift.exception(reply)
      assert.same({ seqid, kind, text }, { reply.seqid, found, why })
   end

   --- By a FIN or a reset, behind whatever was still on its way.
   local function assert_closed(peer)
      while peer:try_fill() do
         peer.buffer = ""
      end
      assert.is_true(peer.ended)
   end

   local UNKNOWN_METHOD, WRONG_NAME, MISSING, INTERNAL, PROTOCOL = 1, 3, 5, 6, 7

   t.it("carries calls with their arguments, and replies with their sequence ids", function()
      for _, compact in ipairs { false, true } do
         local client = connect()
         client:send(message { seqid = 4000000000, method = "add", args = "\8\0\1\0\0\0\3\0",
            compact = compact })
         local peer, call = accept()
         assert.same({ "add", thrift.CALL, "\8\0\1\0\0\0\3\0" }, { call.method, call.type, call.args })
         assert.equal(compact or nil, call.compact)
         answer(peer, call)
         local reply = thrift.read(client)
         assert.same({ "add", thrift.REPLY, 4000000000, "\8\0\0\0\0\0\7\0" },
            { reply.method, reply.type, reply.seqid, reply.args })
         client:send(message { seqid = 3, compact = compact }) -- the origin's connection is kept
         answer(peer, thrift.read(peer), { type = thrift.EXCEPTION, args = "\0" })
         reply = thrift.read(client)
         assert.same({ 3, thrift.EXCEPTION }, { reply.seqid, reply.type })
         client:close()
         peer:close()
      end
   end)

   t.it("takes heads and arguments wherever they are cut", function()
      local client = connect()
      local bytes = message { seqid = 1, headers = { { "key", "value" } }, args = ("a"):rep(20) }
      for i = 1, #bytes do
         client:send(bytes:sub(i, i))
         if i % 16 == 0 then
            t.tasks.sleep(0.002)
         end
      end
      local peer, call = accept()
      assert.equal(("a"):rep(20), call.args)
      local reply = message { type = thrift.REPLY, seqid = call.seqid, header = true,
         header_seqid = call.seqid }
      for i = 1, #reply do
         peer:send(reply:sub(i, i))
         if i % 8 == 0 then
            t.tasks.sleep(0.002)
         end
      end
      assert.equal(1, thrift.read(client).seqid)
   end)

   t.it("carries key-values of TTHeader, framed inside or not", function()
      for _, inner in ipairs { false, true } do
         local client = connect()
         client:send(message { seqid = 5, header_seqid = 6, flags = 4, token = "secret", inner_frame = inner,
            headers = { { "key", "value" }, { "empty", "" }, { 6, "service" }, { 300, "" } } })
         local peer, call = accept()
         assert.same({ key = "value", empty = "", [6] = "service", [300] = "" }, call.headers)
         assert.same({ "secret", 4, inner or nil, call.seqid },
            { call.token, call.flags, call.inner_frame, call.header_seqid })
         answer(peer, call, { headers = { { "back", "1" }, { 7, "2" } }, token = "new" })
         local reply = thrift.read(client)
         assert.same({ back = "1", [7] = "2" }, reply.headers)
         assert.same({ 5, 6, "new", inner or nil },
            { reply.seqid, reply.header_seqid, reply.token, reply.inner_frame })
         client:close()
         peer:close()
      end
   end)

   t.it("shows calls to layers, which change their key-values and answer them", function()
      local offset = #running():log()
      local client = connect(LAYER)
      client:send(message { seqid = 5, headers = { { "gone", "x" }, { "key", "value" }, { 6, "service" } } })
      local peer, call = accept()
      assert.same({ key = "value", seen = "add 5 call binary ttheader CALL /add", [6] = "service!" },
         call.headers)
      running():await_log("string key=value, string seen=add[^,]+, number 6=service!", offset)
      answer(peer, call, { headers = { { "back", "1" } } })
      assert.same({ back = "1", answered = "reply add 200" }, thrift.read(client).headers)

      client:send(message { seqid = 6, method = "denied" })
      assert_exception(client, 6, WRONG_NAME, "not for you")
      client:send(message { seqid = 7, method = "broken" })
      assert_exception(client, 7, INTERNAL, "Internal Server Error")
      client:send(message { seqid = 8, method = "spoken" })
      assert_exception(client, 8, INTERNAL, "slow down")
      client:send(message { seqid = 9, method = "Service:cached" })
      client:send(message { seqid = 10, method = "cached" })
      call = thrift.read(peer)
      answer(peer, call, { method = "cached" })
      assert.equal("cached", thrift.read(client).method)
      local reply = thrift.read(client)
      assert.same({ "cached", 10, thrift.REPLY, "\8\0\0\0\0\0\42\0" },
         { reply.method, reply.seqid, reply.type, reply.args })
      t.eventually("the access log", function()
         local log = t.process.read_file(running():path "access.log")
         return log:find('"CALL /Service/cached THRIFT" 200', 1, true) and
            log:find('"CALL /denied THRIFT" 500', 1, true) and log:find('"CALL /spoken THRIFT" 429', 1, true)
      end)
   end)

   t.it("lets layers read and change arguments and results", function()
      local client = connect(LAYER)
      client:send(message { seqid = 1, method = "mapped" })
      local peer, call = accept()
      assert.equal("abcd", call.args)
      answer(peer, call, { args = "ef" })
      assert.equal("efef.", thrift.read(client).args)
      local offset = #running():log()
      client:send(message { seqid = 2, method = "read", args = "seen" })
      call = thrift.read(peer)
      assert.equal("seen", call.args)
      running():await_log("the arguments: seen", offset)
      answer(peer, call)
      assert.equal(2, thrift.read(client).seqid)
      client:send(message { seqid = 3, method = "endless" })
      assert_exception(client, 3, INTERNAL, "the reply is too long")
      client:send(message { seqid = 4, method = "failing" })
      assert_exception(client, 4, INTERNAL, "the reply failed before its first byte")
   end)

   t.it("routes by the names of methods", function()
      local client = connect(ROUTER)
      client:send(message { seqid = 1, method = "Service:add" })
      assert_exception(client, 1, MISSING, "by its service")
      client:send(message { seqid = 2, method = "unknown" })
      assert_exception(client, 2, UNKNOWN_METHOD, "Not Found")
      client:send(message { seqid = 3, method = "http" }) -- and says that a call is not for HTTP
      assert_exception(client, 3, INTERNAL, "Bad Gateway")
      client:send(message { seqid = 4, method = "note" })
      assert_exception(client, 4, UNKNOWN_METHOD, "Method Not Allowed")
      client:send(message { seqid = 5, method = "add" })
      local peer, call = accept()
      answer(peer, call)
      assert.equal(5, thrift.read(client).seqid)
   end)

   t.it("does not take requests of HTTP for calls", function()
      local client = connect(HTTP)
      local response = client:exchange "GET / HTTP/1.1\nHost: a"
      assert.equal(502, response.status)
   end)

   t.it("answers in the order of the calls, unless told that any will do", function()
      for _, case in ipairs { { PLAIN, nil }, { PLAIN, 1 }, { UNORDERED, nil } } do
         local client = connect(case[1])
         local header = case[2] and true
         client:send(message { seqid = 1, method = "first", flags = case[2], header = header }
            .. message { seqid = 2, method = "second", flags = case[2], header = header })
         local peers, calls = {}, {}
         for i = 1, 2 do
            local peer, call = accept()
            peers[call.method], calls[call.method] = peer, call
            assert(i)
         end
         answer(peers.second, calls.second)
         if header or case[1] == UNORDERED then
            assert.equal(2, thrift.read(client).seqid)
            answer(peers.first, calls.first)
            assert.equal(1, thrift.read(client).seqid)
         else
            client:send(message { seqid = 3, method = "third" }) -- on the connection that is free
            answer(peers.second, thrift.read(peers.second))
            assert.equal("", client.buffer)
            answer(peers.first, calls.first)
            for seqid = 1, 3 do
               assert.equal(seqid, thrift.read(client).seqid)
            end
         end
         client:close()
         peers.first:close()
         peers.second:close()
      end
   end)

   t.it("bounds what a connection may have unanswered", function()
      local client = connect(TWO)
      client:send(message { seqid = 1 } .. message { seqid = 2 } .. message { seqid = 3 })
      local first, one = accept()
      local second, two = accept()
      local other = connect()
      other:send(message { seqid = 9, method = "other" })
      local third, nine = accept()
      assert.equal("other", nine.method) -- and not the third of the first client
      answer(first, one)
      assert.equal(1, thrift.read(client).seqid)
      answer(first, thrift.read(first))
      answer(second, two)
      answer(third, nine)
      assert.equal(2, thrift.read(client).seqid)
      assert.equal(3, thrift.read(client).seqid)
      assert.equal(9, thrift.read(other).seqid)
   end)

   t.it("shares connections where the origin allows it, and matches replies by their ids", function()
      local clients, calls = {}, {}
      for i = 1, 4 do
         clients[i] = connect(SHARED)
         clients[i]:send(message { seqid = 7, method = "call" .. i })
      end
      local peer = origin:accept()
      for _ = 1, 4 do
         local call = thrift.read(peer)
         calls[call.method] = call
      end
      for i = 4, 1, -1 do
         answer(peer, calls["call" .. i], { args = ("\11\0\0\0\0\0\1%d\0"):format(i) })
      end
      for i = 1, 4 do
         local reply = thrift.read(clients[i])
         assert.same({ 7, "call" .. i, ("\11\0\0\0\0\0\1%d\0"):format(i) },
            { reply.seqid, reply.method, reply.args })
      end

      -- One that is given up: its reply is dropped when it comes, and the others go on.
      clients[1]:send(message { seqid = 8, method = "late" })
      local late = thrift.read(peer)
      clients[2]:send(message { seqid = 9, method = "prompt" })
      answer(peer, thrift.read(peer))
      assert.equal(9, thrift.read(clients[2]).seqid)
      assert_exception(clients[1], 8, INTERNAL, "Gateway Timeout")
      answer(peer, late)
      clients[1]:send(message { seqid = 10 })
      answer(peer, thrift.read(peer))
      assert.equal(10, thrift.read(clients[1]).seqid)

      -- A reply that nobody has asked for.
      clients[1]:send(message { seqid = 11 })
      local call = thrift.read(peer)
      answer(peer, call, { seqid = call.seqid + 100 })
      assert_exception(clients[1], 11, INTERNAL, "Bad Gateway")
      running():await_log "it answered with a sequence id that nobody waits for"
      assert_closed(peer)
   end)

   t.it("gives calls the time that layers grant them", function()
      local client = connect(LAYER)
      client:send(message { seqid = 1, method = "hurry" })
      local peer = accept()
      assert_exception(client, 1, INTERNAL, "Gateway Timeout")
      assert_closed(peer) -- an unshared connection does not wait for the reply
   end)

   t.it("sends again what may be sent again, and nothing else", function()
      for _, case in ipairs { { PLAIN, "getUser", true }, { PLAIN, "Service:exact", true },
         { LAYER, "again", true }, { PLAIN, "exactly", false } } do
         local client = connect(case[1])
         client:send(message { seqid = 1, method = case[2] })
         accept():close()
         if case[3] then
            local peer, call = accept()
            answer(peer, call)
            assert.equal(1, thrift.read(client).seqid)
            peer:close()
         else
            assert_exception(client, 1, INTERNAL, "Bad Gateway")
         end
         client:close()
      end
   end)

   t.it("carries oneway calls, to which nobody answers", function()
      local client = connect(ROUTER)
      client:send(message { seqid = 1, method = "note", type = thrift.ONEWAY, args = "\11" }
         .. message { seqid = 2, method = "add" })
      local peers, calls = {}, {}
      local peer, call = accept()
      peers[call.method], calls[call.method] = peer, call
      if not (calls.note and peer:try_fill(0.2)) then -- on the same connection, or on one more
         peer, call = accept()
      else
         call = thrift.read(peer)
      end
      peers[call.method], calls[call.method] = peer, call
      assert.same({ thrift.ONEWAY, "\11" }, { calls.note.type, calls.note.args })
      answer(peers.add, calls.add)
      assert.equal(2, thrift.read(client).seqid)
      client:send(message { seqid = 3, method = "unknown", type = thrift.ONEWAY }
         .. message { seqid = 4, method = "nope" })
      assert_exception(client, 4, UNKNOWN_METHOD, "Not Found")
   end)

   t.it("sends oneway calls although the connection that was kept for them breaks", function()
      local client = connect(PLAIN)
      for seqid = 1, 20 do
         client:send(message { seqid = seqid })
         local peer, call = accept()
         answer(peer, call)
         assert.equal(seqid, thrift.read(client).seqid)
         if seqid % 2 == 0 then
            peer:reset()
         else
            peer:close()
         end
         client:send(message { seqid = 100 + seqid, method = "note", type = thrift.ONEWAY, args = "\11" })
         peer, call = accept()
         assert.same({ "note", thrift.ONEWAY }, { call.method, call.type })
         peer:reset()
      end
   end)

   t.it("streams long arguments and replies", function()
      local client = connect(PLAIN)
      local args = ("0123456789abcdef"):rep(100000) -- 1.6 MB
      local sender = t.start_task(function()
         client:send(message { seqid = 1, args = args } .. message { seqid = 2 })
      end)
      local peer, call = accept()
      assert.equal(#args, #call.args)
      assert.is_true(call.args == args)
      local answerer = t.start_task(function()
         answer(peer, call, { args = args })
      end)
      assert.is_true(thrift.read(client).args == args)
      sender:join()
      answerer:join()
      answer(peer, thrift.read(peer))
      assert.equal(2, thrift.read(client).seqid)
   end)

   t.it("skips arguments that nobody wants, and goes on", function()
      local client = connect(ROUTER)
      local sender = t.start_task(function()
         client:send(message { seqid = 1, method = "nope", args = ("x"):rep(1000000) }
            .. message { seqid = 2, method = "nope" })
      end)
      assert_exception(client, 1, UNKNOWN_METHOD, "Not Found")
      assert_exception(client, 2, UNKNOWN_METHOD, "Not Found")
      sender:join()
   end)

   t.it("refuses what is no message, and says why in the log", function()
      local cases = {
         { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "neither" },
         { message({ seqid = 1 }):sub(5), "the message is not framed" },
         { thrift.frame "\0\0\0\3add\1\0\0\0\1\0", "without a version" },
         { thrift.frame "\128\1\0\1\0\0\0\99a", "cut short by its frame" },
         { message { seqid = 1, method = "a b" }, "bytes that no name has" },
         { message { seqid = 1, type = thrift.REPLY }, "a client sends no replies" },
         { thrift.frame "\16\0\0\0\0\0\0\1\0\1\0\1\1\0" .. "\0", "transforms" },
         { "\255\255\255\255", "this is not Thrift" },
      }
      for _, case in ipairs(cases) do
         local client = connect()
         client:send(case[1])
         assert.equal("", client:read_all())
         client:close()
      end
      -- At most one line a second tells of them.
      running():await_log "request of 127.0.0.1:%d+ is refused: "
   end)

   t.it("answers a message that is too long, then ends the connection", function()
      local client = connect()
      client:send(message({ seqid = 77, args = ("x"):rep(3 * 1048576) }):sub(1, 40))
      assert_exception(client, 77, PROTOCOL, "the frame is longer than is taken here (frame_max)")
      assert.equal("", client:read_all())
   end)

   t.it("answers what came before a malformed frame", function()
      local client = connect()
      client:send(message { seqid = 1 } .. "\255\255\255\255")
      local peer, call = accept()
      answer(peer, call)
      assert.equal(1, thrift.read(client).seqid)
      assert.equal("", client:read_all())
   end)

   t.it("does not wait for ever for the rest of a head", function()
      local client = connect()
      client:send(message({ seqid = 1 }):sub(1, 9))
      assert.equal("", client:read_all())
   end)

   t.it("tells clients of malformed replies, and ends the connection", function()
      for _, reply in ipairs { "HTTP/1.1 200 OK\r\n\r\n", thrift.frame "\128\1\0\1\0\0\0\3add\0\0\0\1\0",
         "\255\255\255\255" } do
         local client = connect()
         client:send(message { seqid = 5 })
         local peer = accept()
         peer:send(reply)
         assert_exception(client, 5, INTERNAL, "Bad Gateway")
         assert_closed(peer)
         client:close()
      end
      local client = connect()
      client:send(message { seqid = 6 })
      local peer, call = accept()
      answer(peer, call, { compact = true })
      assert_exception(client, 6, INTERNAL, "Bad Gateway")
      running():await_log "the connection to the Thrift origin at [%d.:]+ is closed: "
   end)

   t.it("answers a client that has half-closed, and forgets one that is gone", function()
      local client = connect()
      client:send(message { seqid = 1 })
      client:half_close()
      local peer, call = accept()
      answer(peer, call)
      assert.equal(1, thrift.read(client).seqid)
      assert.equal("", client:read_all())

      client = connect()
      client:send(message { seqid = 2 })
      thrift.read(peer)
      client:reset()
      assert_closed(peer) -- its call was given up
   end)

   t.it("carries calls by TLS on both sides, and over unix sockets", function()
      local files, path = certificates.all(), t.process.directory() .. "/thrift.sock"
      local chained = program.start { io = backend, files = files, listeners = 2,
         values = { origin = origin.address, path = path }, site = [[
         local ml = require "monolake"
         local inner = ml.upstream { "unix:${path}", name = "inner", protocol = "thrift",
            tls = { ca = "ca.pem", name = "a.example" } }
         local outer = ml.upstream { "${origin}", name = "outer", protocol = "thrift" }
         ml.listen { address = "127.0.0.1:0", thrift = ml.proxy(inner) }
         ml.listen { address = "unix:${path}", tls = { cert = "a.pem", key = "a.key" },
            thrift = { function(req, next)
               assert(req.tls and req.thrift)
               return next(req)
            end, ml.proxy(outer) } }
      ]] }
      local client = chained:connect()
      for i = 1, 3 do
         client:send(message { seqid = i, args = ("y"):rep(100000 * i) })
         local peer, call = accept()
         assert.equal(100000 * i, #call.args)
         answer(peer, call, { args = ("z"):rep(700000 * i) })
         assert.equal(700000 * i, #thrift.read(client).args)
         peer:close()
      end
      chained:stop()
   end)

   t.it("keeps connections and calls over a reload, and ends them when it drains", function()
      local own = program.start { io = backend, site = SITE, listeners = 7,
         values = { origin = origin.address } }
      local client, idle = own:connect(), own:connect()
      client:send(message { seqid = 1 })
      local peer, call = accept()
      own:write("site.lua", (SITE:gsub("thrift = plain, frame_max",
         'thrift = ml.thrift.exception("new"), frame_max')))
      own:reload()
      answer(peer, call)
      assert.equal(1, thrift.read(client).seqid)
      client:send(message { seqid = 2 })
      assert_exception(client, 2, INTERNAL, "new")

      local busy = own:connect { address = own.addresses[TWO] }
      busy:send(message { seqid = 3 })
      call = thrift.read(peer)
      own.process:signal(sys.SIGTERM)
      assert.equal("", idle:read_all())
      answer(peer, call)
      assert.equal(3, thrift.read(busy).seqid)
      assert.equal("", busy:read_all())
      own:stop()
   end)

   t.it("tells the origin of a client that leaves in the middle of its arguments", function()
      for _, size in ipairs { 1000, 1000000 } do
         local client = connect()
         client:send(message({ seqid = 1, args = ("x"):rep(size) }):sub(1, size / 2))
         if size > 65536 then -- it is sent on as it comes
            local peer = origin:accept()
            client:close()
            assert_closed(peer)
            peer:close()
         else
            client:close()
         end
      end
      local client = connect()
      client:send(message { seqid = 2 })
      local peer, call = accept()
      answer(peer, call)
      assert.equal(2, thrift.read(client).seqid)
   end)

   t.it("breaks off what an origin has broken off", function()
      for _, size in ipairs { 1000, 2000000 } do
         local client = connect()
         client:send(message { seqid = 1 })
         local peer, call = accept()
         local reply = message { type = thrift.REPLY, seqid = call.seqid, args = ("x"):rep(size) }
         local sender = t.start_task(function()
            peer:try_send(reply:sub(1, size / 2))
            peer:close()
         end)
         if size > 1048576 then -- it was sent on as it came: the client sees that it is not whole
            local length = client:read(4)
            assert.equal(reply:sub(1, 4), length)
            while client:try_fill() do
               assert.is_true(#client.buffer < size)
            end
         else
            assert_exception(client, 1, INTERNAL, "Bad Gateway")
         end
         sender:join()
         client:close()
      end
   end)

   t.it("holds no more of a reply than the client takes", function()
      local client = connect()
      client:send(message { seqid = 1 })
      local peer, call = accept()
      local reply = message { type = thrift.REPLY, seqid = call.seqid, args = ("x"):rep(15 * 1048576) }
      local before = running():rss_kib()
      local ok, why = peer:try_send(reply, 0.5)
      assert.same({ nil, "timeout" }, { ok, why })
      assert.is_true(running():rss_kib() - before < 4096)
      client:reset()
      assert_closed(peer)
   end)

   t.it("closes connections that are idle or have had their calls, and replaces an origin's", function()
      local own = program.start { io = backend, listeners = 2, values = { origin = origin.address }, site = [[
         local ml = require "monolake"
         local function to(name, idle_timeout)
            return ml.proxy { "${origin}", name = name, protocol = "thrift", idle_timeout = idle_timeout }
         end
         ml.listen { address = "127.0.0.1:0", idle_timeout = "100ms", thrift = to("a", "100ms") }
         ml.listen { address = "127.0.0.1:0", requests_max = 2, thrift = to("b", "1m") }
      ]] }
      local client = own:connect()
      client:send(message { seqid = 1 })
      local peer, call = accept()
      answer(peer, call)
      assert.equal(1, thrift.read(client).seqid)
      assert.equal("", client:read_all())
      assert_closed(peer)

      client = own:connect { address = own.addresses[2] }
      client:send(message { seqid = 2 })
      peer, call = accept()
      answer(peer, call)
      assert.equal(2, thrift.read(client).seqid)
      peer:close()
      client:send(message { seqid = 3 })
      peer, call = accept() -- whatever the method: the closed connection is not used again
      answer(peer, call)
      assert.equal(3, thrift.read(client).seqid)
      assert.equal("", client:read_all())
      own:stop()
   end)

   t.it("becomes HTTP and back, for those who come then", function()
      local own = program.start { io = backend, site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", ${kind} = function() return ml.text "" end }
      ]], values = { kind = "thrift" } }
      local site = t.process.read_file(own:path "site.lua")
      local client = own:connect()
      client:send(message { seqid = 1 })
      assert.equal(1, thrift.read(client).seqid)
      own:write("site.lua", (site:gsub("thrift =", "chain =")))
      own:reload()
      client:send(message { seqid = 2 }) -- nobody is there for it any more
      assert_closed(client)
      assert.equal(200, own:exchange("GET / HTTP/1.1\nHost: a").status)
      own:write("site.lua", site)
      own:reload()
      client = own:connect()
      client:send(message { seqid = 3 })
      assert.equal(3, thrift.read(client).seqid)
      client:close()
      own:stop()
   end)

   t.it("serves on when many clients flood it with calls that nobody answers", function()
      local clients = {}
      local flood = {}
      for i = 1, 100 do
         flood[i] = message { seqid = i }
      end
      flood = table.concat(flood)
      local flooded = {}
      for i = 1, 5 do
         clients[i] = connect()
         clients[i]:send(flood)
         for _ = 1, 32 do -- each has as many unanswered as it may
            flooded[#flooded + 1] = accept()
         end
      end
      local client = connect()
      client:send(message { seqid = 7, method = "other" })
      local peer, call = accept()
      assert.equal("other", call.method)
      answer(peer, call)
      assert.equal(7, thrift.read(client).seqid)
      for _, one in ipairs(clients) do
         one:reset()
      end
      for _, one in ipairs(flooded) do
         assert_closed(one)
      end
   end)

   t.it("says that an origin cannot be reached", function()
      local own = program.start { io = backend, site = [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", thrift = ml.proxy { "127.0.0.1:1", protocol = "thrift" } }
      ]] }
      local client = own:connect()
      client:send(message { seqid = 1 } .. message { seqid = 2, type = thrift.ONEWAY }
         .. message { seqid = 3 })
      assert_exception(client, 1, INTERNAL, "Bad Gateway")
      assert_exception(client, 3, INTERNAL, "Bad Gateway")
      client:close()
      own:stop()
   end)
end)

describe("a site of Thrift", function()
   local function check(site)
      return t.program.check { site = 'local ml = require "monolake"\n' .. site }
   end

   local function refused(site, pattern)
      local _, err, status = check(site)
      assert.equal(1, status)
      assert.matches(pattern, err)
   end

   busted.teardown(t.process.remove_directories)

   t.it("is checked", function()
      refused('ml.listen { address = "127.0.0.1:0", thrift = {}, chain = {} }',
         "site.lua:2: listen: expected one chain: for HTTP %(chain%), for layer 4 %(l4%) or for Thrift")
      refused('ml.upstream { "127.0.0.1:1", idempotent = { "get*" } }',
         'site.lua:2: upstream: idempotent is for methods of Thrift %(protocol = "thrift"%)')
      refused('ml.upstream { "127.0.0.1:1", protocol = "thrift", idempotent = { 7 } }',
         "site.lua:2: upstream: idempotent: expected a string, not 7")
      refused('ml.upstream { "127.0.0.1:1", protocol = "thirft" }', 'site.lua:2: .*"thrift"')
      refused('ml.thrift.exception("text", "unknown_mehtod")',
         'site.lua:2: thrift.exception: unknown kind "unknown_mehtod"; did you mean "unknown_method"?')
      refused("ml.thrift.exception(7)", "site.lua:2: thrift.exception: expected a string, not number")
   end)

   t.it("is shown by -t", function()
      local out, err, status = check [[
         ml.listen { address = "127.0.0.1:0", calls_max = 8, frame_max = "1m", ordered_replies = false,
            thrift = ml.proxy { "127.0.0.1:1", protocol = "thrift", calls_max = 4 } }
      ]]
      assert.equal(0, status, err)
      assert.matches("listen 127.0.0.1:0 Thrift {frame_max=1m calls_max=8 ordered_replies=false}", out)
      assert.matches("protocol=thrift", out)
   end)
end)

-- --- Programs that are not ours --------------------------------------------------------------------

local SERVICES = [[
   local ml = require "monolake"
   local function hurry(req, next)
      if req.thrift.method == "slow" then
         req.thrift.timeout = "300ms"
      end
      return next(req)
   end
   for _, address in ipairs { ${addresses} } do
      local origin = ml.upstream { address, name = address, protocol = "thrift" }
      ml.listen { address = "127.0.0.1:0", thrift = { hurry, ml.proxy(origin) } }
   end
   ml.listen { address = "127.0.0.1:0", thrift = ml.router {
      ["/add"] = ml.proxy { "127.0.0.1:1", name = "nowhere", protocol = "thrift" },
      ["/note"] = ml.proxy { "127.0.0.1:2", name = "nowhere else", protocol = "thrift" },
   } }
   for _, address in ipairs { ${addresses} } do -- few connections, which many calls share
      ml.listen { address = "127.0.0.1:0", thrift = ml.proxy { address, name = "shared " .. address,
         protocol = "thrift", calls_max = 8, connections_max = 2 } }
   end
]]
local ROUTED = 7 -- and behind that those that share

t.on_both_backends("Thrift between programs that are not ours", function(backend)
   local servers, running = {}, nil
   local ENCODINGS = { "binary", "compact", "theader" }

   busted.setup(function()
      t.tasks.run(function()
         local addresses = {}
         for _, language in ipairs { "python", "cpp" } do
            for _, encoding in ipairs(ENCODINGS) do
               local server, address = thrift.serve(language, encoding)
               servers[#servers + 1] = server
               addresses[#addresses + 1] = ("%q"):format(address)
            end
         end
         running = program.start { io = backend, site = SERVICES, listeners = 2 * #addresses + 1,
            values = { addresses = table.concat(addresses, ", ") } }
      end)
   end)

   busted.teardown(function()
      running:stop()
      for _, server in ipairs(servers) do
         server:signal(sys.SIGKILL)
         t.tasks.run(function() server:wait(5) end)
      end
   end)

   for index, encoding in ipairs(ENCODINGS) do
      t.it("carries calls in " .. encoding, function()
         local clients = {}
         local function start(language, listener, case)
            clients[#clients + 1] = { case,
               thrift.start_client(language, encoding, running.addresses[listener], case) }
         end
         for _, case in ipairs { "calls", "large", "oneway" } do
            start("python", index + 3, case)
            start("cpp", index, case)
         end
         for _, case in ipairs { "timeout", "concurrent" } do
            start("python", index + 3, case)
            start("cpp", index, case)
         end
         for _, case in ipairs { "calls", "concurrent", "oneway" } do
            start("python", ROUTED + index + 3, case)
            start("cpp", ROUTED + index, case)
         end
         for _, client in ipairs(clients) do
            assert.is_true(client[2]:wait(60 * t.tasks.patience), client[1])
            assert.equal(client[1] .. " ok\n", client[2]:stdout(), client[2]:stderr())
         end
      end)
   end

   t.it("tells clients what is wrong in exceptions that they understand", function()
      for _, encoding in ipairs(ENCODINGS) do
         thrift.call("python", encoding, running.addresses[ROUTED], "unreachable")
         thrift.call("python", encoding, running.addresses[ROUTED], "unknown")
      end
   end)
end)
