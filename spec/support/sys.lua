--- The system calls that the specs need, through LuaJIT's FFI: sockets, epoll, processes. Every
--- function returns `nil, message, errno` on failure. Nothing here waits.
local ffi = require "ffi"
local bit = require "bit"

local C = ffi.C

-- struct epoll_event is packed on x86_64 only.
ffi.cdef([[
struct spec_epoll_event { uint32_t events; int fd; uint32_t unused; } ]] ..
   (ffi.arch == "x64" and "__attribute__((packed))" or "__attribute__((aligned(8)))") .. [[;
struct spec_timespec { long sec; long nsec; };
struct spec_rlimit { unsigned long soft, hard; };
struct spec_filter { uint16_t code; uint8_t jump_true, jump_false; uint32_t value; };
struct spec_filter_program { unsigned short length; struct spec_filter *filter; };
struct spec_linger { int on; int seconds; };
struct spec_sockaddr { uint16_t family; uint8_t bytes[126]; };

int socket(int domain, int type, int protocol);
int bind(int fd, const struct spec_sockaddr *address, uint32_t length);
int listen(int fd, int backlog);
int accept4(int fd, struct spec_sockaddr *address, uint32_t *length, int flags);
int connect(int fd, const struct spec_sockaddr *address, uint32_t length);
int getsockname(int fd, struct spec_sockaddr *address, uint32_t *length);
int setsockopt(int fd, int level, int name, const void *value, uint32_t length);
int getsockopt(int fd, int level, int name, void *value, uint32_t *length);
long recv(int fd, void *buffer, size_t length, int flags);
long send(int fd, const void *bytes, size_t length, int flags);
long recvfrom(int fd, void *buffer, size_t length, int flags, struct spec_sockaddr *address,
              uint32_t *address_length);
long sendto(int fd, const void *bytes, size_t length, int flags,
            const struct spec_sockaddr *address, uint32_t address_length);
int shutdown(int fd, int how);
int close(int fd);

int epoll_create1(int flags);
int epoll_ctl(int epoll, int operation, int fd, struct spec_epoll_event *event);
int epoll_wait(int epoll, struct spec_epoll_event *events, int max, int timeout_ms);

int posix_spawn_file_actions_init(void *actions);
int posix_spawn_file_actions_addopen(void *actions, int fd, const char *path, int flags, unsigned mode);
int posix_spawn_file_actions_destroy(void *actions);
int posix_spawnp(int *pid, const char *file, const void *actions, const void *attributes,
                 const char *const argv[], const char *const envp[]);
int waitpid(int pid, int *status, int options);
int kill(int pid, int signal);
long syscall(long number, ...);
char *mkdtemp(char *template_path);
int clock_gettime(int clock, struct spec_timespec *now);
char *strerror(int code);
int getrlimit(int resource, struct spec_rlimit *limit);
int setrlimit(int resource, const struct spec_rlimit *limit);
extern char **environ;
]])

local AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
local SOCK_STREAM, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_CLOEXEC = 1, 2, 0x800, 0x80000
local SOL_SOCKET, SO_REUSEADDR, SO_ERROR, SO_SNDBUF, SO_RCVBUF, SO_LINGER = 1, 2, 4, 7, 8, 13
local SO_RCVBUFFORCE = 33
local IPPROTO_TCP, TCP_NODELAY = 6, 1
local MSG_OOB, MSG_NOSIGNAL = 0x1, 0x4000
local O_WRONLY_CREATE_APPEND = 0x1 + 0x40 + 0x400
local PIDFD_OPEN = 434

local sys = {
   EINTR = 4, EAGAIN = 11, EPIPE = 32, ECONNRESET = 104, ECONNREFUSED = 111, EINPROGRESS = 115,
   READ = 1, WRITE = 4, -- EPOLLIN, EPOLLOUT
   SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGKILL = 9, SIGUSR1 = 10, SIGSEGV = 11, SIGUSR2 = 12, SIGTERM = 15,
   SIGCONT = 18, SIGSTOP = 19,
}

local function failed(call)
   local code = ffi.errno()
   return nil, ("%s: %s"):format(call, ffi.string(C.strerror(code))), code
end

local now = ffi.new "struct spec_timespec"

--- Seconds of a clock that never jumps.
function sys.clock()
   C.clock_gettime(1, now)
   return tonumber(now.sec) + tonumber(now.nsec) / 1e9
end

local function port_bytes(sockaddr, port)
   sockaddr.bytes[0], sockaddr.bytes[1] = bit.rshift(port, 8), bit.band(port, 0xff)
end

--- "127.0.0.1:80", "[::1]:80", "[::]:80" or "unix:/path" as a socket address and its length.
local function sockaddr_of(address)
   local sockaddr = ffi.new "struct spec_sockaddr"
   local path = address:match "^unix:(.+)$"
   if path then
      assert(#path < 108, "the socket's path is too long")
      sockaddr.family = AF_UNIX
      ffi.copy(sockaddr.bytes, path)
      return sockaddr, 2 + #path + 1
   end
   local last, port = address:match "^%[::(1?)%]:(%d+)$"
   if port then
      sockaddr.family = AF_INET6
      port_bytes(sockaddr, tonumber(port))
      sockaddr.bytes[21] = tonumber(last) or 0 -- behind port (2) and flow (4), the address's last byte
      return sockaddr, 28
   end
   local a, b, c, d
   a, b, c, d, port = address:match "^(%d+)%.(%d+)%.(%d+)%.(%d+):(%d+)$"
   assert(a, "not an address: " .. address)
   sockaddr.family = AF_INET
   port_bytes(sockaddr, tonumber(port))
   for i, byte in ipairs { a, b, c, d } do
      sockaddr.bytes[1 + i] = tonumber(byte)
   end
   return sockaddr, 16
end

local function set_option(fd, level, name, value)
   local int = ffi.new("int[1]", value)
   return C.setsockopt(fd, level, name, int, 4)
end

local function new_socket(sockaddr)
   local fd = C.socket(sockaddr.family, SOCK_STREAM + SOCK_NONBLOCK + SOCK_CLOEXEC, 0)
   if fd < 0 then
      return failed "socket"
   end
   if sockaddr.family ~= AF_UNIX then
      set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1)
   end
   return fd
end

--- A listening socket; small buffers, if given, are inherited by what it accepts.
---@param address string
---@param options { backlog: integer|nil, receive_buffer: integer|nil }
function sys.listen(address, options)
   local sockaddr, length = sockaddr_of(address)
   local fd, err, code = new_socket(sockaddr)
   if not fd then
      return nil, err, code
   end
   set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1)
   if options.receive_buffer then
      set_option(fd, SOL_SOCKET, SO_RCVBUF, options.receive_buffer)
   end
   if C.bind(fd, sockaddr, length) < 0 or C.listen(fd, options.backlog or 1024) < 0 then
      local _, message, errno = failed("listen " .. address)
      C.close(fd)
      return nil, message, errno
   end
   return fd
end

--- Begins to connect, with `from` by that address of its own; the socket is writable when that has
--- ended.
function sys.connect(address, options)
   local sockaddr, length = sockaddr_of(address)
   local fd, err, code = new_socket(sockaddr)
   if not fd then
      return nil, err, code
   end
   if options.receive_buffer then
      set_option(fd, SOL_SOCKET, SO_RCVBUF, options.receive_buffer)
   end
   if options.send_buffer then
      set_option(fd, SOL_SOCKET, SO_SNDBUF, options.send_buffer)
   end
   if options.from then
      local own, own_length = sockaddr_of(options.from)
      assert(C.bind(fd, own, own_length) == 0, "cannot connect from " .. options.from)
   end
   if C.connect(fd, sockaddr, length) < 0 and ffi.errno() ~= sys.EINPROGRESS then
      local _, message, errno = failed("connect " .. address)
      C.close(fd)
      return nil, message, errno
   end
   return fd
end

--- The error that a connect ended with: 0 if none.
function sys.socket_error(fd)
   local value, length = ffi.new "int[1]", ffi.new("uint32_t[1]", 4)
   C.getsockopt(fd, SOL_SOCKET, SO_ERROR, value, length)
   return value[0]
end

--- How many segments with bytes a TCP socket has received: as many as the peer's small sends.
local TCP_INFO, DATA_SEGS_IN = 11, 152 / 4 -- tcpi_data_segs_in of struct tcp_info
function sys.data_segments_in(fd)
   local info, length = ffi.new "uint32_t[64]", ffi.new("uint32_t[1]", 256)
   assert(C.getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, length) == 0 and length[0] > DATA_SEGS_IN * 4)
   return info[DATA_SEGS_IN]
end

--- The port that a socket is bound to.
function sys.port(fd)
   local sockaddr, length = ffi.new "struct spec_sockaddr", ffi.new("uint32_t[1]", 128)
   C.getsockname(fd, sockaddr, length)
   return sockaddr.bytes[0] * 256 + sockaddr.bytes[1]
end

function sys.accept(fd)
   local accepted = C.accept4(fd, nil, nil, SOCK_NONBLOCK + SOCK_CLOEXEC)
   if accepted < 0 then
      return failed "accept"
   end
   set_option(accepted, IPPROTO_TCP, TCP_NODELAY, 1)
   return accepted
end

--- A socket at a path that takes datagrams, as a service manager has one.
function sys.datagrams(path)
   local sockaddr, length = sockaddr_of("unix:" .. path)
   local fd = C.socket(AF_UNIX, SOCK_DGRAM + SOCK_NONBLOCK + SOCK_CLOEXEC, 0)
   if C.bind(fd, sockaddr, length) < 0 then
      return failed "bind"
   end
   return fd
end

local RECEIVE_BYTES = 65536
local receive_buffer = ffi.new("char[?]", RECEIVE_BYTES)

--- The text of an internet address, as sockaddr_of takes it.
local function text_of(sockaddr)
   local bytes = sockaddr.bytes
   local port = bytes[0] * 256 + bytes[1]
   if sockaddr.family == AF_INET6 then
      assert(bytes[21] <= 1 and bytes[20] == 0, "an address that is not ::1")
      return ("[::%s]:%d"):format(bytes[21] == 1 and "1" or "", port)
   end
   return ("%d.%d.%d.%d:%d"):format(bytes[2], bytes[3], bytes[4], bytes[5], port)
end

--- A UDP socket that is bound to an address, or connected to one.
---@param options { bind: string|nil, connect: string|nil, receive_buffer: integer|nil }
function sys.udp(options)
   local sockaddr, length = sockaddr_of(options.bind or options.connect)
   local fd = C.socket(sockaddr.family, SOCK_DGRAM + SOCK_NONBLOCK + SOCK_CLOEXEC, 0)
   set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, options.receive_buffer or 4 * 1024 * 1024)
   if options.bind and C.bind(fd, sockaddr, length) < 0 then
      return failed "bind"
   elseif options.connect then
      sockaddr, length = sockaddr_of(options.connect)
      if C.connect(fd, sockaddr, length) < 0 then
         return failed "connect"
      end
   end
   return fd
end

local IPPROTO_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104

--- Has each of its sends leave as datagrams of so many bytes, of which the last may be shorter; 0: as one.
--- False where the kernel has no such thing.
function sys.send_runs(fd, bytes)
   return set_option(fd, IPPROTO_UDP, UDP_SEGMENT, bytes) == 0
end

--- Has it receive as one what the kernel has got as one.
function sys.receive_runs(fd)
   return set_option(fd, IPPROTO_UDP, UDP_GRO, 1) == 0
end

--- A datagram and the address that it came from.
function sys.recv_from(fd)
   local sockaddr, length = ffi.new "struct spec_sockaddr", ffi.new("uint32_t[1]", 128)
   local count = tonumber(C.recvfrom(fd, receive_buffer, RECEIVE_BYTES, 0, sockaddr, length))
   if count < 0 then
      return failed "recvfrom"
   end
   return ffi.string(receive_buffer, count), text_of(sockaddr)
end

--- Sends a datagram to an address, or to the one that the socket is connected to.
function sys.send_to(fd, bytes, address)
   local sockaddr, length
   if address then
      sockaddr, length = sockaddr_of(address)
   end
   local count = tonumber(C.sendto(fd, bytes, #bytes, MSG_NOSIGNAL, sockaddr, length or 0))
   if count < 0 then
      return failed "sendto"
   end
   return count
end

--- Sends one byte as urgent data, which a receiver that does not ask for it never sees.
function sys.send_urgent(fd, byte)
   return C.send(fd, byte, 1, MSG_OOB + MSG_NOSIGNAL) == 1
end

--- Up to `max` bytes, "" at the end of the stream.
function sys.recv(fd, max)
   local count = tonumber(C.recv(fd, receive_buffer, math.min(max or RECEIVE_BYTES, RECEIVE_BYTES), 0))
   if count < 0 then
      return failed "recv"
   end
   return ffi.string(receive_buffer, count)
end

--- Sends what fits of the bytes behind `offset`; returns how many went.
function sys.send(fd, bytes, offset)
   local pointer = ffi.cast("const char *", bytes) + offset
   local count = tonumber(C.send(fd, pointer, #bytes - offset, MSG_NOSIGNAL))
   if count < 0 then
      return failed "send"
   end
   return count
end

--- Ends the sending side.
function sys.shutdown(fd)
   C.shutdown(fd, 1)
end

function sys.close(fd)
   C.close(fd)
end

--- From now on the socket's TCP hears nothing, so that to the other end it seems to have vanished.
local SO_ATTACH_FILTER, RETURN_NOTHING = 26, 0x06
function sys.deafen(fd)
   local drop = ffi.new("struct spec_filter[1]", { { RETURN_NOTHING, 0, 0, 0 } })
   local program = ffi.new("struct spec_filter_program", 1, drop)
   assert(C.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, program, ffi.sizeof(program)) == 0)
end

--- Closes with a RST: unsent bytes are dropped and the peer sees a reset.
function sys.reset(fd)
   local linger = ffi.new("struct spec_linger", 1, 0)
   C.setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, 8)
   C.close(fd)
end

-- epoll ------------------------------------------------------------------------------------------

local EPOLL_ADD, EPOLL_DEL, EPOLL_MOD, EPOLL_ONESHOT = 1, 2, 3, 0x40000000
local EVENTS_MAX = 256
local event = ffi.new "struct spec_epoll_event"
local events = ffi.new("struct spec_epoll_event[?]", EVENTS_MAX)

function sys.epoll_create()
   return C.epoll_create1(0x80000)
end

--- Arms one notification for the descriptor, which may be known to the epoll or not.
function sys.epoll_arm(epoll, fd, interest)
   event.events, event.fd = bit.bor(interest, EPOLL_ONESHOT), fd
   if C.epoll_ctl(epoll, EPOLL_MOD, fd, event) < 0 and C.epoll_ctl(epoll, EPOLL_ADD, fd, event) < 0 then
      error((select(2, failed "epoll_ctl")))
   end
end

function sys.epoll_forget(epoll, fd)
   C.epoll_ctl(epoll, EPOLL_DEL, fd, event)
end

--- Calls `ready(fd, readable, writable)` for each event; waits at most so long for the first.
function sys.epoll_turn(epoll, seconds, ready)
   local count = C.epoll_wait(epoll, events, EVENTS_MAX, math.ceil(seconds * 1000))
   for i = 0, count - 1 do
      local bits = events[i].events
      local broken = bit.band(bits, 0x18) ~= 0 -- EPOLLERR, EPOLLHUP
      ready(events[i].fd, broken or bit.band(bits, sys.READ) ~= 0,
         broken or bit.band(bits, sys.WRITE) ~= 0)
   end
   return count
end

-- processes --------------------------------------------------------------------------------------

--- The environment without what a sanitizer's runtime needs in this process alone.
local function environment()
   local list, count = {}, 0
   while C.environ[count] ~= nil do
      local entry = ffi.string(C.environ[count])
      if not entry:match "^LD_PRELOAD=" then
         list[#list + 1] = entry
      end
      count = count + 1
   end
   return list
end

local function c_strings(list)
   local array = ffi.new("const char *[?]", #list + 1, list)
   array[#list] = nil -- LuaJIT initializes no more than the list has
   return array
end

--- Starts a program; its output is appended to two files. Returns its pid.
---@param argv string[]
function sys.spawn(argv, stdout_path, stderr_path)
   local actions = ffi.new "uint64_t[32]"
   C.posix_spawn_file_actions_init(actions)
   C.posix_spawn_file_actions_addopen(actions, 0, "/dev/null", 0, 0)
   C.posix_spawn_file_actions_addopen(actions, 1, stdout_path, O_WRONLY_CREATE_APPEND, 0x1a4)
   C.posix_spawn_file_actions_addopen(actions, 2, stderr_path, O_WRONLY_CREATE_APPEND, 0x1a4)
   local env, pid = environment(), ffi.new "int[1]"
   local code = C.posix_spawnp(pid, argv[1], actions, nil, c_strings(argv), c_strings(env))
   C.posix_spawn_file_actions_destroy(actions)
   if code ~= 0 then
      return nil, ("%s: %s"):format(argv[1], ffi.string(C.strerror(code))), code
   end
   return pid[0]
end

--- As many open files as this process, and those that it starts, may have.
function sys.raise_descriptor_limit()
   local limit, NOFILE = ffi.new "struct spec_rlimit", 7
   C.getrlimit(NOFILE, limit)
   limit.soft = limit.hard
   C.setrlimit(NOFILE, limit)
   return tonumber(limit.hard)
end

--- A descriptor that becomes readable when the process ends.
function sys.pidfd(pid)
   local fd = tonumber(C.syscall(PIDFD_OPEN, ffi.cast("long", pid), ffi.cast("long", 0)))
   if fd < 0 then
      return failed "pidfd_open"
   end
   return fd
end

--- Makes this process the parent of those whose own has ended, so that it can wait for them.
function sys.adopt_orphans()
   local PR_SET_CHILD_SUBREAPER, PRCTL = 36, 157
   C.syscall(PRCTL, ffi.cast("long", PR_SET_CHILD_SUBREAPER), ffi.cast("long", 1))
end

--- How an ended child ended: its exit status, or nil and the signal. False while it runs.
function sys.reap(pid)
   local status = ffi.new "int[1]"
   if C.waitpid(pid, status, 1) ~= pid then
      return false
   end
   local signal = bit.band(status[0], 0x7f)
   if signal ~= 0 then
      return nil, signal
   end
   return bit.band(bit.rshift(status[0], 8), 0xff)
end

function sys.kill(pid, signal)
   return C.kill(pid, signal) == 0
end

--- A new directory of our own.
function sys.temporary_directory()
   local path = (os.getenv "TMPDIR" or "/tmp") .. "/monolake-spec-XXXXXX"
   local buffer = ffi.new("char[?]", #path + 1, path)
   assert(C.mkdtemp(buffer) ~= nil, "mkdtemp failed")
   return ffi.string(buffer)
end

return sys
