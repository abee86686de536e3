-- The API reference tells of everything that is public, and of nothing else.
local reference = require "docs.tools.reference"

local found = reference.gather()

local function sorted_keys(set)
   local keys = {}
   for key in pairs(set) do
      keys[#keys + 1] = key
   end
   table.sort(keys)
   return keys
end

local function read_all(path)
   local file = assert(io.open(path))
   local text = file:read "*a"
   file:close()
   return text
end

local function is_module(value)
   for _, loaded in pairs(package.loaded) do
      if loaded == value then
         return true
      end
   end
end

--- The public names of a module, and of the plain tables in it that are no modules themselves.
local function public_names(module)
   local names = {}
   for name, value in pairs(module) do
      if not name:find "^_" then
         names[name] = true
         local plain = type(value) == "table" and not getmetatable(value) and not is_module(value)
         for inner in pairs(plain and value or {}) do
            names[name .. "." .. inner] = true
         end
      end
   end
   return names
end

describe("the API reference", function()
   it("knows the library's modules", function()
      local names = {}
      for _, module in ipairs(found.modules) do
         names[module.module] = true
      end
      assert.is_true(names["monolake"])
   end)

   for _, module in ipairs(found.modules) do
      it("has every public name of " .. module.module .. ", and no other", function()
         local documented = {}
         for _, item in ipairs(module.items) do
            if item.documented then
               documented[item.name] = true
            end
         end
         assert.are.same(sorted_keys(public_names(require(module.module))), sorted_keys(documented))
      end)
   end

   for _, class in ipairs(found.types) do
      if class.class then
         it("describes every method of " .. class.class, function()
            for _, item in ipairs(class.items) do
               assert(item.documented, item.where .. ": " .. item.name .. " is not documented")
            end
         end)
      end
   end

   for _, name in ipairs { "request", "response", "conn" } do
      it("has every property of a " .. name, function()
         local path = "lua/monolake/internal/" .. name .. ".lua"
         local class, readable, documented = "monolake." .. name:gsub("^%l", string.upper), {}, {}
         for property in read_all(path):gmatch "getters%.([%w_]+)" do
            readable[property] = true
         end
         for _, entry in ipairs(found.types) do
            for _, field in ipairs(entry.class == class and entry.fields or {}) do
               documented[field.name] = true
            end
         end
         assert.are.same(sorted_keys(readable), sorted_keys(documented))
      end)
   end

   it("has every method of a request, a response and a connection", function()
      for class, path in pairs { Request = "request", Response = "response", Conn = "conn" } do
         local written, documented = {}, {}
         local text = read_all(("lua/monolake/internal/%s.lua"):format(path))
         for name in text:gmatch "\nfunction methods:([%w_]+)" do
            written[name] = true
         end
         for _, entry in ipairs(found.types) do
            for _, item in ipairs(entry.class == "monolake." .. class and entry.items or {}) do
               documented[item.name] = true
            end
         end
         assert.are.same(sorted_keys(written), sorted_keys(documented))
      end
   end)

   it("is up to date: ./dev docs has been run since the last change", function()
      local fresh = os.tmpname()
      local status = os.execute("LUA_PATH='./?.lua;;' luajit docs/tools/markdown.lua " .. fresh)
      local text = read_all(fresh)
      os.remove(fresh)
      assert.are.equal(0, status)
      assert.are.equal(text, read_all "docs/api.md")
   end)
end)

describe("the table of RFC 9113", function()
   it("names only specs that there are", function()
      local specs = {}
      for path in io.popen("ls spec/*.lua spec/unit/*.c"):lines() do
         specs[#specs + 1] = read_all(path)
      end
      local text = table.concat(specs)
      for name in read_all("docs/rfc9113.md"):gmatch '"([^"]+)"' do
         name = name:gsub("%s*%.%.%.$", "")
         assert(name == "Frames" or text:find(name, 1, true), name .. " is the name of no spec")
      end
   end)
end)
