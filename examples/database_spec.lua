-- The example by the real program, in front of servers of the spec's own.
local t = require "spec.support"

local socket = t.socket

local function text_of(path)
   local file = assert(io.open(path))
   local text = file:read "*a"
   file:close()
   return text
end

describe("the database example", function()
   local function start(primary, standby)
      local site = text_of("examples/database.lua")
         :gsub("127%.0%.0%.1:6379", primary):gsub("127%.0%.0%.1:6378", standby)
         :gsub("127%.0%.0%.1:638%d", "127.0.0.1:0"):gsub("OPEN_MAX = 100", "OPEN_MAX = 2")
      return t.program.start { io = "auto", site = site, listeners = 2 }
   end

   --- A client that gets through to the server of that listener.
   local function connect(running, listener)
      local client = running:connect()
      listener:accept():send(listener.name)
      assert.equal(listener.name, client:read(#listener.name))
      return client
   end

   t.it("talks to the primary, and to the standby where that is gone", function()
      local primary, standby = socket.listen { name = "primary" }, socket.listen { name = "standby" }
      local running = start(primary.address, standby.address)
      connect(running, primary)
      primary:close()
      local second = connect(running, standby)
      running:await_log "the standby is used: upstream \"primary\", peer 127.0.0.1:%d+: Connection refused"

      local third, code = socket.try_connect(running.address)
      assert.equal("reset", third and third:expect_close() or code == t.sys.ECONNRESET and "reset")
      second:reset()
      t.eventually("room for another", function()
         local another = socket.try_connect(running.address)
         return another and another:silent(0.1)
      end)
      standby:close()
      running:stop(t.sys.SIGINT)
   end)

   t.it("spreads readers", function()
      local primary, standby = socket.listen(), socket.listen()
      local running = start(primary.address, standby.address)
      for _ = 1, 2 do
         running:connect { address = running.addresses[2] }
      end
      primary:accept()
      standby:accept()
      primary:close()
      standby:close()
      running:stop(t.sys.SIGINT)
   end)
end)
