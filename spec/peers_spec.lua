--- With programs that are not ours at either end: curl and wrk as clients, nginx as origin.
local busted = require "busted"
local t = require "spec.support"

local NGINX_CONFIG = [[
daemon off;
worker_processes 1;
pid ${directory}/nginx.pid;
error_log ${directory}/error.log;
events { worker_connections 1000; }
http {
   access_log off;
   client_body_temp_path ${directory}/body;
   proxy_temp_path ${directory}/proxy;
   fastcgi_temp_path ${directory}/fastcgi;
   uwsgi_temp_path ${directory}/uwsgi;
   scgi_temp_path ${directory}/scgi;
   keepalive_requests 1000000;
   client_max_body_size 0;
   server {
      listen unix:${directory}/nginx.sock;
      root ${directory};
      location = /short-lived { keepalive_timeout 0; return 200 "bye"; }
      location / { }
   }
}
]]

local directory, nginx

local function start_nginx()
   directory = t.process.directory()
   t.process.write_file(directory .. "/nginx.conf", (NGINX_CONFIG:gsub("%${directory}", directory)))
   t.process.write_file(directory .. "/small.txt", "hello from nginx\n")
   t.process.write_file(directory .. "/large.bin", ("0123456789abcdef"):rep(65536 * 4))
   assert(os.execute("chmod 755 " .. directory) == 0)
   nginx = t.process.start({ "nginx", "-c", directory .. "/nginx.conf", "-p", directory }, directory)
   t.tasks.run(function()
      t.eventually("nginx to listen", function()
         if nginx:has_ended() then
            error("nginx ended: " .. nginx:stderr())
         end
         local socket = t.socket.try_connect("unix:" .. directory .. "/nginx.sock")
         if socket then
            socket:close()
         end
         return socket
      end)
   end)
end

local function stop_nginx()
   t.tasks.run(function()
      nginx:stop(t.sys.SIGTERM, 10)
   end)
end

t.on_both_backends("between curl and nginx", function(backend)
   local program
   busted.setup(function()
      start_nginx()
      program = t.program.start {
         io = backend,
         site = [[
            local ml = require "monolake"
            ml.listen {
               address = { "127.0.0.1:0", "unix:${directory}/site.sock" },
               chain = {
                  function(req, next)
                     local res = next(req)
                     res.headers["x-layer"] = "lua"
                     return res
                  end,
                  ml.proxy { "unix:${directory}/nginx.sock", name = "nginx" },
               },
            }
         ]],
         values = { directory = directory },
         listeners = 2,
      }
   end)
   busted.teardown(function()
      program:stop()
      stop_nginx()
   end)

   local function curl(...)
      local command = { "curl", "--silent", "--show-error", "--max-time", "20", ... }
      local out, err, status = t.process.run(command, 30)
      assert.equal(0, status, err)
      return out
   end

   local function url(path)
      return "http://" .. program.address .. path
   end

   t.it("small files pass, with their fields", function()
      local out = curl("-i", url "/small.txt")
      assert.matches("^HTTP/1.1 200 OK\r\n", out)
      assert.matches("\r\nx%-layer: lua\r\n", out)
      assert.matches("\r\nETag: ", out)
      assert.matches("\r\n\r\nhello from nginx\n$", out)
   end)

   t.it("large files pass unchanged", function()
      assert.is_true(curl(url "/large.bin") == t.process.read_file(directory .. "/large.bin"))
   end)

   t.it("ranges, conditions and HEAD pass", function()
      assert.equal("0123", curl("-r", "0-3", url "/large.bin"))
      local etag = curl("-I", url "/small.txt"):match "\r\nETag: ([^\r]+)"
      assert.matches("^HTTP/1.1 304 ", curl("-i", "-H", "If-None-Match: " .. etag, url "/small.txt"))
      assert.matches("Content%-Length: 4194304", curl("-I", url "/large.bin"))
   end)

   t.it("many requests share a connection", function()
      local urls = {}
      for i = 1, 50 do
         urls[i] = url "/small.txt"
      end
      local out = curl("-w", "%{num_connects}\n", unpack(urls))
      assert.equal(50, select(2, out:gsub("hello from nginx\n", "")))
      assert.equal(1, select(2, out:gsub("1\n", "")))
   end)

   t.it("uploads pass, with and without a length, with and without 100-continue", function()
      -- nginx answers 405 to a POST on a file, after it has taken the body.
      local data = "@" .. directory .. "/large.bin"
      for _, options in ipairs {
         {}, { "-H", "Transfer-Encoding: chunked" }, { "-H", "Expect: 100-continue" }, { "-H", "Expect:" },
      } do
         options[#options + 1] = "-i"
         options[#options + 1] = "--data-binary"
         options[#options + 1] = data
         options[#options + 1] = url "/small.txt"
         assert.matches("HTTP/1.1 405 ", curl(unpack(options)))
      end
   end)

   t.it("connections that nginx does not keep are no trouble", function()
      for _ = 1, 5 do
         assert.equal("bye", curl(url "/short-lived"))
      end
   end)

   t.it("HTTP/1.0 and a unix socket work as well", function()
      assert.matches("hello from nginx", curl("--http1.0", url "/small.txt"))
      assert.matches("hello from nginx",
         curl("--unix-socket", directory .. "/site.sock", "http://a.example/small.txt"))
   end)

   t.it("wrk finds no errors", function()
      local out = t.process.run({ "wrk", "-t1", "-c32", "-d1s", url "/small.txt" }, 30)
      assert.not_matches("Non%-2xx", out)
      assert.not_matches("Socket errors", out)
      assert.is_true(tonumber(out:match "(%d+) requests in") > 100)
   end)
end)
