--- Certificates for specs, made anew by each run with the openssl command: texts by file name, to be
--- written beside a site (`files = certificates.all()`) or given to `tls_socket`.
---
--- Of the authority ca.pem: a (ECDSA) and rsa (RSA) for a.example and www.a.example, wild for
--- *.w.example, b for b.example, renewed for a.example with another key, expired for a.example;
--- client for clients. Each has a .pem and a .key, and its name as the common name. Then a.ocsp, a
--- response about a; encrypted.key, a.key behind a passphrase; and of other.pem, another authority,
--- stranger, a client.
local process = require "spec.support.process"

local SCRIPT = [==[
cd "$1"
exec 2>openssl.log
printf '[req]\ndistinguished_name=dn\n[dn]\n' >req.cnf
EC='ec -pkeyopt ec_paramgen_curve:P-256'

# request NAME KEY ARGUMENTS...
request() {
   name=$1 key=$2
   shift 2
   openssl req -config req.cnf -newkey $key -nodes -keyout $name.key -out $name.pem -days 10 "$@"
}
# authority NAME SUBJECT
authority() {
   request $1 "$EC" -x509 -subj "$2" -addext basicConstraints=critical,CA:true -addext keyUsage=keyCertSign
}
# leaf NAME KEY AUTHORITY NAMES
leaf() {
   request $1 "$2" -x509 -CA $3.pem -CAkey $3.key -subj "/CN=$1" -addext "subjectAltName=$4" \
      -addext basicConstraints=critical,CA:false
}

authority ca /CN=Spec-CA
authority other /CN=Other-CA
leaf a "$EC" ca DNS:a.example,DNS:www.a.example
leaf rsa rsa:2048 ca DNS:a.example,DNS:www.a.example
leaf wild "$EC" ca 'DNS:*.w.example'
leaf b "$EC" ca DNS:b.example
leaf renewed "$EC" ca DNS:a.example
leaf client "$EC" ca email:client@example,URI:spiffe://client
leaf stranger "$EC" other DNS:stranger

request expired "$EC" -subj /CN=expired
mv expired.pem expired.csr
printf '[ca]\ndefault_ca=own\n[own]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256
policy=any\n[any]\ncommonName=supplied\n[names]\nsubjectAltName=DNS:a.example\n' >ca.cnf
: >index
echo 1000 >serial
openssl ca -batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -in expired.csr -out expired.pem \
   -startdate 20200101000000Z -enddate 20200201000000Z -extensions names

serial=$(openssl x509 -in a.pem -noout -serial)
printf 'V\t400101000000Z\t\t%s\tunknown\t/CN=a\n' "${serial#serial=}" >index
openssl ocsp -index index -CA ca.pem -rsigner ca.pem -rkey ca.key -issuer ca.pem -cert a.pem \
   -ndays 5 -respout a.ocsp >responder.log

openssl pkcs8 -topk8 -in a.key -passout pass:secret -out encrypted.key
]==]

local NAMES = {
   "ca.pem", "other.pem", "a.pem", "a.key", "rsa.pem", "rsa.key", "wild.pem", "wild.key", "b.pem", "b.key",
   "renewed.pem", "renewed.key", "client.pem", "client.key", "stranger.pem", "stranger.key",
   "expired.pem", "expired.key", "encrypted.key", "a.ocsp",
}

local certificates = {}

local texts

local function make()
   local directory = process.directory()
   process.write_file(directory .. "/make.sh", SCRIPT)
   local failed = os.execute(("sh -e '%s/make.sh' '%s'"):format(directory, directory)) ~= 0
   if failed then
      error("making certificates failed: " .. process.read_file(directory .. "/openssl.log"))
   end
   texts = {}
   for _, name in ipairs(NAMES) do
      texts[name] = process.read_file(directory .. "/" .. name)
   end
end

--- All of them, by file name.
---@return table<string, string>
function certificates.all()
   if not texts then
      make()
   end
   return texts
end

--- The text of one.
---@param name string such as "a.pem"
function certificates.text(name)
   return assert(certificates.all()[name], name)
end

return certificates
