--- Requests that layers make (req:fetch) in the program: what becomes of them when their client goes, when
--- the site is loaded anew, and over HTTP/2.
local t = require "spec.support"
local h2 = require "spec.support.h2"

local SITE = [[
local ml = require "monolake"
local auth = ml.upstream { "${auth}", name = "auth" }
local origin = ml.upstream { "${origin}", name = "origin" }

local function authorized(req, next)
   local verdict = req:fetch(auth, { path = "/verify" })
   req.headers["x-user"] = verdict.headers["x-user"]
   return next(req)
end

ml.listen { address = "127.0.0.1:0", protocols = { "h1", "h2c" }, active_max = 1,
   chain = { authorized, ml.proxy(origin) } }
]]

local VERDICT = "HTTP/1.1 200 OK\r\nX-User: ali\r\nContent-Length: 7\r\n\r\nwelcome"
local ANSWER = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

t.on_both_backends("req:fetch", function(backend)
   local auth, origin, running

   setup(function()
      auth, origin = t.socket.listen(), t.socket.listen()
      running = t.program.start { io = backend, site = SITE,
         values = { auth = auth.address, origin = origin.address } }
   end)

   teardown(function()
      running:stop()
      auth:close()
      origin:close()
   end)

   --- Answers the question of the layer and takes what then goes to the origin. Returns both connections,
   --- and both requests.
   local function let_pass()
      local asked = auth:accept()
      local question = asked:read_request()
      asked:send(VERDICT)
      local passed = origin:accept()
      return asked, passed, question, passed:read_request()
   end

   t.it("is given up with the request whose client is gone", function()
      local client = running:connect()
      client:send "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
      local asked = auth:accept()
      assert.equal("/verify", asked:read_request().target)
      client:reset()
      asked:expect_close()
   end)

   t.it("goes on over a reload, and gives its connection back", function()
      local client = running:connect()
      client:send "GET /b HTTP/1.1\r\nHost: a\r\n\r\n"
      local asked = auth:accept()
      asked:read_request()
      running:reload()
      asked:send(VERDICT)
      local passed = origin:accept()
      local request = passed:read_request()
      assert.same({ "/b", "ali" }, { request.target, request:get "x-user" })
      passed:send(ANSWER)
      assert.equal("ok", client:read_response().body)

      client:send "GET /c HTTP/1.1\r\nHost: a\r\n\r\n"
      asked:read_request()
      asked:send(VERDICT)
      passed:read_request()
      passed:send(ANSWER)
      assert.equal("ok", client:read_response().body)
      client:reset()
      asked:reset()
      passed:reset()
   end)

   t.it("has a host where the client has named none", function()
      local client = running:connect()
      client:send "GET /h HTTP/1.0\r\n\r\n"
      local asked, passed, question, request = let_pass()
      assert.same({ auth.address, origin.address }, { question:get "host", request:get "host" })
      passed:send(ANSWER)
      client:read_response()
      client:close()
      asked:reset()
      passed:reset()
   end)

   t.it("is asked for by a stream of HTTP/2, too", function()
      local client = h2.connect(running.address)
      local id = client:request(h2.get { [":path"] = "/d" })
      local _, passed, _, request = let_pass()
      assert.equal("ali", request:get "x-user")
      passed:send(ANSWER)
      assert.equal("ok", client:response(id).body)
   end)
end)
