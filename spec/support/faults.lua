--- Has system calls of the program fail, and its calendar jump, while it runs: by faults.c, which is
--- preloaded. Only on epoll do such calls carry the traffic, and sanitizers need to be preloaded first.
local ffi = require "ffi"
local process = require "spec.support.process"
local program = require "spec.support.program"

ffi.cdef [[
struct faults { int64_t clock_offset_s; int32_t accept4, send, recv, socket, epoll_ctl; };
]]

local faults = {
   EMFILE = 24, ENFILE = 23, ENOMEM = 12, ENOBUFS = 105,
   possible = not program.sanitized,
}

---@class spec.Faults
---@field prefix string[] for `program.start`
local Faults = {}
Faults.__index = Faults

local function build()
   local source = debug.getinfo(1, "S").source:match "^@(.*)lua$" .. "c"
   local library = process.directory() .. "/faults.so"
   assert(os.execute(("cc -shared -fPIC -O1 -Wall -o '%s' '%s' -ldl"):format(library, source)) == 0)
   return library
end

--- None for now.
---@return spec.Faults
function faults.new()
   local path = process.directory() .. "/faults"
   local self = setmetatable({ path = path, now = ffi.new "struct faults" }, Faults)
   process.write_file(path, ffi.string(self.now, ffi.sizeof(self.now)))
   self.prefix = { "env", "LD_PRELOAD=" .. build(), "SPEC_FAULTS=" .. path }
   return self
end

--- Has it be so from now on: { clock_offset_s = 3600 } or { accept4 = faults.EMFILE }; {} is as it was.
function Faults:set(what)
   self.now = ffi.new("struct faults", what)
   local file = assert(io.open(self.path, "r+b")) -- the program has mapped this file
   file:write(ffi.string(self.now, ffi.sizeof(self.now)))
   file:close()
end

return faults
