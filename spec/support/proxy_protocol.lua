--- Headers of the PROXY protocol for specs: built by hand, valid or not, and taken apart again.
local bit = require "bit"
local ffi = require "ffi"

ffi.cdef "int inet_pton(int family, const char *text, void *out);"

local pp = {
   SIGNATURE = "\r\n\r\n\0\r\nQUIT\n",
   ALPN = 1, AUTHORITY = 2, CRC32C = 3, NOOP = 4, UNIQUE_ID = 5, SSL = 0x20, NETNS = 0x30,
   SSL_VERSION = 0x21, SSL_CN = 0x22, SSL_CIPHER = 0x23, SSL_SIG_ALG = 0x24, SSL_KEY_ALG = 0x25,
   STREAM4 = 0x11, DATAGRAM4 = 0x12, STREAM6 = 0x21, LOCAL_STREAM = 0x31, UNSPEC = 0,
}

local AF_INET, AF_INET6 = 2, 10

local function u16(number)
   return string.char(math.floor(number / 256) % 256, number % 256)
end

local function u32(number)
   return u16(math.floor(number / 65536)) .. u16(number % 65536)
end

local function packed(address)
   local out = ffi.new "uint8_t[16]"
   local six = address:find(":", 1, true)
   assert(ffi.C.inet_pton(six and AF_INET6 or AF_INET, address, out) == 1, address)
   return ffi.string(out, six and 16 or 4)
end

--- Both ends, as they stand in version 2.
function pp.ends(from, from_port, to, to_port)
   return packed(from) .. packed(to) .. u16(from_port) .. u16(to_port)
end

function pp.tlv(kind, value)
   return string.char(kind) .. u16(#value) .. value
end

--- The value SSL: `flags`, the verdict on the certificate, and values of its own.
function pp.ssl(flags, verdict, ...)
   return pp.tlv(pp.SSL, string.char(flags) .. u32(verdict) .. table.concat { ... })
end

--- Version 2: PROXY unless `command` says otherwise.
function pp.v2(family, body, command)
   return pp.SIGNATURE .. string.char(command or 0x21, family) .. u16(#body) .. body
end

--- Bit by bit, as the definition says.
function pp.crc32c(bytes)
   local crc = -1
   for i = 1, #bytes do
      crc = bit.bxor(crc, bytes:byte(i))
      for _ = 1, 8 do
         local low = bit.band(crc, 1)
         crc = bit.rshift(crc, 1)
         if low == 1 then
            crc = bit.bxor(crc, 0x82f63b78)
         end
      end
   end
   return bit.bnot(crc) % 2 ^ 32
end

--- Version 2 with a checksum as its last value.
function pp.with_checksum(family, body)
   local empty = pp.v2(family, body .. pp.tlv(pp.CRC32C, "\0\0\0\0"))
   return empty:sub(1, -5) .. u32(pp.crc32c(empty))
end

local function number(bytes, at, count)
   local value = 0
   for i = at, at + count - 1 do
      value = value * 256 + bytes:byte(i)
   end
   return value
end

--- Values by their types; a type that comes twice is an error.
function pp.values(list)
   local values, at = {}, 1
   while at <= #list do
      local kind, len = list:byte(at), number(list, at + 1, 2)
      assert(not values[kind], "a value comes twice")
      assert(at + 2 + len <= #list, "a value is cut short")
      values[kind] = list:sub(at + 3, at + 2 + len)
      at = at + 3 + len
   end
   return values
end

--- Takes a header of version 2 from a connection: its bytes, then command, family, addresses as they
--- stand there, values.
function pp.read_v2(connection)
   local fixed = connection:read(16)
   assert(fixed:sub(1, 12) == pp.SIGNATURE, "no signature")
   local rest = connection:read(number(fixed, 15, 2))
   local family = fixed:byte(14)
   local size = ({ [0] = 0, 12, 36, 216 })[math.floor(family / 16)]
   return {
      bytes = fixed .. rest,
      command = fixed:byte(13),
      family = family,
      ends = rest:sub(1, size),
      values = pp.values(rest:sub(size + 1)),
   }
end

return pp
