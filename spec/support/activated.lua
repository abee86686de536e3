--- Executes its arguments behind the first as a service manager does that has opened listening sockets
--- for them (sd_listen_fds(3)): one on a free port, told to the site as PORT, and one on the path SOCKET
--- of the environment, if there is one. A child keeps them open, as the manager does, until it is
--- killed; the file that the first argument names gets its pid. For `prefix` of `program.start`.
local ffi = require "ffi"
local sys = require "spec.support.sys"

ffi.cdef [[
int dup2(int old, int new);
int fork(void);
int getpid(void);
int pause(void);
int setenv(const char *name, const char *value, int overwrite);
int execvp(const char *file, const char *const argv[]);
]]

local FIRST, ASIDE = 3, 100
local fds = { assert(sys.listen("127.0.0.1:0", {})) }
local port = sys.port(fds[1])
if os.getenv "SOCKET" then
   fds[2] = assert(sys.listen("unix:" .. os.getenv "SOCKET", {}))
end
local aside = {} -- away from the numbers that they are to have
for i, fd in ipairs(fds) do
   aside[i] = ffi.C.dup2(fd, ASIDE + i)
end
for i, fd in ipairs(aside) do
   assert(ffi.C.dup2(fd, FIRST + i - 1) == FIRST + i - 1)
   sys.close(fd)
end

local keeper = ffi.C.fork()
if keeper == 0 then
   while true do
      ffi.C.pause()
   end
end
local file = assert(io.open(arg[1], "w"))
file:write(keeper)
file:close()

ffi.C.setenv("PORT", tostring(port), 1)
ffi.C.setenv("LISTEN_PID", tostring(ffi.C.getpid()), 1)
ffi.C.setenv("LISTEN_FDS", tostring(#fds), 1)
local argv = ffi.new("const char *[?]", #arg)
for i = 2, #arg do
   argv[i - 2] = arg[i]
end
ffi.C.execvp(arg[2], argv)
error("cannot execute " .. arg[2])
