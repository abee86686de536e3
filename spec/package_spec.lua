--- The Debian package: dpkg installs it, into a root of its own; what is in it runs from there; and dpkg
--- takes all of it away again.
local t = require "spec.support"
local busted = require "busted"

local build = os.getenv "MONOLAKE_BUILD" or "build"
local directory, root

local function run(argv, seconds)
   local out, err, status = t.process.run(argv, seconds or 60)
   assert(status == 0, table.concat(argv, " ") .. "\n" .. out .. err)
   return out
end

local function shell(command)
   return run { "sh", "-c", ("cd '%s' && %s"):format(directory, command) }
end

--- dpkg with a database of its own, which knows of no other package.
local function dpkg(arguments)
   return shell(("dpkg --root='%s' --log='%s/dpkg.log' --force-depends --force-not-root %s"):format(root,
      directory, arguments))
end

local function install_package()
   directory = t.process.directory()
   root = directory .. "/root"
   t.tasks.run(function()
      run({ "cpack", "-G", "DEB", "--config", build .. "/CPackConfig.cmake", "-B", directory }, 120)
      shell "mkdir -p root/var/lib/dpkg/info root/var/lib/dpkg/updates && : >root/var/lib/dpkg/status"
      dpkg "-i *.deb"
   end)
end

describe("the Debian package", function()
   busted.setup(install_package)
   busted.teardown(t.process.remove_directories)

   t.it("says what it is and needs", function()
      local fields = shell "dpkg-deb -f *.deb"
      assert.matches("Package: monolake%-lua", fields)
      assert.matches("Depends: [^\n]*libc6", fields)
      assert.matches("Depends: [^\n]*liburing2", fields)
      assert.matches("Depends: [^\n]*lua%-cjson", fields)
   end)

   t.it("has the manual page, the header, the reference and the examples", function()
      shell "ls root/usr/share/man/man1/monolake-lua.1*"
      shell "cp -r root/usr/share/doc/monolake-lua/examples . && ls examples/hello.lua"
      shell "cd root/usr/share/doc/monolake-lua/docs && ls api.md from-nginx.md"
      shell "gcc -shared -fPIC -Iroot/usr/include -o timing.so examples/native/timing.c"
   end)

   t.it("has units of systemd that are in order", function()
      shell "mkdir units && cp root/usr/lib/systemd/system/monolake-lua.* units"
      -- the program is not installed here
      shell "sed -i 's|/usr/bin/monolake-lua|/bin/true|' units/monolake-lua.service"
      if os.execute "command -v systemd-analyze >/dev/null" == 0 then
         assert.equal("", shell "systemd-analyze verify --man=no units/monolake-lua.* 2>&1")
      end
      local service = shell "cat units/monolake-lua.service"
      assert.matches("\nType=notify\n", service)
      assert.matches("\nNotifyAccess=all\n", service)
   end)

   t.it("is installed", function()
      assert.matches("\nStatus: install ok installed\n", dpkg "-s monolake-lua")
      assert.equal("", dpkg "--verify monolake-lua")
   end)

   t.it("has a library that a plain LuaJIT finds where it looks for others", function()
      if build:find "asan" then
         return pending "a sanitizer's runtime would have to be loaded first"
      end
      local script = [[
         for _, name in ipairs { "path", "cpath" } do
            local own = {}
            for pattern in package[name]:gmatch "[^;]+" do
               own[#own + 1] = pattern:match "^/" and arg[1] .. pattern
            end
            package[name] = table.concat(own, ";") .. ";" .. package[name] -- lua-cjson is another package
         end
         local ml = require "monolake"
         local core = package.searchpath("monolake.core", package.cpath)
         print(type(ml.listen), core:sub(1, #arg[1]) == arg[1])
      ]]
      t.process.write_file(directory .. "/plain.lua", script)
      local command = "env -u LUA_PATH -u LUA_CPATH luajit plain.lua '%s'"
      assert.equal("function\ttrue\n", shell(command:format(root)))
   end)

   t.it("has a program that runs a site with its own library", function()
      assert.matches("^monolake%-lua %d", run { root .. "/usr/bin/monolake-lua", "-V" })
      t.process.write_file(directory .. "/site.lua", [[
         local ml = require "monolake"
         ml.listen { address = "127.0.0.1:0", chain = ml.json { from = "the package" } }
      ]])
      local argv = { root .. "/usr/bin/monolake-lua", "-w", "1", directory .. "/site.lua" }
      local running = t.process.start(argv, directory)
      local address = t.eventually("the program to listen", function()
         return running:stdout():match "listening on ([^\n]+)"
      end)
      local client = t.socket.connect(address)
      assert.equal('{"from":"the package"}', client:exchange("GET / HTTP/1.1\nHost: a").body)
      assert.equal(0, running:stop(t.sys.SIGTERM))
   end)

   t.it("leaves nothing behind when it is purged", function()
      assert.is_true(#dpkg "-L monolake-lua" > 1000)
      dpkg "--purge monolake-lua"
      assert.equal("", shell "find root -path root/var/lib/dpkg -prune -o -not -type d -print")
   end)
end)
