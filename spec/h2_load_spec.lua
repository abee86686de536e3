--- HTTP/2 with clients that are not ours (curl, nghttp, h2load), with large bodies, at the end of the
--- program, through reloads, and with all that mixed.
local t = require "spec.support"
local h2 = require "spec.support.h2"

local process, program, sys = t.process, t.program, t.sys

local MIB = 1048576
local BODY_BYTES = (t.full_load and 400 or 40) * MIB
local REQUESTS = t.full_load and 100000 or 4000
local TLS_REQUESTS = t.full_load and 20000 or 800
local CONNECTIONS = t.full_load and 100 or 10
-- What a worker that has worked is larger than a fresh one: code and data of libraries that were
-- needed, and what lies between blocks in use.
local WARM_KIB = 3072

local SITE = [[
local ml = require "monolake"
ml.options { grace = "20s" }
ml.listen { address = "127.0.0.1:0", protocols = { "h2c" }, chain = { ml.router {
   ["/lua"] = function() return ml.text "from lua" end,
   ["/*"] = ml.proxy { "${origin}", name = "origin", connections_max = 500 },
} } }
]]

local TLS_SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", tls = { cert = "a.pem", key = "a.key" },
   chain = { ml.proxy { "${origin}", connections_max = 500 } } }
]]

local ORIGIN_SITE = [[
local ml = require "monolake"
ml.listen { address = "127.0.0.1:0", chain = {
   function(req)
      local size = tonumber(req.path:match "^/(%d+)$")
      if not size then
         ml.sleep(3600)
      end
      return ml.text(("r"):rep(size), { headers = { ["x-got"] = tostring(#req:body()) } })
   end,
} }
]]

t.on_both_backends("HTTP/2", function(backend)
   local function start(origin, workers)
      return program.start { io = backend, site = SITE, workers = workers, values = { origin = origin } }
   end

   local function run(...)
      local out, err, status = process.run({ ... }, 60 * t.tasks.patience)
      assert.equal(0, status, err)
      return out
   end

   local function curl(...)
      return run("curl", "--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "50", ...)
   end

   --- An origin for large bodies, as a process of its own. Returns its address.
   local function bodies(mib_per_second)
      local source = process.start({ "luajit", "spec/support/bodies.lua", "origin", mib_per_second },
         process.directory())
      local address = t.eventually("the origin", function()
         return source:stdout():match "listening (%S+)\n"
      end)
      return address, source
   end

   t.it("serves curl and nghttp", function()
      local origin = t.socket.listen()
      t.serve_requests(origin, function(request, connection)
         connection:respond(200, ("%s %d"):format(request.method, #request.body))
      end)
      local running = start(origin.address)
      local url = "http://" .. running.address
      assert.equal("2 GET 0", curl("-w", "%{http_version} ", "-o", "/dev/null", url .. "/") ..
         curl(url .. "/"))
      assert.equal("POST 5", curl("-d", "hello", url .. "/"))
      local path = process.directory() .. "/body"
      process.write_file(path, ("u"):rep(300000))
      assert.equal("PUT 300000", curl("-T", path, url .. "/"))
      assert.matches("^HTTP/2 200 ", curl("-I", url .. "/"))
      local out = run("nghttp", "-v", "-m", "20", url .. "/lua", url .. "/other")
      local _, count = out:gsub(":status: 200", "")
      assert.equal(40, count)
      origin:close()
   end)

   t.it("moves large bodies without keeping them", function()
      local address, source = bodies "60"
      local running = start(address)
      local url = "http://" .. running.address
      curl("-o", "/dev/null", url .. "/1000")
      local before, peak = running:rss_kib(), 0
      local watched = true
      t.start_task(function()
         while watched do
            peak = math.max(peak, running:rss_kib())
            t.tasks.sleep(0.02)
         end
      end)
      local size = curl("-o", "/dev/null", "-w", "%{size_download}", "--limit-rate", "60M",
         ("%s/%d"):format(url, BODY_BYTES))
      assert.equal(BODY_BYTES, tonumber(size))

      local words = {}
      for i = 1, MIB / 8 do
         words[i] = ("%08x"):format(i)
      end
      local path = process.directory() .. "/body"
      process.write_file(path, table.concat(words):rep(BODY_BYTES / MIB))
      assert.equal(("%d true"):format(BODY_BYTES), curl("-T", path, "-X", "POST", url .. "/"))
      watched = false
      assert.is_true(program.sanitized or peak - before < 12000,
         ("it grew from %d to %d KiB"):format(before, peak))
      source:stop()
   end)

   t.it("lets streams finish and clients know when the program ends", function()
      local origin = t.socket.listen()
      local running = start(origin.address)
      local client, idle = h2.connect(running.address), h2.connect(running.address)
      idle:get "/lua"
      local id = client:request()
      local upstream = origin:accept()
      upstream:read_request()
      running.process:signal(sys.SIGTERM)
      client:pump(function() return client.goaway end)
      assert.equal(h2.NO_ERROR, client.goaway)
      assert.equal(2 ^ 31 - 1, client.last_id)
      assert.equal("from lua", client:get("/lua").body) -- it was on its way
      assert.equal(h2.NO_ERROR, idle:close_code())
      idle:close()
      client:pump(function() return client.last_id == 3 end)
      local late = client:request()
      client:sync()
      upstream:respond(200, "answer")
      assert.equal("answer", client:response(id).body)
      client:close_code()
      assert.is_nil(client:stream(late).status)
      assert.is_nil(origin:try_accept())
      assert.equal("closed", client.closed)
      client:close()
      assert.is_true(running.process:wait(5 * t.tasks.patience))
      assert.equal(0, running.process.status)
      program.running[running] = nil
      origin:close()
   end)

   --- Requests in batches until the server goes. Every one that its last GOAWAY covers is answered.
   local function ask_until_goodbye(running, progress)
      local client, ids = h2.connect(running.address), {}
      repeat
         for _ = 1, 8 do
            local ok, id = pcall(client.request, client, h2.get { [":path"] = "/lua" })
            ids[#ids + 1] = ok and id or nil
         end
         local last = client:stream(ids[#ids])
         client:pump(function() return last.ended end)
         progress.answered = progress.answered + 1
      until client.goaway and client.last_id < 2 ^ 31 - 1 or client.closed
      client:close_code()
      assert.equal(h2.NO_ERROR, client.goaway)
      for _, id in ipairs(ids) do
         assert.equal(id <= client.last_id, client:stream(id).ended, id .. " of " .. client.last_id)
      end
      client:close()
   end

   t.it("answers all that it has begun when it ends under load", function()
      local running = start("127.0.0.1:1", 2)
      local progress, tasks = { answered = 0 }, {}
      for i = 1, 8 do
         tasks[i] = t.start_task(ask_until_goodbye, running, progress)
      end
      t.eventually("requests", function() return progress.answered > 100 end)
      running.process:signal(sys.SIGTERM)
      for _, task in ipairs(tasks) do
         task:join()
      end
      assert.is_true(running.process:wait(5 * t.tasks.patience))
      assert.equal(0, running.process.status)
      program.running[running] = nil
   end)

   t.it("ends at once when it must", function()
      local origin = t.socket.listen()
      local running = start(origin.address)
      local client = h2.connect(running.address)
      client:request()
      client:request(h2.post(), { open = true })
      origin:accept()
      running.process:signal(sys.SIGINT)
      client:close_code()
      assert.is_truthy(client.closed)
      assert.is_true(running.process:wait(5 * t.tasks.patience))
      assert.equal(0, running.process.status)
      program.running[running] = nil
      origin:close()
   end)

   t.it("loses no request in reloads", function()
      local origin = t.socket.listen()
      local running = start(origin.address, 2)
      local load = process.start({ "h2load", "-n", tostring(REQUESTS), "-c", "8", "-m", "8",
         "http://" .. running.address .. "/lua" }, process.directory())
      for _ = 1, 3 do
         local offset = #running:log()
         running.process:signal(sys.SIGHUP)
         running:await_log("generation %d+ serves", offset)
      end
      assert.is_true(load:wait(60 * t.tasks.patience))
      assert.matches(("requests: %d total, .* %d succeeded, 0 failed, 0 errored"):format(REQUESTS, REQUESTS),
         load:stdout())
      origin:close()
   end)

   --- Of 16 requests: what is sent, and the length of what is answered.
   local function kind_of(number)
      if number % 4 == 0 then
         return "given up"
      elseif number == 1 then
         return "slow", 0, 200000
      elseif number == 2 then
         return "large", 100000, 20000
      elseif number % 4 == 3 then
         return "small", 3000, 20000
      end
      return "small", 0, 100
   end

   local function begin(client, kind, size, answer)
      if kind == "given up" then
         local id = client:request(h2.post { [":path"] = "/wait" }, { open = true })
         client:data(id, "some")
         client:frame(h2.RST_STREAM, 0, id, h2.u32(h2.CANCEL))
         return
      end
      local fields = { [":path"] = "/" .. answer, [":method"] = size > 0 and "POST" or "GET" }
      local id = client:request(h2.get(fields), { open = size > 0 })
      client:stream(id).held = kind == "slow"
      return id
   end

   local function send_bodies(client, requests)
      for _, request in ipairs(requests) do
         if request.size > 0 then
            client:send_body(request.id, ("d"):rep(request.size), true)
         end
      end
   end

   local function check_answer(client, request)
      if request.kind == "slow" then
         client:body(request.id, 65535)
         client:release(request.id)
      end
      local response = client:response(request.id)
      assert.equal(request.answer, #response.body)
      assert.equal(tostring(request.size), response:get "x-got")
      client.streams[request.id] = nil
   end

   --- One connection's worth of requests: answered, given up, read slowly, with large bodies.
   local function mixed(client, count)
      for _ = 1, count, 16 do
         local requests, slow = {}, nil
         for number = 0, 15 do
            local kind, size, answer = kind_of(number)
            local id = begin(client, kind, size, answer)
            local request = { id = id, kind = kind, size = size, answer = answer }
            if kind == "slow" then
               slow = request
            elseif request.id then
               requests[#requests + 1] = request
            end
         end
         send_bodies(client, requests)
         for _, request in ipairs(requests) do
            check_answer(client, request)
         end
         check_answer(client, slow) -- the others have passed it
      end
   end

   --- Requests on connections that are open all the while, and closed behind them. Returns the memory
   --- with them, in KiB.
   local function round(running, requests, options)
      local clients, tasks = {}, {}
      for i = 1, CONNECTIONS do
         clients[i] = h2.connect(running.address, options)
      end
      for i, client in ipairs(clients) do
         tasks[i] = t.start_task(mixed, client, requests / CONNECTIONS)
      end
      for _, task in ipairs(tasks) do
         task:join(t.full_load and 3600 or 60 * t.tasks.patience)
      end
      local with_them = running:rss_kib()
      for _, client in ipairs(clients) do
         client:close()
      end
      return with_them
   end

   --- All connections are closed, and what they took is given back.
   local function keeps_nothing(what, running, requests, options)
      local cold = running:rss_kib()
      local with_them, behind = round(running, requests, options), nil
      local ok = program.sanitized or pcall(t.eventually, "memory to be given back", function()
         behind = running:rss_kib()
         return behind <= cold + WARM_KIB
      end, 60 * t.tasks.patience)
      local figures = ("%s: %d requests over %d connections: %d KiB before, %d with them, %s behind them")
         :format(what, requests, CONNECTIONS, cold, with_them, behind)
      if t.full_load then
         print(figures)
      end
      assert.is_true(ok, figures)
   end

   t.it("keeps nothing of resets, slow readers and bodies mixed", function()
      local origin = program.start { io = backend, site = ORIGIN_SITE }
      keeps_nothing(backend, start(origin.address), REQUESTS)
   end)

   t.on_both_libraries("by TLS", function(library)
      t.it("keeps nothing of resets, slow readers and bodies mixed", function()
         local origin = program.start { io = backend, site = ORIGIN_SITE }
         local running = program.start(t.with_tls(backend, library, { site = TLS_SITE,
            values = { origin = origin.address } }))
         keeps_nothing(backend .. ", " .. library, running, TLS_REQUESTS, { tls = true })
      end)
   end)
end)
