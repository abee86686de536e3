local t = require "spec.support"

--- The message that a reader fails with for these bytes, or nil.
local function failure(bytes, read)
   local listener = t.socket.listen()
   local client = t.socket.connect(listener.address)
   local server = listener:accept()
   server:send(bytes):close()
   local ok, err = pcall(read, client)
   listener:close()
   return not ok and tostring(err) or nil
end

local function read_response(client)
   client:read_response()
   client:expect_close()
end

describe("the harness", function()
   local well_formed = {
      ["a length"] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
      ["chunks and trailers"] =
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\n",
      ["no reason phrase"] = "HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n",
      ["a body up to the end"] = "HTTP/1.0 200 OK\r\n\r\nall of it",
   }
   for name, bytes in pairs(well_formed) do
      t.it("reads " .. name, function()
         assert.is_nil(failure(bytes, read_response))
      end)
   end

   local malformed = {
      ["a bare LF"] = "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
      ["a cut body"] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
      ["more than the length"] = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok",
      ["two framings"] =
         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["two lengths"] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
      ["chunked in HTTP/1.0"] =
         "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["chunks without an end"] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
      ["a chunk that is too long"] =
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
      ["a space before a colon"] = "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
      ["an interim response alone"] = "HTTP/1.1 100 Continue\r\n\r\n",
   }
   for name, bytes in pairs(malformed) do
      t.it("fails on " .. name, function()
         assert.is_string(failure(bytes, read_response))
      end)
   end

   t.it("tells a reset from an end", function()
      local listener = t.socket.listen()
      local client = t.socket.connect(listener.address)
      listener:accept():reset()
      assert.equal("reset", client:expect_close())
      client = t.socket.connect(listener.address)
      listener:accept():close()
      assert.equal("closed", client:expect_close())
   end)

   t.it("sends more than the buffers hold while the other side reads", function()
      local listener = t.socket.listen()
      local client = t.socket.connect(listener.address)
      local server = listener:accept()
      local bytes = ("x"):rep(20 * 1024 * 1024)
      local sending = t.start_task(function()
         client:send(bytes):close()
      end)
      assert.equal(#bytes, #server:read_all())
      sending:join()
   end)

   t.it("raises the error of a task where it is joined", function()
      local ok, err = pcall(function()
         t.start_task(function()
            error "on purpose"
         end):join()
      end)
      assert.is_false(ok)
      assert.matches("on purpose", err)
   end)
end)
