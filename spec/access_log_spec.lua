local t = require "spec.support"
local h2 = require "spec.support.h2"
local json = require "cjson"

local SITE = [[
   local ml = require "monolake"
   local function answer(req)
      if req.path == "/fails" then
         error "on purpose"
      elseif req.path == "/noted" then
         req:log("user", req.headers["x-user"])
         req:log("tries", 2.5)
         req:log("cached", false)
         local fits = req:log("long", ("x"):rep(500))
         return ml.text(tostring(fits))
      elseif req.path == "/chunked" then
         local left = 10
         return ml.response { body = function()
            left = left - 1
            return left >= 0 and ("c"):rep(100) or nil
         end }
      end
      req.headers["user-agent"] = "changed by a layer"
      req.path = "/changed"
      return ml.text "answer"
   end
   ml.listen {
      address = "127.0.0.1:0", protocols = { "h1", "h2c" },
      chain = {
         ml.access_log "combined.log",
         ml.access_log { path = "lines.json", format = "json" },
         answer,
      },
   }
   ml.listen { address = "127.0.0.1:0", chain = { ml.access_log "/dev/full", answer } }
   ml.listen { address = "127.0.0.1:0", chain = { ml.access_log(), answer } }
]]

t.on_both_backends("the access log", function(backend)
   local program = t.serve { io = backend, site = SITE, listeners = 3 }

   local function read(name)
      return t.process.read_file(program():path(name))
   end

   --- The lines that requests add to a log.
   local function lines_of(name, count, act)
      local before = #read(name)
      act()
      local text = t.eventually("lines in " .. name, function()
         local added = read(name):sub(before + 1)
         return select(2, added:gsub("\n", "")) >= count and added
      end)
      local lines = {}
      for line in text:gmatch "([^\n]*)\n" do
         lines[#lines + 1] = line
      end
      return lines
   end

   t.it("has the combined format, of the request as the client sent it", function()
      local lines = lines_of("combined.log", 1, function()
         program():exchange "GET /a?b=1 HTTP/1.1\nHost: a.example\nUser-Agent: spec\nReferer: http://r/"
      end)
      assert.matches('^127%.0%.0%.1 %- %- %[%d%d/%u%l%l/%d%d%d%d:%d%d:%d%d:%d%d [+-]%d%d%d%d%] ' ..
         '"GET /a%?b=1 HTTP/1%.1" 200 6 "http://r/" "spec"$', lines[1])
   end)

   t.it("has a JSON object a line", function()
      local lines = lines_of("lines.json", 2, function()
         program():exchange "GET /a?b=1 HTTP/1.1\nHost: a.example\nUser-Agent: spec"
         program():exchange "GET /fails HTTP/1.0\nHost: a.example"
      end)
      local first, second = json.decode(lines[1]), json.decode(lines[2])
      assert.equal("/a?b=1", first.target)
      assert.equal("a.example", first.host)
      assert.equal("spec", first.user_agent)
      assert.equal(200, first.status)
      assert.is_true(first.bytes == 6 and first.duration_ms >= 0 and first.id > 0)
      assert.equal(500, second.status)
      assert.equal("HTTP/1.0", second.protocol)
      assert.matches("on purpose", second.error)
   end)

   t.it("has what layers have to say, as far as there is room, in JSON", function()
      local combined
      local lines = lines_of("lines.json", 2, function()
         combined = lines_of("combined.log", 2, function()
            local head = "GET /noted HTTP/1.1\nHost: a\nX-User: a\"\\\xc3\xa9"
            assert.equal("false", program():exchange(head).body)
            program():exchange "GET /a HTTP/1.1\nHost: a"
         end)
      end)
      local first, second = json.decode(lines[1]), json.decode(lines[2])
      assert.same({ 'a"\\\xc3\x83\xc2\xa9', 2.5, false }, { first.user, first.tries, first.cached })
      assert.is_nil(first.long)
      assert.is_nil(second.user)
      assert.not_matches("tries", combined[1])
   end)

   t.it("counts the bytes of bodies that were sent, whatever frames them", function()
      local combined
      local lines = lines_of("lines.json", 4, function()
         combined = lines_of("combined.log", 4, function()
            program():exchange "GET /chunked HTTP/1.1\nHost: a"
            program():connect():send_head("HEAD /chunked HTTP/1.1\nHost: a"):read_response_head()
            local client = h2.connect(program().address)
            assert.equal(("c"):rep(1000), client:get("/chunked").body)
            client:response(client:request(h2.get { [":method"] = "HEAD", [":path"] = "/chunked" }))
            client:close()
         end)
      end)
      for i, expected in ipairs { 1000, 0, 1000, 0 } do
         assert.equal(expected, json.decode(lines[i]).bytes)
         assert.matches(" 200 " .. expected .. ' "%-"', combined[i])
      end
   end)

   t.it("has requests that no layer sees, for their head breaks a rule or a limit", function()
      local combined
      local lines = lines_of("lines.json", 5, function()
         combined = lines_of("combined.log", 5, function()
            assert.equal(400, program():connect():send_head("GET /nohost HTTP/1.1"):read_response().status)
            assert.equal(400, program():connect():send_head "nonsense":read_response().status)
            assert.equal(414, program():exchange("GET /" .. ("a"):rep(9000) .. " HTTP/1.1\nHost: a").status)
            local client = h2.connect(program().address)
            assert.equal(h2.PROTOCOL_ERROR, client:get("/nobody", { { "Upper", "case" } }).reset)
            assert.equal(414, client:get("/" .. ("a"):rep(9000)).status)
            client:close()
         end)
      end)
      local expected = {
         { 400, "Host" }, { 400, "" }, { 414, "too long" }, { 400, "its HTTP/2 fields break a rule" },
         { 414, "the request target is too long" },
      }
      for i, want in ipairs(expected) do
         local line = json.decode(lines[i])
         assert.equal(want[1], line.status)
         assert.matches(want[2], line.error, 1, true)
         assert.equal("127.0.0.1", line.remote)
         assert.equal(i ~= 4, line.bytes > 0)
         assert.matches(('^127.0.0.1 .*" %d %d "%%-" "%%-"$'):format(want[1], line.bytes), combined[i])
      end
      assert.matches('"GET /nohost HTTP/1.1" 400', combined[1], 1, true)
      assert.matches('"-" 400', combined[2], 1, true)
   end)

   t.it("lets nothing end its quotes or lines", function()
      local head = 'GET /%22 HTTP/1.1\r\nHost: a\r\nUser-Agent: a"b\\c\xc3\xa9\td\r\n\r\n'
      local lines
      local jsons = lines_of("lines.json", 1, function()
         lines = lines_of("combined.log", 1, function()
            program():connect():send(head):read_response()
         end)
      end)
      assert.equal(1, #lines)
      assert.matches([["a\x22b\x5Cc\xC3\xA9\x09d"$]], lines[1])
      assert.equal('a"b\\c\xc3\x83\xc2\xa9\td', json.decode(jsons[1]).user_agent)
   end)

   t.it("cuts what is too long, but not the line", function()
      local lines = lines_of("lines.json", 1, function()
         program():exchange("GET /" .. ("'"):rep(7000) .. "?" .. ("'"):rep(900) ..
            " HTTP/1.1\nHost: a\nUser-Agent: spec\nReferer: " .. ("\""):rep(5000))
      end)
      local line = json.decode(lines[1])
      assert.is_true(#line.target > 1000 and #line.target < 7000)
      assert.is_true(#line.referer > 100)
      assert.equal("spec", line.user_agent)
   end)

   t.it("is opened anew at SIGUSR1", function()
      lines_of("combined.log", 1, function()
         program():exchange "GET /old HTTP/1.1\nHost: a"
      end)
      assert(os.rename(program():path "combined.log", program():path "combined.log.1"))
      program().process:signal(t.sys.SIGUSR1)
      t.eventually("the new file", function()
         return io.open(program():path "combined.log")
      end)
      local lines = lines_of("combined.log", 1, function()
         program():exchange "GET /new HTTP/1.1\nHost: a"
      end)
      assert.matches("/new", lines[1])
      assert.not_matches("/new", read "combined.log.1")
   end)

   t.it("drops lines that a full disk does not take, says so, and serves on", function()
      local offset = #program():log()
      for _ = 1, 3 do
         local client = program():connect { address = program().addresses[2] }
         assert.equal("answer", client:exchange("GET / HTTP/1.1\nHost: a").body)
         client:close()
      end
      program():await_log("access log /dev/full: No space left on device: %d+ lines were dropped", offset)
   end)

   t.it("goes to standard output by default", function()
      local client = program():connect { address = program().addresses[3] }
      client:exchange "GET /to-stdout HTTP/1.1\nHost: a"
      t.eventually("the line", function()
         return program().process:stdout():find('"GET /to-stdout HTTP/1.1" 200', 1, true)
      end)
   end)
end)

describe("the access log's options", function()
   local function refusal(options)
      local _, err, status = t.program.check {
         site = [[
            local ml = require "monolake"
            ml.listen { address = "127.0.0.1:0", chain = { ml.access_log ${options}, ml.text "" } }
         ]],
         values = { options = options },
      }
      return status, err
   end

   t.it("are checked", function()
      local status, err = refusal '{ formt = "json" }'
      assert.equal(1, status)
      assert.matches('site.lua:2: access_log: unknown option "formt"; did you mean "format"?', err, 1, true)
      status, err = refusal '{ format = "jsn" }'
      assert.equal(1, status)
      assert.matches('did you mean "json"?', err, 1, true)
      status, err = refusal '"no/such/directory/log"'
      assert.equal(1, status)
      assert.matches("site.lua:2: access log .*/no/such/directory/log: No such file or directory", err)
   end)
end)
