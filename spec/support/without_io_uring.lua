--- Executes its arguments where io_uring is forbidden, as in most containers: a seccomp filter answers
--- io_uring_setup with EPERM. For `prefix` of `program.start`.
local ffi = require "ffi"

ffi.cdef [[
struct sock_filter { uint16_t code; uint8_t jump_true, jump_false; uint32_t k; };
struct sock_fprog { unsigned short length; struct sock_filter *filter; };
int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
int execvp(const char *file, const char *const argv[]);
]]

local LOAD_WORD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
local IO_URING_SETUP = 425 -- on every architecture
local EPERM = 1
local REFUSE, ALLOW = 0x00050000 + EPERM, 0x7fff0000
local PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2

local filter = ffi.new("struct sock_filter[4]", {
   { LOAD_WORD, 0, 0, 0 }, -- the system call's number
   { JUMP_EQUAL, 0, 1, IO_URING_SETUP },
   { RETURN, 0, 0, REFUSE },
   { RETURN, 0, 0, ALLOW },
})
local filter_program = ffi.new("struct sock_fprog", 4, filter)
local address = ffi.cast("unsigned long", ffi.cast("void *", filter_program))

assert(ffi.C.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs failed")
assert(ffi.C.prctl(PR_SET_SECCOMP, MODE_FILTER, address, 0, 0) == 0, "seccomp failed")

local argv = ffi.new("const char *[?]", #arg + 1)
for i, text in ipairs(arg) do
   argv[i - 1] = text
end
ffi.C.execvp(arg[1], argv)
error("cannot execute " .. arg[1])
