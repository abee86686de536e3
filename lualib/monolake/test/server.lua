--- The real program as a child of a spec, on free ports.
local ffi = require "ffi"

ffi.cdef [[
int kill(int pid, int signal);
char *realpath(const char *path, char *resolved);
void free(void *memory);
]]

local SIGINT = 2

local server = {
   --- Path of the program; nil when specs run in memory. Set by `monolake-lua test`.
   program = os.getenv "MONOLAKE_TEST_SERVER",
   --- Its back end.
   io = os.getenv "MONOLAKE_TEST_IO" or "auto",
}

local running = {} -- set of the servers that have not been stopped

--- Its `addresses` are where it listens, in the order of the site.
local Server = {}
Server.__index = Server

local function read_file(path, offset)
   local file = io.open(path, "r")
   if not file then
      return ""
   end
   file:seek("set", offset)
   local text = file:read "*a"
   file:close()
   return text
end

local function absolute(path)
   local resolved = ffi.C.realpath(path, nil)
   if resolved == nil then
      error(("test: there is no file %q"):format(path), 0)
   end
   local text = ffi.string(resolved)
   ffi.C.free(resolved)
   return text
end

--- A script that loads the site with other addresses than it names.
local function write_wrapper(path, site, upstreams)
   local lines = {
      'require("monolake.internal.build").override {',
      '   listen = "127.0.0.1:0",',
      "   upstreams = {",
   }
   for name, addresses in pairs(upstreams) do
      lines[#lines + 1] = ("      [%q] = { %q },"):format(name, table.concat(addresses, '", "'))
         :gsub('\\"', '"')
   end
   lines[#lines + 1] = "   },"
   lines[#lines + 1] = "}"
   lines[#lines + 1] = ('require("monolake.internal.site").run(%q)\n'):format(site)
   local file = assert(io.open(path, "w"))
   file:write(table.concat(lines, "\n"))
   file:close()
end

local function quoted(text)
   return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- The program ends with the spec's process, however that ends.
local function command(self)
   return ("echo $$; exec setpriv --pdeathsig TERM %s --io %s -w 1 %s 2>%s"):format(
      quoted(server.program), quoted(server.io), quoted(self.wrapper), quoted(self.log_path))
end

local function await_listeners(self, count)
   self.pid = tonumber(self.output:read "*l")
   while #self.addresses < count do
      local line = self.output:read "*l"
      if not line then
         local log = self:log()
         self:stop()
         error("the server did not start:\n" .. log, 0)
      end
      self.addresses[#self.addresses + 1] = line:match "^listening on (.+)$"
   end
end

--- Starts the program on a site.
---@param site string path of the script
---@param upstreams table<string, string[]> addresses in place of those of the site's upstreams
---@param count integer how many addresses the site listens at
function server.start(site, upstreams, count)
   local base = os.tmpname()
   local self = setmetatable({
      base = base,
      wrapper = base .. ".lua",
      log_path = base .. ".log",
      log_from = 0,
      addresses = {},
   }, Server)
   write_wrapper(self.wrapper, absolute(site), upstreams)
   self.output = assert(io.popen(command(self), "r"))
   running[self] = true
   await_listeners(self, count)
   return self
end

--- What it has written to its log since the present spec began.
---@return string
function Server:log()
   return read_file(self.log_path, self.log_from)
end

--- Ends it; harmless if it has ended.
function Server:stop()
   if not running[self] then
      return
   end
   running[self] = nil
   ffi.C.kill(self.pid, SIGINT)
   self.output:close()
   os.remove(self.base)
   os.remove(self.wrapper)
   os.remove(self.log_path)
end

local function mark_logs()
   for one in pairs(running) do
      one.log_from = one.log_from + #one:log()
   end
   return nil, true
end

local function show_logs()
   for one in pairs(running) do
      io.stderr:write("--- log of the server ---\n", one:log(), "---\n")
   end
   return nil, true
end

--- Stops what specs have left behind: else the end of Lua waits for it, at the handle of its output.
local function stop_all()
   for one in pairs(running) do
      one:stop()
   end
   return nil, true
end

--- Shows the servers' logs when a spec of busted fails, and ends them when all specs have.
local function follow_busted()
   local busted = require "busted"
   busted.subscribe({ "test", "start" }, mark_logs)
   busted.subscribe({ "failure" }, show_logs)
   busted.subscribe({ "error" }, show_logs)
   busted.subscribe({ "suite", "end" }, stop_all)
end

if server.program then
   pcall(follow_busted) -- without busted there is nobody to tell
end

return server
