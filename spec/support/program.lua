--- The program under test: started on a site that a spec writes, watched, stopped, checked.
local process = require "spec.support.process"
local socket = require "spec.support.socket"
local sys = require "spec.support.sys"
local tasks = require "spec.support.tasks"

local program = {
   path = os.getenv "MONOLAKE_LUA" or (os.getenv "MONOLAKE_BUILD" or "build") .. "/monolake-lua",
   seccomp = os.getenv "SPEC_SECCOMP" == "1", -- all run under the filter
   -- With sanitizers, whose runtime keeps what is freed: then memory is not measured.
   sanitized = (os.getenv "MONOLAKE_BUILD" or ""):find "asan" ~= nil,
   running = {}, -- set of the instances that have not been stopped
}

---@class spec.Program
---@field address string of the first listener
---@field addresses string[] of all, in the order of the site
---@field process spec.Process
local Program = {}
Program.__index = Program

--- Calls `fn` in a task: the running one, or one of its own.
local function in_task(fn, ...)
   if tasks.running() then
      return fn(...)
   end
   local arguments = { ... }
   tasks.run(function()
      fn(unpack(arguments))
   end)
end

--- Puts values in a site's text: "${name}".
local function fill_in(text, values)
   return (text:gsub("%${([%w_]+)}", function(name)
      return tostring(assert(values[name], "the site has no value for ${" .. name .. "}"))
   end))
end

local function append(list, more)
   for _, value in ipairs(more or {}) do
      list[#list + 1] = value
   end
   return list
end

local function argv_of(options, site_path)
   local argv = append({}, options.prefix)
   append(argv, { options.program or program.path, "--io", options.io, "-w", tostring(options.workers or 1) })
   if program.seccomp then
      argv[#argv + 1] = "--seccomp"
   end
   return append(append(argv, options.arguments), { site_path })
end

--- The addresses that it has announced so far.
function Program:listening()
   local addresses = {}
   for address in self.process:stdout():gmatch "listening on ([^\n]+)\n" do
      addresses[#addresses + 1] = address
   end
   return addresses
end

function Program:await_start(count)
   local ok, err = pcall(tasks.eventually, "the program to listen", function()
      if self.process:has_ended() then
         error "it ended"
      end
      self.addresses = self:listening()
      return #self.addresses >= count
   end)
   if not ok then
      self:kill()
      error(("the program did not start: %s\n%s"):format(err, self:log()), 0)
   end
   self.address = self.addresses[1]
end

--- Copies the program into a directory, so that it can be replaced. Returns the copy's path and that of
--- the original.
function program.copy(directory)
   local real = process.run({ "realpath", program.path }):match "[^\n]+"
   local path = directory .. "/bin/monolake-lua"
   local command = ("mkdir '%s/bin' && ln -s \"$PWD/lualib\" '%s/lualib' && cp '%s' '%s'")
   assert(os.execute(command:format(directory, directory, real, path)) == 0)
   return path, real
end

--- A copy that everybody may read and execute, wherever this checkout lies. Returns its path.
function program.public_copy()
   local directory = process.directory()
   local path = program.copy(directory)
   local command = "cd '%s' && cp -rL lualib copy && rm lualib && mv copy lualib && chmod -R a+rX ."
   process.run { "sh", "-c", command:format(directory) }
   return path
end

--- Puts a shell script in the place of a program's file.
function program.replace(path, text)
   process.write_file(path .. ".new", "#!/bin/sh\n" .. text)
   assert(os.execute(("chmod +x '%s.new' && mv '%s.new' '%s'"):format(path, path, path)) == 0)
end

--- Starts the program.
---@param options { io: string, site: string, values: table|nil, workers: integer|nil,
---  listeners: integer|nil, arguments: string[]|nil, files: table<string, string>|nil,
---  prefix: string[]|nil, program: string|nil }
---  `files` are written beside the site; `prefix` is a command that executes its arguments
---@return spec.Program
function program.start(options)
   local self = setmetatable({ directory = process.directory(), values = options.values or {} }, Program)
   for name, text in pairs(options.files or {}) do
      self:write(name, text)
   end
   self:write("site.lua", options.site)
   self.process = process.start(argv_of(options, self.directory .. "/site.lua"), self.directory)
   program.running[self] = true
   in_task(self.await_start, self, options.listeners or 1)
   return self
end

--- Checks a site with -t and further `arguments`. Returns standard output, standard error, exit status
--- and the site's path.
function program.check(options)
   local directory = process.directory()
   for name, text in pairs(options.files or {}) do
      process.write_file(directory .. "/" .. name, text)
   end
   process.write_file(directory .. "/site.lua", fill_in(options.site, options.values or {}))
   local path = directory .. "/site.lua"
   local out, err, status = process.run(append({ program.path, "-t", path }, options.arguments))
   return out, err, status, path
end

--- Writes a file beside the site.
function Program:write(name, text)
   process.write_file(self.directory .. "/" .. name, fill_in(text, self.values))
end

function Program:path(name)
   return self.directory .. "/" .. name
end

---@return spec.Socket
function Program:connect(options)
   return socket.connect(options and options.address or self.address, options)
end

--- One request on a connection of its own.
---@return spec.Message
function Program:exchange(head, body, options)
   local client = self:connect()
   local response = client:exchange(head, body, options)
   client:close()
   return response
end

--- Its standard error, from an offset on.
function Program:log(offset)
   return self.process:stderr(offset)
end

--- Waits for a line in the log that matches the pattern. Returns the captures.
function Program:await_log(pattern, offset, seconds)
   return unpack(tasks.eventually(("%q in the log"):format(pattern), function()
      local found = { self:log(offset):match(pattern) }
      return found[1] and found
   end, seconds))
end

--- Sends HUP and waits for a line of the log, by default that of success.
function Program:reload(pattern)
   local offset = #self:log()
   self.process:signal(sys.SIGHUP)
   return self:await_log(pattern or "generation %d+ serves", offset)
end

--- Sends USR2 and waits until the new program has taken over. Returns it; this one is ending.
---@return spec.Program
function Program:upgrade()
   local offset = #self:log()
   self.process:signal(sys.SIGUSR2)
   return self:await_upgrade(offset)
end

--- As `upgrade` behind the signal.
---@param offset integer of the log
---@return spec.Program
function Program:await_upgrade(offset)
   local pid = tonumber(self:await_log("is started as process (%d+)", offset))
   local new = setmetatable({ directory = self.directory, values = self.values, address = self.address,
      addresses = self.addresses, process = process.adopt(pid, self.process) }, Program)
   program.running[new] = true
   self:await_log("process " .. pid .. " has taken over", offset)
   return new
end

--- Waits until it has ended by itself, as one that was upgraded does.
function Program:expect_end()
   assert(self.process:wait(10 * tasks.patience), "it does not end")
   program.running[self] = nil
   assert(self.process.status == 0, self:log())
end

--- The pids of the worker processes.
function Program:workers()
   return process.children(self.process.pid)
end

--- What `fn` sends waits in the sockets, so the only worker finds it all at once.
function Program:at_once(fn)
   local worker = self:workers()[1]
   sys.kill(worker, sys.SIGSTOP)
   tasks.eventually("the worker to stand still", function()
      return process.read_file(("/proc/%d/stat"):format(worker)):match "%) T "
   end)
   fn()
   sys.kill(worker, sys.SIGCONT)
end

--- Kills its only worker so often that the next one is not started at once.
function Program:kill_often()
   local victim
   for _ = 1, 4 do
      victim = tasks.eventually("another worker", function()
         local worker = self:workers()[1]
         return worker ~= victim and worker
      end)
      sys.kill(victim, sys.SIGKILL)
   end
   tasks.eventually("its end", function()
      return not self:workers()[1]
   end)
end

--- Resident memory of all workers.
local function memory_of_workers(self, key)
   local sum = 0
   for _, pid in ipairs(self:workers()) do
      sum = sum + (process.memory_kib(pid, key) or 0)
   end
   return sum
end

function Program:rss_kib()
   return memory_of_workers(self, "VmRSS")
end

--- How much it has grown for each of `count` things that are held since then, in bytes. Those must be
--- at most `max`, once the workers have given back what only the making of them took.
function Program:expect_small(what, before_kib, count, max)
   local bytes
   local ok = program.sanitized or pcall(tasks.eventually, "memory", function()
      bytes = (self:rss_kib() - before_kib) * 1024 / count
      return bytes <= max
   end)
   assert(ok, ("%s takes %d bytes, not %d"):format(what, bytes or 0, max))
   return bytes or 0
end

--- The most that it was since the start, or since `forget_peak`.
function Program:peak_kib()
   return memory_of_workers(self, "VmHWM")
end

function Program:forget_peak()
   for _, pid in ipairs(self:workers()) do
      process.write_file(("/proc/%d/clear_refs"):format(pid), "5")
   end
end

local ALARMS = {
   "ERROR: AddressSanitizer[^\n]*", "ERROR: LeakSanitizer[^\n]*", "[^\n]*runtime error:[^\n]*",
   "[^\n]*Assertion [^\n]*failed[^\n]*", "[^\n]*not allowed by %-%-seccomp[^\n]*",
}

--- Is there a report of a broken program in its log? What it says of SEGV behind expect_crash is none.
function Program:alarm()
   local log = self:log()
   if self.crash_expected then
      log = log:gsub("ERROR: AddressSanitizer: SEGV", "")
   end
   if self.refusals_expected then
      log = log:gsub("not allowed by %-%-seccomp", "")
   end
   for _, pattern in ipairs(ALARMS) do
      local found = log:match(pattern)
      if found then
         return found
      end
   end
end

--- The spec is about to have one of its processes crash by SIGSEGV.
function Program:expect_crash()
   self.crash_expected = true
end

--- The spec is about to have the filter of --seccomp refuse something.
function Program:expect_refusals()
   self.refusals_expected = true
end

local function kill(self)
   program.running[self] = nil
   self.process:signal(sys.SIGKILL)
   self.process:wait(5)
end

function Program:kill()
   in_task(kill, self)
end

local function stop(self, signal)
   program.running[self] = nil
   local ended_before = self.process:has_ended()
   local status = self.process:stop(signal, 10 * tasks.patience)
   local problem = self:alarm()
   if ended_before then
      problem = problem or "it ended before it was stopped"
   elseif status == nil and self.process.killed_by then
      problem = problem or ("it ended by signal %d"):format(self.process.killed_by)
   elseif status ~= 0 then
      problem = problem or "its exit status was " .. tostring(status)
   end
   if problem then
      error(("the program: %s\n%s"):format(problem, self:log()), 0)
   end
end

--- Stops it and checks that it ended well: exit status 0, no sanitizer's report.
function Program:stop(signal)
   in_task(stop, self, signal)
end

return program
