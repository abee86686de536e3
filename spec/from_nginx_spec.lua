--- The site of docs/from-nginx.md, as it stands there.
local t = require "monolake.test"
local ml = require "monolake"
local support = require "spec.support"

local process = support.process

describe("the site of docs/from-nginx.md", function()
   local app, answer

   setup(function()
      local directory = process.directory()
      local function write(name, text)
         process.write_file(directory .. "/" .. name, text)
      end
      os.execute(("mkdir %s/public %s/static"):format(directory, directory))
      write("site.lua", process.read_file "docs/from-nginx.md":match "\n```lua\n(.-)\n```\n")
      write("site.pem", support.certificates.text "a.pem")
      write("site.key", support.certificates.text "a.key")
      write("public/index.html", "the page")
      write("public/app.js", "the script")
      write("static/a.css", "the style")
      app = t.app(directory .. "/site.lua", { upstreams = {
         app = function(req)
            return answer(req)
         end,
      } })
   end)

   before_each(function()
      answer = function()
         return ml.text "the app"
      end
   end)

   teardown(function()
      app:close()
      process.remove_directories()
   end)

   local function get(path, options)
      options = options or {}
      options.host = options.host or "a.example"
      options.listener = options.listener or "0.0.0.0:443"
      return assert(app:get(path, options))
   end

   local function seen()
      return table.remove(app.origins.app.requests)
   end

   it("sends whoever comes in the clear to https", function()
      local res = get("/a%20b?c=d", { listener = "0.0.0.0:80", host = "a.example:80" })
      assert.are.same({ 301, "https://a.example/a%20b?c=d" }, { res.status, res.headers.location })
   end)

   it("knows its hosts, and no others", function()
      assert.are.equal("ok", get("/healthz").body)
      assert.are.equal("ok", get("/healthz", { host = "www.a.example:443" }).body)
      assert.are.equal(421, get("/healthz", { host = "b.example" }).status)
      assert.are.equal("max-age=31536000", get("/healthz").headers["strict-transport-security"])
   end)

   it("serves files, and the page for what is none", function()
      local res = get "/static/a.css"
      assert.are.same({ "the style", "max-age=3600" }, { res.body, res.headers["cache-control"] })
      assert.are.equal(404, get("/static/none").status)
      assert.are.equal("the script", get("/app.js").body)
      assert.are.equal("the page", get("/").body)
      local page = get "/orders/7"
      assert.are.same({ 200, "the page" }, { page.status, page.body })
   end)

   it("moves the API to the root, and says who the client is", function()
      assert.are.equal("the app", get("/api/a%20b?c=d", { ip = "192.0.2.1" }).body)
      local request = seen()
      assert.are.same({ "/a%20b", "c=d", "a.example" }, { request.path, request.query, request.host })
      assert.are.same({ "192.0.2.1", "192.0.2.1" },
         { request.headers["x-real-ip"], request.headers["x-forwarded-for"] })
   end)

   it("tries a 503 again", function()
      local tries = 0
      answer = function()
         tries = tries + 1
         return ml.text("", { status = tries == 1 and 503 or 200 })
      end
      assert.are.equal(200, get("/api/", { ip = "192.0.2.2" }).status)
      assert.are.equal(2, tries)
   end)

   it("limits each client", function()
      local count = 0
      while get("/api/", { ip = "192.0.2.3" }).status == 200 and count < 1000 do
         count = count + 1
      end
      assert.is_true(count >= 20 and count < 1000)
      assert.are.equal(429, get("/api/", { ip = "192.0.2.3" }).status)
      assert.are.equal(200, get("/api/", { ip = "192.0.2.4" }).status)
   end)

   it("lets the office in, with a password", function()
      local function status(ip, credentials)
         return get("/admin/", { ip = ip, headers = { authorization = credentials and
            "Basic " .. ml.base64.encode(credentials) } }).status
      end
      assert.are.equal(403, status("192.0.2.1", "admin:open-sesame"))
      assert.are.equal(401, status("10.0.0.1"))
      assert.are.equal(401, status("10.0.0.1", "admin:wrong"))
      assert.are.equal(401, status("10.0.0.1", "nobody"))
      assert.are.equal(200, status("10.0.0.1", "admin:open-sesame"))
   end)
end)
