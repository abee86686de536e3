--- Hashes of strings. crc32 and fnv1a are for buckets and keys, sha256 and hmac_sha256 for signatures.
---@module monolake.hash
local bit = require "bit"
local ffi = require "ffi"

local band, bnot, bor, bxor = bit.band, bit.bnot, bit.bor, bit.bxor
local rshift, ror, bswap = bit.rshift, bit.ror, bit.bswap
local tobit, tohex = bit.tobit, bit.tohex

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

local H_WORDS = {
   0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}
local K_WORDS = {
   0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
   0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
   0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
   0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
   0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
   0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
   0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
   0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}
local K = ffi.new "int32_t[64]"
for i = 0, 63 do
   K[i] = tobit(K_WORDS[i + 1])
end
local W = ffi.new "int32_t[64]"

local function big_endian(value)
   return string.char(band(rshift(value, 24), 0xff), band(rshift(value, 16), 0xff),
      band(rshift(value, 8), 0xff), band(value, 0xff))
end

local function expand(words)
   for i = 0, 15 do
      W[i] = bswap(words[i])
   end
   for i = 16, 63 do
      local a, b = W[i - 15], W[i - 2]
      local s0 = bxor(ror(a, 7), ror(a, 18), rshift(a, 3))
      local s1 = bxor(ror(b, 17), ror(b, 19), rshift(b, 10))
      W[i] = tobit(W[i - 16] + s0 + W[i - 7] + s1)
   end
end

local function compress(H)
   local a, b, c, d, e, f, g, h = H[0], H[1], H[2], H[3], H[4], H[5], H[6], H[7]
   for i = 0, 63 do
      local s1 = bxor(ror(e, 6), ror(e, 11), ror(e, 25))
      local t1 = tobit(h + s1 + bxor(band(e, f), band(bnot(e), g)) + K[i] + W[i])
      local s0 = bxor(ror(a, 2), ror(a, 13), ror(a, 22))
      local t2 = tobit(s0 + bxor(band(a, b), band(a, c), band(b, c)))
      h, g, f, e, d, c, b, a = g, f, e, tobit(d + t1), c, b, a, tobit(t1 + t2)
   end
   local new = { a, b, c, d, e, f, g, h }
   for i = 0, 7 do
      H[i] = tobit(H[i] + new[i + 1])
   end
end

local function sha256_bytes(text)
   local H = ffi.new "int32_t[8]"
   for i = 0, 7 do
      H[i] = tobit(H_WORDS[i + 1])
   end
   local bits = #text * 8
   local padded = text .. "\128" .. ("\0"):rep((55 - #text) % 64) ..
      big_endian(tobit(math.floor(bits / 2 ^ 32))) .. big_endian(tobit(bits % 2 ^ 32))
   local words = ffi.cast("const int32_t *", padded)
   for block = 0, #padded / 64 - 1 do
      expand(words + block * 16)
      compress(H)
   end
   local out = {}
   for i = 0, 7 do
      out[i + 1] = big_endian(H[i])
   end
   return table.concat(out)
end

local function hex(bytes)
   return (bytes:gsub(".", function(c)
      return tohex(c:byte(), 2)
   end))
end

--- SHA-256 in hexadecimal digits.
---@param text string
---@return string
function hash.sha256(text)
   return hex(sha256_bytes(text))
end

local function xor_pad(key, value)
   return (key:gsub(".", function(c)
      return string.char(bxor(c:byte(), value))
   end))
end

--- HMAC with SHA-256 (RFC 2104) in hexadecimal digits.
---@param key string
---@param text string
---@return string
function hash.hmac_sha256(key, text)
   if #key > 64 then
      key = sha256_bytes(key)
   end
   key = key .. ("\0"):rep(64 - #key)
   return hex(sha256_bytes(xor_pad(key, 0x5c) .. sha256_bytes(xor_pad(key, 0x36) .. text)))
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

return hash
