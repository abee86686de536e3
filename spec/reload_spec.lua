--- Reloads: HUP and --watch build a new generation; whatever goes wrong, the old one serves on.
local t = require "spec.support"
local h2 = require "spec.support.h2"

local program, process, socket, sys = t.program, t.process, t.socket, t.sys

local function site(answer, more)
   return ([[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = { ml.text "%s" } }
%s]]):format(answer, more or "")
end

local function ask(client)
   local response = client:exchange "GET / HTTP/1.1\nHost: a"
   return response.body, response
end

local function ask_anew(running, address)
   local client = running:connect { address = address }
   local answer = ask(client)
   client:close()
   return answer
end

--- Sends HUP and waits for a line of the log.
local function reload(running, pattern)
   local offset = #running:log()
   running.process:signal(sys.SIGHUP)
   return running:await_log(pattern or "generation %d+ serves", offset)
end

--- A reload that must fail and say why.
local function reload_in_vain(running, why)
   reload(running, "reload failed, the old site serves on: [^\n]*" .. why)
end

t.on_both_backends("a reload", function(backend)
   local function start(text, options)
      options = options or {}
      options.io, options.site = backend, text
      return program.start(options)
   end

   t.it("bounds how many requests kept connections may send, also where they have sent more", function()
      local function bounded(requests_max)
         return ([[
            local ml = require "monolake"
            ml.listen { address = "127.0.0.1:0", protocols = { "h1", "h2c" }, requests_max = %d,
               chain = { ml.text "here" } }
         ]]):format(requests_max)
      end
      local running = start(bounded(100))
      local plain, client = running:connect(), h2.connect(running.address)
      for _ = 1, 3 do
         assert.equal("here", ask(plain))
         assert.equal("here", client:get("/").body)
      end
      running:write("site.lua", bounded(2))
      reload(running)
      local _, response = ask(plain)
      assert.is_true(response:has("connection", "close"))
      assert.equal("here", client:get("/").body)
      assert.equal(h2.NO_ERROR, client:close_code())
   end)

   t.it("serves new and kept connections by the new script", function()
      local running = start(site "one", { workers = 2 })
      local clients = {}
      for i = 1, 8 do
         clients[i] = running:connect()
         assert.equal("one", ask(clients[i]))
      end
      for _, answer in ipairs { "two", "three" } do
         running:write("site.lua", site(answer))
         reload(running)
         for _, client in ipairs(clients) do
            local body, response = ask(client)
            assert.equal(answer, body)
            assert.is_false(response:has("connection", "close"))
         end
         assert.equal(answer, ask_anew(running))
      end
      assert.equal(2, select(2, running.process:stdout():gsub("\n", "\n")) + 1)
   end)

   t.it("serves the last of several that come at once", function()
      local running = start(site "one")
      for i = 1, 10 do
         running:write("site.lua", site("number " .. i))
         running.process:signal(sys.SIGHUP)
      end
      t.eventually("the last script", function()
         return ask_anew(running) == "number 10"
      end)
   end)

   t.it("serves what was checked in all workers, even if the files change meanwhile", function()
      local running = start(site "one", { workers = 2 })
      -- Loading it takes until somebody has changed the file.
      running:write("site.lua", [[
local directory = debug.getinfo(1).source:match "@(.*)/"
io.open(directory .. "/begun", "w"):close()
while not io.open(directory .. "/changed") do end
]] .. site "two")
      running.process:signal(sys.SIGHUP)
      t.eventually("the script to run", function()
         return io.open(running:path "begun")
      end)
      running:write("site.lua", site "three")
      running:write("changed", "")
      running:await_log "generation 2 serves"
      for _ = 1, 10 do
         assert.equal("two", ask_anew(running))
      end
   end)

   t.it("tells how long it took, from the signal on, and counts", function()
      local text = [[
local directory = debug.getinfo(1).source:match "@(.*)/"
io.open(directory .. "/begun", "w"):close()
while not io.open(directory .. "/changed") do end
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = function()
   local reloads = ml.stats().reloads
   return ml.text(reloads.done .. " " .. reloads.failed)
end }
]]
      local running = start(site "one")
      local offset = #running:log()
      running:write("site.lua", text)
      running.process:signal(sys.SIGHUP)
      t.eventually("the script to run", function()
         return io.open(running:path "begun")
      end)
      running.process:signal(sys.SIGHUP) -- waits for the end of the first
      t.tasks.sleep(0.2)
      running:write("changed", "")
      for generation = 2, 3 do
         local line = ("generation %d serves %%((%%d+) ms%%)"):format(generation)
         local took_ms = running:await_log(line, offset)
         assert.is_true(tonumber(took_ms) >= 190, took_ms)
      end
      assert.equal("2 0", ask_anew(running))
      running:write("site.lua", "error 'on purpose'")
      reload_in_vain(running, "on purpose")
      assert.equal("2 1", ask_anew(running))
   end)

   t.it("serves on while a large script is loaded", function()
      local running = start(site "one")
      local client = running:connect()
      assert.equal("one", ask(client))
      local pids = running:path "pids"
      running:write("site.lua", site("two", ([[
         local ffi = require "ffi"
         ffi.cdef "int getpid(void);"
         local file, made = assert(io.open("%s", "a")), {}
         file:write(ffi.C.getpid(), "\n")
         file:close()
         local ends = os.clock() + %g
         while os.clock() < ends do
            made[#made + 1] = { #made }
         end
      ]]):format(pids, 0.5 * t.tasks.patience)))
      local offset = #running:log()
      running.process:signal(sys.SIGHUP)
      t.eventually("the worker to load it", function()
         return (process.read_file(pids) or ""):find("\n" .. running:workers()[1] .. "\n", 1, true)
      end)
      for _ = 1, 10 do
         assert.equal("one", ask(client))
      end
      running:await_log("generation 2 serves", offset)
      assert.equal("two", ask(client))
   end)

   t.it("finishes a request under way by the script that it began with", function()
      local origin = socket.listen()
      local function proxying(name)
         return ([[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = {
   function(req, next)
      local res = next(req)
      res.headers["x-site"] = "%s"
      res:map(function(chunk) return (chunk:gsub("^.", "%s:%%0")) end)
      return res
   end,
   ml.proxy "%s",
} }]]):format(name, name, origin.address)
      end
      local running = start(proxying "one")
      local client = running:connect()
      client:send_head "GET /slow HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      upstream:read_request()
      running:write("site.lua", proxying "two")
      reload(running)
      upstream:send_head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", t.chunk "a")
      local response = client:read_response_head()
      assert.equal("one", response:get "x-site")
      assert.equal("one:a", client:read_chunk())
      reload(running)
      upstream:send(t.chunk "b" .. t.chunk "")
      assert.equal("one:b", client:read_chunk())
      assert.is_nil(client:read_chunk())
      client:read_until "\r\n"
      -- The next request meets the new script, over the connection to the origin that was kept.
      client:send_head "GET /next HTTP/1.1\nHost: a"
      upstream:read_request()
      upstream:respond(200, "c")
      response = client:read_response()
      assert.equal("two", response:get "x-site")
      assert.equal("two:c", response.body)
   end)

   t.it("leaves tunnels alone", function()
      local origin = socket.listen()
      local running = start((t.PROXY_SITE:gsub("%${origin}", origin.address)))
      local client = running:connect()
      client:send_head "GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: echo"
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:send_head "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: echo"
      assert.equal(101, client:read_response_head().status)
      running:write("site.lua", site "two")
      reload(running)
      client:send "ping"
      assert.equal("ping", upstream:read(4))
      upstream:send "pong"
      assert.equal("pong", client:read(4))
      assert.equal("two", ask_anew(running))
   end)

   t.it("opens new listeners and closes those that are gone", function()
      local kept, removed = socket.refusing_address(), socket.refusing_address()
      local added = "unix:" .. process.directory() .. "/added.sock"
      local function listening(addresses, answer)
         return ('local ml = require "monolake"\nml.listen { address = { "%s" }, chain = { ml.text "%s" } }')
            :format(table.concat(addresses, '", "'), answer)
      end
      local running = start(listening({ kept, removed }, "one"), { listeners = 2, workers = 2 })
      local on_kept, on_removed = running:connect(), running:connect { address = removed }
      assert.equal("one", ask(on_kept))
      assert.equal("one", ask(on_removed))
      running:write("site.lua", listening({ kept, added, "127.0.0.1:0" }, "two"))
      reload(running)
      t.eventually("four addresses", function()
         return #running:listening() == 4
      end)
      assert.equal("two", ask_anew(running, added))
      assert.equal("two", ask_anew(running, running:listening()[4]))
      -- A request may have been on its way to the removed one: it is answered, then that is all.
      local body, response = ask(on_removed)
      assert.equal("one", body)
      assert.is_true(response:has("connection", "close"))
      on_removed:expect_close()
      assert.is_nil(socket.try_connect(removed))
      body, response = ask(on_kept)
      assert.equal("two", body)
      assert.is_false(response:has("connection", "close"))
   end)

   t.it("that fails keeps the old script and says why", function()
      local taken, free = socket.listen(), socket.refusing_address()
      local function listen(address)
         return ('ml.listen { address = "%s", chain = {} }'):format(address)
      end
      local failing = {
         { "local x = = 1", ":1: unexpected symbol near '='" },
         { "\nerror 'on purpose'", ":2: on purpose" },
         { "require 'missing'", ":1: .*missing" },
         { 'require("monolake").listen { adress = 1 }', 'unknown option "adress"; did you mean "address"?' },
         { "while true do end", ":1: the script did not finish within 300 ms" },
         { "while true do pcall(function() while true do end end) end", "did not finish within 300 ms" },
         { "os.exit(0)", "the script ended its process" },
         { "require 'monolake'", "no listeners" },
         { site("x", 'ml.listen { address = "127.0.0.1:0", chain = { ml.proxy "nowhere.invalid:1" } }'),
            "nowhere.invalid" },
         { site("x", listen(free) .. listen(taken.address)),
            "cannot listen on " .. taken.address .. ": Address already in use" },
         { site("x", listen(free) .. listen(free)), free .. " is listened on twice" },
      }
      local running = start(site "one", { arguments = { "--script-timeout", "0.3" }, workers = 2 })
      local client = running:connect()
      for _, case in ipairs(failing) do
         running:write("site.lua", case[1])
         reload_in_vain(running, case[2])
         assert.equal("one", ask(client))
         assert.equal("one", ask_anew(running))
         assert.is_nil(socket.try_connect(free), "a listener of a site that failed is open")
      end
      os.remove(running:path "site.lua")
      reload_in_vain(running, "site%.lua")
      assert.equal("one", ask(client))
      running:write("site.lua", site("two", listen(free)))
      reload(running)
      assert.equal("two", ask(client))
      assert.equal(404, running:connect({ address = free }):exchange("GET / HTTP/1.1\nHost: a").status)
   end)
end)

t.on_both_backends("a script that fails in a worker only", function(backend)
   -- Runs what COUNTED says when it is loaded for the fourth time: the first two were the probe and the
   -- worker at the start, the third is the probe of the reload.
   local COUNTED = [[
local file = io.open(debug.getinfo(1).source:match "@(.*)/" .. "/count", "a+")
file:write "x"
local count = file:seek "end"
file:close()
if count == 4 then
   %s
end
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = { ml.text(tostring(count)) } }
]]

   local function start(text)
      return program.start { io = backend, site = COUNTED:format(text),
         arguments = { "--script-timeout", "0.3" } }
   end

   t.it("keeps the old one", function()
      local running = start "error 'on purpose'"
      local client = running:connect()
      assert.equal("2", ask(client))
      reload_in_vain(running, ":6: on purpose")
      assert.equal("2", ask(client))
      reload(running)
      assert.equal("6", ask(client))
   end)

   t.it("costs no more than that worker when it loops", function()
      local running = start "while true do end"
      local client = running:connect()
      assert.equal("2", ask(client))
      reload_in_vain(running, "a worker did not load the site in time")
      running:await_log "was ended by signal 9"
      client:expect_close()
      assert.equal("5", ask_anew(running))
      reload(running)
      assert.equal("7", ask_anew(running))
   end)
end)

t.on_both_backends("a reload while no worker serves", function(backend)
   t.it("takes the place of a script that none can load any more", function()
      local running = program.start { io = backend, arguments = { "--script-timeout", "0.3" },
         site = site("old", [[
while io.open(debug.getinfo(1).source:match "@(.*)/" .. "/held-up") do end
]]) }
      local victim = running:workers()[1]
      running:write("held-up", "")
      sys.kill(victim, sys.SIGKILL)
      t.eventually("another worker", function()
         local worker = running:workers()[1]
         return worker ~= victim and worker
      end)
      running:write("site.lua", site "new")
      reload(running)
      assert.equal("new", ask_anew(running))
      running:stop()
   end)

   t.it("to a script that none can load is put right by the next one", function()
      local running = program.start { io = backend, site = site "old" }
      running:kill_often()
      running:write("site.lua", site("bad", [[
local folder = debug.getinfo(1).source:match "@(.*)/"
if io.open(folder .. "/probed") then
   error "on purpose"
end
io.open(folder .. "/probed", "w"):close()
]]))
      reload(running, "worker 0 cannot load the site: [^\n]*on purpose")
      running:write("site.lua", site "new")
      reload(running)
      assert.equal("new", ask_anew(running))
      running:stop()
   end)
end)

t.on_both_backends("a worker that is started again and does not come to its end of loading", function(backend)
   -- Loaded for the third time, in the worker that takes the place of the first, it loops.
   local LOOPS = [[
local file = io.open(debug.getinfo(1).source:match "@(.*)/" .. "/count", "a+")
file:write "x"
local count = file:seek "end"
file:close()
while count == 3 do
   ${loop}
end
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = { ml.text(tostring(count)) } }
]]

   local function kill_and_await(loop, pattern)
      local running = program.start { io = backend, site = LOOPS, values = { loop = loop },
         arguments = { "--script-timeout", "0.3" } }
      assert.equal("2", ask_anew(running))
      sys.kill(running:workers()[1], sys.SIGKILL)
      running:await_log "worker 0 did not load the site in time%. It is interrupted"
      running:await_log(pattern)
      t.eventually("an answer of a worker that has loaded it", function()
         return ask_anew(running) == "4"
      end)
   end

   t.it("tells the line where it can be interrupted", function()
      kill_and_await("jit.off(function() end)", "site%.lua:%d: the script did not finish within 300 ms")
   end)

   t.it("is killed where not", function()
      kill_and_await("", "worker 0 did not load the site in time%. It is killed")
   end)
end)

t.on_both_backends("a layer that loops during a reload", function(backend)
   t.it("costs its request only, and the reload goes on", function()
      local text = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = { ml.router {
   ["/loop"] = function()
      ml.log.info "the loop begins"
      while true do
         jit.off(function() end) -- nothing that is compiled
      end
   end,
   ["/"] = ml.text "${answer}",
} } }
]]
      local running = program.start { io = backend, site = text, values = { answer = "one" },
         arguments = { "--script-timeout", "0.3" } }
      local kept, looping = running:connect(), running:connect()
      assert.equal("one", ask(kept))
      looping:send_head "GET /loop HTTP/1.1\nHost: a"
      running:await_log "the loop begins"
      running.values.answer = "two"
      running:write("site.lua", text)
      reload(running)
      assert.equal(500, looping:read_response().status)
      assert.equal("two", ask(kept))
      assert.matches("at request %d+: GET a/loop", running:log())
      assert.matches("site.lua:6: the script did not finish within 300 ms", running:log())
      assert.is_nil(running:log():find "was ended by signal")
   end)
end)

t.on_both_backends("--watch", function(backend)
   local WITH_PART = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = { ml.text("${version} " .. require "part") } }
]]

   local function start(text, files)
      return program.start { io = backend, site = text, files = files, values = { version = "first" },
         arguments = { "--watch" } }
   end

   local function becomes(running, answer)
      t.eventually("the answer " .. answer, function()
         return ask_anew(running) == answer
      end)
   end

   t.it("reloads when the script changes, in place or by being replaced", function()
      local running = start(site "one")
      assert.equal("one", ask_anew(running))
      running:write("site.lua", site "two")
      becomes(running, "two")
      running:write("new.lua", site "three")
      os.rename(running:path "new.lua", running:path "site.lua")
      becomes(running, "three")
      assert.truthy(running:log():find "a file of the site has changed: reloading")
   end)

   t.it("reloads when a required file changes, not for others", function()
      local running = start(WITH_PART, { ["part.lua"] = "return 'a'", ["other.lua"] = "" })
      assert.equal("first a", ask_anew(running))
      running:write("other.lua", "return 1")
      running:write("part.lua", "return 'b'")
      becomes(running, "first b")
      running:await_log "generation 2 serves"
      assert.is_nil(running:log():find "generation 3 serves")
   end)

   t.it("goes on watching when a reload has failed", function()
      local running = start(site "one")
      running:write("site.lua", "local x = = 1")
      running:await_log "reload failed, the old site serves on: [^\n]*:1: unexpected symbol"
      assert.equal("one", ask_anew(running))
      running:write("part.lua", "error 'on purpose'")
      running:write("site.lua", WITH_PART)
      running:await_log "reload failed, the old site serves on: [^\n]*part%.lua:1: on purpose"
      running:write("part.lua", "return 'a'") -- known from the attempt that failed
      becomes(running, "first a")
   end)
end)
