--- Compiles Lua files to bytecode in one C file: luajit embed.lua OUT.c lua/a.lua lua/b/c.lua ...
-- A file's module name is its path below lua/, with dots: lua/b/c.lua is "b.c". Debug information is
-- kept, since tracebacks need it.

local BYTES_PER_LINE = 20

local function module_name(path)
   return (path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/", "."))
end

local function c_bytes(code)
   local lines = {}
   for first = 1, #code, BYTES_PER_LINE do
      local bytes = { code:byte(first, first + BYTES_PER_LINE - 1) }
      lines[#lines + 1] = "    " .. table.concat(bytes, ",") .. ","
   end
   return table.concat(lines, "\n")
end

local function main(out_path, ...)
   local paths = { ... }
   local out = { '#include "script/embedded.h"\n' }
   local entries = {}
   for index, path in ipairs(paths) do
      local code = string.dump(assert(loadfile(path)))
      out[#out + 1] = ("static const unsigned char module_%d[] = {\n%s\n};\n"):format(index, c_bytes(code))
      entries[index] = ('    {"%s", module_%d, sizeof(module_%d)},'):format(module_name(path), index, index)
   end
   out[#out + 1] = "const struct embedded_module embedded_modules[] = {"
   out[#out + 1] = table.concat(entries, "\n")
   out[#out + 1] = "    {0},\n};"
   out[#out + 1] = ("const size_t embedded_module_count = %d;\n"):format(#paths)

   local file = assert(io.open(out_path, "w"))
   assert(file:write(table.concat(out, "\n")))
   assert(file:close())
end

main(...)
