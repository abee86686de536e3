-- What bench/lib/scale.py measures: one section of this, with a listener for each of its sizes.
local ml = require "monolake"
local origin = ml.upstream { "127.0.0.1:@origin@", idle_max = 512, idle_timeout = 600 }
local ports = {}
for port in ("@ports@"):gmatch "%d+" do
   ports[#ports + 1] = port
end

local function listen(index, chain)
   ml.listen { address = "127.0.0.1:" .. ports[index], chain = chain }
end

--- Looks at one field of the request.
local function new_layer()
   return function(req, next)
      if req.headers["x-bench"] == "nobody" then
         return ml.text("no", { status = 403 })
      end
      return next(req)
   end
end

local function layers()
   for index, count in ipairs { 0, 5, 20 } do
      local chain = {}
      for i = 1, count do
         chain[i] = new_layer()
      end
      chain[count + 1] = ml.proxy(origin)
      listen(index, chain)
   end
end

--- The one that is asked for has a parameter, and is looked for among all others.
local function routes_of(count)
   local routes = { ["/:size"] = ml.proxy(origin) }
   for i = 2, count do
      routes[("/service%d/:id/part%d"):format(i % 100, i)] = ml.text "not asked for"
   end
   return ml.router(routes)
end

local function routes()
   for index, count in ipairs { 1, 100, 10000 } do
      listen(index, { routes_of(count) })
   end
end

local function peers()
   local index = 0
   for _, balance in ipairs { "round_robin", "least_conn", "hash" } do
      for _, count in ipairs { 10, 1000 } do
         local options = { name = balance .. count, balance = balance, idle_timeout = 600 }
         for i = 1, count do
            options[i] = ("127.1.%d.%d:@any_origin@"):format(math.floor(i / 250), i % 250 + 1)
         end
         index = index + 1
         listen(index, { ml.proxy(ml.upstream(options)) })
      end
   end
end

local function plain()
   listen(1, { ml.proxy(origin) })
end

local function reload()
   listen(1, { routes_of(1000) })
end

local sections = { layers = layers, routes = routes, peers = peers, plain = plain, reload = reload }
sections["@section@"]()
