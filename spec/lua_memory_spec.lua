--- A script that takes more memory than ml.options { lua_memory_max = } allows costs the request that
--- wants it, and nobody else anything; one that keeps what it takes is loaded anew.
local t = require "spec.support"
local json = require("monolake").json

local program = t.program

local MAX = 16 * 1048576

local SITE = [[
local ml = require "monolake"
ml.options { lua_memory_max = "16m" }
local dict = ml.shared("dict", { size = "64k" })
local kept = {}

local function fill(list, make)
   for i = 1, 1e9 do
      list[i] = make(i)
   end
end

local function table_of(i) return { i } end
local function text_of(i) return "text " .. i end

local greedy = {
   tables = function() fill({}, table_of) end,
   texts = function() fill({}, text_of) end,
   closures = function() fill({}, function(i) return function() return i end end) end,
   bytes = function() fill({}, function(i) return ("x"):rep(i) end) end,
   doubled = function()
      local text = "x"
      for _ = 1, 40 do text = text .. text end
   end,
   repeated = function() return ("x"):rep(2 ^ 30) end,
   numbers = function() fill({}, tonumber) end,
   own_coroutine = function() coroutine.wrap(fill)({}, table_of) end,
   caught = function()
      for _ = 1, 3 do assert(not pcall(fill, {}, table_of)) end
      error "all were caught"
   end,
}

local ways = {}
for name, fn in pairs(greedy) do
   ways["/" .. name] = fn
   ways["/behind/" .. name] = { function(req, next) return next(req) end, fn }
end

ways["/leak"] = function(req)
   for _ = 1, 200 do kept[#kept + 1] = { ("leaked"):rep(100) .. #kept } end
   return ml.text(tostring(#kept))
end
ways["/hold"] = function(req, next)
   local first = #kept
   dict:set("held", true)
   while not dict:get "release" do ml.sleep(0.01) end
   return ml.text(("%d %d"):format(first, #kept))
end
ways["/release"] = function() dict:set("release", true); return ml.text "" end
ways["/held"] = function() return ml.text(tostring(dict:get "held")) end
ways["/stats"] = function() return ml.json(ml.stats()) end
ways["/garbage"] = function()
   for i = 1, 1e5 do ways.garbage = ("garbage "):rep(100) .. i end
   return ml.text "done"
end
ways["/*"] = { function() return ml.text "plain" end }

ml.listen { address = "127.0.0.1:0", chain = { ml.router(ways) } }
]]

local NAMES = { "tables", "texts", "closures", "bytes", "doubled", "repeated", "numbers", "own_coroutine",
   "caught" }

local function get(client, path)
   return client:exchange(("GET %s HTTP/1.1\nHost: a"):format(path))
end

local function stats(client)
   return json.decode(get(client, "/stats").body)
end

t.on_both_backends("a script's memory", function(backend)
   local running = t.serve { io = backend, site = SITE }

   for _, name in ipairs(NAMES) do
      t.it("is bounded: " .. name, function()
         local client, other = running():connect(), running():connect()
         local pid = running():workers()[1]
         for _, path in ipairs { "/" .. name, "/behind/" .. name } do
            for _ = 1, 2 do
               assert.equal("plain", get(other, "/").body)
               assert.equal(500, get(client, path).status)
               assert.equal("plain", get(other, "/").body)
            end
         end
         assert.equal(pid, running():workers()[1])
         local now = stats(client)
         assert.is_true(now.lua_memory_bytes < MAX / 2, now.lua_memory_bytes .. " bytes are held")
         assert.equal(0, now.lua_memory_restarts)
      end)
   end

   t.it("is told of in the log, as other errors", function()
      local client = running():connect()
      for _, path in ipairs { "/tables", "/behind/tables" } do
         local offset = #running():log()
         t.eventually("a failure to be logged", function()
            assert.equal(500, get(client, path).status)
            return running():log(offset):find("site.lua:8: not enough memory: the site's Lua holds " ..
               "1%d MiB, lua_memory_max is 16 MiB\n" ..
               "stack traceback:\n[^\n]-site.lua[:%d]-: in function 'fill'")
         end)
      end
   end)

   t.it("may hold garbage of any amount", function()
      local client = running():connect()
      local offset = #running():log()
      assert.equal("done", get(client, "/garbage").body)
      assert.not_matches("not enough memory", running():log(offset))
   end)

   t.it("that leaks is given back by loading the site anew", function()
      local client, holder, other = running():connect(), running():connect(), running():connect()
      local pid, before = running():workers()[1], stats(client)
      local offset = #running():log()
      holder:send_head "GET /hold HTTP/1.1\nHost: a"
      t.eventually("the request to be held", function()
         return get(other, "/held").body == "true"
      end)
      local most, now = 0
      repeat
         now = tonumber(get(client, "/leak").body)
         assert.equal("plain", get(other, "/").body)
         if now then
            most = math.max(most, now)
         end
      until not now or now < most
      assert.equal(1, stats(client).lua_memory_restarts - before.lua_memory_restarts)
      assert.matches("the site's Lua holds 1%d MiB, lua_memory_max is 16 MiB.-loaded anew",
         running():log(offset))
      get(other, "/release")
      local first, last = holder:read_response().body:match "(%d+) (%d+)"
      assert.equal(0, tonumber(first))
      assert.is_true(tonumber(last) >= most, "a request has changed its generation")
      t.eventually("the old generation to go", function()
         return stats(other).lua_memory_bytes < MAX / 2
      end)
      assert.equal(pid, running():workers()[1])
   end)

   t.it("that leaks again at once is waited for", function()
      local own = program.start { io = backend, site = SITE }
      local client, other = own:connect(), own:connect()
      local restarts, failed = 0, 0
      t.eventually("requests to fail", function()
         failed = failed + (get(client, "/leak").status == 500 and 1 or 0)
         assert.equal("plain", get(other, "/").body)
         restarts = stats(other).lua_memory_restarts
         return failed > 0
      end)
      assert.is_true(restarts >= 1 and restarts <= 3, own:log())
   end)

   t.it("that is held by requests that do not end ends its worker", function()
      local own = program.start { io = backend, site = SITE }
      local pid = own:workers()[1]
      for restarts = 1, 2 do
         local client, holder = own:connect(), own:connect()
         holder:send_head "GET /hold HTTP/1.1\nHost: a"
         t.eventually("the site to be loaded anew", function()
            get(client, "/leak")
            return stats(client).lua_memory_restarts == restarts
         end)
      end
      t.eventually("the worker to end", function()
         local client = own:connect()
         pcall(get, client, "/leak")
         client:close()
         return own:log():find("generations that were replaced, but are still in use, %d+ MiB; " ..
            "lua_memory_max is 16 MiB: this worker ends")
      end)
      t.eventually("another to serve", function()
         local workers = own:workers()
         return #workers == 1 and workers[1] ~= pid
      end)
      assert.equal("plain", get(own:connect(), "/").body)
   end)
end)

describe("lua_memory_max", function()
   local function errors_of(value)
      local _, err, status = program.check { site = ([[
         local ml = require "monolake"
         ml.options { lua_memory_max = %s }
         local all = {}
         for i = 1, 3e5 do all[i] = { i } end
         ml.listen { address = "127.0.0.1:0", chain = ml.text(tostring(#all)) }]]):format(value) }
      return status == 0 and "" or err
   end

   t.it("is checked", function()
      assert.matches("lua_memory_max: expected 8m or more", errors_of '"1k"')
      assert.matches("lua_memory_max: expected a number of bytes", errors_of '"many"')
   end)

   t.it("holds while a site is loaded", function()
      assert.matches("site.lua:4: not enough memory", errors_of '"16m"')
      assert.equal("", errors_of '"100m"')
   end)
end)
