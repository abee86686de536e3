local t = require "spec.support"

local directory

local function write(name, text)
   t.process.write_file(directory .. "/" .. name, text)
end

local function shell(command)
   assert(os.execute(("cd '%s' && %s"):format(directory, command)) == 0)
end

local function fill()
   directory = t.process.directory()
   shell "mkdir -p root/sub root/empty root/.hidden root/.well-known outside"
   write("root/page.html", "<p>page</p>")
   write("root/index.html", "root index")
   write("root/sub/index.html", "sub index")
   write("root/sub/data.bin", ("0123456789"):rep(100000))
   write("root/a b%.txt", "odd name")
   write("root/none", "")
   write("root/.secret", "secret")
   write("root/.hidden/file", "secret")
   write("root/.well-known/security.txt", "contact")
   write("outside/secret.txt", "secret")
   shell "ln -s ../outside root/link && ln -s ../outside/secret.txt root/link.txt"
   shell "ln -s page.html root/inner && mkfifo root/fifo"
   shell "touch -d '2020-01-02 03:04:05 UTC' root/page.html"
end

t.on_both_backends("files", function(backend)
   local program = t.serve(function()
      fill()
      return {
         io = backend,
         site = [[
            local ml = require "monolake"
            ml.listen {
               address = "127.0.0.1:0",
               chain = ml.router {
                  ["/static/*"] = ml.files "${directory}/root",
                  ["/aged/*path"] = ml.files {
                     root = "${directory}/root", max_age = "1h", index = "page.html",
                  },
                  ["/page.html"] = ml.files "${directory}/root",
               },
            }
         ]],
         values = { directory = directory },
      }
   end)

   local function get(path, fields, method)
      method = method or "GET"
      local client = program():connect()
      client:send_head(("%s %s HTTP/1.1\nHost: a\n%s"):format(method, path, fields or ""))
      local response = client:read_response { method = method }
      client:close()
      return response
   end

   t.it("are sent with type, length, date and tag", function()
      local response = get "/static/page.html"
      assert.equal(200, response.status)
      assert.equal("<p>page</p>", response.body)
      assert.equal("text/html; charset=utf-8", response:get "content-type")
      assert.equal("length", response.framing)
      assert.equal("Thu, 02 Jan 2020 03:04:05 GMT", response:get "last-modified")
      assert.matches('^"[^"]+"$', response:get "etag")
      assert.equal("bytes", response:get "accept-ranges")
      assert.is_nil(response:get "cache-control")
   end)

   t.it("are found by the rest of a route, or by the whole path", function()
      assert.equal("<p>page</p>", get("/page.html").body)
      assert.equal("odd name", get("/static/a%20b%25.txt").body)
      assert.equal("<p>page</p>", get("/static//sub/.././page.html").body)
      assert.equal("<p>page</p>", get("/static/inner").body)
   end)

   t.it("may be large and may be empty", function()
      assert.is_true(get("/static/sub/data.bin").body == ("0123456789"):rep(100000))
      local response = get "/static/none"
      assert.same({ 200, "" }, { response.status, response.body })
      assert.equal("application/octet-stream", response:get "content-type")
   end)

   t.it("answer HEAD without a body", function()
      local response = get("/static/sub/data.bin", nil, "HEAD")
      assert.same({ 200, "", "1000000" }, { response.status, response.body, response:get "content-length" })
   end)

   t.it("are for GET and HEAD only", function()
      local response = get("/static/page.html", nil, "DELETE")
      assert.equal(405, response.status)
      assert.equal("GET, HEAD", response:get "allow")
   end)

   t.it("of directories are their index, behind a slash", function()
      assert.equal("root index", get("/static/").body)
      assert.equal("sub index", get("/static/sub/").body)
      assert.equal("<p>page</p>", get("/aged/").body)
      local response = get "/static/sub?q=1"
      assert.equal(301, response.status)
      assert.equal("/static/sub/?q=1", response:get "location")
      assert.equal(404, get("/static/empty/").status)
   end)

   t.it("never redirect to another host", function()
      for _, path in ipairs { "//evil.example/../static/sub", "/%5cevil.example/../static/sub" } do
         local response = get(path)
         assert.equal(301, response.status)
         assert.equal("/static/sub/", response:get "location")
      end
   end)

   for _, path in ipairs {
      "/static/nothing", "/static/../outside/secret.txt", "/static/%2e%2e/outside/secret.txt",
      "/static/..%2foutside/secret.txt", "/static/link/secret.txt", "/static/link.txt", "/static/.secret",
      "/static/%2esecret", "/static/.hidden/file", "/static/sub%2fdata.bin", "/static/page.html/",
      "/static/fifo", "/static/" .. ("x"):rep(300), "/static/sub/data.bin/x",
   } do
      t.it("are not found at " .. path:sub(1, 50), function()
         local response = get(path)
         assert.equal(404, response.status)
         assert.not_matches("secret", response.body)
      end)
   end

   t.it("below .well-known are served", function()
      assert.equal("contact", get("/static/.well-known/security.txt").body)
   end)

   t.it("with malformed names are refused", function()
      assert.equal(400, get("/static/%zz").status)
      assert.equal(400, get("/static/a%00b").status)
   end)

   t.it("have a lifetime if the site says so", function()
      assert.equal("max-age=3600", get("/aged/page.html"):get "cache-control")
   end)

   t.it("are not sent to who has them", function()
      local etag = get("/static/page.html"):get "etag"
      local date = "Thu, 02 Jan 2020 03:04:05 GMT"
      for _, fields in ipairs {
         "If-None-Match: " .. etag, "If-None-Match: *", 'If-None-Match: "other", W/' .. etag,
         "If-None-Match: \"x,y\"\nIf-None-Match: " .. etag, "If-Modified-Since: " .. date,
         "If-Modified-Since: Thursday, 02-Jan-20 03:04:05 GMT", "If-Modified-Since: Thu Jan  2 03:04:05 2020",
      } do
         local response = get("/static/page.html", fields)
         assert.equal(304, response.status, fields)
         assert.equal(etag, response:get "etag")
         assert.equal("none", response.framing)
      end
      for _, fields in ipairs {
         'If-None-Match: "other"', "If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT",
         "If-Modified-Since: nonsense",
         'If-None-Match: "other"\nIf-Modified-Since: ' .. date, "If-None-Match: " .. etag:sub(2),
      } do
         assert.equal(200, get("/static/page.html", fields).status, fields)
      end
   end)

   t.it("are sent only under conditions that hold", function()
      local etag = get("/static/page.html"):get "etag"
      for fields, status in pairs {
         ["If-Match: " .. etag] = 200, ["If-Match: *"] = 200, ['If-Match: "other"'] = 412,
         ["If-Match: W/" .. etag] = 412,
         ["If-Unmodified-Since: Wed, 01 Jan 2020 00:00:00 GMT"] = 412,
         ["If-Unmodified-Since: Thu, 02 Jan 2020 03:04:05 GMT"] = 200,
      } do
         assert.equal(status, get("/static/page.html", fields).status, fields)
      end
   end)

   t.it("are sent in part", function()
      for range, expected in pairs {
         ["bytes=0-9"] = { "0123456789", "bytes 0-9/1000000" },
         ["bytes=999998-"] = { "89", "bytes 999998-999999/1000000" },
         ["bytes=-3"] = { "789", "bytes 999997-999999/1000000" },
         ["bytes=999999-5000000"] = { "9", "bytes 999999-999999/1000000" },
      } do
         local response = get("/static/sub/data.bin", "Range: " .. range)
         assert.same({ 206, expected[1], expected[2] },
            { response.status, response.body, response:get "content-range" })
      end
      assert.equal(1000000, #get("/static/sub/data.bin", "Range: bytes=-2000000").body)
   end)

   t.it("are sent in part if they are those that the client has, whatever day they are of", function()
      write("root/dated", "0123456789")
      for day = 2, 8 do
         shell(("touch -d '2020-01-%02d 03:04:05 UTC' root/dated"):format(day))
         local date = get("/static/dated"):get "last-modified"
         local response = get("/static/dated", "Range: bytes=0-1\nIf-Range: " .. date)
         assert.same({ 206, "01" }, { response.status, response.body }, date)
      end
      for _, tag in ipairs { 'W/"x"', 'W/' .. get("/static/dated"):get "etag" } do
         assert.equal(200, get("/static/dated", "Range: bytes=0-1\nIf-Range: " .. tag).status)
      end
   end)

   t.it("are not sent in parts that they do not have", function()
      for _, range in ipairs { "bytes=1000000-", "bytes=1000000-1000001", "bytes=-0" } do
         local response = get("/static/sub/data.bin", "Range: " .. range)
         assert.same({ 416, "bytes */1000000" }, { response.status, response:get "content-range" })
      end
      assert.equal(416, get("/static/none", "Range: bytes=0-").status)
   end)

   t.it("are sent whole where a range is not understood or not meant", function()
      for _, fields in ipairs {
         "Range: bytes=5-2", "Range: lines=1-2", "Range: bytes=0-1,5-6", "Range: bytes=a-b", "Range: bytes=-",
         "Range: bytes=99999999999999999999-", 'Range: bytes=0-1\nIf-Range: "other"',
         "Range: bytes=0-1\nIf-Range: Wed, 01 Jan 2020 00:00:00 GMT",
      } do
         assert.same({ 200, 1000000 }, { get("/static/sub/data.bin", fields).status,
            #get("/static/sub/data.bin", fields).body })
      end
      local etag = get("/static/sub/data.bin"):get "etag"
      assert.equal(206, get("/static/sub/data.bin", "Range: bytes=0-1\nIf-Range: " .. etag).status)
   end)

   t.it("that are cut short while they are sent never look complete", function()
      write("root/shrinks", ("x"):rep(50 * 1024 * 1024))
      local client = program():connect { receive_buffer = 4096 }
      client:send_head "GET /static/shrinks HTTP/1.1\nHost: a"
      assert.equal("52428800", client:read_response_head():get "content-length")
      write("root/shrinks", "short")
      assert.is_false((pcall(client.read, client, 52428800)))
   end)

   t.it("follow a root that is replaced by another", function()
      shell "mkdir -p next && cp -r root/. next/ && rm next/page.html && printf new > next/page.html"
      shell "mv root before && mv next root"
      t.eventually("the new page", function()
         return get("/static/page.html").body == "new"
      end)
      shell "rm -rf next && mv root next && mv before root"
      t.eventually("the old page", function()
         return get("/static/page.html").body == "<p>page</p>"
      end)
   end)
end)

describe("a site with files", function()
   t.it("names a directory that is missing", function()
      local _, err, status = t.program.check {
         site = [[
            local ml = require "monolake"
            ml.listen { address = "127.0.0.1:0", chain = ml.files "nowhere" }
         ]],
      }
      assert.equal(1, status)
      assert.matches("site.lua:2: files: .*/nowhere: No such file or directory", err)
   end)
end)
