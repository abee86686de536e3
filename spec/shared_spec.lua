--- Shared dictionaries: what they say in a policy's spec, and in the program over all workers, reloads,
--- upgrades and workers that are killed while they write.
local ml = require "monolake"
local t = require "spec.support"

local program, socket, sys = t.program, t.socket, t.sys

describe("a shared dictionary", function()
   local dict = ml.shared("spec", { size = "256k" })

   before_each(function()
      dict:flush()
   end)

   it("keeps strings, numbers and booleans", function()
      for _, value in ipairs { "text", "", ("long "):rep(1000), "\0\255", 0, -1.5, 2 ^ 53, true, false } do
         assert.is_true(dict:set("key", value))
         assert.equal(value, dict:get "key")
      end
      assert.is_nil(dict:get "other")
      assert.equal(1, dict:count())
      assert.is_true(dict:delete "key")
      assert.is_false(dict:delete "key")
      assert.is_nil(dict:get "key")
   end)

   it("adds, replaces and counts", function()
      assert.is_false(dict:replace("a", 1))
      assert.is_true(dict:add("a", 1))
      assert.is_false(dict:add("a", 2))
      assert.is_true(dict:replace("a", 3))
      assert.equal(4, dict:incr "a")
      assert.equal(1.5, dict:incr("a", -2.5))
      assert.same({ nil, "not found" }, { dict:incr "b" })
      assert.equal(11, dict:incr("b", 1, 10))
      dict:set("c", "text")
      assert.same({ nil, "not a number" }, { dict:incr("c", 1, 0) })
   end)

   t.it("forgets what is over", function()
      dict:set("soon", "x", { ttl = 0.001 })
      dict:incr("count", 1, 0, "1ms")
      dict:set("later", "x", { ttl = "1h" })
      dict:set("never", "x")
      assert.equal(math.huge, dict:ttl "never")
      assert.is_true(dict:ttl "later" > 3500 and dict:ttl "later" <= 3600)
      t.eventually("the time to pass", function()
         return dict:get "soon" == nil and dict:get "count" == nil
      end)
      assert.same({ nil, "not found" }, { dict:ttl "soon" })
      assert.is_true(dict:expire("later"))
      assert.equal(math.huge, dict:ttl "later")
      assert.is_false(dict:expire("none", 1))
   end)

   it("evicts or refuses at its bound", function()
      local keeps = ml.shared("keeps", { size = "64k", evict = false })
      keeps:flush()
      for _, one in ipairs { dict, keeps } do
         local count, ok, why = 0, true, nil
         while ok and count < 5000 do
            ok, why = one:set("key " .. count, ("x"):rep(200))
            count = count + 1
         end
         local stats = one:stats()
         assert.is_true(stats.bytes_used <= stats.bytes)
         assert.equal(one == keeps and "full" or nil, why)
         assert.equal(one == keeps, stats.evicted == 0)
         assert.equal(one == keeps, one:get "key 0" ~= nil)
      end
      assert.same({ nil, "too long" }, { dict:set("k", ("x"):rep(2e5)) })
   end)

   it("is the same for all who name it, and says what it expects", function()
      dict:set("k", 1)
      assert.equal(1, ml.shared("spec", { size = "256k" }):get "k")
      local function fails(pattern, fn, ...)
         local ok, err = pcall(fn, ...)
         assert.is_false(ok)
         assert.matches(pattern, err)
      end
      fails("expected 64k to 64g", ml.shared, "x", { size = "1k" })
      fails('did you mean "size"', ml.shared, "x", { sise = "1m" })
      fails("1 to 63 bytes", ml.shared, ("x"):rep(64))
      fails("a key is a string, not a nil", dict.get, dict)
      fails("a string, a number or a boolean, not a table", dict.set, dict, "k", {})
      fails('unknown option "tll"; did you mean "ttl"', dict.set, dict, "k", 1, { tll = 1 })
      fails("more than 0 seconds", dict.set, dict, "k", 1, { ttl = 0 })
   end)
end)

local SITE = [[
local ml = require "monolake"
local dict = ml.shared("values", { size = "${size}" })
local counts = ml.shared "counts"
local KEYS, values = 50, {}
for i = 1, 26 do
   values[i] = string.char(96 + i):rep(i * 700)
end

local function is_whole(value)
   local letter = value:byte() - 96
   return value == values[letter]
end

ml.listen { address = "127.0.0.1:0", chain = ml.router {
   ["/incr"] = function() return ml.text(tostring(counts:incr("n", 1, 0))) end,
   ["/get"] = function() return ml.text(tostring(counts:get "n")) end,
   ["/set"] = function() dict:set("k 1", values[3]) return ml.text "set" end,
   ["/churn"] = function()
      ml.log.info "churning"
      while true do
         for i = 1, 200 do
            local key = "k " .. math.random(KEYS)
            if i % 10 == 0 then
               dict:delete(key)
            else
               dict:set(key, values[math.random(26)])
            end
            counts:incr("churned", 1, 0)
         end
         ml.sleep(0.001)
      end
   end,
   ["/check"] = function()
      local found, broken = 0, 0
      for i = 1, KEYS do
         local value, why = dict:get("k " .. i)
         assert(value or not why, why)
         found = found + (value and 1 or 0)
         broken = broken + (value and not is_whole(value) and 1 or 0)
      end
      return ml.json { found = found, broken = broken, count = dict:count(), churned = counts:get "churned",
         stats = dict:stats() }
   end,
} }
]]

local function get(running, path)
   return running:exchange(("GET %s HTTP/1.1\nHost: a"):format(path)).body
end

t.on_both_backends("shared dictionaries", function(backend)
   local function start(options)
      options = options or {}
      return program.start { io = backend, site = SITE, workers = options.workers or 3,
         values = { size = "2m" }, program = options.program }
   end

   t.it("are one for all workers", function()
      local running = start()
      for i = 1, 30 do
         assert.equal(tostring(i), get(running, "/incr"))
      end
      running:stop()
   end)

   t.it("stay over reloads, as long as their size does", function()
      local running = start()
      get(running, "/incr")
      get(running, "/set")
      running:reload()
      assert.equal("2", get(running, "/incr"))
      assert.equal(1, ml.json.decode(get(running, "/check")).count)
      running.values.size = "3m"
      running:write("site.lua", SITE)
      running:reload()
      assert.equal("3", get(running, "/incr"))
      assert.equal(0, ml.json.decode(get(running, "/check")).count)
      running:write("site.lua", "local ml = require 'monolake' ml.shared 'more' error 'on purpose'")
      running:reload "on purpose"
      running:write("site.lua", SITE)
      running:reload()
      for _, pid in ipairs(running:workers()) do
         sys.kill(pid, sys.SIGKILL)
      end
      running:await_log "started again.*started again.*started again"
      t.eventually("new workers to serve", function()
         local ok, body = pcall(get, running, "/get")
         return ok and body == "3"
      end)
      running:stop()
   end)

   t.it("stay over binary upgrades", function()
      local running = start { workers = 2 }
      get(running, "/incr")
      for i = 2, 3 do
         local new = running:upgrade()
         running:expect_end()
         running = new
         assert.equal(tostring(i), get(running, "/incr"))
      end
      assert.is_nil(running:log():find("another layout", 1, true))
      running:reload()
      assert.equal("4", get(running, "/incr"))
      running:stop()
   end)

   t.it("stay whole when workers are killed while they write", function()
      local running = start()
      local rounds, before = t.full_load and 30 or 4, 0
      for _ = 1, rounds do
         local offset = #running:log()
         for _ = 1, 9 do
            running:connect():send_head "GET /churn HTTP/1.1\nHost: a"
         end
         running:await_log("churning.*churning.*churning", offset)
         for _, pid in ipairs(running:workers()) do
            sys.kill(pid, sys.SIGKILL)
         end
         socket.reset_all()
         local found
         -- Who was queued may be served by a new worker, which goes on for a moment.
         t.eventually("a worker to serve, and the writing to end", function()
            local ok, body = pcall(get, running, "/check")
            found = ok and ml.json.decode(body)
            return found and (found.broken > 0 or found.count == found.found)
         end)
         assert.equal(0, found.broken)
         assert.is_true(found.churned > before)
         before = found.churned
      end
      t.eventually("all workers to be there", function() return #running:workers() == 3 end)
      socket.reset_all()
      running:stop()
   end)
end)
