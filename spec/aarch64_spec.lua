--- The context switch on aarch64, the only code of its own that this machine has: in an emulator, for who
--- has one.
local t = require "spec.support"

local COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"

describe("the context switch on aarch64", function()
   teardown(t.process.remove_directories)

   t.it("keeps what calls keep", function()
      if not t.process.installed(COMPILER) or not t.process.installed(EMULATOR) then
         return pending("apt-get install --no-install-recommends gcc-aarch64-linux-gnu " ..
            "libc6-dev-arm64-cross qemu-user")
      end
      local path = t.process.directory() .. "/switch"
      for _, level in ipairs { "-O0", "-O2" } do
         local _, err, status = t.process.run({ COMPILER, level, "-static", "-Wall", "-Wextra", "-Werror",
            "-Isrc", "-o", path, "src/coro/switch.c", "spec/support/switch_aarch64.c" }, 60)
         assert.equal(0, status, err)
         local out
         out, err, status = t.process.run({ EMULATOR, path }, 30)
         assert.equal("ok\n", out, err)
         assert.equal(0, status)
      end
   end)
end)
