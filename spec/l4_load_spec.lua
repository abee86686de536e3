--- Many connections of layer 4, and many bytes. Short versions by default, the full ones with
--- SPEC_LOAD=full, which print their figures.
local t = require "spec.support"

local process, program, sys = t.process, t.program, t.sys

local FULL = t.full_load
local TUNNELS = FULL and 5000 or 500
local BULK_MIB = FULL and 20480 or 256
local TLS_MIB = FULL and 2048 or 64
local IDLE_BYTES_MAX = 6144 -- of a worker for a tunnel on which nothing moves
local SECONDS = (FULL and 600 or 20) * t.tasks.patience

local SITE = [[
   local ml = require "monolake"
   ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy { "${origin}", name = "plain" } }
   ml.listen { address = "127.0.0.1:0", l4 = {
      ml.access_log "access.log",
      function(conn, next)
         conn.ctx.name = "kept"
         conn:on_close(function() end)
         next(conn)
      end,
      ml.tcp_proxy { "${origin}", name = "scripted" },
   } }
   -- By TLS from itself to itself.
   ml.listen { address = "127.0.0.1:0", l4 = ml.tcp_proxy {
      "unix:${directory}/tls", name = "to TLS", tls = { name = "a.example", insecure = true } } }
   ml.listen { address = "unix:${directory}/tls", tls = { cert = "a.pem", key = "a.key" },
      l4 = ml.tcp_proxy { "${origin}", name = "from TLS" } }
]]
local PLAIN, SCRIPTED, TLS = 1, 2, 3

local function note(text, ...)
   if FULL then
      io.stderr:write("\n   ", text:format(...), "\n")
   end
end

t.on_both_backends("load of layer 4", function(backend)
   local parts = {}

   --- Starts a script in spec/support; ended behind the spec.
   local function start_part(script, ...)
      local part = process.start({ "luajit", "spec/support/" .. script, ... }, process.directory())
      parts[#parts + 1] = part
      return part
   end

   after_each(function()
      for _, part in ipairs(parts) do
         if not part:has_ended() then
            part:signal(sys.SIGKILL)
         end
      end
      parts = {}
   end)

   local function reported(part, name)
      return t.eventually(name .. " of the load", function()
         local value = part:stdout():match("%f[%w]" .. name .. " ([^\n]+)\n")
         if not value and part:has_ended() then
            error("the load ended: " .. part:stderr() .. part:stdout())
         end
         return value
      end, SECONDS)
   end

   local function start(origin)
      return program.start { io = backend, site = SITE, listeners = 4,
         values = { origin = origin, directory = process.directory() }, files = t.certificates.all() }
   end

   local function close_and_stop(running)
      for _, part in ipairs(parts) do
         part:signal(sys.SIGKILL)
      end
      running:stop()
   end

   for kind, number in pairs { plain = PLAIN, scripted = SCRIPTED } do
      t.it(("holds idle %s tunnels in little memory"):format(kind), function()
         local echo = start_part("tunnels.lua", "echo")
         local running = start(reported(echo, "listening"))
         local address, stop = running.addresses[number], running:path "stop"
         local first_stop = running:path "first stop"
         process.write_file(first_stop, "")
         reported(start_part("tunnels.lua", "hold", address, "50", first_stop), "alive")
         local before_kib = running:rss_kib()
         local holder = start_part("tunnels.lua", "hold", address, tostring(TUNNELS), stop)
         reported(holder, "held")
         local bytes = running:expect_small("an idle tunnel", before_kib, TUNNELS, IDLE_BYTES_MAX)
         note("%d idle %s tunnels (%s): %.0f bytes each", TUNNELS, kind, backend, bytes)
         process.write_file(stop, "")
         assert.equal(tostring(TUNNELS), reported(holder, "alive"))
         close_and_stop(running)
      end)
   end

   --- What goes by, and how: from the peer to the client, or from the client to the peer.
   local function carry(running, listener, way, mib)
      local bytes = ("%.0f"):format(mib * 1048576)
      local address = running.addresses[listener]
      local part = way == "down" and start_part("bodies.lua", "read", address, bytes, "100000") or
         start_part("bodies.lua", "write", address, bytes)
      assert.equal(bytes .. " true", reported(part, "result"))
      return tonumber(reported(part, "seconds"))
   end

   for _, case in ipairs { { "down", PLAIN, BULK_MIB }, { "up", PLAIN, BULK_MIB }, { "down", TLS, TLS_MIB },
      { "up", TLS, TLS_MIB } } do
      local way, listener, mib = unpack(case)
      local what = ("%s%s"):format(way, listener == TLS and ", by TLS" or "")
      t.it("carries much with flat memory: " .. what, function()
         local source = start_part("bodies.lua", "origin", "100000")
         local running = start(reported(source, "listening"))
         carry(running, listener, way, 64)
         local before_kib = running:rss_kib()
         running:forget_peak()
         local seconds = carry(running, listener, way, mib)
         local after_kib, peak_kib = running:rss_kib(), running:peak_kib()
         local memory = ("RSS %d KiB before, %d after, %d at most"):format(before_kib, after_kib, peak_kib)
         note("%s: %d MiB in %.1f s (%s): %s", what, mib, seconds, backend, memory)
         if not program.sanitized then
            assert.is_true(math.max(after_kib, peak_kib) - before_kib < 4096, memory)
         end
         close_and_stop(running)
      end)
   end
end)
