--- What the end-to-end specs share: `local t = require "spec.support"`.
---
---     t.on_both_backends("keep-alive", function(backend)
---        local origin, proxy = t.proxied(backend)
---        t.it("...", function()
---           local client = proxy():connect()
---           client:send_head "GET / HTTP/1.1\nHost: a"
---           local upstream = origin:accept()
---           ...
---        end)
---     end)
local certificates = require "spec.support.certificates"
local http = require "spec.support.http"
local process = require "spec.support.process"
local program = require "spec.support.program"
local relay = require "spec.support.relay"
local socket = require "spec.support.socket"
local udp = require "spec.support.udp"
local sys = require "spec.support.sys"
local tasks = require "spec.support.tasks"
local tls_socket = require "spec.support.tls_socket"

local busted = require "busted"

local t = {
   http = http, process = process, program = program, relay = relay, socket = socket, sys = sys,
   tasks = tasks,
   certificates = certificates, tls_socket = tls_socket, udp = udp,
   head = http.head, chunk = http.chunk,
   start_task = tasks.start, eventually = tasks.eventually,
}

--- How much larger load scenarios are than in an ordinary run: SPEC_LOAD=full for the full figures.
t.full_load = os.getenv "SPEC_LOAD" == "full"

local function with_logs(err, offsets)
   local logs = {}
   for running, offset in pairs(offsets) do
      logs[#logs + 1] = "\n--- log of the program ---\n" .. running:log(offset)
   end
   local text = table.concat(logs)
   if type(err) == "table" and err.message then
      err.message = tostring(err.message) .. text
      return err
   end
   return tostring(err) .. text
end

local function check_alive()
   for running in pairs(program.running) do
      local alarm = running:alarm()
      if alarm or running.process:has_ended() then
         error(alarm or "the program has ended", 0)
      end
   end
end

--- Programs that were not there before: stopped and checked if all is well so far, else killed.
local function end_own_programs(ok, before)
   local own, failed = {}, nil
   for running in pairs(program.running) do
      if not before[running] then
         own[#own + 1] = running
      end
   end
   for _, running in ipairs(own) do
      local stopped, err = pcall(ok and running.stop or running.kill, running)
      failed = failed or not stopped and err
   end
   return own, failed
end

--- A spec that runs as a task; the sockets that it opens are closed behind it, the programs that it
--- starts are stopped, and the logs are shown if it fails.
function t.it(name, fn)
   busted.it(name, function()
      local offsets = {}
      for running in pairs(program.running) do
         offsets[running] = #running:log()
      end
      local ok, err = pcall(tasks.run, fn)
      socket.reset_all()
      if ok then
         ok, err = pcall(check_alive)
      end
      local own, failed = end_own_programs(ok, offsets)
      if not ok then
         for _, running in ipairs(own) do
            offsets[running] = 0
         end
         error(with_logs(err, offsets), 0)
      elseif failed then
         error(failed, 0)
      end
   end)
end

--- A group of specs, once on each I/O back end.
---@param fn fun(backend: string)
function t.on_both_backends(name, fn)
   for _, backend in ipairs { "io_uring", "epoll" } do
      if (os.getenv "SPEC_IO" or backend) == backend then
         busted.describe(("%s (%s)"):format(name, backend), function()
            fn(backend)
            busted.teardown(process.remove_directories)
         end)
      end
   end
end

--- A group of specs, once with each TLS library.
---@param fn fun(library: string)
function t.on_both_libraries(name, fn)
   for _, library in ipairs { "openssl", "gnutls" } do
      if (os.getenv "SPEC_TLS" or library) == library then
         busted.describe(("%s with %s"):format(name, library), function()
            fn(library)
            busted.teardown(process.remove_directories)
         end)
      end
   end
end

--- A group of specs, once on each I/O back end with each TLS library.
---@param fn fun(backend: string, library: string)
function t.on_every_tls(name, fn)
   t.on_both_backends(name, function(backend)
      t.on_both_libraries("", function(library)
         fn(backend, library)
      end)
   end)
end

--- Options for `program.start` or `t.serve`: this back end and library, the certificates beside the
--- site.
function t.with_tls(backend, library, options)
   options.io = backend
   options.arguments = { "--tls", library, unpack(options.arguments or {}) }
   options.files = options.files or {}
   for name, text in pairs(certificates.all()) do
      options.files[name] = options.files[name] or text
   end
   return options
end

--- Starts the program before the specs of this group and stops it behind them. Returns a function
--- that gives the running program.
---@param options table|fun(): table as for `program.start`
---@return fun(): spec.Program
function t.serve(options)
   local running
   busted.setup(function()
      running = program.start(type(options) == "function" and options() or options)
   end)
   busted.teardown(function()
      if running then
         running:stop()
      end
   end)
   return function()
      return running
   end
end

t.PROXY_SITE = [[
local ml = require "monolake"
local origin = ml.upstream { "${origin}", name = "origin" }
ml.listen { address = "127.0.0.1:0", chain = { ml.proxy(origin) } }
]]

--- A scripted origin and the program in front of it, for the specs of a group.
---@param options { site: string|nil, values: table|nil, origin: table|nil }|nil and as for `program.start`
---@return spec.Listener origin
---@return fun(): spec.Program
function t.proxied(backend, options)
   options = options or {}
   local origin = socket.listen(options.origin)
   local values = { origin = origin.address }
   for name, value in pairs(options.values or {}) do
      values[name] = value
   end
   local arguments = { io = backend, site = options.site or t.PROXY_SITE, values = values }
   for name, value in pairs(options) do
      arguments[name] = arguments[name] or value
   end
   local running = t.serve(arguments)
   busted.before_each(function()
      origin:drop_pending()
   end)
   busted.teardown(function()
      origin:close()
   end)
   return origin, running
end

--- Serves whoever connects to the listener: `handle(request, connection)` for each request, until the
--- client closes or handle returns false.
---@param listener spec.Listener
function t.serve_requests(listener, handle)
   tasks.start(function()
      while true do
         local connection = listener:accept(3600)
         tasks.start(function()
            while connection.buffer ~= "" or connection:try_fill(3600) do
               if handle(connection:read_request(), connection) == false then
                  break
               end
            end
            connection:close()
         end)
      end
   end)
end

return t
