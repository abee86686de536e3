--- gRPC through the program, between Debian's python3-grpcio at both ends
--- (spec/support/grpc_client.py, grpc_server.py): in the clear, and by TLS on both sides
--- with either library.
local busted = require "busted"
local t = require "spec.support"
local certificates = require "spec.support.certificates"
local program = require "spec.support.program"
local sys = require "spec.support.sys"

local PYTHON = "/usr/bin/python3"

local SITE = [[
local ml = require "monolake"

local function seen(req, next)
   if req.path == "/spec.Spec/Denied" then
      return ml.response { status = 200, headers = {
         ["content-type"] = "application/grpc", ["grpc-status"] = "7", ["grpc-message"] = "not here",
      } }
   end
   local res = next(req)
   res.headers["x-seen"] = req.path .. " " .. req.headers["content-type"]
   res:map(function(chunk, last)
      if last then
         res.trailers["x-added"] = "behind it"
      end
      return chunk
   end)
   return res
end

local clear = ml.upstream { "${clear}", name = "clear", protocol = "h2", connections_max = 2 }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, chain = ml.proxy(clear) }
for _, library in ipairs { "openssl", "gnutls" } do
   local secure = ml.upstream { "https://${secure}", name = "secure by " .. library, protocol = "h2",
      tls = { ca = "ca.pem", name = "a.example", library = library } }
   ml.listen { address = "127.0.0.1:0", tls = { cert = "a.pem", key = "a.key", library = library },
      chain = ml.proxy(secure) }
end
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, chain = { seen, ml.proxy(clear) } }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" },
   chain = ml.proxy { "127.0.0.1:1", protocol = "h2" } }
]]
local CLEAR, OPENSSL, GNUTLS, LAYER, NOWHERE = 1, 2, 3, 4, 5

--- A gRPC server; with TLS if `files` has certificates.
local function start_server(directory, ...)
   local process = t.process.start({ PYTHON, "spec/support/grpc_server.py", ... }, directory)
   local address
   t.eventually("the gRPC server", function()
      address = process:stdout():match "listening on (%S+)\n"
      return address or process:has_ended()
   end)
   assert(address, process:stderr())
   return process, address
end

local CASES = {
   "unary", "fail", "large", "collect", "spread", "slow_reader", "echo", "deadline", "cancel", "concurrent",
}

t.on_both_backends("gRPC", function(backend)
   local directory, clear, secure, running

   local function set_up()
      directory = t.process.directory()
      for name, text in pairs(certificates.all()) do
         t.process.write_file(directory .. "/" .. name, text)
      end
      local clear_address, secure_address
      clear, clear_address = start_server(directory)
      secure, secure_address = start_server(directory, directory .. "/a.pem", directory .. "/a.key")
      running = program.start { io = backend, workers = 1, site = SITE, listeners = 5,
         files = certificates.all(), values = { clear = clear_address, secure = secure_address } }
   end

   busted.setup(function()
      t.tasks.run(set_up)
   end)

   busted.teardown(function()
      running:stop()
      for _, server in ipairs { clear, secure } do
         server:signal(sys.SIGKILL)
         t.tasks.run(function() server:wait(5) end)
      end
   end)

   local function arguments(listener, case)
      local argv = { PYTHON, "spec/support/grpc_client.py", running.addresses[listener], case }
      if listener == OPENSSL or listener == GNUTLS then
         argv[5], argv[6] = directory .. "/ca.pem", "a.example"
      end
      return argv
   end

   local function call(listener, case)
      local out, err, status = t.process.run(arguments(listener, case), 60 * t.tasks.patience)
      assert.equal(case .. " ok\n", out, err)
      assert.equal(0, status, err)
   end

   for listener, what in ipairs { "in the clear", "by TLS (openssl)", "by TLS (gnutls)" } do
      t.it("makes calls of all kinds " .. what, function()
         local running_calls = {}
         for _, case in ipairs(CASES) do
            running_calls[case] = t.process.start(arguments(listener, case), directory)
         end
         for case, process in pairs(running_calls) do
            assert.is_true(process:wait(60 * t.tasks.patience), case)
            assert.equal(case .. " ok\n", process:stdout(), process:stderr())
         end
      end)
   end

   t.it("tells the origin at once of clients that give up", function()
      local offset = #clear:stdout()
      call(CLEAR, "cancel")
      call(CLEAR, "deadline")
      t.eventually("the origin to hear of it", function()
         local heard = clear:stdout(offset)
         return heard:find("cancelled forever", 1, true) and heard:find("cancelled slow", 1, true)
      end)
      assert.matches("remaining 0%.[123]", clear:stdout(offset)) -- grpc-timeout was passed on
   end)

   t.it("shows calls to layers, which add to them and refuse them", function()
      call(LAYER, "layer")
   end)

   t.it("says that an origin cannot be reached", function()
      call(NOWHERE, "unavailable")
   end)

   t.it("shares few connections among many calls", function()
      call(CLEAR, "concurrent")
      local established = 0
      for line in io.popen("ss -Htn state established dst " ..
         clear:stdout():match "listening on (%S+)"):lines() do
         established = established + (line ~= "" and 1 or 0)
      end
      assert.is_true(established >= 1 and established <= 2, established .. " connections")
   end)

   t.it("goes on through a reload", function()
      local stream = t.process.start(arguments(CLEAR, "trickle"), directory)
      t.tasks.sleep(0.5)
      running:reload()
      call(CLEAR, "unary")
      assert.is_true(stream:wait(60 * t.tasks.patience))
      assert.equal("trickle ok\n", stream:stdout(), stream:stderr())
   end)

   t.it("finishes its streams when the program ends", function()
      local ending = program.start { io = backend, workers = 1, site = SITE, listeners = 5,
         files = certificates.all(), values = running.values }
      local stream = t.process.start(
         { PYTHON, "spec/support/grpc_client.py", ending.addresses[1], "trickle" }, directory)
      t.tasks.sleep(0.5)
      ending.process:signal(sys.SIGTERM)
      assert.is_true(stream:wait(60 * t.tasks.patience))
      assert.equal("trickle ok\n", stream:stdout(), stream:stderr())
      assert.is_true(ending.process:wait(10 * t.tasks.patience))
      assert.equal(0, ending.process.status)
      program.running[ending] = nil
   end)
end)
