--- Private keys: who needs no key has none in its memory.
local ffi = require "ffi"
local t = require "spec.support"

ffi.cdef "unsigned geteuid(void);"

local certificates, tls_socket = t.certificates, t.tls_socket
local process, program, sys = t.process, t.program, t.sys

local REQUEST = "GET / HTTP/1.1\nHost: a.example\nConnection: close"
local PIECE_BYTES = 2 ^ 20

-- Every way for a key to get in: a file of its own, one with the certificate, a list, an upstream,
-- and one that nobody has asked for yet.
local SITE = [[
local ml = require "monolake"
local spare = ml.certificate { cert = "b.pem", key = "b.key" }
local origin = ml.upstream { "127.0.0.1:1", name = "origin",
   tls = { insecure = true, cert = "client.pem", key = "client.key" } }
ml.listen {
   address = "127.0.0.1:0",
   tls = { cert = "both.pem", certificates = { { cert = "rsa.pem", key = "rsa.key" } },
      on_client_hello = function(hello)
         if hello.name == "b.example" then
            return spare
         elseif hello.name == "wild.w.example" then
            return ml.certificate { cert = "wild.pem", key = "wild.key" }
         end
      end },
   chain = { ml.router { ["GET /origin"] = ml.proxy(origin), ["GET /"] = ml.text "answer" } },
}
]]

local KEYS = { "a", "rsa", "client", "b", "wild" }

--- A line of the key's text that no other has.
local function marker(files, name)
   local lines = {}
   for line in files[name .. ".key"]:gmatch "[^\n]+" do
      lines[#lines + 1] = line
   end
   return lines[name == "rsa" and 10 or 3]
end

--- Which of the markers are in memory that the process can write to.
local function find(pid, markers)
   local found = {}
   local memory = assert(io.open(("/proc/%d/mem"):format(pid), "rb"))
   memory:setvbuf "no"
   for from, to in process.read_file(("/proc/%d/maps"):format(pid)):gmatch "(%x+)%-(%x+) rw" do
      from, to = tonumber(from, 16), tonumber(to, 16)
      local rest = ""
      while from < to and memory:seek("set", from) do
         local piece = memory:read(math.min(PIECE_BYTES, to - from))
         if not piece then
            break
         end
         for name, text in pairs(markers) do
            found[name] = found[name] or (rest .. piece):find(text, 1, true) ~= nil
         end
         rest, from = piece:sub(-100), from + #piece
      end
   end
   memory:close()
   return found
end

t.on_both_libraries("private keys", function(library)
   local files, markers = {}, {}

   local function start(options)
      for name, text in pairs(certificates.all()) do
         files[name] = text
      end
      files["both.pem"] = files["a.pem"] .. files["a.key"]
      for _, name in ipairs(KEYS) do
         markers[name] = marker(files, name)
      end
      options = options or {}
      options.site, options.files, options.workers = options.site or SITE, files, 2
      return program.start(t.with_tls("epoll", library, options))
   end

   local function expect_none(pid, what)
      for _, name in ipairs(KEYS) do
         assert.falsy(find(pid, markers)[name], ("%s.key is in the memory of %s"):format(name, what))
      end
   end

   local function expect_clean(running)
      expect_none(running.process.pid, "the supervisor")
      for _, pid in ipairs(running:workers()) do
         expect_none(pid, "a worker")
      end
   end

   local function answer(running, name, address)
      local client = tls_socket.connect(address or running.address, { name = name, ca = files["ca.pem"] })
      local body = client:exchange(REQUEST).body
      client:close()
      return body
   end

   t.it("are there for a listener of the other library that picks them later", function()
      local running = start { listeners = 2, site = ([[
local ml = require "monolake"
local one = ml.certificate { cert = "a.pem", key = "a.key" }
local chain = ml.text "answer"
ml.listen { address = "127.0.0.1:0", tls = { certificates = { one } }, chain = chain }
ml.listen { address = "127.0.0.1:0", chain = chain,
   tls = { library = "%s", on_client_hello = function() return one end } }
]]):format(library == "openssl" and "gnutls" or "openssl") }
      for _, address in ipairs(running.addresses) do
         assert.equal("answer", answer(running, "a.example", address))
         assert.equal("answer", answer(running, "a.example", address))
      end
      running:stop()
   end)

   t.it("stay neither with the supervisor nor as texts with workers", function()
      if program.sanitized or ffi.C.geteuid() ~= 0 then
         pending "only root can look, and a sanitizer keeps what was freed"
         return
      end
      local old = start()
      expect_none(old.process.pid, "the supervisor")
      assert.equal("answer", answer(old, "a.example"))
      assert.equal("answer", answer(old, "b.example"))
      assert.equal("answer", answer(old, "wild.w.example"))
      old:reload()
      expect_none(old.process.pid, "the supervisor")
      local victim = old:workers()[1]
      sys.kill(victim, sys.SIGKILL)
      old:await_log("%(pid " .. victim .. "%)[^\n]*: it is started again")
      local new = old:upgrade()
      old:expect_end()
      expect_none(new.process.pid, "the supervisor")
      for _ = 1, 16 do
         assert.equal("answer", answer(new, "a.example"))
         assert.equal("answer", answer(new, "b.example"))
         assert.equal("answer", answer(new, "wild.w.example"))
      end
      expect_clean(new)
      new:stop()
   end)
end)
