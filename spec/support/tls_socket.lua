--- TLS for specs with the methods of `spec.Socket`: OpenSSL over memory, on the spec's own socket. The
--- end of a stream counts as one only behind close_notify; else it is "truncated". An alert is told by
--- its name: "tlsv1 unrecognized name".
---
---     local client = tls_socket.connect(running.address, { name = "a.example" })
---     client:exchange "GET / HTTP/1.1\nHost: a.example"
---
---     local server = tls_socket.server { certificate = "a" }
---     local upstream = server:accept(origin:accept())
local certificates = require "spec.support.certificates"
local ffi = require "ffi"
local socket = require "spec.support.socket"
local sys = require "spec.support.sys"
local tasks = require "spec.support.tasks"

ffi.cdef [[
typedef struct spec_bio *spec_bio;
typedef struct spec_ssl *spec_ssl;
typedef struct spec_ssl_ctx *spec_ssl_ctx;
typedef struct spec_x509 *spec_x509;
typedef struct spec_pkey *spec_pkey;
typedef struct spec_session *spec_session;

const void *TLS_method(void);
spec_ssl_ctx SSL_CTX_new(const void *method);
void SSL_CTX_free(spec_ssl_ctx ctx);
long SSL_CTX_ctrl(spec_ssl_ctx ctx, int command, long number, void *pointer);
int SSL_CTX_set_cipher_list(spec_ssl_ctx ctx, const char *list);
int SSL_CTX_set_tlsext_max_fragment_length(spec_ssl_ctx ctx, unsigned char code);
int SSL_CTX_set_ciphersuites(spec_ssl_ctx ctx, const char *list);
void SSL_CTX_set_verify(spec_ssl_ctx ctx, int mode, void *callback);
void *SSL_CTX_get_cert_store(spec_ssl_ctx ctx);
int X509_STORE_add_cert(void *store, spec_x509 certificate);
int SSL_CTX_use_certificate(spec_ssl_ctx ctx, spec_x509 certificate);
int SSL_CTX_use_PrivateKey(spec_ssl_ctx ctx, spec_pkey key);

spec_ssl SSL_new(spec_ssl_ctx ctx);
void SSL_free(spec_ssl ssl);
void SSL_set_bio(spec_ssl ssl, spec_bio input, spec_bio output);
void SSL_set_connect_state(spec_ssl ssl);
void SSL_set_accept_state(spec_ssl ssl);
const char *SSL_get_servername(spec_ssl ssl, int kind);
int SSL_CTX_set_session_id_context(spec_ssl_ctx ctx, const char *id, unsigned length);
int SSL_set_alpn_protos(spec_ssl ssl, const char *names, unsigned length);
int SSL_set1_host(spec_ssl ssl, const char *name);
int SSL_set_session(spec_ssl ssl, spec_session session);
long SSL_ctrl(spec_ssl ssl, int command, long number, void *pointer);
int SSL_do_handshake(spec_ssl ssl);
int SSL_read(spec_ssl ssl, void *bytes, int count);
int SSL_write(spec_ssl ssl, const char *bytes, int count);
int SSL_shutdown(spec_ssl ssl);
int SSL_key_update(spec_ssl ssl, int kind);
int SSL_renegotiate(spec_ssl ssl);
int SSL_get_error(spec_ssl ssl, int result);
const char *SSL_get_version(spec_ssl ssl);
const void *SSL_get_current_cipher(spec_ssl ssl);
const char *SSL_CIPHER_standard_name(const void *cipher);
void SSL_get0_alpn_selected(spec_ssl ssl, const char **name, unsigned *length);
int SSL_session_reused(spec_ssl ssl);
spec_session SSL_get1_session(spec_ssl ssl);
void SSL_SESSION_free(spec_session session);
int SSL_SESSION_has_ticket(spec_session session);
spec_x509 SSL_get1_peer_certificate(spec_ssl ssl);

spec_bio BIO_new(const void *method);
const void *BIO_s_mem(void);
spec_bio BIO_new_mem_buf(const char *bytes, int count);
int BIO_read(spec_bio bio, void *bytes, int count);
int BIO_write(spec_bio bio, const char *bytes, int count);
int BIO_free(spec_bio bio);
spec_x509 PEM_read_bio_X509(spec_bio bio, void *into, void *callback, void *argument);
spec_pkey PEM_read_bio_PrivateKey(spec_bio bio, void *into, void *callback, void *argument);
void X509_free(spec_x509 certificate);
void EVP_PKEY_free(spec_pkey key);
void *X509_get_subject_name(spec_x509 certificate);
int X509_NAME_get_text_by_NID(void *name, int id, char *text, int size);
unsigned long ERR_get_error(void);
void ERR_clear_error(void);
const char *ERR_reason_error_string(unsigned long code);
]]

local ssl, crypto = ffi.load "libssl.so.3", ffi.load "libcrypto.so.3"

-- What OpenSSL's macros name.
local SET_MIN_VERSION, SET_MAX_VERSION, SET_GROUPS, SET_SIGNATURES = 123, 124, 92, 98
local SET_NAME, ASK_STATUS, GET_STATUS = 55, 65, 70
local VERIFY_PEER, WANT_READ, ZERO_RETURN = 1, 2, 6
local COMMON_NAME = 13
local VERSIONS = { ["1.0"] = 0x301, ["1.1"] = 0x302, ["1.2"] = 0x303, ["1.3"] = 0x304 }

local FRAGMENTS = { [512] = 1, [1024] = 2, [2048] = 3, [4096] = 4 }

local BYTES = 65536
local bytes = ffi.new("char[?]", BYTES)

---@class spec.TlsSocket: spec.Socket
---@field records integer[] lengths of the records with data or, in TLS 1.3, anything encrypted
local TlsSocket = setmetatable({}, { __index = socket.Socket })
TlsSocket.__index = TlsSocket

-- contexts ----------------------------------------------------------------------------------------

local function with_pem(text, read, free, use)
   local bio = crypto.BIO_new_mem_buf(text, #text)
   local object = read(bio, nil, nil, nil)
   crypto.BIO_free(bio)
   assert(object ~= nil, "the PEM text cannot be read")
   use(object)
   free(object)
end

local function text_option(command, call, object, text)
   if text then
      assert(call(object, command, 0, ffi.cast("char *", text)) == 1, text)
   end
end

local function set_certificate(context, name)
   with_pem(certificates.text(name .. ".pem"), crypto.PEM_read_bio_X509, crypto.X509_free, function(it)
      assert(ssl.SSL_CTX_use_certificate(context, it) == 1)
   end)
   with_pem(certificates.text(name .. ".key"), crypto.PEM_read_bio_PrivateKey, crypto.EVP_PKEY_free,
      function(it)
         assert(ssl.SSL_CTX_use_PrivateKey(context, it) == 1)
      end)
end

local function new_context(options)
   local context = ssl.SSL_CTX_new(ssl.TLS_method())
   ssl.SSL_CTX_ctrl(context, SET_MIN_VERSION, VERSIONS[options.min or "1.2"], nil)
   ssl.SSL_CTX_ctrl(context, SET_MAX_VERSION, VERSIONS[options.max or "1.3"], nil)
   if options.ciphers then
      assert(ssl.SSL_CTX_set_cipher_list(context, options.ciphers) == 1)
   end
   if options.suites then
      assert(ssl.SSL_CTX_set_ciphersuites(context, options.suites) == 1)
   end
   if options.fragments then
      assert(ssl.SSL_CTX_set_tlsext_max_fragment_length(context, FRAGMENTS[options.fragments]) == 1)
   end
   text_option(SET_GROUPS, ssl.SSL_CTX_ctrl, context, options.groups)
   text_option(SET_SIGNATURES, ssl.SSL_CTX_ctrl, context, options.signatures)
   with_pem(certificates.text "ca.pem", crypto.PEM_read_bio_X509, crypto.X509_free, function(it)
      crypto.X509_STORE_add_cert(ssl.SSL_CTX_get_cert_store(context), it)
   end)
   if options.verify then
      ssl.SSL_CTX_set_verify(context, VERIFY_PEER, nil)
   end
   if options.certificate then
      set_certificate(context, options.certificate)
   end
   return context
end

local function new_session(connected, context)
   local self = setmetatable(connected, TlsSocket)
   self.unparsed, self.records = "", {}
   self.ssl = ssl.SSL_new(context)
   self.input, self.output = crypto.BIO_new(crypto.BIO_s_mem()), crypto.BIO_new(crypto.BIO_s_mem())
   ssl.SSL_set_bio(self.ssl, self.input, self.output)
   return self
end

local function set_client(self, options)
   ssl.SSL_set_connect_state(self.ssl)
   local name = options.name == nil and "a.example" or options.name
   if name then
      text_option(SET_NAME, ssl.SSL_ctrl, self.ssl, name)
      ssl.SSL_set1_host(self.ssl, name)
   end
   local alpn = {}
   for i, one in ipairs(options.alpn or { "http/1.1" }) do
      alpn[i] = string.char(#one) .. one
   end
   alpn = table.concat(alpn)
   ssl.SSL_set_alpn_protos(self.ssl, alpn, #alpn)
   if options.session then
      assert(ssl.SSL_set_session(self.ssl, options.session) == 1)
   end
   if options.status then
      ssl.SSL_ctrl(self.ssl, ASK_STATUS, 1, nil)
   end
end

-- bytes -------------------------------------------------------------------------------------------

--- Remembers the lengths of records that come.
local function note_records(self, received)
   self.unparsed = self.unparsed .. received
   while #self.unparsed >= 5 do
      local kind, high, low = self.unparsed:byte(1), self.unparsed:byte(4, 5)
      local length = high * 256 + low
      if #self.unparsed < 5 + length then
         return
      end
      if kind == 23 then
         self.records[#self.records + 1] = length
      end
      self.unparsed = self.unparsed:sub(6 + length)
   end
end

--- Sends what OpenSSL has put out; one task at a time does so, for all.
local function flush(self, seconds)
   while not self.flushing do
      local count = crypto.BIO_read(self.output, bytes, BYTES)
      if count <= 0 then
         return true
      end
      self.flushing = true
      local ok, why, offset = socket.Socket.try_send(self, ffi.string(bytes, count), seconds)
      self.flushing = false
      if not ok then
         return nil, why, offset
      end
   end
   return true
end

--- Receives some of the network's bytes. Nil and why it cannot.
local function receive(self, seconds, max)
   while true do
      local received, err, code = sys.recv(self.fd, max)
      if received == "" then
         return nil, "truncated"
      elseif received then
         note_records(self, received)
         crypto.BIO_write(self.input, received, #received)
         return true
      elseif code == sys.ECONNRESET then
         return nil, "reset"
      elseif code ~= sys.EAGAIN then
         return nil, err
      elseif not tasks.wait(self.fd, "read", seconds) then
         return nil, "timeout"
      elseif not self.fd then
         return nil, "closed"
      end
   end
end

local function reason()
   local code, text = crypto.ERR_get_error(), "unknown"
   while code ~= 0 do
      local why = crypto.ERR_reason_error_string(code)
      text = why ~= nil and ffi.string(why) or text
      code = crypto.ERR_get_error()
   end
   return (text:gsub("alert ", ""))
end

--- Calls a function of OpenSSL until it gives something. Nil and why not; "closed": close_notify.
local function drive(self, seconds, max, call, ...)
   while true do
      crypto.ERR_clear_error()
      local result = call(self.ssl, ...)
      local code = result > 0 and 0 or ssl.SSL_get_error(self.ssl, result)
      local why = code ~= 0 and code ~= WANT_READ and code ~= ZERO_RETURN and reason()
      flush(self, seconds)
      if result > 0 then
         return result
      elseif code == ZERO_RETURN then
         return nil, "closed"
      elseif code ~= WANT_READ then
         return nil, why
      end
      local ok
      ok, why = receive(self, seconds, max)
      if not ok then
         return nil, why
      end
   end
end

-- as spec.Socket ----------------------------------------------------------------------------------

function TlsSocket:try_send(text, seconds)
   for offset = 1, #text, BYTES do
      local piece = text:sub(offset, offset + BYTES - 1)
      assert(ssl.SSL_write(self.ssl, piece, #piece) == #piece, "SSL_write failed")
      local ok, why = flush(self, seconds)
      if not ok then
         return nil, why, offset
      end
   end
   return true
end

--- As of a socket; what ends it is false: close_notify; or nil and "truncated", "reset", "timeout" or an
--- alert's name.
function TlsSocket:try_fill(seconds, max)
   if self.ended then
      return false
   end
   local count, why = drive(self, seconds, max, ssl.SSL_read, bytes, BYTES)
   if count then
      self.buffer = self.buffer .. ffi.string(bytes, count)
      return true
   end
   self.ended = why ~= "timeout"
   if why == "closed" then
      return false
   end
   return nil, why
end

--- Ends the sending side: close_notify, then FIN.
function TlsSocket:half_close()
   ssl.SSL_shutdown(self.ssl)
   flush(self)
   return socket.Socket.half_close(self)
end

--- Sends bytes as they are, past TLS.
function TlsSocket:send_raw(text)
   assert(socket.Socket.try_send(self, text))
   return self
end

--- Ends it without close_notify.
function TlsSocket:truncate()
   return socket.Socket.half_close(self)
end

local function free(self)
   if self.ssl then
      ssl.SSL_free(self.ssl)
      self.ssl = nil
   end
end

function TlsSocket:close()
   if self.ssl then
      ssl.SSL_shutdown(self.ssl)
      flush(self)
      free(self)
   end
   socket.Socket.close(self)
end

function TlsSocket:reset()
   free(self)
   socket.Socket.reset(self)
end

--- Asks for new keys of both directions with the next bytes (TLS 1.3).
function TlsSocket:update_keys()
   assert(ssl.SSL_key_update(self.ssl, 1) == 1)
end

--- Asks for a new handshake (TLS 1.2).
function TlsSocket:renegotiate()
   assert(ssl.SSL_renegotiate(self.ssl) == 1)
   ssl.SSL_do_handshake(self.ssl)
   flush(self)
end

-- what was agreed on ------------------------------------------------------------------------------

local function common_name(certificate)
   if certificate == nil then
      return nil
   end
   assert(crypto.X509_NAME_get_text_by_NID(crypto.X509_get_subject_name(certificate), COMMON_NAME, bytes,
      BYTES) > 0)
   crypto.X509_free(certificate)
   return ffi.string(bytes)
end

--- Version, cipher (as IANA calls it), ALPN, whether it was resumed, the name that the client asked for,
--- the common name of the peer's certificate and its OCSP response (with `status`).
function TlsSocket:agreed()
   local name, length = ffi.new "const char *[1]", ffi.new "unsigned[1]"
   ssl.SSL_get0_alpn_selected(self.ssl, name, length)
   local server_name = ssl.SSL_get_servername(self.ssl, 0)
   local status = ffi.new "char *[1]"
   local status_length = tonumber(ssl.SSL_ctrl(self.ssl, GET_STATUS, 0, status))
   return {
      version = ffi.string(ssl.SSL_get_version(self.ssl)),
      cipher = ffi.string(ssl.SSL_CIPHER_standard_name(ssl.SSL_get_current_cipher(self.ssl))),
      alpn = length[0] > 0 and ffi.string(name[0], length[0]) or nil,
      resumed = ssl.SSL_session_reused(self.ssl) == 1,
      name = server_name ~= nil and ffi.string(server_name) or nil,
      certificate = common_name(ssl.SSL_get1_peer_certificate(self.ssl)),
      status = status_length > 0 and ffi.string(status[0], status_length) or nil,
   }
end

--- What the next connection may resume, once the server has sent something; nil without a ticket.
function TlsSocket:session()
   local session = ffi.gc(ssl.SSL_get1_session(self.ssl), ssl.SSL_SESSION_free)
   return ssl.SSL_SESSION_has_ticket(session) == 1 and session or nil
end

local tls_socket = {}

local function handshake(self, seconds)
   if self.buffer ~= "" then -- it came together with what was read before
      note_records(self, self.buffer)
      crypto.BIO_write(self.input, self.buffer, #self.buffer)
      self.buffer = ""
   end
   local ok, why = drive(self, seconds, nil, ssl.SSL_do_handshake)
   if not ok then
      self:close()
      return nil, why
   end
   return self
end

--- Handshakes on a connected socket, which it takes over. Nil and why not.
---@param options { name: string|false|nil, alpn: string[]|nil, min: string|nil, max: string|nil,
---  ciphers: string|nil, suites: string|nil, groups: string|nil, signatures: string|nil,
---  certificate: string|nil, session: any, status: boolean|nil, verify: boolean|nil,
---  fragments: integer|nil, seconds: number|nil }|nil
---  `name` is sent and verified (default: "a.example"), `certificate` shown ("client" for client.pem),
---  `fragments` the longest record that it takes
function tls_socket.try_handshake(connected, options)
   options = options or {}
   options.verify = options.verify == nil or options.verify
   local context = new_context(options)
   local self = new_session(connected, context)
   ssl.SSL_CTX_free(context) -- the session holds it
   set_client(self, options)
   return handshake(self, options.seconds)
end

function tls_socket.try_connect(address, options)
   return tls_socket.try_handshake(socket.connect(address, options), options)
end

---@return spec.TlsSocket
function tls_socket.connect(address, options)
   local self, why = tls_socket.try_connect(address, options)
   if not self then
      error("the handshake failed: " .. why, 2)
   end
   return self
end

---@class spec.TlsServer
local Server = {}
Server.__index = Server

--- Handshakes on an accepted socket, which it takes over. Nil and why not.
function Server:try_accept(accepted, seconds)
   local server_side = new_session(accepted, self.context)
   ssl.SSL_set_accept_state(server_side.ssl)
   return handshake(server_side, seconds)
end

---@return spec.TlsSocket
function Server:accept(accepted)
   local server_side, why = self:try_accept(accepted)
   if not server_side then
      error("the handshake failed: " .. why, 2)
   end
   return server_side
end

--- What accepts connections of clients.
---@param options { certificate: string, verify: boolean|nil, min: string|nil, max: string|nil }
---  `certificate`: "a" for a.pem; `verify`: ask for the client's
---@return spec.TlsServer
function tls_socket.server(options)
   local context = ffi.gc(new_context(options), ssl.SSL_CTX_free)
   ssl.SSL_CTX_set_session_id_context(context, "spec", 4)
   return setmetatable({ context = context }, Server)
end

return tls_socket
