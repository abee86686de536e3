--- Reads the LuaLS annotations of a Lua file: what is public in it, and what is said about that.

local annotations = {}

-- The type at the start of a text: "fun(a: b): c|nil the rest" has spaces inside of brackets, and
-- after the colons and commas of a function type.
local function split_type(text)
   local position, depth = 1, 0
   while position <= #text do
      local char = text:sub(position, position)
      if char:find "[%(%[{<]" then
         depth = depth + 1
      elseif char:find "[%)%]}>]" then
         depth = depth - 1
      elseif char == " " and depth == 0 and not text:sub(position - 1, position - 1):find "[:,|]" then
         break
      end
      position = position + 1
   end
   return text:sub(1, position - 1), text:sub(position + 1)
end

local tags = {}

function tags.module(block, rest)
   block.module = rest
end

function tags.class(block, rest)
   block.class = rest:match "^[^%s:]+"
end

function tags.alias(block, rest)
   local name, meaning = rest:match "^(%S+)%s*(.*)"
   block.aliases[#block.aliases + 1] = { name = name, type = meaning }
end

function tags.param(block, rest)
   local name, after = rest:match "^(%S+)%s*(.*)"
   local kind, text = split_type(after)
   block.params[#block.params + 1] = { name = name, type = kind, text = text }
end

function tags.field(block, rest)
   local name, after = rest:match "^(%b[])%s*(.*)"
   if not name then
      name, after = rest:match "^(%S+)%s*(.*)"
   end
   local kind, text = split_type(after)
   block.fields[#block.fields + 1] = { name = name, type = kind, text = text }
end

tags["return"] = function(block, rest)
   local kind, text = split_type(rest)
   block.returns[#block.returns + 1] = { type = kind, text = text }
end

function tags.private(block)
   block.private = true
end

local function new_block()
   return { text = {}, params = {}, returns = {}, fields = {}, aliases = {} }
end

local function add_comment(block, comment, where)
   local tag, rest = comment:match "^%s?@(%a+)%s*(.*)"
   if tag then
      local read = tags[tag] or error(("%s: unknown annotation @%s"):format(where, tag), 0)
      read(block, rest)
   else
      block.text[#block.text + 1] = comment:gsub("^ ", "")
   end
end

-- What the code line below a block defines: object, name, arguments (nil: not a function), is a method. An
-- argument "more" is there to be refused, and not told of.
local function definition(line)
   line = line:gsub(", more%)", ")")
   local object, mark, name, arguments = line:match "^function ([%w_]+)([.:])([%w_]+)(%b())"
   if object then
      return object, name, arguments, mark == ":"
   end
   object, name, arguments = line:match "^function ([%w_]+)%.([%w_]+%.[%w_]+)(%b())" -- in a table of it
   if object then
      return object, name, arguments, false
   end
   object, name = line:match "^([%w_]+)%.([%w_]+) = "
   local of_function = line:match "= function(%b())"
   return object, name, of_function, false
end

--- Everything a file says. `items` are in the order of the file; `object` is the variable that the
--- thing belongs to; `returned` is the one that the file returns.
---@param path string
---@return { module: table|nil, classes: table[], items: table[], aliases: table[], returned: string|nil }
function annotations.read(path)
   local found = { classes = {}, items = {}, aliases = {} }
   local block, number = nil, 0
   for line in io.lines(path) do
      number = number + 1
      local comment = line:match "^%-%-%-(.*)"
      if comment and not comment:find "^%s*%-" then
         block = block or new_block()
         add_comment(block, comment, path .. ":" .. number)
      else
         local object, name, arguments, is_method = definition(line)
         if block and block.class then
            block.object = line:match "^local ([%w_]+) = "
            found.classes[#found.classes + 1] = block
         elseif block and block.module then
            found.module = block
         elseif object then
            local item = block or new_block()
            item.object, item.name, item.arguments, item.is_method = object, name, arguments, is_method
            item.documented = block ~= nil
            item.where = path .. ":" .. number
            found.items[#found.items + 1] = item
         end
         for _, alias in ipairs(block and block.aliases or {}) do
            found.aliases[#found.aliases + 1] = alias
         end
         found.returned = line:match "^return ([%w_]+)$" or found.returned
         block = nil
      end
   end
   return found
end

return annotations
