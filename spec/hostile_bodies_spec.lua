--- Bodies and scripts that meet in unlucky moments: early responses, retries, functions that read what
--- they make. The program must live, and nobody may get another's bytes.
local t = require "spec.support"

local SITE = [[
   local ml = require "monolake"
   local saved
   local origin = ml.upstream { "${origin}", name = "origin", retries = 0 }
   local function listen(layer)
      ml.listen { address = "127.0.0.1:0", chain = { layer, ml.proxy(origin) } }
   end

   listen(function(req)                               -- 1: reads piece by piece
      local count = 0
      for chunk in req:chunks() do
         count = count + #chunk
      end
      return ml.text(tostring(count))
   end)
   listen(function(req, next)                         -- 2: asks twice
      local res = next(req)
      return res.status == 503 and next(req) or res
   end)
   listen(function(req, next)                         -- 3: replaces the answer
      local res = next(req)
      res.body = "replaced"
      return res
   end)
   listen(function(req, next)                         -- 4: reads behind an early answer
      next(req)
      local ok, why = pcall(req.body, req)
      return ml.text(tostring(ok) .. " " .. tostring(why))
   end)
   listen(function(req, next)                         -- 5: replaces behind an early answer
      next(req)
      req.body = "another"
      return next(req)
   end)
   listen(function(req)                               -- 6: functions that meddle with their own body
      if req.path == "/read" then
         local done
         req.body = function()
            if not done then
               done = true
               return req:body():upper()
            end
         end
         return ml.text(req:body())
      end
      local res = ml.response { body = "some text" }
      return res
   end)
   listen(ml.router {                                 -- 7: the same of responses
      ["/read"] = function(req, next)
         local res = next(req)
         res:map(function(chunk) res:body() return chunk end)
         return res
      end,
      ["/replace"] = function(req, next)
         local res = next(req)
         res:map(function(chunk) res.body = "x" return chunk end)
         return res
      end,
      ["/chunks"] = function(req, next)
         local res = next(req)
         res:map(function(chunk)
            for _ in res:chunks() do end
            return chunk
         end)
         return res
      end,
      ["/many"] = function(req, next)
         local res = next(req)
         for _ = 1, 2000 do
            res:map(function(chunk) return chunk end)
         end
         return res
      end,
   })
   listen(function(req)                               -- 8: another request's body
      if req.path == "/save" then
         saved = req
         ml.sleep(0.3)
         return ml.text "saved"
      end
      local ok, why = pcall(saved.body, saved)
      return ml.text(tostring(ok) .. " " .. tostring(why))
   end)
   listen(function(req)                               -- 9: no bound
      return ml.text(req:body { max = math.huge })
   end)
]]

t.on_both_backends("bodies and scripts", function(backend)
   local origin, proxy = t.proxied(backend, { site = SITE, listeners = 9 })

   local function connect(listener)
      return proxy():connect { address = proxy().addresses[listener] }
   end

   t.it("a delayed body is read piece by piece, with and without Expect", function()
      for _, fields in ipairs { "", "Expect: 100-continue\n", "", "Expect: 100-continue\n" } do
         local client = connect(1)
         client:send_head("POST / HTTP/1.1\nHost: a\nContent-Length: 5\n" .. fields)
         if fields ~= "" then
            assert.equal(100, client:read_response_head().status)
         end
         t.tasks.sleep(0.02)
         client:send "hello"
         assert.equal("5", client:read_response().body)
         client:close()
      end
   end)

   t.it("a small body is sent again to whom a layer asks twice, one in no chunks at all, too", function()
      for fields, body in pairs { ["Content-Length: 4"] = "data", ["Transfer-Encoding: chunked"] = "" } do
         local client = connect(2)
         client:send_head("PUT / HTTP/1.1\nHost: a\n" .. fields,
            fields:find "chunked" and "0\r\n\r\n" or body)
         local upstream = origin:accept()
         assert.equal(body, upstream:read_request().body)
         upstream:respond(503)
         assert.equal(body, upstream:read_request().body)
         upstream:respond(200, "ok")
         assert.equal("ok", client:read_response().body)
         upstream:close()
      end
   end)

   --- A large upload, to which the origin answers before it has read it.
   local function early(listener, answer, act)
      local client = connect(listener)
      client:send_head "POST / HTTP/1.1\nHost: a\nContent-Length: 20000000"
      local sending = t.start_task(function()
         client:try_send(("x"):rep(20000000), 5)
      end)
      local upstream = origin:accept()
      upstream:read_request_head()
      upstream:read(1000)
      upstream:respond(answer, "early")
      if act then
         act(client, upstream)
      end
      local response = client:read_response()
      client:reset()
      sending:join()
      return response
   end

   t.it("an upload that was answered early cannot be sent again, and hurts nobody", function()
      local response = early(2, 503)
      assert.is_true(response.status == 502 or response.status == 503)
   end)

   t.it("a small body can be sent again", function()
      local client = connect(2)
      client:send_head("POST / HTTP/1.1\nHost: a\nContent-Length: 4", "body")
      for _, status in ipairs { 503, 200 } do
         local upstream = origin:accept()
         local request = upstream:read_request()
         assert.equal("body", request.body)
         upstream:respond(status, "answer", "Connection: close"):close()
      end
      assert.equal(200, client:read_response().status)
   end)

   t.it("the answer can be replaced while the upload goes on", function()
      assert.equal("replaced", early(3, 200).body)
   end)

   t.it("the body that is being uploaded is taken back by who reads it", function()
      assert.matches("^%a+ ", early(4, 200).body)
   end)

   t.it("the body that is being uploaded can be replaced and sent", function()
      local response = early(5, 200, function()
         local second = origin:accept()
         assert.equal("another", second:read_request().body)
         second:respond(200, "second")
      end)
      assert.equal("second", response.body)
   end)

   t.it("a function cannot read the body that it makes", function()
      assert.equal(500, connect(6):exchange("POST /read HTTP/1.1\nHost: a\nContent-Length: 1", "x").status)
   end)

   for _, path in ipairs { "/read", "/replace", "/chunks", "/many" } do
      t.it("a function cannot meddle with the body that it makes: " .. path, function()
         local client = connect(7)
         client:send_head(("GET %s HTTP/1.1\nHost: a"):format(path))
         local upstream = origin:accept()
         upstream:read_request()
         upstream:respond(200, "text")
         assert.equal(500, client:read_response().status)
      end)
   end

   t.it("a request's body is not another's to read", function()
      local saving = connect(8)
      saving:send_head "POST /save HTTP/1.1\nHost: a\nContent-Length: 10"
      t.tasks.sleep(0.05)
      assert.matches("^false .*its own request", connect(8):exchange("GET /steal HTTP/1.1\nHost: a").body)
      assert.equal("saved", saving:read_response().body)
   end)

   t.it("a bound may be infinite", function()
      assert.equal("xyz", connect(9):exchange("POST / HTTP/1.1\nHost: a\nContent-Length: 3", "xyz").body)
   end)
end)
