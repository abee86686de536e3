--- Base64 (RFC 4648): of Basic authentication, tokens and keys.
---@module monolake.base64
local bit = require "bit"

local base64 = {}

local LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local letters, values = {}, {}
for i = 0, 63 do
   letters[i] = LETTERS:sub(i + 1, i + 1)
   values[letters[i]] = i
end
values["-"], values["_"] = 62, 63 -- in URLs

local function encode_three(group)
   local a, b, c = group:byte(1, 3)
   local bits = a * 65536 + (b or 0) * 256 + (c or 0)
   return letters[bit.rshift(bits, 18)] .. letters[bit.band(bit.rshift(bits, 12), 63)] ..
      (b and letters[bit.band(bit.rshift(bits, 6), 63)] or "=") .. (c and letters[bit.band(bits, 63)] or "=")
end

local function decode_four(group)
   local bits = 0
   for i = 1, 4 do
      bits = bits * 64 + (values[group:sub(i, i)] or 0)
   end
   local bytes = string.char(bit.rshift(bits, 16), bit.band(bit.rshift(bits, 8), 255), bit.band(bits, 255))
   return bytes:sub(1, #group - 1)
end

--- The text in Base64, with padding.
---@param text string any bytes
---@return string
function base64.encode(text)
   return (text:gsub("..?.?", encode_three))
end

--- The text that was encoded, or nil if that is no Base64. Takes the alphabet for URLs ("-" and "_") as
--- well, and does without the padding.
---@param text string
---@return string|nil
function base64.decode(text)
   local data, padding = text:match "^([%w+/_-]*)(=?=?)$"
   if not data or #data % 4 == 1 or (padding ~= "" and (#data + #padding) % 4 ~= 0) then
      return nil
   end
   return (data:gsub("..?.?.?", decode_four))
end

return base64
