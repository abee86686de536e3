local ml = require "monolake"
local hash = require "monolake.hash"
local json = require "monolake.json"
local clock = require "monolake.clock"

describe("hashes", function()
   it("are those of the standards", function()
      assert.are.equal(0xcbf43926, hash.crc32 "123456789")
      assert.are.equal(0, hash.crc32 "")
      assert.are.equal(0x811c9dc5, hash.fnv1a "")
      assert.are.equal(0xbf9cf968, hash.fnv1a "foobar")
      assert.are.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", hash.sha256 "")
      assert.are.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", hash.sha256 "abc")
      assert.are.equal("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
         hash.sha256(("a"):rep(1000000)))
   end)

   it("have the right padding for every length", function()
      local seen = {}
      for length = 0, 130 do
         local digest = hash.sha256(("x"):rep(length))
         assert.are.equal(64, #digest)
         assert.is_nil(seen[digest])
         seen[digest] = true
      end
   end)

   it("can be random", function()
      assert.matches("^%x+$", hash.random())
      assert.are.equal(32, #hash.random())
      assert.are.equal(2, #hash.random(1))
      assert.are_not.equal(hash.random(), hash.random())
      for _, wrong in ipairs { 0, 257, 1.5, "x" } do
         assert.has_error(function()
            hash.random(wrong)
         end, "random: expected a number of bytes from 1 to 256, not " .. wrong)
      end
   end)

   it("sign with a key (RFC 4231)", function()
      assert.are.equal("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
         hash.hmac_sha256(("\11"):rep(20), "Hi There"))
      assert.are.equal("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
         hash.hmac_sha256("Jefe", "what do ya want for nothing?"))
      assert.are.equal("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
         hash.hmac_sha256(("\170"):rep(131), "Test Using Larger Than Block-Size Key - Hash Key First"))
   end)

   it("are compared without telling where they differ", function()
      assert.is_true(hash.equal("abc", "abc"))
      assert.is_false(hash.equal("abc", "abd"))
      assert.is_false(hash.equal("abc", "abcd"))
      assert.is_true(hash.equal("", ""))
   end)
end)

describe("json", function()
   it("goes both ways", function()
      local value = { text = 'a "b" \\/ é', list = { 1, 2.5, true }, null = json.null }
      assert.are.same(value, json.decode(json.encode(value)))
      assert.are.equal('"a/b\\\\/c"', json.encode "a/b\\/c")
   end)

   it("returns nil and why for what it cannot read", function()
      for _, text in ipairs { "", "{", "[1,]", "nul", '{"a":1}x', "\1" } do
         local value, why = json.decode(text)
         assert.is_nil(value)
         assert.is_string(why)
      end
   end)

   it("raises an error for what it cannot write", function()
      for _, value in ipairs { function() end, 0 / 0, 1 / 0, { [{}] = 1 } } do
         assert.is_false((pcall(json.encode, value)))
      end
      local cycle = {}
      cycle[1] = cycle
      assert.is_false((pcall(json.encode, cycle)))
   end)
end)

describe("Base64", function()
   it("is that of RFC 4648, section 10", function()
      local text = "foobar"
      for i, encoded in ipairs { "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy" } do
         assert.are.equal(encoded, ml.base64.encode(text:sub(1, i)))
         assert.are.equal(text:sub(1, i), ml.base64.decode(encoded))
         assert.are.equal(text:sub(1, i), ml.base64.decode((encoded:gsub("=", ""))))
      end
      assert.are.same({ "", "" }, { ml.base64.encode "", ml.base64.decode "" })
   end)

   it("carries any bytes, in both alphabets", function()
      local bytes = {}
      for i = 0, 255 do
         bytes[#bytes + 1] = string.char(i)
      end
      local text = table.concat(bytes)
      assert.are.equal(text, ml.base64.decode(ml.base64.encode(text)))
      assert.are.equal("\251\255\254", ml.base64.decode "+//+")
      assert.are.equal("\251\255\254", ml.base64.decode "-__-")
   end)

   it("is nil for what is none", function()
      for _, text in ipairs { "Z", "Zm9vY", "Zg=", "Zg===", "Z===", "=", "Zm 9", "Zg==Zg==", "Zm9v\n" } do
         assert.is_nil(ml.base64.decode(text), text)
      end
   end)
end)

describe("percent-encoding", function()
   it("leaves what needs none", function()
      assert.are.equal("a-Z_0.~", ml.uri.encode "a-Z_0.~")
      assert.are.equal("a%20b%2Fc%3F%26%25%0D%0A%C3%A4", ml.uri.encode "a b/c?&%\r\n\195\164")
      assert.are.equal("a%20b/c%3F", ml.uri.encode_path "a b/c?")
   end)

   it("is undone, or nil", function()
      assert.are.equal("a b/c+\0", ml.uri.decode "a%20b%2fc+%00")
      for _, text in ipairs { "%", "a%2", "%zz", "%2%35", "%%41" } do
         assert.is_nil(ml.uri.decode(text), text)
      end
   end)
end)

describe("clocks", function()
   it("tell the time", function()
      assert.is_true(math.abs(ml.now() - os.time()) < 2)
      local before = clock.monotonic()
      assert.is_true(clock.monotonic() >= before)
      assert.is_true(math.abs(clock.now_us() / 1e6 - clock.monotonic()) < 1)
   end)
end)
