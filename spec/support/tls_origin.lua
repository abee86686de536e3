--- TLS servers that are not ours: openssl s_server, which answers requests of HTTP/1 with a page about
--- the handshake.
local certificates = require "spec.support.certificates"
local process = require "spec.support.process"
local tasks = require "spec.support.tasks"

local tls_origin = {}

---@class spec.TlsOrigin
---@field address string
local TlsOrigin = {}
TlsOrigin.__index = TlsOrigin

--- Starts one with a certificate of spec.support.certificates, such as "a".
---@param name string
---@return spec.TlsOrigin
function tls_origin.start(name)
   local directory = process.directory()
   for _, suffix in ipairs { ".pem", ".key" } do
      process.write_file(directory .. "/" .. name .. suffix, certificates.text(name .. suffix))
   end
   local self = setmetatable({}, TlsOrigin)
   self.process = process.start({ "openssl", "s_server", "-accept", "127.0.0.1:0", "-www",
      "-cert", ("%s/%s.pem"):format(directory, name),
      "-key", ("%s/%s.key"):format(directory, name) }, directory)
   tasks.run(function()
      self.address = tasks.eventually("openssl s_server to listen", function()
         return self.process:stdout():match "ACCEPT (127.0.0.1:%d+)"
      end)
   end)
   return self
end

function TlsOrigin:stop()
   tasks.run(function()
      self.process:stop()
   end)
end

return tls_origin
