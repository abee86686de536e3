-- The example by the real program, in front of servers of the spec's own.
local t = require "spec.support"
local thrift = require "spec.support.thrift"

local message = thrift.message

describe("the Thrift example", function()
   local accounts, orders, running

   setup(function()
      accounts, orders = t.socket.listen { name = "accounts" }, t.socket.listen { name = "orders" }
      local site = t.process.read_file "examples/thrift.lua"
         :gsub("127%.0%.0%.1:909[12]", accounts.address):gsub("127%.0%.0%.1:9093", orders.address)
         :gsub("127%.0%.0%.1:9090", "127.0.0.1:0")
      running = t.program.start { io = "auto", site = site }
   end)

   teardown(function()
      running:stop()
      accounts:close()
      orders:close()
      t.process.remove_directories()
   end)

   --- Makes a call that an origin answers. Returns the reply's sequence id.
   local function call(client, origin, options)
      client:send(message(options))
      local peer = origin:accept()
      local got = thrift.read(peer)
      assert.equal(options.method, got.method)
      peer:send(message { type = thrift.REPLY, method = got.method, seqid = got.seqid,
         header = options.headers and true })
      local seqid = thrift.read(client).seqid
      peer:close()
      return seqid
   end

   t.it("finds services by the names of methods", function()
      local client = running:connect()
      assert.equal(1, call(client, accounts, { seqid = 1, method = "getAccount" }))
      assert.equal(2, call(client, accounts, { seqid = 2, method = "listReports" }))
      assert.equal(3, call(client, orders, { seqid = 3, method = "Orders:place" }))
   end)

   t.it("asks for a token where one is needed", function()
      local client = running:connect()
      client:send(message { seqid = 4, method = "dropAccount" })
      local _, text = thrift.exception(thrift.read(client))
      assert.equal("a token is needed", text)
      assert.equal(5, call(client, accounts,
         { seqid = 5, method = "dropAccount", headers = { { "token", "open-sesame" } } }))
   end)

   t.it("asks another server where one has gone, for what only reads", function()
      local client = running:connect()
      client:send(message { seqid = 6, method = "getAccount" })
      accounts:accept():close()
      local peer = accounts:accept()
      local got = thrift.read(peer)
      peer:send(message { type = thrift.REPLY, method = got.method, seqid = got.seqid })
      assert.equal(6, thrift.read(client).seqid)
      client:send(message { seqid = 7, method = "addAccount" })
      thrift.read(peer)
      peer:close()
      assert.equal(thrift.EXCEPTION, thrift.read(client).type)
      running:await_log "addAccount of 127.0.0.1 failed: reset: upstream \"accounts\""
   end)
end)
