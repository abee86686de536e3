-- The example by the real program, between dig and a resolver of the spec's own.
local t = require "spec.support"

local process, udp = t.process, t.udp

--- Answers every query with 192.0.2.1.
local function answer(query)
   local question = query:sub(13, query:find("\0", 13, true) + 4)
   local record = "\192\12" .. "\0\1\0\1" .. "\0\0\0\60" .. "\0\4" .. "\192\0\2\1"
   return query:sub(1, 2) .. "\129\128" .. "\0\1\0\1\0\0\0\0" .. question .. record
end

describe("the DNS example", function()
   teardown(process.remove_directories)

   t.it("resolves what is not blocked", function()
      local resolver = udp.bind():serve(answer)
      local file = assert(io.open "examples/dns.lua")
      local site = file:read "*a"
         :gsub('"9%.9%.9%.9:53", "149%.112%.112%.112:53"', '"' .. resolver.address .. '"')
         :gsub("127%.0%.0%.1:5353", "127.0.0.1:0")
      file:close()
      local running = t.program.start { io = "auto", site = site }
      local port = running.address:match ":(%d+)$"

      local function dig(name)
         local command = { "dig", "+short", "+tries=1", "+timeout=1", "-p", port, "@127.0.0.1", name }
         local digging = process.start(command, process.directory())
         assert.is_true(digging:wait(10))
         return digging:stdout()
      end

      assert.equal("192.0.2.1\n", dig "www.example.com")
      assert.matches("no servers could be reached", dig "Cdn.Ads.example")
      running:await_log "127.0.0.1 asks for cdn.ads.example: not answered"
      udp.connect(running.address):send "rubbish"
      running:await_log "nothing that we can read"
      assert.matches(" ended 1 1\n.* closed 0 0\n", t.eventually("the access log", function()
         local text = running.process:stdout()
         return text:find "closed 0 0\n" and text
      end))
      running:stop(t.sys.SIGINT)
   end)
end)
