--- Resumption by tickets: over all workers, reloads and restarts, never past what a listener demands.
local t = require "spec.support"

local cjson = require "cjson"

local program, sys, tls_socket = t.program, t.sys, t.tls_socket

-- Each listener has the options of TLS that stand in ${...}.
local SITE = [[
local ml = require "monolake"
local function about(req)
   local process = io.open("/proc/self/stat")
   local pid = process:read "*n"
   process:close()
   return ml.json { pid = pid, tls = req.tls }
end
local function listen(options)
   local tls = { cert = "a.pem", key = "a.key" }
   for name, value in pairs(options) do
      tls[name] = value
   end
   ml.listen { address = "127.0.0.1:0", tls = tls, chain = { about } }
end
listen {}
listen { tickets = false }
listen { client_ca = "ca.pem", client_auth = "required" }
listen { client_ca = "other.pem", client_auth = "required" }
listen { client_ca = "ca.pem", client_auth = "optional" }
]]
local PLAIN, WITHOUT, DEMANDING, OTHER, OPTIONAL = 1, 2, 3, 4, 5

t.on_every_tls("resumption", function(backend, library)
   local function options(workers)
      return t.with_tls(backend, library, { site = SITE, listeners = 5, workers = workers })
   end

   local running = t.serve(function()
      return options(2)
   end)

   --- One request. Returns what the client and the script see, and the session for later.
   local function visit(listener, how, proxy)
      local client, why = tls_socket.try_connect((proxy or running()).addresses[listener], how)
      if not client then
         return nil, why
      end
      client:send_head "GET / HTTP/1.1\nHost: a"
      local ok
      ok, why = client:try_fill()
      if not ok then
         return nil, why
      end
      local seen = cjson.decode(client:read_response().body)
      local agreed, session = client:agreed(), client:session()
      client:close()
      assert.equal(agreed.resumed, seen.tls.resumed)
      return seen, agreed, session
   end

   for _, version in ipairs { "1.2", "1.3" } do
      local function how(more)
         more = more or {}
         more.min, more.max = version, version
         return more
      end

      t.it("works in every worker, again and again, TLS " .. version, function()
         local workers, count = {}, 0
         local seen, _, session = visit(PLAIN, how())
         assert.is_false(seen.tls.resumed)
         t.eventually("both workers", function()
            local later
            seen, _, later = visit(PLAIN, how { session = session })
            assert.is_true(seen.tls.resumed)
            session = later or session
            workers[seen.pid] = true
            count = count + 1
            return next(workers, next(workers)) and count > 5
         end)
      end)

      t.it("keeps what was agreed on, TLS " .. version, function()
         local first, before, session = visit(PLAIN, how())
         local second, after = visit(PLAIN, how { session = session })
         first.tls.resumed, before.resumed = true, true
         assert.same(first.tls, second.tls)
         assert.same(before, after)
      end)

      t.it("keeps who the client is, TLS " .. version, function()
         local first, _, session = visit(DEMANDING, how { certificate = "client" })
         local second = visit(DEMANDING, how { session = session })
         assert.is_true(second.tls.resumed)
         assert.same(first.tls.client, second.tls.client)
      end)

      t.it("is no way around a client's certificate, TLS " .. version, function()
         local _, _, anonymous = visit(PLAIN, how())
         local _, _, stranger = visit(OTHER, how { certificate = "stranger" })
         local _, _, shy = visit(OPTIONAL, how())
         assert.truthy(anonymous and stranger and shy)
         for _, session in ipairs { anonymous, stranger, shy } do
            assert.is_nil((visit(DEMANDING, how { session = session })))
         end
         local seen = visit(OPTIONAL, how { session = stranger })
         assert.is_nil(seen.tls.client)
      end)

      t.it("does not happen without tickets, TLS " .. version, function()
         local _, _, session = visit(PLAIN, how())
         local seen, _, none = visit(WITHOUT, how { session = session })
         assert.is_false(seen.tls.resumed)
         assert.is_nil(none)
      end)

      t.it("hides no other name, TLS " .. version, function()
         local _, _, session = visit(PLAIN, how())
         local seen = visit(PLAIN, how { session = session, name = "www.a.example" })
         assert.equal("www.a.example", seen.tls.name)
         assert.is_false(seen.tls.resumed) -- RFC 6066, 3; RFC 8446, 4.6.1 would allow it for 1.3
      end)
   end

   t.it("works behind a reload and in a worker that was started anew, not in another program", function()
      local proxy = program.start(options(1))
      local _, _, session = visit(PLAIN, nil, proxy)
      proxy:reload()
      assert.is_true(visit(PLAIN, { session = session }, proxy).tls.resumed)
      local worker = proxy:workers()[1]
      sys.kill(worker, sys.SIGKILL)
      t.eventually("another worker", function()
         local pids = proxy:workers()
         return pids[1] and pids[1] ~= worker
      end)
      assert.is_true(visit(PLAIN, { session = session }, proxy).tls.resumed)
      assert.is_false(visit(PLAIN, { session = session }).tls.resumed)
   end)

   t.it("works behind an upgrade, whose program is told the keys", function()
      local old = program.start(options(1))
      local _, _, session = visit(PLAIN, nil, old)
      local _, _, known = visit(DEMANDING, { certificate = "client" }, old)
      local new = old:upgrade()
      old:expect_end()
      for _ = 1, 2 do
         assert.is_true(visit(PLAIN, { session = session }, new).tls.resumed)
         local seen = visit(DEMANDING, { session = known }, new)
         assert.is_true(seen.tls.resumed)
         assert.is_truthy(seen.tls.client)
      end
      new:stop()
   end)

   t.it("is not asked for again when a reload demands more of clients", function()
      local proxy = program.start(options(1))
      local _, _, session = visit(PLAIN, nil, proxy)
      local _, _, known = visit(DEMANDING, { certificate = "client" }, proxy)
      proxy:write("site.lua", (SITE:gsub("listen {}", 'listen { client_ca = "ca.pem" }')
         :gsub('client_ca = "ca.pem", client_auth = "required"', 'client_ca = "other.pem"')))
      proxy:reload()
      assert.is_nil((visit(PLAIN, { session = session }, proxy)))
      assert.is_nil((visit(DEMANDING, { session = known }, proxy)))
   end)
end)
