--- Checks what scripts say of TLS and makes contexts of it.
local bit = require "bit"
local core = require "monolake.core"
local check = require "monolake.internal.check"
local log = require "monolake.log"

local tls = {}

local LIBRARIES = { openssl = true, gnutls = true }
local CIPHERS = { ["aes128-gcm"] = true, ["aes256-gcm"] = true, ["chacha20-poly1305"] = true }
local GROUPS = { x25519 = true, secp256r1 = true, secp384r1 = true, secp521r1 = true }
local VERSIONS = { ["1.2"] = true, ["1.3"] = true }
local CLIENT_AUTH = { none = true, optional = true, required = true }
local ALPN_COUNT_MAX = 8  -- GnuTLS takes no more; so neither library does
local ALPN_BYTES_MAX = 31 -- of a name, as connections have room for (TLS_ALPN_MAX_BYTES)
local CERTIFICATE = { cert = "text", key = "text", ocsp = "text", names = "table" }
local POLICY = {
   library = LIBRARIES,
   min_version = VERSIONS,
   max_version = VERSIONS,
   ciphers = "table",
   groups = "table",
   alpn = "table",
}
local SERVER = {
   certificates = "table",
   strict_sni = "flag",
   client_auth = CLIENT_AUTH,
   client_ca = "text",
   tickets = "flag",
   on_client_hello = "function",
}
local CLIENT = { ca = "text", name = "text", cert = "text", key = "text", insecure = "flag" }
for name, kind in pairs(POLICY) do
   SERVER[name], CLIENT[name] = kind, kind
end
for name, kind in pairs(CERTIFICATE) do
   SERVER[name] = kind
end

--- A certificate with its key, for whichever library a listener uses.
---@class monolake.Certificate
local Certificate = {}

local function is_text(value)
   return value:find("-----BEGIN ", 1, true)
end

--- The text itself if it is PEM, else what is in the file of that name.
local function content(value, files)
   if value and not is_text(value) then
      return files.read(files.beside(value))
   end
   return value
end

--- The same where it may be a private key.
local function secret(value, files)
   if is_text(value) then
      return core.secret_text(value)
   end
   return files.secret(files.beside(value))
end

-- Keys are wiped when no library can ask for them any more.
local asking = {}  -- set of the libraries whose listeners pick certificates when clients come
local loading = {} -- certificates of the site that is being loaded, whose listeners are not all known

local function wipe_unless_needed(certificate)
   for library in pairs(asking) do
      if not certificate.loaded[library] then
         return
      end
   end
   core.secret_wipe(certificate.chain)
   core.secret_wipe(certificate.key)
   certificate.wiped = true
end

--- To be called when a site is loaded.
function tls.wipe_keys()
   for _, certificate in ipairs(loading) do
      certificate.loading = nil
      wipe_unless_needed(certificate)
   end
   loading = {}
end

-- Those that a certificate serves, in place of those that are in it.
local function check_hosts(what, hosts, level)
   for i = 1, hosts and #hosts or 0 do
      local host = hosts[i]
      local plain = type(host) == "string" and host:gsub("^%*%.", "") or ""
      if not plain:find "^[%w_-][%w_.-]*$" or plain:find("..", 1, true) then
         error(('%s: names: expected "a.example" or "*.example", not %s'):format(what,
            type(host) == "string" and ("%q"):format(host) or tostring(host)), level + 1)
      end
   end
   return hosts
end

--- @param options { cert: string, key: string, ocsp: string|nil, names: string[]|nil }
--- @param files { beside: fun(path: string): string, read: fun(path: string): string }
--- @param level integer whose line is blamed, as for error()
--- @return monolake.Certificate
function tls.certificate(options, files, what, level)
   local checked = check.options(what, options, CERTIFICATE, level + 1)
   if not checked.cert then
      error(what .. ": expected cert, a file with the certificate and those above it", level + 1)
   end
   local ok, result = pcall(function()
      local chain = secret(checked.cert, files)
      return {
         chain = chain,
         key = checked.key and secret(checked.key, files) or chain, -- one file may hold both
         ocsp = checked.ocsp and files.read(files.beside(checked.ocsp)),
      }
   end)
   if not ok then
      error(("%s: %s"):format(what, result), level + 1)
   end
   result.names = check_hosts(what, checked.names, level + 1)
   result.what = ("%s: %s"):format(what, is_text(checked.cert) and "its text" or checked.cert)
   result.loaded = {}
   result.loading = files.site() ~= nil
   if result.loading then
      loading[#loading + 1] = result
   end
   return setmetatable(result, Certificate)
end

-- The certificate as a library has it.
local function load(self, library)
   local loaded = self.loaded[library]
   if not loaded and self.wiped then
      error(("%s: its key is wiped, as no listener had %s: make it anew"):format(self.what, library), 0)
   elseif not loaded then
      local note
      loaded, note = core.certificate(library, self.chain, self.key, self.ocsp, self.names)
      if not loaded then
         error(("%s: %s"):format(self.what, note), 0)
      elseif note then
         log.warn("%s: the certificate has expired", self.what)
      end
      self.loaded[library] = loaded
      if not self.loading then
         wipe_unless_needed(self)
      end
   end
   return loaded
end

local function version(text)
   return text and (text == "1.2" and 12 or 13) or nil
end

-- Nil, or a list of some of the names that are allowed, most wanted first.
local function names_of(what, list, allowed, level)
   local seen = {}
   for i = 1, list and #list or 0 do
      check.value(what, list[i], allowed, level + 1)
      if seen[list[i]] then
         error(("%s: %q stands there twice"):format(what, list[i]), level + 1)
      end
      seen[list[i]] = true
   end
   if list and #list == 0 then
      error(what .. ": expected at least one", level + 1)
   end
   return list
end

--- What is agreed on by ALPN: decided by what the listener or upstream speaks, or where that may be
--- anything (layer 4: `alpn` is nil) by the option of that name.
local function alpn_of(checked, what, alpn, level)
   local list = checked.alpn
   if alpn and list then
      error(what .. ": alpn is for layer 4: HTTP and Thrift know what they speak", level + 1)
   end
   if list and #list > ALPN_COUNT_MAX then
      error(("%s: alpn: expected no more than %d protocols, not %d"):format(what, ALPN_COUNT_MAX, #list),
         level + 1)
   end
   for i = 1, list and #list or 0 do
      if type(list[i]) ~= "string" or list[i] == "" or list[i]:find("\0", 1, true) then
         error(what .. ': alpn: expected names of protocols, e.g. { "mqtt" }', level + 1)
      elseif #list[i] > ALPN_BYTES_MAX then
         error(("%s: alpn: expected names of 1 to %d bytes, not %q"):format(what, ALPN_BYTES_MAX, list[i]),
            level + 1)
      end
   end
   return alpn or list or {}
end

local function policy(checked, what, alpn, level)
   local min, max = version(checked.min_version), version(checked.max_version)
   if min and max and min > max then
      error(what .. ": min_version is above max_version", level + 1)
   end
   return {
      version_min = min,
      version_max = max,
      ciphers = names_of(what .. ": ciphers", checked.ciphers, CIPHERS, level + 1),
      groups = names_of(what .. ": groups", checked.groups, GROUPS, level + 1),
      alpn = alpn_of(checked, what, alpn, level + 1),
   }
end

local function certificates_of(checked, files, level)
   local list = {}
   for i, one in ipairs(checked.certificates or {}) do
      list[i] = getmetatable(one) == Certificate and one or
         tls.certificate(one, files, "listen: tls: certificates[" .. i .. "]", level + 1)
   end
   if checked.cert then
      local own = { cert = checked.cert, key = checked.key, ocsp = checked.ocsp, names = checked.names }
      table.insert(list, 1, (tls.certificate(own, files, "listen: tls", level + 1)))
   end
   if #list == 0 and not checked.on_client_hello then
      error("listen: tls: expected cert and key, certificates or on_client_hello", level + 1)
   end
   return list
end

local AUTH = { none = 0, optional = 1, required = 2 }

--- What a listener offers, by the protocols that it speaks; "h2" is preferred.
--- @param protocols integer|nil as check.lua made them
--- @return string[]
function tls.alpn(protocols)
   local names = {}
   for _, one in ipairs { { 2, "h2" }, { 1, "http/1.1" } } do
      if bit.band(protocols or 3, one[1]) ~= 0 then
         names[#names + 1] = one[2]
      end
   end
   return names
end

--- A function for C that gives the library's certificate, nil for the configured one, or false.
local function hello_function(fn, library)
   return function(hello)
      local answer = fn(hello)
      if getmetatable(answer) == Certificate then
         return load(answer, library)
      elseif answer == nil or answer == false then
         return answer
      end
      error("on_client_hello must return a certificate, nil or false, not a " .. type(answer), 0)
   end
end

--- The context of a listener, made when a site is loaded, and the function that picks certificates.
--- @param alpn string[]|nil what the listener speaks, most wanted first; nil: anything
function tls.server(options, files, alpn, level)
   local checked = check.options("listen: tls", options, SERVER, level + 1)
   local library = checked.library or core.tls_default_library()
   local config = policy(checked, "listen: tls", alpn, level + 1)
   local auth = checked.client_auth or (checked.client_ca and "required" or "none")
   if auth ~= "none" and not checked.client_ca then
      error("listen: tls: client_auth needs client_ca, a file with the authorities' certificates", level + 1)
   end
   config.certificates = {}
   local list = certificates_of(checked, files, level + 1)
   local ok, result, why = pcall(function()
      for i, one in ipairs(list) do
         config.certificates[i] = load(one, library)
      end
      config.client_ca = content(checked.client_ca, files)
      config.client_auth = AUTH[auth]
      config.strict_sni = checked.strict_sni
      config.tickets = checked.tickets ~= false
      config.asks_hello = checked.on_client_hello ~= nil
      return core.tls_server(library, config)
   end)
   if not ok or not result then
      error("listen: tls: " .. tostring(why or result):gsub("^listen: tls: ", ""), level + 1)
   end
   if checked.on_client_hello then
      asking[library] = true
      return result, hello_function(checked.on_client_hello, library)
   end
   return result
end

--- The context of an upstream, made when a site is loaded, and the name that its peers must prove.
function tls.client(options, files, alpn, level)
   local checked = check.options("upstream: tls", options, CLIENT, level + 1)
   local library = checked.library or core.tls_default_library()
   local config = policy(checked, "upstream: tls", alpn, level + 1)
   config.insecure = checked.insecure
   if checked.name == "" then
      error("upstream: tls: name: expected one, not an empty text", level + 1)
   end
   local own = checked.cert and
      tls.certificate({ cert = checked.cert, key = checked.key }, files, "upstream: tls", level + 1)
   local ok, ca = pcall(content, checked.ca, files)
   if not ok then
      error("upstream: tls: ca: " .. tostring(ca), level + 1)
   end
   config.ca = ca
   -- Connections and sessions are shared by all generations that want the very same of them.
   local key = {
      library, tostring(checked.insecure), checked.name or "", checked.min_version or "",
      checked.max_version or "", table.concat(checked.ciphers or {}, ","),
      table.concat(checked.groups or {}, ","), table.concat(config.alpn, ","),
      config.ca or core.tls_system_stamp(),
      own and core.secret_digest(own.chain) or "", own and core.secret_digest(own.key) or "",
   }
   return {
      --- The context, made while the site is built.
      open = function()
         config.certificate = own and load(own, library)
         local client, why = core.tls_client(library, config)
         return {
            client = client or error("upstream: tls: " .. why, 0),
            name = checked.name,
            key = table.concat(key, "\n"),
            insecure = checked.insecure or false,
         }
      end,
   }
end

return tls
