--- Layer 4: Redis behind one address. A standby takes over where the primary cannot be reached, and
--- replicas share what only reads.
---
---     redis-server --port 6379 &
---     redis-server --port 6378 --replicaof 127.0.0.1 6379 &
---     ./dev run examples/database.lua
---     redis-cli -p 6380 set key value
---     redis-cli -p 6381 get key
local ml = require "monolake"

local log = ml.access_log() -- client, address, peer, bytes both ways, seconds, why it ended

local primary = ml.upstream { "127.0.0.1:6379", name = "primary", protocol = "tcp", connect_timeout = "1s" }
local standby = ml.upstream { "127.0.0.1:6378", name = "standby", protocol = "tcp", connect_timeout = "1s" }

local OPEN_MAX = 100 -- of one client, in each worker
local open = {}

--- Resets who has too many connections already.
local function share(conn, next)
   local ip = conn.ip
   if (open[ip] or 0) >= OPEN_MAX then
      ml.log.warn("%s has %d connections: one more is refused", ip, OPEN_MAX)
      return conn:reset()
   end
   open[ip] = (open[ip] or 0) + 1
   conn:on_close(function()
      open[ip] = open[ip] > 1 and open[ip] - 1 or nil
   end)
   return next(conn)
end

--- The primary, or where that is not to be reached the standby.
local function failover(conn)
   local connected, why = conn:splice(primary, { idle_timeout = "10m" })
   if not connected then
      ml.log.warn("the standby is used: %s", why)
      conn:splice(standby, { idle_timeout = "10m" })
   end
end

ml.listen { address = "127.0.0.1:6380", l4 = { log, share, failover } }

-- Readers go to whichever has the fewest connections; one that cannot be reached is passed over.
ml.listen {
   address = "127.0.0.1:6381",
   l4 = { log, share, ml.tcp_proxy { "127.0.0.1:6379", "127.0.0.1:6378", name = "readers",
      balance = "least_conn", connect_timeout = "1s" } },
}
