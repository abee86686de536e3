--- What a client sends never reaches another's request, the framing of its response, or what layers
--- have decided.
local t = require "spec.support"

local SITE = [[
   local ml = require "monolake"
   ml.listen {
      address = "127.0.0.1:0",
      chain = {
         ml.router {
            ["/text"] = ml.text "text",
            ["/as-get"] = function(req, next)
               req.method = "GET"
               return next(req)
            end,
            ["/user"] = function(req, next)
               req.headers["x-user"] = "ali"
               return next(req)
            end,
            ["/stream"] = function(req)
               local chunks, state = req:chunks()
               return ml.response { body = function() return chunks(state) end }
            end,
         },
         ml.proxy { "${origin}", retries = 0 },
      },
   }
]]

t.on_both_backends("a client", function(backend)
   local origin, proxy = t.proxied(backend, { site = SITE })

   t.it("cannot add trailers to another's request", function()
      local one, other = proxy():connect(), proxy():connect()
      one:send(t.head "POST /text HTTP/1.1\nHost: a\nTransfer-Encoding: chunked" .. "1\r\nx\r\n")
      assert.equal("text", one:read_response().body)
      other:send(t.head "POST /o HTTP/1.1\nHost: a\nTransfer-Encoding: chunked" .. "1\r\ny\r\n")
      local upstream = origin:accept()
      upstream:read_request_head()
      one:send "0\r\nX-Evil: from another connection\r\n\r\n"
      t.tasks.sleep(0.05)
      other:send "0\r\nX-Own: yes\r\n\r\n"
      local rest = upstream:read_until "X-Own: yes\r\n\r\n"
      assert.not_matches("X%-Evil", rest)
      upstream:respond(200, "")
      other:read_response()
   end)

   t.it("that asked with HEAD gets no body, whatever layers make of the method", function()
      local client = proxy():connect()
      client:send_head "HEAD /as-get HTTP/1.1\nHost: a"
      local upstream = origin:accept()
      assert.equal("GET", upstream:read_request().method)
      upstream:respond(200, "HTTP/1.1 200 OK\r\n\r\n")
      client:read_response { method = "HEAD" }
      client:send_head "GET /text HTTP/1.1\nHost: a"
      assert.equal("text", client:read_response().body)
   end)

   t.it("cannot remove by Connection what a layer has set", function()
      local client = proxy():connect()
      client:send_head("GET /user HTTP/1.1\nHost: a\nConnection: x-user, x-other\n" ..
         "X-User: root\nX-Other: 1")
      local upstream = origin:accept()
      local request = upstream:read_request()
      assert.same({ "ali" }, request:all "x-user")
      assert.is_nil(request:get "x-other")
      upstream:respond(200, "")
      client:read_response()
   end)

   t.it("gets no 100 Continue within a response", function()
      local client = proxy():connect()
      client:send_head "POST /stream HTTP/1.1\nHost: a\nContent-Length: 5\nExpect: 100-continue"
      t.tasks.sleep(0.05)
      client:send "hello"
      local head = client:read_response_head()
      if head.status == 100 then
         head = client:read_response_head()
      end
      assert.equal("hello", client:read_response_body(head).body)
   end)

   t.it("that ends inside its body made a bad request", function()
      local client = proxy():connect()
      client:send_head("POST / HTTP/1.1\nHost: a\nContent-Length: 10", "abc"):half_close()
      assert.equal(400, client:read_response().status)
   end)
end)
