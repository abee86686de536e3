local t = require "monolake.test"

local directory = os.tmpname()
os.remove(directory)
assert(os.execute("mkdir -p " .. directory) == 0)

local function write(name, text)
   local file = assert(io.open(directory .. "/" .. name, "w"))
   file:write(text)
   file:close()
   return directory .. "/" .. name
end

--- A site from a text.
local function app(text, options)
   return t.app(write("site.lua", text), options)
end

--- What loading a site from a text fails with.
local function failure(text)
   local ok, why = pcall(app, text)
   if ok then
      why:close()
      return nil
   end
   return tostring(why)
end

local function listening(chain)
   return ('local ml = require "monolake"\nml.listen { address = "127.0.0.1:0", chain = %s }'):format(chain)
end

teardown(function()
   os.execute("rm -rf " .. directory)
end)

describe("a site's script", function()
   it("may not use globals that nobody declared", function()
      local why = failure "x = 1"
      assert.matches('site.lua:1: undeclared global "x" is assigned: use local', why, 1, true)
      why = failure "local y = print_it"
      assert.matches('site.lua:1: undeclared global "print_it" is read', why, 1, true)
   end)

   it("may not make finalizers, whose errors nobody could catch", function()
      assert.matches('undeclared global "newproxy"', failure "newproxy(true)", 1, true)
   end)

   it("may have finalizers of foreign objects, whose errors are logged", function()
      local site = app(listening [[function()
         local ffi = require "ffi"
         ffi.gc(ffi.new "int[1]", function() error "on purpose" end)
         local fails = ffi.metatype("struct { int none; }", { __gc = function() error "on purpose" end })
         fails()
         collectgarbage()
         return ml.text "fine"
      end]])
      assert.are.equal("fine", site:get("/").body)
      site:close()
   end)

   it("may not use them in a request either", function()
      local site = app(listening [[function() count = 1 end]])
      assert.are.equal(500, site:get("/").status)
      site:close()
   end)

   it("may have listeners with TLS, which specs reach without it", function()
      local certificates = require "spec.support.certificates"
      write("a.pem", certificates.text "a.pem" .. certificates.text "a.key")
      require("spec.support.process").remove_directories()
      local site = app [[
         local ml = require "monolake"
         ml.listen {
            address = "127.0.0.1:443",
            tls = { cert = "a.pem", on_client_hello = function() end },
            chain = { ml.text "answer" },
         }]]
      assert.are.equal("answer", assert(site:get "/").body)
      site:close()
      assert.matches("there is no certificate", failure [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:443", tls = { cert = "site.lua", key = "site.lua" }, chain = {} }]],
         1, true)
   end)

   it("fails with file, line, message and traceback", function()
      local why = failure "local a\n\nlocal b = a.b"
      assert.matches("site.lua:3: attempt to index local 'a'", why, 1, true)
      assert.matches("stack traceback", why, 1, true)
      assert.matches("site.lua:2: unexpected symbol near 'local'", failure "local a =\nlocal b", 1, true)
   end)

   it("loads modules beside it, once for the whole site", function()
      write("counted.lua", "local n = 0\nreturn function() n = n + 1 return n end")
      os.execute("mkdir -p " .. directory .. "/sub")
      write("sub/init.lua", 'local name = ...\nreturn name .. tostring(require "counted" ())')
      local site = app [[
         local ml = require "monolake"
         local sub, count = require "sub", require "counted"
         ml.listen { address = "127.0.0.1:0", chain = function() return ml.text(sub .. count()) end }
      ]]
      assert.are.equal("sub12", site:get("/").body)
      site:close()
   end)

   it("says where it looked for a module that is missing", function()
      local why = failure 'require "missing_module"'
      assert.matches("site.lua:1: module 'missing_module' not found", why, 1, true)
   end)

   it("fails with the module's line when a module fails", function()
      write("broken.lua", "\nlocal x = nil + 1")
      assert.matches("broken.lua:2: attempt to perform arithmetic", failure 'require "broken"', 1, true)
      write("circular.lua", 'require "circular"')
      assert.matches('module "circular" requires itself', failure 'require "circular"', 1, true)
   end)

   it("may require in a request, in a module that waits", function()
      write("lazy.lua", 'require("monolake").sleep(0.01)\nreturn "loaded late"')
      local site = app [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", chain = function() return ml.text(require "lazy") end }
      ]]
      assert.are.equal("loaded late", site:get("/").body)
      assert.are.equal("loaded late", site:get("/").body)
      site:close()
   end)
end)

describe("options", function()
   local cases = {
      ['ml.listen { adress = "127.0.0.1:0" }'] = 'listen: unknown option "adress"; did you mean "address"?',
      ['ml.listen { address = "127.0.0.1:0", chain = {}, head_timeot = 1 }'] =
         'unknown option "head_timeot"; did you mean "head_timeout"?',
      ['ml.listen { address = "nonsense", chain = {} }'] = 'listen: address "nonsense"',
      ['ml.listen { address = "127.0.0.1:0" }'] = "listen: expected a chain",
      ['ml.listen { address = "127.0.0.1:0", chain = {}, head_timeout = "soon" }'] =
         'head_timeout: expected a number of seconds or a text such as "250ms", "30s", "5m", not "soon"',
      ['ml.listen { address = "127.0.0.1:0", chain = {}, body_max = -1 }'] = "listen: body_max: expected",
      ['ml.listen { address = "127.0.0.1:0", chain = {}, body_max = "99999999g" }'] = "body_max: expected",
      ['ml.listen { address = "127.0.0.1:0", chain = { 7 } }'] =
         "a chain holds functions, layers and lists of them, not a number",
      ['ml.upstream { "127.0.0.1:1", balanse = "random" }'] =
         'upstream: unknown option "balanse"; did you mean "balance"?',
      ['ml.upstream { "127.0.0.1:1", balance = "randon" }'] = 'did you mean "random"?',
      ["ml.upstream {}"] = "upstream: expected at least one peer",
      ['ml.upstream { { address = "127.0.0.1:1", weight = 0 } }'] = "weight: expected 1 to 1000, not 0",
      ['ml.upstream { "127.0.0.1:1", name = "a" } ml.upstream { "127.0.0.1:2", name = "a" }'] =
         'another one at ',
      ['ml.router { [1] = ml.text "" }'] = 'router: a route is written ["GET /path"] = layer',
      ['ml.listen { address = "127.0.0.1:0", chain = ml.router { ["nonsense"] = ml.text "" } }'] = "nonsense",
      ['ml.native "no/such.so"\nml.listen { address = "127.0.0.1:0", chain = ml.native "no/such.so" }'] =
         "no/such.so",
      ['ml.options { grase = 1 }'] = 'options: unknown option "grase"; did you mean "grace"?',
      ['ml.listen { address = "8080", chain = {} }'] = 'address "8080": has no port; did you mean ":8080"?',
      ["ml.listen { address = 8080, chain = {} }"] =
         'address: expected a text or a list of them, not 8080; did you mean ":8080"?',
      ['ml.listen { address = "*:8080", chain = {} }'] = 'host name; did you mean ":8080"?',
      ['ml.listen { address = "127.0.0.1:0", chain = {}, server_name = "a.example" }'] =
         'unknown option "server_name"; hosts are told apart by ml.router { ["a.example/*"] = layer }',
      ['ml.proxy("127.0.0.1:1", { retries = 0 })'] =
         'proxy: options stand in the same table: ml.proxy { "127.0.0.1:80", retries = 0 }',
      ['ml.files("public", { max_age = 1 })'] =
         'files: options stand in the same table: ml.files { root = "public", max_age = "1h" }',
      ['ml.access_log("a.log", { format = "json" })'] =
         'access_log: options stand in the same table: ml.access_log { path = "a.log", format = "json" }',
      ["ml.on_error(7)"] = "on_error: expected a function",
   }
   for script, message in pairs(cases) do
      it("are refused at their line: " .. script:gsub("\n", " "), function()
         local why = failure('local ml = require "monolake"\n' .. script)
         assert.is_string(why)
         assert.matches(message, why, 1, true)
         assert.matches("site.lua:%d: ", why)
      end)
   end

   it("know short times from none", function()
      local value = require("monolake.internal.check").value
      assert.equal(1, value("total_timeout", "0.1ms", "duration"))
      assert.equal(0, value("total_timeout", 0, "duration"))
      assert.equal(1500, value("total_timeout", 1.5, "duration"))
   end)
end)

describe("the site of the README", function()
   it("routes, answers and forwards", function()
      local site = app([[
         local ml = require "monolake"
         local api = ml.upstream { "127.0.0.1:9001", "127.0.0.1:9002", name = "api", balance = "round_robin" }
         ml.listen {
            address = { "127.0.0.1:8080", "127.0.0.1:8081" },
            chain = {
               function(req, next)
                  local res = next(req)
                  res.headers["x-served-by"] = "monolake-lua"
                  return res
               end,
               ml.router {
                  ["GET /healthz"] = ml.text "ok",
                  ["/users/:id"] = function(req) return ml.json { id = req.params.id } end,
                  ["/*"] = ml.proxy(api),
               },
            },
         }
      ]], { upstreams = { api = function(req) return require("monolake").text("api " .. req.path) end } })
      assert.are.equal("ok", site:get("/healthz").body)
      assert.are.equal('{"id":"7"}', site:get("/users/7", { listener = "127.0.0.1:8081" }).body)
      local res = site:get "/other"
      assert.are.same({ "api /other", "monolake-lua" }, { res.body, res.headers["x-served-by"] })
      assert.are.equal("api /healthz", site:post("/healthz", "").body)
      assert.matches("upstream api round_robin", site:describe(), 1, true)
      site:close()
   end)
end)
