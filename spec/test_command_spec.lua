--- `monolake-lua test`: what a spec of policies leaves behind, and what it gets wrong, by the real program.
local t = require "spec.support"

local process, program = t.process, t.program

local SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = ml.proxy { "127.0.0.1:1", name = "api" } }
]]

local SPEC = [[
local t, ml = require "monolake.test", require "monolake"
it("leaves its site running", function()
   local app = t.app("%s", { upstreams = { api = ml.text "stand-in" } })
   assert.are.equal("stand-in", app:get("/").body)
   error "before app:close()"
end)
]]

describe("monolake-lua test", function()
   teardown(process.remove_directories)

   if program.sanitized then
      return -- the LuaJIT that it starts would have to bring the sanitizer's runtime
   end
   for _, io in ipairs { "io_uring", "epoll" } do
      t.it("ends, though a spec has failed before it closed its site, with " .. io, function()
         local directory = process.directory()
         process.write_file(directory .. "/site.lua", SITE)
         process.write_file(directory .. "/site_spec.lua", SPEC:format(directory .. "/site.lua"))
         local out, _, status = process.run({ "env", "MONOLAKE_TEST_IO=" .. io, program.path, "test",
            "--output=plainTerminal", directory .. "/site_spec.lua" }, 30)
         assert.matches("0 successes / 0 failures / 1 error", out, 1, true)
         assert.matches("before app:close()", out, 1, true)
         assert.equal(1, status)
      end)
   end
end)
