--- Native layers as build.lua describes them, and what they are told who take them for functions.
local Layer = { hint = "req:forward(upstream) sends a request to an upstream" }
Layer.__index = Layer

function Layer.__call(self)
   local of_layer_4 = self.kind == "l4" or self.kind == "udp"
   error("a layer is no function: it belongs into a chain; " ..
      (of_layer_4 and "conn:splice(upstream) connects to an upstream" or Layer.hint), 2)
end

return Layer
