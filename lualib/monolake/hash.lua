--- Hashes of strings, and random ones. crc32 and fnv1a are for buckets and keys, sha256 and hmac_sha256 for
--- signatures, random for names that nobody can guess. (Lua's own math.random is for all else: it begins
--- anew, elsewhere, in each worker and at each reload.)
---@module monolake.hash
local bit = require "bit"
local core = require "monolake.core"
local ffi = require "ffi"

local band, bnot, bor, bxor = bit.band, bit.bnot, bit.bor, bit.bxor
local rshift, tobit = bit.rshift, bit.tobit

local hash = {}

local crc_table = ffi.new "uint32_t[256]"
for i = 0, 255 do
   local value = i
   for _ = 1, 8 do
      value = band(value, 1) == 1 and bxor(rshift(value, 1), 0xedb88320) or rshift(value, 1)
   end
   crc_table[i] = value
end

--- CRC-32 as of zlib, 0 to 2^32 - 1.
---@param text string
---@return integer
function hash.crc32(text)
   local crc = bnot(0)
   for i = 1, #text do
      crc = bxor(rshift(crc, 8), tobit(crc_table[band(bxor(crc, text:byte(i)), 0xff)]))
   end
   return bnot(crc) % 2 ^ 32
end

--- FNV-1a with 32 bits, 0 to 2^32 - 1.
---@param text string
---@return integer
function hash.fnv1a(text)
   local value = 0x811c9dc5
   for i = 1, #text do
      value = bxor(value, text:byte(i)) % 2 ^ 32
      -- times 0x01000193, in two parts that stay exact in doubles
      value = (value * 0x193 + band(value, 0xff) * 2 ^ 24) % 2 ^ 32
   end
   return value
end

--- SHA-256 in hexadecimal digits.
---@param text string
---@return string
function hash.sha256(text)
   return core.sha256(text)
end

--- HMAC with SHA-256 (RFC 2104) in hexadecimal digits.
---@param key string
---@param text string
---@return string
function hash.hmac_sha256(key, text)
   return core.hmac_sha256(key, text)
end

--- Are two strings equal? Takes the same time wherever they differ: for comparing signatures.
---@param a string
---@param b string
---@return boolean
function hash.equal(a, b)
   if #a ~= #b then
      return false
   end
   local difference = 0
   for i = 1, #a do
      difference = bor(difference, bxor(a:byte(i), b:byte(i)))
   end
   return difference == 0
end

--- Random bytes of the kernel in hexadecimal digits, two for each: ids of requests, tokens, keys.
---@param bytes integer|nil 1 to 256; 16 unless given
---@return string
function hash.random(bytes)
   bytes = bytes or 16
   if type(bytes) ~= "number" or bytes < 1 or bytes > 256 or bytes % 1 ~= 0 then
      error("random: expected a number of bytes from 1 to 256, not " .. tostring(bytes), 2)
   end
   return (core.random(bytes):gsub(".", function(byte)
      return ("%02x"):format(byte:byte())
   end))
end

return hash
