--- Composes neighbouring Lua layers of layer 4 to one function, as compose.lua does for HTTP. Layers
--- return nothing: what counts is whether one of them has connected the connection to a peer.
local core = require "monolake.core"
local Conn = require "monolake.internal.conn"
local errors = require "monolake.internal.errors"
local wait = require "monolake.internal.wait"

local raw_yield, next_verb = wait.yield, wait.verbs.next
local cancelled = errors.cancelled

--- A failure that is none of the script's (its client is gone, its time is over) needs no traceback.
local function with_traceback(err)
   return errors.is_failure(err) and err or debug.traceback(tostring(err), 2)
end

--- The native rest of the chain.
local function native_next(conn)
   Conn.check_open(conn, "next", 2)
   Conn.settle(conn, "next", raw_yield(next_verb))
   return Conn.outcome(conn)
end

local function edge(layer, next)
   return function(conn)
      Conn.check_open(conn, "next", 2)
      layer(conn, next)
      return Conn.outcome(conn)
   end
end

local function fail(address, generation, err)
   if err == cancelled then
      error(cancelled, 0)
   end
   local text = errors.is_failure(err) and err.message or err
   core.log_failure(text)
   return Conn.fail(address, generation, text)
end

--- @param layers { fn: function, label: string }[]
--- @param site table
--- @return fun(address: number, generation: number): number the address of the response that carries
--- the peer or tells of a failure, or 0: what src/script/layer.c calls
return function(layers, site)
   local run = native_next
   for i = #layers, 1, -1 do
      run = edge(layers[i].fn, run)
   end
   return function(address, generation)
      local conn = Conn.of(address, generation, site)
      local ok, err = xpcall(run, with_traceback, conn)
      if ok then
         return Conn.response(conn)
      end
      return (fail(address, generation, err))
   end
end
