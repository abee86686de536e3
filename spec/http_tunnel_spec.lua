--- Tunnels from the HTTP side, CONNECT and Upgrade: how they end, when, and the line of the access log that
--- tells of it. One way over HTTP/1, one over HTTP/2, the same behind both.
local json = require "cjson"
local t = require "spec.support"
local h2 = require "spec.support.h2"

local SITE = [[
   local ml = require "monolake"
   local origin = ml.upstream { "${origin}", name = "origin" }
   local function listen(options)
      options.address, options.protocols = "127.0.0.1:0", { "h1", "h2c" }
      options.chain = {
         ml.access_log "combined.log",
         ml.access_log { path = "lines.json", format = "json" },
         ml.tunnel { allow = { "${origin}" } },
         ml.proxy(origin),
      }
      ml.listen(options)
   end
   listen {}
   listen { tunnel_idle_timeout = "150ms" }
   listen { half_closed_timeout = "150ms" }
   listen { total_timeout = "300ms" }
]]
local PLAIN, IDLE, HALF_CLOSED, TOTAL = 1, 2, 3, 4

--- What a client does on a tunnel, for either version.
local Http1, Http2 = {}, {}
Http1.__index, Http2.__index = Http1, Http2

function Http1.open(address, target)
   local socket = t.socket.connect(address)
   socket:send_head(("CONNECT %s HTTP/1.1\nHost: %s\nUser-Agent: spec"):format(target, target))
   return setmetatable({ socket = socket }, Http1), function()
      assert.equal(200, socket:read_response_head().status)
   end
end

function Http1:send(bytes)
   self.socket:send(bytes)
end

function Http1:half_close()
   self.socket:half_close()
end

function Http1:read(count)
   return self.socket:read(count)
end

function Http1:reset()
   self.socket:reset()
end

--- "end" or "reset", whichever comes.
function Http1:how_it_ends()
   while true do
      local ok, why = self.socket:try_fill()
      if ok == nil or why then
         return "reset"
      elseif not ok then
         return "end"
      end
   end
end

function Http2.open(address, target)
   local client = h2.connect(address)
   local fields = { { ":method", "CONNECT" }, { ":authority", target }, { "user-agent", "spec" } }
   local id = client:request(fields, { open = true })
   return setmetatable({ client = client, id = id }, Http2), function()
      assert.equal(200, client:head(id).status)
   end
end

function Http2:send(bytes)
   self.client:send_body(self.id, bytes)
end

function Http2:half_close()
   self.client:data(self.id, "", true)
end

function Http2:read(count)
   return self.client:body(self.id, count)
end

function Http2:reset()
   self.client:frame(h2.RST_STREAM, 0, self.id, h2.u32(h2.CANCEL))
end

function Http2:how_it_ends()
   return self.client:response(self.id).reset and "reset" or "end"
end

t.on_both_backends("a tunnel of HTTP", function(backend)
   local origin, proxy = t.proxied(backend, { site = SITE, listeners = 4 })

   local function read_lines(name)
      local lines = {}
      for line in t.process.read_file(proxy():path(name)):gmatch "[^\n]+" do
         lines[#lines + 1] = line
      end
      return lines
   end

   --- The object and the text that `act` adds to the access logs.
   local function logged_by(act)
      local before = #read_lines "lines.json"
      act()
      local lines = t.eventually("a line", function()
         local lines = read_lines "lines.json"
         return #lines > before and #read_lines "combined.log" > before and lines
      end)
      assert.equal(before + 1, #lines)
      return json.decode(lines[#lines]), read_lines("combined.log")[before + 1]
   end

   for version, Client in pairs { ["HTTP/1.1"] = Http1, ["HTTP/2.0"] = Http2 } do
      local function it(what, fn)
         t.it(("over %s %s"):format(version, what), fn)
      end

      --- Both ends.
      local function tunnel(listener)
         local client, opened = Client.open(proxy().addresses[listener], origin.address)
         local peer = origin:accept()
         opened()
         return client, peer
      end

      it("is logged when it has ended, with all that went both ways", function()
         local started = t.sys.clock()
         local line, text = logged_by(function()
            local before = #read_lines "lines.json"
            local client, peer = tunnel(PLAIN)
            client:send "question"
            assert.equal("question", peer:read(8))
            t.tasks.sleep(0.3)
            assert.equal(before, #read_lines "lines.json")
            peer:send("the answer"):half_close()
            assert.equal("the answer", client:read(10))
            client:half_close()
            assert.equal("", peer:read_all())
            peer:close()
            assert.equal("end", client:how_it_ends())
         end)
         assert.equal("CONNECT", line.method)
         assert.equal(origin.address, line.host)
         assert.equal(version, line.protocol)
         assert.equal(200, line.status)
         assert.equal("spec", line.user_agent)
         assert.equal(8, line.client_bytes)
         assert.equal(10, line.bytes)
         assert.equal("ended", line.reason)
         assert.is_true(line.duration_ms >= 300 and line.duration_ms <= (t.sys.clock() - started) * 1000 + 1)
         assert.matches('^127%.0%.0%.1 %- %- %[.-%] "CONNECT %S* ' .. version:gsub("%.", "%%.") ..
            '" 200 10 "%-" "spec" 8 %d%.%d%d%d ended$', text)
      end)

      it("carries the end of either side", function()
         local line = logged_by(function()
            local client, peer = tunnel(PLAIN)
            client:send "last"
            client:half_close()
            assert.equal("last", peer:read_all())
            peer:send("still here"):close()
            assert.equal("still here", client:read(10))
            assert.equal("end", client:how_it_ends())
         end)
         assert.same({ 4, 10, "ended" }, { line.client_bytes, line.bytes, line.reason })
      end)

      it("ends when nothing is said", function()
         local line = logged_by(function()
            local client, peer = tunnel(IDLE)
            client:send "ping"
            assert.equal("ping", peer:read(4))
            assert.equal("reset", client:how_it_ends())
            peer:expect_close()
         end)
         assert.same({ 4, 0, "idle_timeout" }, { line.client_bytes, line.bytes, line.reason })
      end)

      for _, first in ipairs { "client", "peer" } do
         it(("ends sooner behind the end of one side, the %s's"):format(first), function()
            local line = logged_by(function()
               local client, peer = tunnel(HALF_CLOSED)
               t.tasks.sleep(0.25)
               if first == "client" then
                  client:half_close()
                  assert.equal("", peer:read_all())
                  peer:send "kept"
                  assert.equal("kept", client:read(4))
               else
                  peer:half_close()
                  client:send "kept"
                  assert.equal("kept", peer:read(4))
               end
               peer:expect_close()
            end)
            assert.equal("idle_timeout", line.reason)
         end)
      end

      it("ends at the total_timeout, however much is said", function()
         local line = logged_by(function()
            local client, peer = tunnel(TOTAL)
            t.start_task(function()
               while pcall(peer.send, peer, "tick") do
                  t.tasks.sleep(0.02)
               end
            end)
            assert.equal("reset", client:how_it_ends())
            peer:expect_close()
         end)
         assert.equal("total_timeout", line.reason)
         assert.is_true(line.duration_ms >= 290)
      end)

      it("tells which side was reset", function()
         local line = logged_by(function()
            local client, peer = tunnel(PLAIN)
            client:reset()
            peer:expect_close()
         end)
         assert.equal("client_failed", line.reason)
         line = logged_by(function()
            local client, peer = tunnel(PLAIN)
            peer:reset()
            assert.equal("reset", client:how_it_ends())
         end)
         assert.equal("peer_failed", line.reason)
         assert.matches("reset", line.error)
      end)

      it("carries bulk both ways", function()
         local bytes = ("0123456789abcdef"):rep(64 * 1024)
         local line = logged_by(function()
            local client, peer = tunnel(PLAIN)
            local sending = t.start_task(function() peer:send(bytes) end)
            local receiving = t.start_task(function() assert.is_true(peer:read(#bytes) == bytes) end)
            client:send(bytes)
            assert.is_true(client:read(#bytes) == bytes)
            sending:join()
            receiving:join()
            client:half_close()
            assert.equal("", peer:read_all())
            peer:close()
         end)
         assert.same({ #bytes, #bytes, "ended" }, { line.client_bytes, line.bytes, line.reason })
      end)
   end
end)
