--- Requests that layers send by themselves: req:forward chooses an upstream, req:fetch asks one something.
local t = require "monolake.test"
local ml = require "monolake"

describe("req:forward", function()
   local stable, canary, stable_upstream, canary_upstream

   setup(function()
      stable, canary = t.origin(ml.text "stable"), t.origin(ml.text "canary")
      stable_upstream = ml.upstream { stable.address, name = "stable" }
      canary_upstream = ml.upstream { canary.address, name = "canary" }
   end)

   teardown(function()
      stable:close()
      canary:close()
   end)

   local function by_cookie(req)
      return req:forward(req.cookies.canary == "1" and canary_upstream or stable_upstream)
   end

   it("chooses where a request goes", function()
      assert.are.equal("stable", t.call(by_cookie, "/").body)
      local res = assert(t.call(by_cookie, t.request { path = "/a?b=c", method = "PUT", body = "data",
         headers = { cookie = "canary=1" } }))
      assert.are.equal("canary", res.body)
      local seen = canary.requests[1]
      assert.are.same({ "PUT", "/a", "b=c", "data" }, { seen.method, seen.path, seen.query, seen.body })
   end)

   it("gives a response that can be changed, and another try elsewhere", function()
      local gone = ml.upstream { "127.0.0.1:1", name = "gone" }
      local why
      local res = assert(t.call(function(req)
         local first = req:forward(gone)
         assert.are.equal(502, first.status)
         why = first.error
         local second = req:forward(stable_upstream)
         second.headers["x-tried"] = "gone"
         return second
      end, t.request { method = "POST", body = "data" }))
      assert.are.same({ "stable", "gone" }, { res.body, res.headers["x-tried"] })
      assert.matches('upstream "gone"', why, 1, true)
      assert.are.equal("data", stable.requests[#stable.requests].body)
   end)

   it("wants an upstream of HTTP", function()
      local function failure(target)
         local why
         t.call(function(req)
            why = select(2, pcall(function()
               local res = req:forward(target)
               return res
            end))
            return ml.text ""
         end, "/")
         return why
      end
      local expected = "forward_spec.lua:%d+: forward: expected an upstream that ml.upstream has made"
      assert.matches(expected, failure "127.0.0.1:1")
      assert.matches(expected, failure(nil))
      local tcp = ml.upstream { "127.0.0.1:1", name = "tcp", protocol = "tcp" }
      assert.matches('forward: upstream "tcp" has the protocol "tcp"', failure(tcp), 1, true)
   end)
end)

describe("req:fetch", function()
   local origin, upstream, answer

   setup(function()
      origin = t.origin(function(req)
         return answer(req)
      end)
      upstream = ml.upstream { origin.address, name = "auth" }
   end)

   before_each(function()
      answer = function()
         return ml.json({ user = "ali" }, { headers = { ["x-user"] = "ali" } })
      end
   end)

   teardown(function()
      origin:close()
   end)

   local function seen()
      return origin.requests[#origin.requests]
   end

   it("asks with a request of its own, and leaves the client's as it is", function()
      local body = ("0123456789"):rep(50000)
      local res = assert(t.call(function(req, next)
         local verdict = req:fetch(upstream, { path = "/verify?x=1",
            headers = { cookie = req.headers.cookie } })
         req.headers["x-user"] = verdict.headers["x-user"]
         return next(req)
      end, t.request { method = "POST", path = "/upload?y=2", body = body, chunked = true,
         headers = { cookie = "sid=1", ["x-secret"] = "2" } }))
      local asked, passed = seen(), res.forwarded
      assert.are.same({ "GET", "/verify", "x=1", "" }, { asked.method, asked.path, asked.query, asked.body })
      assert.are.same({ "sid=1" }, { asked.headers.cookie, asked.headers["x-secret"] })
      assert.are.equal("localhost", asked.host)
      assert.are.same({ "POST", "/upload", "y=2", "ali" },
         { passed.method, passed.path, passed.query, passed.headers["x-user"] })
      assert.is_true(passed.body == body)
   end)

   it("sends what it is told to, and gives the body of the answer", function()
      local res = assert(t.call(function(req)
         local got = req:fetch(upstream, { method = "POST", path = "/", host = "auth.example", body = "data",
            headers = { a = { "1", "2" }, ["content-type"] = "text/plain" } })
         return ml.text(ml.json.decode(got:body()).user)
      end, "/"))
      assert.are.equal("ali", res.body)
      local asked = seen()
      assert.are.same({ "POST", "data", "auth.example", "text/plain" },
         { asked.method, asked.body, asked.host, asked.headers["content-type"] })
      assert.are.same({ "1", "2" }, asked.headers:all "a")
   end)

   it("knows responses that have no body", function()
      answer = function(req)
         return ml.text("data", { status = tonumber(req.query) })
      end
      local res = assert(t.call(function(req)
         local texts = {}
         for i, options in ipairs {
            { method = "HEAD", path = "/?200" }, { path = "/?204" }, { path = "/?304" },
         } do
            local got = req:fetch(upstream, options)
            texts[i] = got.status .. got:body()
         end
         return ml.text(table.concat(texts, " "))
      end, "/"))
      assert.are.equal("200 204 304", res.body)
   end)

   it("may be called more than once, and its bodies be read in any order or not at all", function()
      local size = 300000
      answer = function(req)
         return ml.text(req.path:rep(size))
      end
      local res = assert(t.call(function(req)
         local a, b = req:fetch(upstream, { path = "/a" }), req:fetch(upstream, { path = "/b" })
         req:fetch(upstream, { path = "/c" })
         local total = 0
         for chunk in b:chunks() do
            total = total + #chunk
         end
         return ml.text(("%s %d"):format(a:body():sub(1, 4), total))
      end, "/"))
      assert.are.equal(("/a/a %d"):format(2 * size), res.body)
   end)

   it("tells of failures as upstreams do, and of times that are over", function()
      local gone = ml.upstream { "127.0.0.1:1", name = "gone" }
      answer = function()
         ml.sleep(5)
         return ml.text "late"
      end
      local res = assert(t.call(function(req)
         local first, second = req:fetch(gone), req:fetch(upstream, { timeout = "50ms" })
         return ml.text(("%d %d %s"):format(first.status, second.status, first.error))
      end, "/"))
      assert.matches('^502 504 .*upstream "gone"', res.body)
   end)

   it("takes bodies up to a bound", function()
      answer = function(req)
         return ml.text(("x"):rep(tonumber(req.query)))
      end
      local res = assert(t.call(function(req)
         local fits = req:fetch(upstream, { path = "/?5", max = 5 })
         local not_so = req:fetch(upstream, { path = "/?2000000" })
         return ml.text(("%d %d %s"):format(fits.status, not_so.status, not_so.error))
      end, "/"))
      assert.are.equal('200 502 the response\'s body is longer than "max"', res.body)
   end)

   it("says what it expects", function()
      local function failure(options)
         local why
         t.call(function(req)
            why = select(2, pcall(function()
               local res = req:fetch(upstream, options)
               return res
            end))
            return ml.text ""
         end, "/")
         return tostring(why)
      end
      assert.matches('forward_spec.lua:%d+: fetch: unknown option "pth"; did you mean "path"?',
         failure { pth = "/" })
      assert.matches('fetch: path: expected "/...", not "x"', failure { path = "x" }, 1, true)
      assert.matches('forward_spec.lua:%d+: fetch: not a valid path: "/a b"', failure { path = "/a b" })
      assert.matches('not a valid method: "G T"', failure { method = "G T" }, 1, true)
   end)

   it("gives answers that are read only, and only while the request lasts", function()
      local kept
      local res = assert(t.call(function(req)
         kept = req:fetch(upstream)
         return kept
      end, "/"))
      assert.are.equal(500, res.status)
      assert.has_error(function()
         return kept.status
      end, "request handle used after its request ended")
   end)
end)
