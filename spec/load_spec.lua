--- Many of everything: connections, requests, reloads, bytes. Short versions by default, the full ones
--- with SPEC_LOAD=full, which print their figures.
local t = require "spec.support"

local h2 = require "spec.support.h2"

local process, program, sys, tls_socket = t.process, t.program, t.sys, t.tls_socket

local FULL = t.full_load
local RELOADS = FULL and 200 or 40
local CONNECTIONS = FULL and 10000 or 2000
local REQUESTS = FULL and 1000000 or 20000
local BODY_MIB, MIB_PER_SECOND = FULL and 10240 or 100, FULL and 300 or 150
-- What a worker that has worked is larger than a fresh one: code and data that were needed, and what lies
-- between blocks in use, Lua's too.
local WARM_KIB = 5120
local IDLE_BYTES_MAX = 900 -- a client's connection without a request, memory of the kernel aside
local TLS_CONNECTIONS = FULL and 9000 or 1000
local TLS_IDLE_BYTES_MAX = { -- as before, with the library's part and, of HTTP/2, nghttp2's
   ["http/1.1"] = { openssl = 17000, gnutls = 15000 },
   h2 = { openssl = 34000, gnutls = 44000 },
}
local SECONDS = (FULL and 600 or 20) * t.tasks.patience

local SITE = [[
local ml = require "monolake"
local origin = ml.upstream { "${origin}" }
ml.listen { address = "127.0.0.1:0", chain = {
   function(req, next)
      local res = next(req)
      res.headers["x-served-by"] = req.headers.host .. " ${version}"
      return res
   end,
   ml.proxy(origin),
} }
]]

local ORIGIN_SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = { ml.text "hello" } }
]]

local TLS_SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", idle_timeout = "1h", tls = { cert = "a.pem", key = "a.key" },
   chain = { ml.text "hello" } }
]]

local function note(text, ...)
   if FULL then
      io.stderr:write("\n   ", text:format(...), "\n")
   end
end

local loads = {}

--- Starts a part of a script in spec/support; ended behind the spec.
local function load(script, ...)
   local running = process.start({ "luajit", "spec/support/" .. script, ... }, process.directory())
   loads[#loads + 1] = running
   return running
end

local function end_loads()
   for _, running in ipairs(loads) do
      if not running:has_ended() then
         running:signal(sys.SIGKILL)
      end
   end
   loads = {}
end

--- Waits for a line "name value" of it and returns the value.
local function reported(running, name)
   return t.eventually(name .. " of the load", function()
      local value = running:stdout():match("%f[%w]" .. name .. " ([^\n]+)\n")
      if not value and running:has_ended() then
         error("the load ended: " .. running:stderr() .. running:stdout())
      end
      return value
   end, SECONDS)
end

local function expect_no_failures(running)
   local failed = reported(running, "failed")
   assert.equal("0", failed, running:stdout())
   return tonumber(reported(running, "answered"))
end

t.on_both_backends("load", function(backend)
   local origin = t.serve { io = backend, site = ORIGIN_SITE, workers = 1 }

   after_each(end_loads)

   local function start(workers)
      return program.start { io = backend, site = SITE, workers = workers,
         values = { origin = origin().address, version = 0 } }
   end

   local function expect_flat(what, before_kib, after_kib, allowed_mib)
      note("%s (%s): RSS of the workers %d KiB before, %d KiB after", what, backend, before_kib, after_kib)
      if not program.sanitized then
         assert.is_true(after_kib - before_kib < allowed_mib * 1024,
            ("%d KiB became %d KiB"):format(before_kib, after_kib))
      end
   end

   t.it("of reloads under way costs no request", function()
      local running = start(2)
      local stop = running:path "stop"
      local steady = load("load.lua", "steady", running.address, "20", stop)
      reported(steady, "begun")
      local before_kib
      for i = 1, RELOADS do
         running.values.version = i
         running:write("site.lua", SITE)
         running.process:signal(sys.SIGHUP)
         running:await_log(("generation %d serves"):format(i + 1))
         before_kib = before_kib or i == 10 and running:rss_kib()
      end
      local after_kib = running:rss_kib()
      process.write_file(stop, "")
      local answered = expect_no_failures(steady)
      assert.is_true(answered >= RELOADS)
      assert.equal("load.example " .. RELOADS,
         running:exchange("GET / HTTP/1.1\nHost: load.example"):get "x-served-by")
      note("%d reloads (%s) in %s s: %d requests, none failed", RELOADS, backend,
         reported(steady, "seconds"), answered)
      expect_flat("reloads", before_kib, after_kib, 24)
      assert.is_nil(running:log():find "error")
   end)

   t.it("costs none of the requests on open connections when the program ends", function()
      local running = start(2)
      local stop = running:path "stop"
      local steady = load("load.lua", "steady", running.address, "50", stop)
      reported(steady, "begun")
      t.tasks.sleep(0.3)
      running:stop()
      process.write_file(stop, "")
      assert.is_true(tonumber(reported(steady, "answered")) > 50)
      assert.is_true(steady:wait(SECONDS))
      for count, reason in steady:stdout():gmatch "failure (%d+) x ([^\n]+)" do
         assert.equal("connecting failed with error 111", reason, count)
      end
   end)

   --- Waits until what workers have used is given back. A sanitizer gives nothing back.
   local function expect_given_back(what, running, cold_kib)
      local bound_kib, kib = cold_kib + #running:workers() * WARM_KIB, nil
      local ok = program.sanitized or pcall(t.eventually, "memory", function()
         kib = running:rss_kib()
         return kib <= bound_kib
      end, 60 * t.tasks.patience)
      note("%s (%s): RSS of the workers %d KiB before, %s KiB behind it", what, backend, cold_kib, kib)
      assert.is_true(ok, ("%d KiB became %s KiB"):format(cold_kib, kib))
   end

   t.it("of many connections at once is served on each of them, and leaves nothing behind", function()
      local running = start(2)
      local before_kib, stop = running:rss_kib(), running:path "stop"
      local crowd = load("load.lua", "crowd", running.address, tostring(CONNECTIONS), "3", stop)
      assert.equal(tostring(CONNECTIONS), reported(crowd, "opened"))
      assert.equal(3 * CONNECTIONS, expect_no_failures(crowd))
      note("%d connections (%s), 3 requests on each: %s s; RSS of the workers %d KiB before, %d KiB then",
         CONNECTIONS, backend, reported(crowd, "seconds"), before_kib, running:rss_kib())
      -- The crowd is still there: others are served beside it.
      assert.equal("hello", running:exchange("GET / HTTP/1.1\nHost: a").body)
      process.write_file(stop, "")
      assert.is_true(crowd:wait(SECONDS))
      assert.equal("hello", running:exchange("GET / HTTP/1.1\nHost: a").body)
      expect_given_back("a crowd that has gone", running, before_kib)
   end)

   t.it("that has passed leaves little of each connection that stays", function()
      local running = program.start { io = backend, site = ORIGIN_SITE, workers = 1 }
      local stop, first_kib = running:path "stop", nil
      for _ = 1, 3 do -- the first one brings what all need: stacks, buffers, exchanges
         local crowd = load("load.lua", "crowd", running.address, tostring(CONNECTIONS), "3", stop)
         assert.equal(3 * CONNECTIONS, expect_no_failures(crowd))
         first_kib = first_kib or running:rss_kib()
      end
      local bytes = running:expect_small("an idle connection", first_kib, 2 * CONNECTIONS, IDLE_BYTES_MAX)
      note("an idle connection (%s): %d bytes", backend, bytes)
      process.write_file(stop, "")
   end)

   t.on_both_libraries("by TLS", function(library)
      local connect = {
         ["http/1.1"] = function(address)
            local client = tls_socket.connect(address)
            assert.equal("hello", client:exchange("GET / HTTP/1.1\nHost: a").body)
         end,
         h2 = function(address)
            assert.equal("hello", h2.connect(address, { tls = true }):get("/").body)
         end,
      }

      for protocol, limits in pairs(TLS_IDLE_BYTES_MAX) do
         t.it("that has passed leaves little of each connection that stays, " .. protocol, function()
            sys.raise_descriptor_limit()
            local running = program.start(t.with_tls(backend, library, { workers = 1, site = TLS_SITE }))
            for _ = 1, TLS_CONNECTIONS / 5 do -- these bring what all need
               connect[protocol](running.address)
            end
            local before_kib = running:rss_kib()
            for _ = 1, TLS_CONNECTIONS do
               connect[protocol](running.address)
            end
            local bytes = running:expect_small("an idle connection", before_kib, TLS_CONNECTIONS,
               limits[library])
            note("an idle connection of %s by TLS (%s, %s): %d bytes", protocol, library, backend, bytes)
         end)
      end
   end)

   --- Runs wrk for so long. Returns the number of requests; none may have failed.
   local function wrk(address, seconds)
      local out, err, status = process.run({ "wrk", "-t1", "-c32", ("-d%ds"):format(seconds),
         ("http://%s/"):format(address) }, seconds + SECONDS)
      assert.equal(0, status, err)
      assert.is_nil(out:match "Non%-2xx[^\n]*" or out:match "Socket errors[^\n]*")
      return tonumber(out:match "(%d+) requests in")
   end

   t.it("of requests through a Lua layer leaves memory flat", function()
      local running = start(1)
      wrk(running.address, 1)
      local before_kib, answered = running:rss_kib(), 0
      while answered < REQUESTS do
         answered = answered + wrk(running.address, FULL and 10 or 1)
      end
      note("%d requests through a Lua layer (%s)", answered, backend)
      expect_flat("requests", before_kib, running:rss_kib(), 4)
   end)

   --- Sends a small body and a large one through the program; the second must not need more memory.
   local function carry(what, site, mode, version)
      local source = load("bodies.lua", "origin", mode == "write" and tostring(MIB_PER_SECOND) or "1000")
      local running = program.start { io = backend, site = site, workers = 1,
         values = { origin = reported(source, "listening"), version = 0 } }
      local function client(bytes)
         return load("bodies.lua", mode, running.address, bytes, tostring(MIB_PER_SECOND), version)
      end
      assert.equal("1048576 true", reported(client "1048576", "result"))
      local worker, before_kib = running:workers()[1], running:rss_kib()
      local bytes = ("%.0f"):format(BODY_MIB * 1048576)
      local carrying = client(bytes)
      assert.equal(bytes .. " true", reported(carrying, "result"))
      note("%d MiB %s (%s) in %s s", BODY_MIB, what, backend, reported(carrying, "seconds"))
      expect_flat(what .. ", at the peak", before_kib, process.memory_kib(worker, "VmHWM"), 8)
   end

   t.it("of a large body to a slow reader needs no more memory than a small one", function()
      carry("to a slow reader", SITE, "read")
   end)

   t.it("of a large body to a slow origin needs no more memory than a small one", function()
      carry("to a slow origin", SITE, "write")
   end)

   t.it("of a large body that a layer looks through needs no more memory than a small one", function()
      carry("through res:map", (SITE:gsub("return res\n",
         "res:map(function(chunk) return chunk end)\n      return res\n")), "read", "1.0")
   end)
end)
