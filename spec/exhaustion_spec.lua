--- What runs out is told of, costs nobody else anything, and is used again when it is there.
local ffi = require "ffi"
local t = require "spec.support"

local process, program, sys = t.process, t.program, t.sys

ffi.cdef "unsigned getuid(void);"
local is_root = ffi.C.getuid() == 0

local SETPRIV = "setpriv --reuid 65534 --regid 65534 --clear-groups"

--- A named pipe that only its owner may open. Nobody reads it, but that there is a reader.
local function unread_pipe()
   local path = process.directory() .. "/pipe"
   process.run { "mkfifo", "-m", "600", path }
   return path, assert(io.open(path, "r+"))
end

local LOGGING_SITE = [[
   local ml = require "monolake"
   local long = ("x"):rep(3000)
   ml.listen { address = "unix:${directory}/socket", chain = {
      ml.access_log(${access_log}),
      function(req)
         if req.path ~= "/quiet" then
            ml.log.info(long)
         end
         return ml.text(tostring(ml.stats().log_messages_dropped))
      end,
   } }
]]

t.on_both_backends("a log that nobody reads", function(backend)
   --- Starts the program with standard output (1) or error (2) in a pipe that only root may open.
   local function start(stream, how)
      local path, held = unread_pipe()
      local directory = process.directory()
      process.run { "chmod", "777", directory }
      local redirect = 'for site do :; done; chmod -R a+rX "${site%%/*}"; exec %s "$@" %d<>%s'
      local running = program.start { io = backend, site = LOGGING_SITE, listeners = 0,
         program = how and program.public_copy(),
         arguments = how == "becomes" and { "--user", "nobody" } or nil,
         values = { directory = directory, access_log = stream == 1 and '"stdout"' or '"/dev/null"' },
         prefix = { "sh", "-c", redirect:format(how == "starts as" and SETPRIV or "", stream, path), "sh" } }
      running.address = "unix:" .. directory .. "/socket"
      t.eventually("the program to listen", function()
         return pcall(running.exchange, running, "GET /quiet HTTP/1.1\nHost: a")
      end)
      return running, path, held
   end

   local function served(client, path)
      local response = client:exchange(("GET %s?%s HTTP/1.1\nHost: a"):format(path, ("u"):rep(1000)))
      assert.equal(200, response.status)
      return tonumber(response.body)
   end

   --- More than a pipe holds, and what lines are gathered in.
   local function fill(running, path)
      local client = running:connect()
      for _ = 1, 200 do
         served(client, path)
      end
      client:close()
   end

   for _, how in ipairs { false, "becomes", "starts as" } do
      local whose = how and (" where the program " .. how .. " a user who may not open it") or ""

      t.it("on standard error stops nobody" .. whose, function()
         if how and not is_root then
            return pending "needs root"
         end
         local running, path, held = start(2, how)
         fill(running, "/")
         local dropped = served(running, "/quiet")
         assert.is_true(dropped > 10, "dropped: " .. dropped)
         running.process:signal(sys.SIGHUP) -- the supervisor logs, too
         local reader = process.start({ "cat", path }, process.directory())
         t.eventually("the missing ones to be told of", function()
            served(running, "/")
            return reader:stdout():match "\n[^\n]* warn [^\n]*%d+ messages were dropped here"
         end)
         t.eventually("the reload", function()
            return reader:stdout():match "generation 2 serves"
         end)
         held:close()
         running:stop()
         reader:stop()
      end)

      t.it("on standard output stops nobody" .. whose, function()
         if how and not is_root then
            return pending "needs root"
         end
         local running, path, held = start(1, how)
         fill(running, "/quiet")
         running:reload()
         running:await_log "access log stdout: [^\n]*%d+ lines were dropped"
         local reader = process.start({ "cat", path }, process.directory())
         t.eventually("a line of a request that comes then", function()
            served(running, "/quiet")
            return reader:stdout():match "GET /quiet"
         end)
         held:close()
         running:stop()
         reader:stop()
      end)
   end
end)
