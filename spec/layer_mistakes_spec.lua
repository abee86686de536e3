--- Layers that keep what is one request's and use it in another, or never come to an end: they harm
--- their own requests only.
local t = require "spec.support"

local SITE = [[
   local ml = require "monolake"
   local kept, taken
   local shared = coroutine.wrap(function(req, next)
      next(req)
   end)

   local function keep(req)
      kept = req
      ml.sleep(0.3)
      kept = nil
      return taken or ml.text "nothing was taken"
   end
   local function take(_, next)
      local ok, what = pcall(next, kept)
      taken = ok and what or nil
      return ml.text(tostring(what))
   end

   ml.listen { address = "127.0.0.1:0", chain = {
      ml.router {
         ["/keep"] = keep,
         ["/take"] = take,
         ["/shared"] = function(req, next)
            local ok, what = pcall(shared, req.args.wait and req or 1, next)
            return ml.text(tostring(ok) .. " " .. tostring(what))
         end,
         ["/empty"] = function()
            return ml.response { body = function() return "" end }
         end,
         ["/require"] = function()
            return ml.response { body = coroutine.wrap(function()
               coroutine.yield(require "slow")
            end) }
         end,
         ["/coroutines"] = function()
            local function deeper()
               return coroutine.wrap(deeper)()
            end
            return ml.text(select(2, pcall(deeper)))
         end,
         ["/callbacks"] = function()
            local function deeper()
               return (("a"):gsub(".", deeper))
            end
            return ml.text(select(2, pcall(deeper)))
         end,
         ["/tostring"] = function()
            local meta = {}
            local function deeper()
               return (tostring(setmetatable({}, meta))) -- no tail call: that would be a loop
            end
            meta.__tostring = deeper
            return ml.text(select(2, pcall(deeper)))
         end,
         ["/library"] = function(_, next)
            return require("coroutine").wrap(next)(_)
         end,
         ["/alive"] = ml.text "alive",
         ["/collect"] = function()
            collectgarbage()
            return ml.text ""
         end,
      },
      function(req, next)
         ml.sleep(0.1)
         return next(req)
      end,
      ml.text "the rest of the chain",
   } }
]]

-- Waits as long as nobody has put the file "done" beside it.
local SLOW = [[
   local ml = require "monolake"
   local done = debug.getinfo(1).source:match "@(.*)/" .. "/done"
   while not io.open(done) do
      pcall(ml.sleep, 0.01)
   end
   return "slow"
]]

t.on_both_backends("a layer", function(backend)
   local proxy = t.serve { io = backend, site = SITE, files = { ["slow.lua"] = SLOW },
      arguments = { "--script-timeout", "0.5" } }

   local function ask(path)
      return proxy():exchange(("GET %s HTTP/1.1\nHost: a"):format(path))
   end

   --- What was sent before has reached the only worker when it answers what is sent behind it.
   local function let_it_arrive()
      assert.equal("alive", ask("/alive").body)
   end

   t.it("cannot have the rest of its chain answer another request", function()
      local keeping = proxy():connect()
      keeping:send_head "GET /keep HTTP/1.1\nHost: a"
      let_it_arrive()
      assert.matches("next can be called only while its own layer is running", ask("/take").body)
      assert.equal("nothing was taken", keeping:read_response().body)
   end)

   t.it("cannot resume a coroutine that waits for another request", function()
      local waiting = proxy():connect()
      waiting:send_head "GET /shared?wait=1 HTTP/1.1\nHost: a"
      let_it_arrive()
      assert.equal("false cannot resume non-suspended coroutine", ask("/shared").body)
      assert.equal("true nil", waiting:read_response().body)
   end)

   t.it("that makes a body of nothing for ever holds up nobody", function()
      local client = proxy():connect()
      client:send_head "GET /empty HTTP/1.1\nHost: a"
      let_it_arrive()
      local begun = t.sys.clock()
      assert.equal("alive", ask("/alive").body)
      assert.is_true(t.sys.clock() - begun < 1)
      client:reset()
   end)

   t.it("that is given up while it requires a module leaves the module to others", function()
      local client = proxy():connect()
      client:send_head "GET /require HTTP/1.1\nHost: a"
      let_it_arrive()
      client:reset()
      let_it_arrive()
      proxy():write("done", "")
      ask "/collect"
      assert.equal("slow", ask("/require").body)
   end)

   for _, way in ipairs { "coroutines", "callbacks", "tostring" } do
      t.it("that recurses without an end by " .. way .. " costs its request only", function()
         local client = proxy():connect()
         assert.matches("stack overflow", ask("/" .. way).body)
         assert.equal("alive", client:exchange("GET /alive HTTP/1.1\nHost: a").body)
      end)
   end

   t.it("may wait in a coroutine, however it has come by the library", function()
      assert.equal("the rest of the chain", ask("/library").body)
   end)
end)
