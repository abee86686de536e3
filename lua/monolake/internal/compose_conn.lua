--- Composes neighbouring Lua layers of layer 4 to one function, as compose.lua does for HTTP. Layers
--- return nothing: what counts is whether one of them has connected the connection to a peer.
local core = require "monolake.core"
local Conn = require "monolake.internal.conn"
local errors = require "monolake.internal.errors"
local wait = require "monolake.internal.wait"

local raw_yield, next_verb = wait.yield, wait.verbs.next
local cancelled = errors.cancelled

--- The native rest of the chain.
local function native_next(conn)
   Conn.check_open(conn, "next", 2)
   Conn.settle(conn, "next", raw_yield(next_verb, conn[1]))
   return Conn.outcome(conn)
end

local function edge(layer, next)
   return function(conn)
      Conn.check_open(conn, "next", 2)
      layer(conn, next)
      return Conn.outcome(conn)
   end
end

--- @param layers { fn: function, label: string }[]
--- @param site table
--- @return fun(address: number, generation: number): number the address of the response that carries
--- the peer or tells of a failure, or 0: what src/script/layer.c calls
--- @return fun(address: number, generation: number, err: any, traceback: string): number recovers from
--- an error of the former
return function(layers, site)
   local first = native_next
   for i = #layers, 1, -1 do
      first = edge(layers[i].fn, first)
   end

   local function run(address, generation)
      local conn = Conn.of(address, generation, site)
      first(conn)
      return Conn.response(conn)
   end

   --- A failure that is none of the script's (its client is gone, its time is over) needs no traceback.
   local function recover(address, generation, err, traceback)
      if err == cancelled then
         error(cancelled, 0)
      end
      local text = errors.is_failure(err) and err.message or tostring(err) .. "\n" .. traceback
      core.log_failure(text)
      return (Conn.fail(address, generation, text))
   end

   return run, recover
end
