--- Peers known by a name, behind a name server that is scripted.
local t = require "spec.support"
local h2_origin = require "spec.support.h2_origin"

-- A name that is looked up for a connection, and an address to who checks the site.
local NAME = "0x7f000001"
local TYPE_A, TYPE_CNAME = "\0\1", "\0\5"
local ASKED, ALIAS = "\192\12", "\5alias\0" -- names in an answer

local SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = { ml.proxy(ml.upstream {
   "${name}", name = "named", retries = 0, fail_max = 0, ${options}
}) } }
]]

--- What a question asks for.
local function kind_of(question)
   return question:match("^[^%z]*%z(..)", 13)
end

local function record(name, kind, seconds, data)
   return name .. kind .. "\0\1\0\0\0" .. string.char(seconds) .. "\0" .. string.char(#data) .. data
end

--- The answer to a question: for IPv4 these addresses, for a minute, for anything else none; with
--- `alias_seconds` they are those of another name, which this one stands for so long.
local function reply(question, addresses)
   local records = {}
   if addresses.alias_seconds then
      records[1] = record(ASKED, TYPE_CNAME, addresses.alias_seconds, ALIAS)
   end
   for _, address in ipairs(kind_of(question) == TYPE_A and addresses or {}) do
      local bytes = address:gsub("(%d+)%.?", function(byte) return string.char(byte) end)
      table.insert(records, record(addresses.alias_seconds and ALIAS or ASKED, TYPE_A, 60, bytes))
   end
   return question:sub(1, 2) .. "\129\128\0\1\0" .. string.char(#records) .. "\0\0\0\0" ..
      question:sub(13, question:find("%z", 13) + 4) .. table.concat(records)
end

t.on_both_backends("a peer that is known by a name", function(backend)
   --- The program, which asks a server that gives these addresses; questions for which `lose(question)`
   --- is true are not answered.
   local function start(addresses, port, options, lose)
      local server = t.udp.bind(nil, "name server"):serve(function(question)
         return not (lose and lose(question)) and reply(question, addresses) or nil
      end)
      return t.program.start { io = backend, site = SITE,
         prefix = { "env", "MONOLAKE_DNS_SERVERS=" .. server.address },
         values = { name = NAME .. ":" .. port, options = options or "" } }
   end

   local function ask(running)
      local client = running:connect()
      client:send_head "GET / HTTP/1.1\nHost: a"
      return client
   end

   t.it("is tried at each of its addresses, whatever others try meanwhile", function()
      local first = t.socket.listen()
      local port = first.address:match "%d+$"
      local second = t.socket.listen { address = "127.0.0.2:" .. port }
      local running = start({ "127.0.0.1", "127.0.0.2" }, port, "protocol = 'h2', streams_max = 1")
      local client = ask(running)
      local here, there, connection
      t.eventually("a connection", function()
         connection = first:try_accept()
         here, there = first, second
         if not connection then
            connection = second:try_accept()
            here, there = second, first
         end
         return connection
      end)
      ask(running) -- takes the other address meanwhile
      local other = there:accept()
      connection:close()
      local origin = h2_origin.accept(there)
      origin:respond(origin:read_request(), 200, "there")
      assert.equal("there", client:read_response().body)
      other:close()
      here:accept()
      here:close()
      there:close()
   end)

   local function expect_answer(lose)
      local origin = t.socket.listen()
      local client = ask(start({ "127.0.0.1" }, origin.address:match "%d+$", nil, lose))
      local upstream = origin:accept()
      upstream:read_request()
      upstream:respond(200, "found")
      assert.equal("found", client:read_response().body)
      origin:close()
   end

   t.it("is looked up again as soon as it may stand for another name", function()
      local first = t.socket.listen()
      local port = first.address:match "%d+$"
      local second = t.socket.listen { address = "127.0.0.2:" .. port }
      for listener, name in pairs { [first] = "first", [second] = "second" } do
         t.serve_requests(listener, function(_, connection)
            connection:respond(200, name)
         end)
      end
      local addresses = { "127.0.0.1", alias_seconds = 1 }
      local running = start(addresses, port, "idle_max = 0")
      assert.equal("first", ask(running):read_response().body)
      addresses[1] = "127.0.0.2"
      t.eventually("the other address", function()
         return ask(running):read_response().body == "second"
      end)
      first:close()
      second:close()
   end)

   t.it("is found although a datagram is lost", function()
      local asked = {}
      expect_answer(function(question)
         local kind = kind_of(question)
         asked[kind] = (asked[kind] or 0) + 1
         return asked[kind] == 1
      end)
   end)

   t.it("is found in the end, however short connecting may take", function()
      local origin = t.socket.listen()
      t.serve_requests(origin, function(_, connection)
         connection:respond(200, "found")
      end)
      local running = start({ "127.0.0.1" }, origin.address:match "%d+$", "connect_timeout = '100ms'",
         function(question)
            return kind_of(question) ~= TYPE_A
         end)
      assert.equal(504, ask(running):read_response().status)
      t.eventually("an answer", function()
         return ask(running):read_response().status == 200
      end)
      origin:close()
   end)

   t.it("is found although the server never answers questions for IPv6", function()
      expect_answer(function(question)
         return kind_of(question) ~= TYPE_A
      end)
   end)
end)
