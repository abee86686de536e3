local t = require "monolake.test"
local ml = require "monolake"

local function append(list, name)
   return function(req, next)
      list[#list + 1] = name .. " in"
      local res = next(req)
      list[#list + 1] = name .. " out"
      return res
   end
end

--- What is said of a layer that fails.
local function why_not(layer)
   local why
   t.call({ function(req, next)
      local res = next(req)
      why = res.error
      return res
   end, layer }, "/")
   return why
end

describe("layers", function()
   it("wrap what stands behind them", function()
      local order = {}
      assert(t.call({ append(order, "a"), { append(order, "b") }, append(order, "c") }, "/"))
      assert.are.same({ "a in", "b in", "c in", "c out", "b out", "a out" }, order)
   end)

   it("may be native and Lua in any order", function()
      local order = {}
      local native = function(inner)
         return ml.router { ["/*"] = inner }
      end
      local res = assert(t.call({
         append(order, "a"), native { append(order, "b"), native(append(order, "c")), append(order, "d") },
      }, "/", ml.text "leaf"))
      assert.are.equal("leaf", res.body)
      assert.are.same({ "a in", "b in", "c in", "d in", "d out", "c out", "b out", "a out" }, order)
   end)

   it("may answer by themselves", function()
      local res = assert(t.call(function() return ml.text "mine" end, "/", ml.text "leaf"))
      assert.are.equal("mine", res.body)
      assert.is_nil(res.forwarded)
   end)

   it("may ask what stands behind them more than once", function()
      local count = 0
      local res = assert(t.call(function(req, next)
         local first = next(req)
         assert.are.equal(503, first.status)
         return next(req)
      end, "/", function()
         count = count + 1
         return ml.text("try " .. count, { status = count == 1 and 503 or 200 })
      end))
      assert.are.equal("try 2", res.body)
   end)

   it("are told how a request is sent elsewhere when they take what belongs into a chain for it", function()
      local proxy, upstream = ml.proxy "127.0.0.1:1", ml.upstream { "127.0.0.1:2", name = "two" }
      local hint = "req:forward(upstream) sends a request to an upstream"
      assert.matches("layers_spec.lua:%d+: a layer is no function: it belongs into a chain; ",
         why_not(function(req, next)
            local res = proxy(req, next)
            return res
         end))
      assert.matches(hint, why_not(function(req, next) return proxy(req, next) end), 1, true)
      assert.matches("returned a layer, which belongs into a chain; " .. hint,
         why_not(function() return proxy end), 1, true)
      assert.matches("returned an upstream; " .. hint, why_not(function() return upstream end), 1, true)
   end)

   it("are named when what they have returned cannot be made a response", function()
      local function bad()
         return ml.text("", { headers = { location = "/a\nb" } })
      end
      local line = debug.getinfo(bad, "S").linedefined
      local expected = ("^lua .*layers_spec.lua:%d: not a valid field: \"location\""):format(line)
      assert.matches(expected, why_not(bad))
      assert.matches(expected, why_not(ml.router { ["/*"] = bad }))
   end)

   it("may sleep for a text, too", function()
      local res = assert(t.call(function()
         local before = ml.now()
         ml.sleep "20ms"
         return ml.text(tostring(ml.now() - before >= 0.02))
      end, "/"))
      assert.are.equal("true", res.body)
      assert.matches('layers_spec.lua:%d+: sleep: expected a number of seconds or a text such as',
         why_not(function() ml.sleep "soon" end))
   end)

   it("get a 404 where nobody answers", function()
      local status
      local res = assert(t.call(function(req, next)
         local answer = next(req)
         status = answer.status
         return answer
      end, "/", function(req, next)
         return next(req)
      end))
      assert.are.same({ 404, 404 }, { status, res.status })
   end)

   it("run side by side while one waits", function()
      local log = {}
      local app_layer = function(req)
         log[#log + 1] = "in"
         ml.sleep(0.02)
         log[#log + 1] = "out"
         return ml.text(req.path)
      end
      local origin = t.origin(app_layer)
      local answers = {}
      local res = assert(t.call({
         function(req, next)
            answers[#answers + 1] = next(req).status
            return ml.text "done"
         end,
         ml.proxy(origin.address),
      }, "/x"))
      assert.are.equal("done", res.body)
      origin:close()
      assert.are.same({ "in", "out" }, log)
   end)

   it("keep their local state between requests", function()
      local count = 0
      local function counter()
         count = count + 1
         return ml.text(tostring(count))
      end
      for i = 1, 3 do
         assert.are.equal(tostring(i), t.call(counter, "/").body)
      end
   end)
end)

describe("a layer that fails", function()
   it("is a 500 that tells the client nothing", function()
      local res = assert(t.call(function() error "secret detail" end, "/"))
      assert.are.equal(500, res.status)
      assert.not_matches("secret", res.body)
   end)

   it("is seen as a 500 by the layers around it, whatever it raised", function()
      for _, value in ipairs { "text", { code = 7 }, 42, true } do
         local seen
         assert(t.call({
            ml.router { ["/*"] = function(req, next)
               local res = next(req)
               seen = res.error
               return res
            end },
            function() error(value) end,
         }, "/"))
         assert.is_string(seen)
      end
   end)

   it("is a 500 when it returns no response", function()
      for _, value in ipairs { false, 7, "text", {} } do
         local res = assert(t.call(function() return value end, "/"))
         assert.are.equal(500, res.status)
      end
      assert.are.equal(500, t.call(function() end, "/").status)
   end)

   it("does not hurt the next request", function()
      local layer = function(req)
         if req.path == "/bad" then
            error "on purpose"
         end
         return ml.text "good"
      end
      for _ = 1, 3 do
         assert.are.equal(500, t.call(layer, "/bad").status)
         assert.are.equal("good", t.call(layer, "/good").body)
      end
   end)

   it("may overflow its stack or run out of memory", function()
      local function deep(n)
         return 1 + deep(n + 1)
      end
      assert.are.equal(500, t.call(function() deep(1) end, "/").status)
   end)

   it("cannot call a next that it kept, when its request is over", function()
      local kept, kept_request
      assert(t.call(ml.router { ["/*"] = function(req, next)
         kept, kept_request = next, req
         return next(req)
      end }, "/"))
      assert.is_false((pcall(kept, kept_request)))
      assert.is_false((pcall(kept, {})))
      local res = assert(t.call(function() return kept(kept_request) end, "/"))
      assert.are.equal(500, res.status)
   end)

   it("is shaped by the function of on_error", function()
      local path = os.tmpname()
      local file = assert(io.open(path, "w"))
      file:write [[
         local ml = require "monolake"
         ml.on_error(function(err, req)
            if req.path == "/worse" then
               error "and again"
            end
            return ml.json({ error = tostring(err):match "[^ ]+$", path = req.path }, { status = 599 })
         end)
         ml.listen { address = "127.0.0.1:0", chain = function() error "on-purpose" end }
      ]]
      file:close()
      local app = t.app(path)
      local res, worse = app:get "/x", app:get "/worse"
      app:close()
      os.remove(path)
      assert.are.equal(599, res.status)
      assert.are.same({ error = "on-purpose", path = "/x" }, ml.json.decode(res.body))
      assert.are.equal(500, worse.status)
   end)
end)

describe("an upstream that fails", function()
   it("is a response with an error, which a layer may replace", function()
      local status, why
      local res = assert(t.call({
         function(req, next)
            local answer = next(req)
            status, why = answer.status, answer.error
            return ml.text("sorry", { status = 503 })
         end,
         ml.proxy { "127.0.0.1:1", name = "nobody" },
      }, "/"))
      assert.are.equal(503, res.status)
      assert.are.equal(502, status)
      assert.matches("nobody", why)
   end)

   it("is a 504 when it takes too long", function()
      local origin = t.origin(function()
         ml.sleep(5)
         return ml.text ""
      end)
      local res = assert(t.call(ml.proxy { origin.address, response_timeout = "50ms" }, "/"))
      origin:close()
      assert.are.equal(504, res.status)
   end)
end)

describe("waiting", function()
   it("takes its time", function()
      local clock = require "monolake.clock"
      local before = clock.monotonic()
      assert(t.call(function(req, next)
         ml.sleep(0.05)
         return next(req)
      end, "/"))
      assert.is_true(clock.monotonic() - before >= 0.049)
   end)

   it("works in coroutines of the script's own, pcall, iterators and metamethods", function()
      local res = assert(t.call(function()
         local steps = {}
         local co = coroutine.wrap(function()
            steps[#steps + 1] = "before"
            ml.sleep(0.001)
            coroutine.yield "yielded"
            steps[#steps + 1] = "after"
         end)
         steps[#steps + 1] = co()
         co()
         local ok = pcall(ml.sleep, 0.001)
         steps[#steps + 1] = tostring(ok)
         return ml.text(table.concat(steps, " "))
      end, "/"))
      assert.is_true(res.status == 200 or res.status == 500)
   end)

   it("never ends early", function()
      local clock = require "monolake.clock"
      local early = 0
      assert(t.call(function()
         for i = 1, 60 do
            local begun, us = clock.now_us(), i % 3 * 1000 + i * 7
            ml.sleep(us / 1e6)
            early = early + (clock.now_us() - begun < us and 1 or 0)
         end
         return ml.text ""
      end, "/"))
      assert.are.equal(0, early)
   end)

   it("is refused outside of a request", function()
      local ok, err = pcall(ml.sleep, 0.001)
      assert.is_false(ok)
      assert.matches("only while a request is handled", err)
   end)

   it("is refused for what is not a time", function()
      for _, value in ipairs { -1, "x", 0 / 0 } do
         local why
         assert(t.call(function()
            local _, err = pcall(ml.sleep, value)
            why = err
            return ml.text ""
         end, "/"))
         assert.matches("expected a number of seconds", why)
      end
   end)
end)
