--- The sites that bench/micro/lua_layer.c compares: the same fixed response behind no layer, behind
--- one Lua layer that reads a header and sets two, and behind others.
local ml = require "monolake"

local function trivial(req, next)
   local agent = req.headers["user-agent"]
   local res = next(req)
   res.headers["x-served-by"] = "monolake-lua"
   res.headers["x-agent"] = agent
   return res
end

local function pass(req, next)
   return next(req)
end

local answer = ml.text "hello"

local chains = {
   { "native only", { answer } },
   { "a Lua layer that passes on", { pass, answer } },
   { "reads one header, sets two", { trivial, answer } },
   { "three such layers", { trivial, trivial, trivial, answer } },
   { "a leaf in Lua", function() return ml.text "hello" end },
   { "a leaf in Lua, JSON", function(req) return ml.json { path = req.path } end },
}

for _, chain in ipairs(chains) do
   ml.listen { address = "unix:" .. chain[1], chain = chain[2] } -- nobody listens there: a name
end
