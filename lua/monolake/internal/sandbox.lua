--- The surroundings of a site's script: strict globals, and a `require` of its own that finds modules
--- beside the script, keeps them per site, and may wait.
local core = require "monolake.core"
local site_ffi = require "monolake.internal.site_ffi"
local wait = require "monolake.internal.wait"

local sandbox = {}

local real_require, real_package = require, package

local strict = {
   __index = function(_, name)
      error(("undeclared global %q is read"):format(tostring(name)), 2)
   end,
   __newindex = function(_, name)
      error(("undeclared global %q is assigned: use local"):format(tostring(name)), 2)
   end,
}

local function search(name, path)
   local file = name:gsub("%.", "/")
   for pattern in path:gmatch "[^;]+" do
      local candidate = pattern:gsub("%?", (file:gsub("%%", "%%%%")))
      if core.source(candidate) then
         return candidate
      end
      local handle = io.open(candidate, "r")
      if handle then
         handle:close()
         return candidate
      end
   end
end

local function read_file(path)
   local text = core.source(path)
   if text then
      return text
   end
   local handle, why = io.open(path, "rb")
   if not handle then
      error("cannot open " .. why, 0)
   end
   text = handle:read "*a"
   handle:close()
   return text
end

local function load_file(self, path)
   local text = read_file(path)
   if self.on_file then
      self.on_file(path, text)
   end
   local code = text:gsub("^#[^\n]*", "") -- "#!/usr/bin/env monolake-lua"
   local chunk, why = loadstring(code, "@" .. path)
   if not chunk then
      error(why, 0)
   end
   return setfenv(chunk, self.env)
end

local POLL_S = 0.001

--- Runs a module beside the site, once. Another request that asks for it meanwhile waits.
local function load_module(self, name, path)
   local co = coroutine.running() or "main"
   while self.loading[name] do
      if self.loading[name] == co then
         error(("module %q requires itself"):format(name), 3)
      end
      wait.sleep(POLL_S)
   end
   if self.loaded[name] ~= nil then
      return self.loaded[name]
   end
   local chunk = load_file(self, path)
   self.loading[name] = co
   local ok, value = pcall(chunk, name, path)
   self.loading[name] = nil
   if not ok then
      error(value, 0)
   end
   if self.loaded[name] == nil then
      self.loaded[name] = value == nil and true or value
   end
   return self.loaded[name]
end

local function make_require(self)
   return function(name)
      if type(name) ~= "string" then
         error("require: expected a module's name, not " .. type(name), 2)
      end
      if self.loaded[name] ~= nil then
         return self.loaded[name]
      end
      local ours = name == "monolake" or name:find "^monolake%."
      local path = not ours and search(name, self.path)
      if path then
         return load_module(self, name, path)
      end
      local ok, value = pcall(real_require, name)
      if not ok then
         error(value, type(value) == "string" and value:find "^module " and 2 or 0)
      end
      self.loaded[name] = value
      return value
   end
end

--- As Lua's own, but does not wait for who reads standard output.
local function print_line(...)
   local words = {}
   for i = 1, select("#", ...) do
      words[i] = tostring((select(i, ...)))
   end
   core.print(table.concat(words, "\t") .. "\n")
end

--- @param directory string of the site's script
--- @param on_file fun(path: string, text: string)|nil hears of every file before it is run
function sandbox.new(directory, on_file)
   local self = {
      path = directory .. "/?.lua;" .. directory .. "/?/init.lua",
      loaded = { ffi = site_ffi, coroutine = wait.coroutine },
      -- One that was given up with its request is collected, and so keeps nobody waiting for it.
      loading = setmetatable({}, { __mode = "v" }),
      on_file = on_file,
      env = {},
   }
   for name, value in pairs(_G) do
      self.env[name] = value
   end
   self.env._G = self.env
   self.env.newproxy = nil -- an error in a finalizer of its making would end the worker
   self.env.coroutine = wait.coroutine
   self.env.print = print_line
   self.env.require = make_require(self)
   self.env.package = {
      path = self.path .. ";" .. real_package.path,
      cpath = real_package.cpath,
      loaded = self.loaded,
      preload = real_package.preload,
      config = real_package.config,
   }
   setmetatable(self.env, strict)
   self.load = load_file
   return self
end

--- Where the library is found: lualib in front of what LuaJIT knows.
function sandbox.set_library()
   local folder = core.library()
   if folder then
      real_package.path = folder .. "/?.lua;" .. folder .. "/?/init.lua;" .. real_package.path
   end
end

return sandbox
