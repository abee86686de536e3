local t = require "monolake.test"
local ml = require "monolake"

--- Runs `look` as a layer and returns the response; what it returns is kept in `seen`.
local function with_request(options, look)
   local seen
   local res = assert(t.call(function(req, next)
      seen = { look(req) }
      return next(req)
   end, t.request(options)))
   assert.are.equal(200, res.status)
   return unpack(seen)
end

--- What a layer fails with.
local function failure(options, act)
   local why
   local res = assert(t.call(function(req)
      local ok, err = pcall(act, req)
      why = not ok and tostring(err)
      return ml.text ""
   end, t.request(options)))
   assert.are.equal(200, res.status)
   return why
end

describe("a request", function()
   it("has a method, a path and a query", function()
      local method, path, query = with_request({ method = "PURGE", path = "/a%20b/c?x=1&y" }, function(req)
         return req.method, req.path, req.query
      end)
      assert.are.same({ "PURGE", "/a%20b/c", "x=1&y" }, { method, path, query })
      assert.is_nil((with_request("/", function(req) return req.query end)))
      assert.are.equal("", (with_request("/?", function(req) return req.query end)))
   end)

   it("has a host, a scheme, a version, an id, the client's address", function()
      with_request({ host = "example.org:8080" }, function(req)
         assert.are.equal("example.org:8080", req.host)
         assert.are.equal("http", req.scheme)
         assert.are.equal(1.1, req.version)
         assert.is_true(req.id > 0)
         assert.are.equal("127.0.0.1", req.ip)
         assert.is_true(req.port > 0)
      end)
      assert.are.equal("192.0.2.7", (with_request({ ip = "192.0.2.7" }, function(req) return req.ip end)))
   end)

   it("has an id of its own", function()
      local function id(req)
         return req.id
      end
      assert.are_not.equal((with_request("/", id)), (with_request("/", id)))
   end)

   it("can be rewritten", function()
      local res = assert(t.call(function(req, next)
         req.method, req.path, req.query, req.host = "POST", "/new", "a=b", "other.example"
         req.body = "new body"
         return next(req)
      end, t.request { path = "/old?x=1", host = "old.example" }))
      local seen = res.forwarded
      assert.are.same({ "POST", "/new", "a=b", "other.example", "new body" },
         { seen.method, seen.path, seen.query, seen.host, seen.body })
      assert.are.same({ "other.example" }, seen.headers:all "host")
   end)

   it("loses its query for nil", function()
      local res = assert(t.call(function(req, next)
         req.query = nil
         return next(req)
      end, "/?x=1"))
      assert.is_nil(res.forwarded.query)
   end)

   it("takes no method, path, query or host that HTTP does not allow", function()
      for name, value in pairs { method = "G T", path = "no/slash", query = "a b", host = "a/b" } do
         assert.matches("not a valid " .. name, failure("/", function(req) req[name] = value end))
      end
      assert.matches("not a valid path", failure("/", function(req) req.path = "/a\r\nX: y" end))
      assert.matches("not a valid path", failure("/", function(req) req.path = "/a?b" end))
      assert.matches("req.path must be a string", failure("/", function(req) req.path = 7 end))
   end)

   it("names the nearest property for one that it does not have", function()
      assert.matches('a request has no "hedaers" that can be read; did you mean "headers"?',
         failure("/", function(req) return req.hedaers end), 1, true)
      local why = failure("/", function(req) req.port = 80 end)
      assert.matches('no "port" that can be assigned', why, 1, true)
   end)

   it("believes a layer that says who the client is", function()
      local origin = t.origin()
      local forward = ml.proxy { origin.address, name = "seen", x_forwarded = true }
      for _, ip in ipairs { "192.0.2.1", "2001:db8::1" } do
         local set, seen = ml.cidr { ip }, nil
         assert(t.call({ function(req, next)
            req.ip = ip
            seen = { req.ip, req.port, set:contains(req) }
            return next(req)
         end, forward }, "/"))
         assert.are.same({ ip, 0, true }, seen)
         assert.are.equal(ip, origin.requests[#origin.requests].headers["x-forwarded-for"])
      end
      origin:close()
      for _, text in ipairs { "", "a.example", "1.2.3", "1.2.3.4:80", "[::1]", "unix:", "1.2.3.4, ::1" } do
         assert.matches("not a valid ip", failure("/", function(req) req.ip = text end), 1, true)
      end
   end)

   it("has a table for the layers' own use", function()
      local seen
      assert(t.call({
         function(req, next)
            req.ctx.user = "ali"
            return next(req)
         end,
         function(req, next)
            seen = req.ctx.user
            return next(req)
         end,
      }, "/"))
      assert.are.equal("ali", seen)
   end)

   it("has the parameters of its route, decoded", function()
      local id, rest, all
      local res = assert(t.call(ml.router {
         ["/users/:id/*rest"] = function(req)
            id, rest, all = req.params.id, req.params.rest, {}
            for name, value in req.params:pairs() do
               all[name] = value
            end
            assert.is_nil(req.params.other)
            return ml.text ""
         end,
      }, "/users/a%20b/c/d"))
      assert.are.equal(200, res.status)
      assert.are.same({ "a b", "c/d" }, { id, rest })
      assert.are.same({ id = "a b", rest = "c/d" }, all)
   end)
end)

describe("the headers of a request", function()
   it("are found in any case, and are nil if there are none", function()
      with_request({ headers = { ["X-Name"] = "value" } }, function(req)
         assert.are.equal("value", req.headers["x-name"])
         assert.are.equal("value", req.headers["X-NAME"])
         assert.are.equal("value", req.headers:get "x-Name")
         assert.is_nil(req.headers["x-other"])
         assert.is_nil(req.headers.missing)
      end)
   end)

   it("keep all values and their order", function()
      with_request({ headers = { { "b", "1" }, { "a", "2" }, { "B", "3" } } }, function(req)
         assert.are.same({ "1", "3" }, req.headers:all "b")
         local order = {}
         for name, value in req.headers:pairs() do
            if #name == 1 then
               order[#order + 1] = name .. value
            end
         end
         assert.are.same({ "b1", "a2", "B3" }, order)
      end)
   end)

   it("can be set, added to and removed", function()
      local res = assert(t.call(function(req, next)
         req.headers.one = "new"
         req.headers.two = nil
         req.headers.three = { "a", "b" }
         req.headers.four = 4
         req.headers:add("one", "more")
         return next(req)
      end, t.request { headers = { { "one", "1" }, { "one", "2" }, { "two", "2" } } }))
      local headers = res.forwarded.headers
      assert.are.same({ "new", "more" }, headers:all "one")
      assert.is_nil(headers.two)
      assert.are.same({ "a", "b" }, headers:all "three")
      assert.are.equal("4", headers.four)
   end)

   it("take nothing that would end a field", function()
      for _, value in ipairs { "a\r\nb: c", "a\nb", "a\0b", "\r" } do
         assert.matches("not a valid field", failure("/", function(req) req.headers.x = value end))
         assert.matches("not a valid field", failure("/", function(req) req.headers:add("x", value) end))
      end
      for _, name in ipairs { "", "a b", "a:", "a\r\n", "ä" } do
         assert.matches("not a valid field", failure("/", function(req) req.headers[name] = "x" end))
      end
      assert.matches("must be a string", failure("/", function(req) req.headers.x = true end))
   end)
end)

describe("the arguments of a request", function()
   it("are decoded, in order, with all values", function()
      with_request("/?a=1&b=%26%3D+%C3%A4&a=2&flag&=x", function(req)
         assert.are.equal("1", req.args.a)
         assert.are.same({ "1", "2" }, req.args:all "a")
         assert.are.equal("&= ä", req.args.b)
         assert.are.equal("", req.args.flag)
         assert.is_nil(req.args.missing)
      end)
   end)

   it("are written back", function()
      local res = assert(t.call(function(req, next)
         req.args.a = "x y&z"
         req.args.b = nil
         req.args:add("c", 3)
         return next(req)
      end, "/?a=1&b=2&a=3"))
      assert.are.equal("a=x%20y%26z&c=3", res.forwarded.query)
   end)

   it("follow the query", function()
      with_request("/?a=1", function(req)
         assert.are.equal("1", req.args.a)
         req.query = "a=2"
         assert.are.equal("2", req.args.a)
      end)
   end)
end)

describe("the cookies of a request", function()
   it("are read from all fields", function()
      with_request({ headers = { { "Cookie", 'a=1; b="two"' }, { "Cookie", "c=x=y" } } }, function(req)
         assert.are.same({ "1", "two", "x=y" }, { req.cookies.a, req.cookies.b, req.cookies.c })
         assert.is_nil(req.cookies.d)
      end)
   end)

   it("are written back", function()
      local res = assert(t.call(function(req, next)
         req.cookies.session = nil
         req.cookies.seen = "yes"
         return next(req)
      end, t.request { headers = { cookie = "session=secret; lang=en" } }))
      assert.are.same({ "lang=en; seen=yes" }, res.forwarded.headers:all "cookie")
   end)

   it("take nothing that would make another cookie", function()
      assert.matches("not a valid cookie", failure("/", function(req) req.cookies.a = "1; b=2" end))
   end)
end)

describe("the body of a request", function()
   it("is read whole, again and again, and still goes on", function()
      local res = assert(t.call(function(req, next)
         assert.are.equal("some text", req:body())
         assert.are.equal("some text", req:body { max = 9 })
         return next(req)
      end, t.request { method = "POST", body = "some text" }))
      assert.are.equal("some text", res.forwarded.body)
   end)

   it("is empty when there is none", function()
      assert.are.equal("", (with_request("/", function(req) return req:body() end)))
   end)

   for _, chunked in ipairs { true, false } do
      local how = chunked and ", in chunks" or ""
      it("answers with 413 when it is larger than a layer takes" .. how, function()
         local res = assert(t.call(function(req)
            return ml.text(req:body { max = 4 })
         end, t.request { method = "POST", body = "12345", chunked = chunked }))
         assert.are.equal(413, res.status)
      end)
   end

   it("may be too large without ending the request", function()
      local res = assert(t.call(function(req)
         local ok, err = pcall(req.body, req, { max = 4 })
         return ml.text(tostring(ok) .. " " .. tostring(err))
      end, t.request { method = "POST", body = "12345" }))
      assert.are.equal("false the request body is too large", res.body)
   end)

   it("can be read piece by piece", function()
      local length, last = 0, nil
      local body = ("x"):rep(300000) .. "end"
      local res = assert(t.call(function(req)
         for chunk in req:chunks() do
            length, last = length + #chunk, chunk
         end
         return ml.text "read"
      end, t.request { method = "POST", body = body, chunked = true }))
      assert.are.equal("read", res.body)
      assert.are.equal(#body, length)
      assert.are.equal("end", last:sub(-3))
   end)

   it("can be replaced by a text, an iterator or nothing", function()
      local parts = { "one ", "two" }
      local bodies = {
         [""] = function() return nil end,
         ["text"] = function() return "text" end,
         ["one two"] = function()
            local i = 0
            return function()
               i = i + 1
               return parts[i]
            end
         end,
      }
      for expected, make in pairs(bodies) do
         local res = assert(t.call(function(req, next)
            req.body = make()
            return next(req)
         end, t.request { method = "POST", body = "original" }))
         assert.are.equal(expected, res.forwarded.body)
      end
   end)

   it("says which options reading takes", function()
      assert.matches('unknown option "maximum"', failure("/", function(req) req:body { maximum = 1 } end))
   end)
end)

describe("a request that is over", function()
   it("raises an error for whatever is done with it", function()
      local kept, headers, args, res_kept
      assert(t.call(function(req, next)
         kept, headers, args = req, req.headers, req.args
         res_kept = next(req)
         return res_kept
      end, "/?a=1"))
      collectgarbage()
      local uses = {
         function() return kept.path end,
         function() kept.path = "/" end,
         function() return kept.port end,
         function() return headers.x end,
         function() headers.x = "y" end,
         function() return headers:pairs()() end,
         function() return args.a end,
         function() return kept:body() end,
         function() return res_kept.status end,
         function() res_kept.status = 500 end,
         function() return res_kept.headers.x end,
         function() return res_kept:body() end,
      }
      for i, use in ipairs(uses) do
         local ok, err = pcall(use)
         assert.is_false(ok, "use " .. i)
         assert.matches("after its request ended", tostring(err))
      end
   end)
end)

describe("what a layer adds to the access log", function()
   it("is checked", function()
      local function why_not(...)
         local arguments, why = { n = select("#", ...), ... }, nil
         t.call(function(req)
            why = select(2, pcall(function()
               local noted = req:log(unpack(arguments, 1, arguments.n))
               return noted
            end))
            return ml.text ""
         end, "/")
         return why
      end
      assert.is_true(why_not("user", "ali"))
      assert.matches('request_spec.lua:%d+: log: expected a name of .*, not "a b"', why_not("a b", 1))
      assert.matches("log: expected a name", why_not(7, 1), 1, true)
      assert.matches("log: user: expected a string, a finite number or a boolean, not nil", why_not("user"),
         1, true)
      assert.matches("a finite number or a boolean, not %-?nan", why_not("user", 0 / 0))
   end)
end)
