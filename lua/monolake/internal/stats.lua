--- The program's counters as a table, and as the text that Prometheus reads.
local core = require "monolake.core"

local stats = {}

local PREFIX = "monolake_"
local ESCAPES = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }

--- { name = count, ... }, or { name = { [label's value] = count, ... }, ... } for those with a label.
function stats.gather()
   local found = {}
   for _, row in ipairs(core.counters()) do
      if row.label == "" then
         found[row.name] = row.count
      else
         local group = found[row.name] or {}
         group[row.value] = row.count
         found[row.name] = group
      end
   end
   return found
end

--- What stands behind a name: {label="value"}.
local function labels(row)
   if row.label == "" then
      return ""
   end
   return ('{%s="%s"}'):format(row.label, (row.value:gsub('[\\"\n]', ESCAPES)))
end

--- The text exposition format of Prometheus, version 0.0.4.
function stats.text()
   local lines, before = {}, nil
   for _, row in ipairs(core.counters()) do
      local name = PREFIX .. row.name .. (row.gauge and "" or "_total")
      if name ~= before then
         lines[#lines + 1] = ("# HELP %s %s."):format(name, row.help)
         lines[#lines + 1] = ("# TYPE %s %s"):format(name, row.gauge and "gauge" or "counter")
         before = name
      end
      lines[#lines + 1] = ("%s%s %.0f"):format(name, labels(row), row.count)
   end
   lines[#lines + 1] = ""
   return table.concat(lines, "\n")
end

return stats
