--- The command line and the check of a site, -t: what is printed, and the exit codes.
local t = require "spec.support"

local program, process = t.program, t.process

local HELLO = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = { ml.text "hello" } }
]]

local function run(...)
   return process.run { program.path, ... }
end

--- -t of a site that is wrong: the message, the rest of standard error, and the site's path.
local function refused(site, options)
   options = options or {}
   options.site = site
   local out, err, status, path = program.check(options)
   assert.equal("", out)
   assert.equal(1, status)
   local first, rest = err:match "^([^\n]*)\n(.*)$"
   return first, rest, path
end

describe("the command line", function()
   teardown(process.remove_directories)

   t.it("prints versions and back ends", function()
      local out, err, status = run "-V"
      assert.equal("", err)
      assert.equal(0, status)
      assert.matches("^monolake%-lua %d+%.%d+%.%d+\n", out)
      for _, name in ipairs { "LuaJIT", "liburing", "llhttp", "c%-ares" } do
         assert.matches("\n" .. name .. ": [^\n]*%d+%.%d+", out)
      end
      assert.matches("\nback ends: [^\n]*epoll", out)
   end)

   t.it("prints its usage", function()
      local out, err, status = run "--help"
      assert.equal("", err)
      assert.equal(0, status)
      for _, option in ipairs { "-t", "-V", "-w", "--io", "--pid", "--log-level", "--watch" } do
         assert.truthy(out:find(option, 1, true), option)
      end
   end)

   local wrong = {
      { { "--chekc", "a.lua" }, 'unknown option "--chekc"; did you mean "--check"?' },
      { { "--wokers=3", "a.lua" }, 'unknown option "--wokers"; did you mean "--workers"?' },
      { { "--log-levle", "info", "a.lua" }, 'unknown option "--log-levle"; did you mean "--log-level"?' },
      { { "--nothing-like-it", "a.lua" }, 'unknown option "--nothing-like-it"\n' },
      { { "--" .. ("x"):rep(5000), "a.lua" }, 'unknown option "--xxx' },
      { { "-x", "a.lua" }, 'unknown option "-x"' },
      { { "--watch=1", "a.lua" }, "--watch=1: this option takes no value" },
      { { "a.lua", "--pid" }, "--pid: there is no value" },
      { { "-w", "0", "a.lua" }, '-w: "0" is not a number from 1 to 256' },
      { { "-w", "2x", "a.lua" }, '-w: "2x" is not' },
      { { "--io", "kqueue", "a.lua" }, '--io: "kqueue" is not auto, io_uring or epoll' },
      { { "--log-level", "loud", "a.lua" }, '"loud" is not error, warn, info or debug' },
      { { "--script-timeout", "soon", "a.lua" }, '"soon" is not a number of seconds' },
      { {}, "there is no SITE.lua" },
      { { "a.lua", "b.lua" }, "there is more than one SITE.lua" },
   }
   for _, case in ipairs(wrong) do
      local arguments, message = unpack(case)
      t.it(("refuses %q"):format(table.concat(arguments, " "):sub(1, 40)), function()
         local out, err, status = run(unpack(arguments))
         assert.equal("", out)
         assert.truthy(err:find(message, 1, true), err)
         assert.equal(2, status)
      end)
   end
end)

describe("-t", function()
   teardown(process.remove_directories)

   t.it("prints a tree of listeners, chains and upstreams", function()
      local out, err, status, path = program.check { site = [[
local ml = require "monolake"
local api = ml.upstream { "127.0.0.1:9001", { address = "[::1]:9002", weight = 3 }, name = "api",
   balance = "least_conn", connect_timeout = "250ms" }
ml.listen {
   address = { "127.0.0.1:0", "[::1]:0", "unix:/nowhere/site.sock" },
   idle_timeout = 5,
   chain = {
      function(req, next) return next(req) end,
      ml.router {
         ["GET /healthz"] = ml.text "ok",
         ["/*"] = { function(req, next) return next(req) end, ml.proxy(api) },
      },
   },
}
]] }
      assert.equal("", err)
      assert.equal(0, status)
      local place = path:gsub("%p", "%%%0")
      assert.matches("^listen 127%.0%.0%.1:0 %[::1%]:0 unix:/nowhere/site%.sock {idle_timeout=5s}", out)
      assert.matches(place .. ":4%)\n  lua [^\n]*site%.lua:8\n  router, 2 routes\n", out)
      assert.matches("\n    GET /healthz\n      response 200, 2 bytes\n", out)
      assert.matches("\n    /%*\n      lua [^\n]*site%.lua:11\n      proxy api\n", out)
      assert.matches("\nupstream api least_conn {connect_timeout=250ms}   %(" .. place .. ":2%)\n", out)
      assert.matches("\n  127%.0%.0%.1:9001\n  %[::1%]:9002 weight 3\n$", out)
   end)

   t.it("takes the time and memory for 10,000 routes that these need, not their square", function()
      local out, err, status = program.check { site = [[
local ml = require "monolake"
local routes = {}
for i = 1, 10000 do
   routes[("/service%d/:id/part%d"):format(i % 100, i)] = ml.text "part"
end
ml.listen { address = "127.0.0.1:0", chain = { ml.router(routes) } }
]] }
      assert.equal("", err)
      assert.equal(0, status)
      assert.matches("\n  router, 10000 routes\n", out)
      local _, count = out:gsub("\n    /service%d+/:id/part%d+\n      response 200, 4 bytes", "")
      assert.equal(10000, count)
   end)

   t.it("neither binds addresses nor connects", function()
      local listener = t.socket.listen()
      local _, err, status = program.check {
         site = [[
local ml = require "monolake"
ml.listen { address = "${address}", chain = { ml.proxy "${address}" } }
]], values = { address = listener.address },
      }
      assert.equal("", err)
      assert.equal(0, status)
      assert.is_nil(listener:try_accept())
      listener:close()
   end)

   t.it("says where the syntax is wrong", function()
      local message, rest, path = refused "local x = 1\nlocal y = = 2\n"
      assert.equal(path .. ":2: unexpected symbol near '='", message)
      assert.matches("stack traceback:\n", rest)
   end)

   t.it("says where the script failed and how it came there", function()
      local message, rest, path = refused [[
local function inner()
   error "on purpose"
end
local function outer()
   inner()
end
outer()
]]
      assert.equal(path .. ":2: on purpose", message)
      local place = path:gsub("%p", "%%%0")
      assert.matches("stack traceback:.*" .. place .. ":2: in function 'inner'.*" .. place ..
         ":5: in function 'outer'.*" .. place .. ":7: in main chunk", rest)
   end)

   t.it("says where in a required file it failed", function()
      local message = refused("require 'part'", { files = { ["part.lua"] = "\nerror 'on purpose'" } })
      assert.matches("/part%.lua:2: on purpose$", message)
   end)

   local nearest = {
      ["of a listener"] = {
         'ml.listen {\n adress = "127.0.0.1:0", chain = {} }',
         'unknown option "adress"; did you mean "address"?',
      },
      ["of an upstream"] = {
         '\nml.upstream { "127.0.0.1:1", conect_timeout = 1 }',
         'unknown option "conect_timeout"; did you mean "connect_timeout"?',
      },
      ["of the site"] = { '\nml.options { grase = 1 }', 'unknown option "grase"; did you mean "grace"?' },
   }
   for what, case in pairs(nearest) do
      t.it("names the nearest known option " .. what, function()
         local message, rest, path = refused('local ml = require "monolake"\n' .. case[1])
         assert.truthy(message:find(path .. ":", 1, true) == 1, message)
         assert.truthy(message:find(case[2], 1, true), message)
         assert.matches("^stack traceback:\n", rest)
      end)
   end

   local loops = {
      ["an endless loop"] = "local n = 0\nwhile true do n = n + 1 end",
      ["a loop in a function that is called often"] = [[
local function spin(n) for i = 1, 1e15 do n = n + i % 7 end return n end
spin(spin(0))]],
      ["a loop in a coroutine"] = "\ncoroutine.wrap(function() while true do end end)()",
   }
   for what, site in pairs(loops) do
      t.it("ends " .. what, function()
         local begun = t.sys.clock()
         local message, rest, path = refused(site, { arguments = { "--script-timeout", "0.2" } })
         local place = path:gsub("%p", "%%%0")
         assert.matches("^" .. place .. ":%d: the script did not finish within 200 ms", message)
         assert.matches("stack traceback:.*" .. place .. ":%d: in ", rest)
         assert.is_true(t.sys.clock() - begun < 5 * t.tasks.patience)
      end)
   end

   local stubborn = {
      ["compiles its loop"] = "jit.on() local n = 0 while true do n = n + 1 end",
      ["catches all errors"] = "while true do pcall(function() while true do end end) end",
      ["does not come back from C"] = 'local ffi = require "ffi" ffi.cdef "int raise(int);" ffi.C.raise(19)',
   }
   for what, site in pairs(stubborn) do
      t.it("ends a script that " .. what, function()
         local message = refused(site, { arguments = { "--script-timeout", "0.1" } })
         assert.equal("the script did not finish within 100 ms", message)
      end)
   end

   t.it("outlives a script that ends or crashes its process", function()
      assert.equal("the script ended its process (exit code 0)", (refused "os.exit(0)"))
      assert.equal("the script crashed (signal 6)", (refused [[
local ffi = require "ffi"
ffi.cdef "int raise(int signal);"
ffi.C.raise(6)
]]))
   end)

   t.it("names an upstream that cannot be resolved", function()
      local message, rest, path = refused [[
local ml = require "monolake"
local api = ml.upstream { "nowhere.invalid:80", name = "api" }
ml.listen { address = "127.0.0.1:0", chain = { ml.proxy(api) } }
]]
      local expected = path .. ':2: upstream "api": "nowhere.invalid:80": '
      assert.truthy(message:find(expected, 1, true) == 1, message)
      assert.matches("stack traceback:", rest)
   end)

   local incomplete = {
      ["that listens nowhere"] = { 'require "monolake"', "no listeners" },
      ["with a bad address"] = {
         'require("monolake").listen { address = "127.0.0.1:99999", chain = {} }', "127%.0%.0%.1:99999",
      },
      ["with an undeclared global"] = { "\nlisten {}", ':2: undeclared global "listen" is read' },
   }
   for what, case in pairs(incomplete) do
      t.it("refuses a site " .. what, function()
         assert.matches(case[2], (refused(case[1])))
      end)
   end

   t.it("refuses a file that is not there", function()
      local out, err, status = run("-t", "/nowhere/site.lua")
      assert.equal("", out)
      assert.equal(1, status)
      assert.matches("/nowhere/site%.lua", err)
   end)

   t.it("takes a site from any directory", function()
      local _, _, _, path = program.check { site = HELLO }
      local directory, name = path:match "^(.*)/([^/]*)$"
      local program_path = io.popen("readlink -f " .. program.path):read "*l"
      local out, _, status = process.run { "sh", "-c",
         ("cd %s && %s -t %s"):format(directory, program_path, name) }
      assert.equal(0, status)
      assert.matches("^listen 127%.0%.0%.1:0   %(site%.lua:2%)\n", out)
   end)
end)

describe("the library in a plain LuaJIT", function()
   -- A state of its own: here it has been loaded before.
   local SCRIPT = [[
      package.path, package.cpath = %q, %q
      coroutine.wrap(function() require "monolake" end)()
      collectgarbage()
      collectgarbage()
      local t = require "monolake.test"
      for _ = 1, 20 do
         local app = t.app "examples/access.lua"
         assert(app:get("/").status == 200)
         app:close()
         collectgarbage()
      end
      io.write "well"
   ]]

   t.it("may be loaded by a coroutine that is gone later", function()
      local path = process.directory() .. "/script.lua"
      process.write_file(path, SCRIPT:format(package.path, package.cpath))
      -- The sanitizers' runtime, where it was preloaded for this process, is for that one, too.
      local runtime = process.read_file("/proc/self/maps"):match "%S*/libasan%.so%S*"
      local out, err, status = process.run { "env", runtime and "LD_PRELOAD=" .. runtime or "A=1",
         "ASAN_OPTIONS=detect_leaks=0", "luajit", path }
      assert.equal("", err)
      assert.equal("well", out)
      assert.equal(0, status)
   end)
end)
