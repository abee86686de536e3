--- Child processes with their output in files: the program under test, nginx, curl, wrk.
local sys = require "spec.support.sys"
local tasks = require "spec.support.tasks"

---@class spec.Process
---@field pid integer
---@field stdout_path string
---@field stderr_path string
local Process = {}
Process.__index = Process

local process = {}

local function read_file(path, offset)
   local file = io.open(path, "rb")
   if not file then
      return ""
   end
   file:seek("set", offset or 0)
   local text = file:read "*a"
   file:close()
   return text
end
process.read_file = read_file

function process.write_file(path, text)
   local file = assert(io.open(path, "wb"))
   file:write(text)
   file:close()
end

--- A new directory, removed by `process.remove_directories`.
local directories = {}

function process.directory()
   local path = sys.temporary_directory()
   directories[#directories + 1] = path
   return path
end

function process.remove_directories()
   for _, path in ipairs(directories) do
      os.execute(("rm -rf '%s'"):format(path))
   end
   directories = {}
end

--- Starts a program.
---@param argv string[]
---@param directory string where its output goes
---@return spec.Process
function process.start(argv, directory)
   process.count = (process.count or 0) + 1
   local prefix = ("%s/%d-%s"):format(directory, process.count, argv[1]:match "[^/]+$")
   local self = setmetatable({ stdout_path = prefix .. ".out", stderr_path = prefix .. ".err" }, Process)
   self.pid = assert(sys.spawn(argv, self.stdout_path, self.stderr_path))
   self.pidfd = assert(sys.pidfd(self.pid))
   return self
end

--- A process that another one has started, with that one's output; a child once that has ended.
---@param pid integer
---@param parent spec.Process
---@return spec.Process
function process.adopt(pid, parent)
   sys.adopt_orphans()
   return setmetatable({ pid = pid, pidfd = assert(sys.pidfd(pid)), stdout_path = parent.stdout_path,
      stderr_path = parent.stderr_path }, Process)
end

function Process:stdout(offset)
   return read_file(self.stdout_path, offset)
end

function Process:stderr(offset)
   return read_file(self.stderr_path, offset)
end

function Process:signal(signal)
   if not self.ended then
      sys.kill(self.pid, signal)
   end
end

--- Has it ended? Then `status` is its exit status, or `killed_by` the signal that ended it.
function Process:has_ended()
   if not self.ended then
      local status, signal = sys.reap(self.pid)
      if status ~= false then
         self.ended, self.status, self.killed_by = true, status, signal
         tasks.forget(self.pidfd)
         sys.close(self.pidfd)
      end
   end
   return self.ended
end

--- Waits for its end. Returns whether it ended in time.
function Process:wait(seconds)
   local deadline = sys.clock() + (seconds or tasks.default_seconds)
   while not self:has_ended() do
      local left = deadline - sys.clock()
      if left <= 0 then
         return false
      end
      tasks.wait(self.pidfd, "read", left)
   end
   return true
end

--- Ends it, gently at first. Returns its exit status; nil if it had to be killed.
function Process:stop(signal, seconds)
   self:signal(signal or sys.SIGTERM)
   if not self:wait(seconds) then
      self:signal(sys.SIGKILL)
      self:wait(5)
      return nil
   end
   return self.status
end

--- Runs a program to its end. Returns standard output, standard error and exit status.
---@param argv string[]
function process.run(argv, seconds)
   local self = process.start(argv, process.directory())
   if not self:wait(seconds) then
      self:signal(sys.SIGKILL)
      self:wait(5)
      error(("%s did not end in time\n%s"):format(table.concat(argv, " "), self:stderr()), 2)
   end
   return self:stdout(), self:stderr(), self.status
end

--- Is there such a program? For specs that are skipped without it.
function process.installed(name)
   return os.execute(("command -v %s >/dev/null 2>&1"):format(name)) == 0
end

--- A number of /proc/PID/status in KiB, such as "VmRSS".
function process.memory_kib(pid, key)
   return tonumber(read_file(("/proc/%d/status"):format(pid)):match(key .. ":%s+(%d+) kB"))
end

--- How many descriptors a process has open. The program hides its own from all but root.
function process.descriptors(pid)
   local listing = io.popen(("LC_ALL=C ls /proc/%d/fd 2>&1"):format(pid))
   local text = listing:read "*a"
   listing:close()
   assert(not text:find "Permission denied", "only root can see which descriptors a process has open")
   local _, count = text:gsub("%d+\n", "\n")
   return count
end

--- The pids of a process's children.
function process.children(pid)
   local pids = {}
   for child in read_file(("/proc/%d/task/%d/children"):format(pid, pid)):gmatch "%d+" do
      pids[#pids + 1] = tonumber(child)
   end
   return pids
end

return process
