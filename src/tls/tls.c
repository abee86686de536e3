#include "tls/backend.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

static const struct tls_backend *const backends[TLS_LIBRARY_COUNT] = {
    [TLS_OPENSSL] = &tls_openssl,
    [TLS_GNUTLS] = &tls_gnutls,
};

const char *tls_library_name(enum tls_library library)
{
    return backends[library]->name;
}

static enum tls_library default_library = TLS_OPENSSL;

enum tls_library tls_default_library(void)
{
    return default_library;
}

void tls_set_default_library(enum tls_library library)
{
    default_library = library;
}

const char *tls_library_version(enum tls_library library)
{
    return backends[library]->version();
}

int tls_library_find(const char *name)
{
    for (int i = 0; i < TLS_LIBRARY_COUNT; i++)
        if (strcmp(backends[i]->name, name) == 0)
            return i;
    return -1;
}

static uint8_t ticket_secret[TLS_TICKET_SECRET_BYTES];
static bool ticket_secret_made;

const uint8_t *tls_ticket_secret(void)
{
    if (!ticket_secret_made &&
        getrandom(ticket_secret, sizeof(ticket_secret), 0) != sizeof(ticket_secret))
        abort(); /* the kernel gives up to 256 bytes whole */
    ticket_secret_made = true;
    return ticket_secret;
}

void tls_set_ticket_secret(const uint8_t secret[TLS_TICKET_SECRET_BYTES])
{
    memcpy(ticket_secret, secret, sizeof(ticket_secret));
    ticket_secret_made = true;
}

static int find_text(const char *const *texts, unsigned count, const char *wanted)
{
    for (unsigned i = 0; i < count; i++)
        if (strcmp(texts[i], wanted) == 0)
            return (int)i;
    return -1;
}

int tls_cipher_find(const char *name)
{
    static const char *const names[TLS_CIPHER_COUNT] = {
        [TLS_AES128_GCM] = "aes128-gcm",
        [TLS_AES256_GCM] = "aes256-gcm",
        [TLS_CHACHA20_POLY1305] = "chacha20-poly1305",
    };
    return find_text(names, TLS_CIPHER_COUNT, name);
}

int tls_group_find(const char *name)
{
    static const char *const names[TLS_GROUP_COUNT] = {
        [TLS_X25519] = "x25519",
        [TLS_SECP256R1] = "secp256r1",
        [TLS_SECP384R1] = "secp384r1",
        [TLS_SECP521R1] = "secp521r1",
    };
    return find_text(names, TLS_GROUP_COUNT, name);
}

/* --- Certificates ----------------------------------------------------------------------------- */

static void free_names(struct tls_names *names)
{
    for (unsigned i = 0; i < names->count; i++)
        free(names->names[i]);
    free(names->names);
    *names = (struct tls_names){0};
}

static int add_given_names(struct tls_names *names, const char *const *given, char **error)
{
    for (; *given; given++)
        if (tls_names_add(names, *given, strlen(*given)) != 0) {
            tls_explain(error, "out of memory");
            return -ENOMEM;
        }
    return 0;
}

struct tls_certificate *tls_certificate_load(enum tls_library library,
                                             const struct tls_certificate_config *config,
                                             char **error)
{
    struct tls_certificate *certificate = calloc(1, sizeof(*certificate));
    *error = NULL;
    if (!certificate) {
        tls_explain(error, "out of memory");
        return NULL;
    }
    certificate->backend = backends[library];
    certificate->users = 1;
    int result = config->names ? add_given_names(&certificate->names, config->names, error) : 0;
    if (result == 0)
        result = certificate->backend->certificate_load(certificate, config, error);
    if (result < 0) {
        free_names(&certificate->names);
        free(certificate);
        return NULL;
    }
    return certificate;
}

void tls_certificate_retain(struct tls_certificate *certificate)
{
    certificate->users++;
}

void tls_certificate_release(struct tls_certificate *certificate)
{
    if (--certificate->users)
        return;
    certificate->backend->certificate_free(certificate->loaded);
    free_names(&certificate->names);
    free(certificate);
}

int64_t tls_certificate_end_s(const struct tls_certificate *certificate)
{
    return certificate->end_s;
}

/* --- Policies --------------------------------------------------------------------------------- */

static void free_alpn(const char *const *alpn)
{
    for (unsigned i = 0; alpn && alpn[i]; i++)
        free((char *)alpn[i]);
    free((void *)alpn);
}

static int copy_alpn(struct tls_policy *policy)
{
    const char *const *given = policy->alpn;
    unsigned count = 0;
    if (!given)
        return 0;
    while (given[count])
        count++;
    const char **copy = calloc(count + 1, sizeof(*copy));
    policy->alpn = copy;
    if (!copy)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        assert(given[i][0] && strlen(given[i]) < TLS_ALPN_MAX_BYTES);
        copy[i] = strdup(given[i]);
        if (!copy[i])
            return -ENOMEM;
    }
    return 0;
}

/* Fills in the defaults. */
static int settle_policy(struct tls_policy *policy)
{
    if (!policy->version_min)
        policy->version_min = TLS_1_2;
    if (!policy->version_max)
        policy->version_max = TLS_1_3;
    for (unsigned i = 0; !policy->cipher_count && i < TLS_CIPHER_COUNT; i++)
        policy->ciphers[i] = (enum tls_cipher)i;
    if (!policy->cipher_count)
        policy->cipher_count = TLS_CIPHER_COUNT;
    for (unsigned i = 0; !policy->group_count && i < TLS_GROUP_COUNT; i++)
        policy->groups[i] = (enum tls_group)i;
    if (!policy->group_count)
        policy->group_count = TLS_GROUP_COUNT;
    return copy_alpn(policy);
}

/* --- Contexts --------------------------------------------------------------------------------- */

static void free_server(struct tls_server *server)
{
    for (unsigned i = 0; server->config.certificates && i < server->config.certificate_count; i++)
        tls_certificate_release(server->config.certificates[i]);
    free((void *)server->config.certificates);
    free_alpn(server->config.policy.alpn);
    free(server);
}

static int copy_certificates(struct tls_server_config *config)
{
    struct tls_certificate *const *given = config->certificates;
    struct tls_certificate **copy =
        calloc(config->certificate_count + 1, sizeof(struct tls_certificate *));
    config->certificates = copy;
    if (!copy)
        return -ENOMEM;
    for (unsigned i = 0; i < config->certificate_count; i++) {
        copy[i] = given[i];
        tls_certificate_retain(copy[i]);
    }
    return 0;
}

struct tls_server *tls_server_create(enum tls_library library,
                                     const struct tls_server_config *config, char **error)
{
    struct tls_server *server = calloc(1, sizeof(*server));
    *error = NULL;
    if (!server) {
        tls_explain(error, "out of memory");
        return NULL;
    }
    server->backend = backends[library];
    server->users = 1;
    server->config = *config;
    int result = copy_certificates(&server->config);
    int settled = settle_policy(&server->config.policy);
    if (result < 0 || settled < 0)
        tls_explain(error, "out of memory");
    else
        result = server->backend->server_create(server, error);
    if (result == 0 && settled == 0)
        return server;
    free_server(server);
    return NULL;
}

struct tls_client *tls_client_create(enum tls_library library,
                                     const struct tls_client_config *config, char **error)
{
    struct tls_client *client = calloc(1, sizeof(*client));
    *error = NULL;
    if (!client) {
        tls_explain(error, "out of memory");
        return NULL;
    }
    client->backend = backends[library];
    client->users = 1;
    client->config = *config;
    if (client->config.certificate)
        tls_certificate_retain(client->config.certificate);
    int result = settle_policy(&client->config.policy);
    if (result < 0)
        tls_explain(error, "out of memory");
    else
        result = client->backend->client_create(client, error);
    if (result == 0)
        return client;
    if (client->config.certificate)
        tls_certificate_release(client->config.certificate);
    free_alpn(client->config.policy.alpn);
    free(client);
    return NULL;
}

void tls_client_retain(struct tls_client *client)
{
    client->users++;
}

void tls_server_release(struct tls_server *server)
{
    if (--server->users)
        return;
    server->backend->server_destroy(server->context);
    free_server(server);
}

void tls_client_release(struct tls_client *client)
{
    if (--client->users)
        return;
    client->backend->client_destroy(client->context);
    if (client->config.certificate)
        tls_certificate_release(client->config.certificate);
    free_alpn(client->config.policy.alpn);
    free(client);
}

/* --- Sessions --------------------------------------------------------------------------------- */

int tls_accept(struct tls_session *session, struct tls_server *server)
{
    *session = (struct tls_session){.backend = server->backend, .server = server};
    int result = session->backend->accept(session);
    if (result == 0)
        server->users++;
    return result;
}

int tls_connect(struct tls_session *session, struct tls_client *client, const char *name,
                struct tls_memory *memory)
{
    *session = (struct tls_session){.backend = client->backend, .client = client, .memory = memory};
    char *copy = strndup(name, tls_name_bare(slice_from_cstr(name)).len);
    int result = copy ? session->backend->connect(session, copy) : -ENOMEM;
    free(copy);
    if (result == 0)
        client->users++;
    return result;
}

int tls_handshake(struct tls_session *session)
{
    int result = session->backend->handshake(session);
    return session->output.failed ? -ENOMEM : result;
}

static void forget_hello(struct tls_session *session)
{
    free(session->hello);
    session->hello = NULL;
}

void tls_answer_hello(struct tls_session *session, struct tls_certificate *certificate)
{
    assert(session->hello && !session->answered);
    assert(!certificate || certificate->backend == session->backend);
    if (certificate)
        tls_certificate_retain(certificate);
    session->answer = certificate;
    session->answered = true;
    forget_hello(session);
}

void tls_refuse_hello(struct tls_session *session)
{
    tls_answer_hello(session, NULL);
    session->refused = true;
}

ssize_t tls_read(struct tls_session *session, void *bytes, size_t size)
{
    ssize_t result = session->backend->read(session, bytes, size);
    return session->output.failed ? -ENOMEM : result;
}

int tls_write(struct tls_session *session, const void *bytes, size_t size, size_t record)
{
    assert(record > 0 && record <= TLS_RECORD_MAX_BYTES);
    int result = session->backend->write(session, bytes, size, record);
    return session->output.failed ? -ENOMEM : result;
}

void tls_close(struct tls_session *session)
{
    session->backend->close(session);
}

void tls_describe(const struct tls_session *session, struct tls_info *info)
{
    *info = (struct tls_info){.version = ""};
    session->backend->describe(session, info);
}

int tls_describe_peer(const struct tls_session *session, struct tls_peer *peer)
{
    *peer = (struct tls_peer){0};
    int result = session->backend->describe_peer(session, peer);
    if (result == 0 &&
        !(peer->subject && peer->issuer && peer->serial && peer->fingerprint && peer->names))
        result = -ENOMEM;
    if (result < 0)
        tls_peer_free(peer);
    return result;
}

void tls_peer_free(struct tls_peer *peer)
{
    free(peer->subject);
    free(peer->issuer);
    free(peer->serial);
    free(peer->fingerprint);
    free(peer->names);
    *peer = (struct tls_peer){0};
}

static char no_memory[] = "out of memory";

void tls_end(struct tls_session *session)
{
    if (session->error != no_memory)
        free(session->error);
    session->backend->end(session);
    forget_hello(session);
    if (session->answer)
        tls_certificate_release(session->answer);
    tls_output_release(&session->output);
    if (session->server)
        tls_server_release(session->server);
    if (session->client)
        tls_client_release(session->client);
    *session = (struct tls_session){0};
}

void tls_output_release(struct tls_output *output)
{
    free(output->bytes);
    output->bytes = NULL;
    output->len = output->capacity = 0;
}

void tls_memory_free(struct tls_memory *memory)
{
    free(memory->bytes);
    *memory = (struct tls_memory){0};
}

/* --- For the libraries ------------------------------------------------------------------------ */

size_t tls_take(struct tls_session *session, void *bytes, size_t size)
{
    size_t count = session->input.len < size ? session->input.len : size;
    if (!count)
        return 0;
    memcpy(bytes, session->input.ptr, count);
    session->input = slice_of(session->input.ptr + count, session->input.len - count);
    return count;
}

int tls_put(struct tls_session *session, const void *bytes, size_t size)
{
    enum { CAPACITY_MIN = 4096 };
    struct tls_output *output = &session->output;
    size_t needed = output->len + size;
    if (needed > output->capacity) {
        size_t capacity = needed < CAPACITY_MIN ? CAPACITY_MIN : needed + needed / 2;
        char *grown = realloc(output->bytes, capacity);
        if (!grown) {
            output->failed = true;
            return -ENOMEM;
        }
        output->bytes = grown;
        output->capacity = capacity;
    }
    memcpy(output->bytes + output->len, bytes, size);
    output->len = needed;
    return 0;
}

/* "*.example.com" covers one label in the place of the star (RFC 6125, 6.4.3). */
static bool covers(const char *pattern, const char *name)
{
    if (pattern[0] != '*' || pattern[1] != '.')
        return false;
    const char *dot = strchr(name, '.');
    return dot && dot != name && strcasecmp(pattern + 1, dot) == 0;
}

enum match { NO_MATCH, WILDCARD, EXACT };

static enum match match(const struct tls_names *names, const char *name)
{
    enum match best = NO_MATCH;
    for (unsigned i = 0; i < names->count; i++) {
        if (strcasecmp(names->names[i], name) == 0)
            return EXACT;
        if (covers(names->names[i], name))
            best = WILDCARD;
    }
    return best;
}

static bool same_names(const struct tls_names *a, const struct tls_names *b)
{
    for (unsigned i = 0; i < a->count; i++)
        if (match(b, a->names[i]) != EXACT)
            return false;
    return a->count == b->count;
}

/* The best certificate of each kind for a name: the first exact match, else the first wildcard. */
static bool choose(const struct tls_server_config *config, const char *name,
                   struct tls_certificate *chosen[TLS_KEY_KINDS])
{
    enum match found[TLS_KEY_KINDS] = {NO_MATCH};
    bool any = false;
    for (unsigned i = 0; i < config->certificate_count; i++) {
        struct tls_certificate *certificate = config->certificates[i];
        enum match how = match(&certificate->names, name);
        if (how <= found[certificate->kind])
            continue;
        found[certificate->kind] = how;
        chosen[certificate->kind] = certificate;
        any = true;
    }
    return any;
}

/* The first certificate, and those that serve the same names with other kinds of keys. */
static void choose_default(const struct tls_server_config *config,
                           struct tls_certificate *chosen[TLS_KEY_KINDS])
{
    for (unsigned i = 0; i < config->certificate_count; i++) {
        struct tls_certificate *certificate = config->certificates[i];
        if (!chosen[certificate->kind] &&
            (i == 0 || same_names(&config->certificates[0]->names, &certificate->names)))
            chosen[certificate->kind] = certificate;
    }
}

static int answer_by_config(struct tls_session *session, const char *name,
                            struct tls_certificate *chosen[TLS_KEY_KINDS])
{
    const struct tls_server_config *config = &session->server->config;
    if (name[0] && choose(config, name, chosen))
        return 0;
    if (config->strict_sni || !config->certificate_count) {
        tls_fail(session,
                 name[0] ? "no certificate serves the name \"%s\"" : "the client names no server%s",
                 name);
        return -ENOENT;
    }
    choose_default(config, chosen);
    return 0;
}

static int ask(struct tls_session *session, const char *name, struct slice alpn)
{
    if (session->hello)
        return -EAGAIN;
    struct tls_hello *hello = malloc(sizeof(*hello) + alpn.len);
    if (!hello)
        return -ENOMEM;
    memcpy(hello->name, name, sizeof(hello->name));
    char *copy = (char *)(hello + 1);
    if (alpn.len)
        memcpy(copy, alpn.ptr, alpn.len);
    hello->alpn = slice_of(copy, alpn.len);
    session->hello = hello;
    return -EAGAIN;
}

bool tls_name_valid(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] > '~' || name[i] == '/' || name[i] == '"')
            return false;
    return len < TLS_NAME_MAX_BYTES;
}

struct slice tls_name_bare(struct slice name)
{
    bool absolute = name.len && name.ptr[name.len - 1] == '.';
    return slice_of(name.ptr, name.len - (absolute ? 1 : 0));
}

int tls_hello_answer(struct tls_session *session, const char *name, size_t name_len,
                     struct slice alpn, struct tls_certificate *chosen[TLS_KEY_KINDS])
{
    char lower[TLS_NAME_MAX_BYTES] = "";
    memset(chosen, 0, TLS_KEY_KINDS * sizeof(chosen[0]));
    if (name && !tls_name_valid(name, name_len)) {
        tls_fail(session, "the client names a server with a name that is none");
        return -ENOENT;
    }
    for (size_t i = 0; name && i < name_len; i++)
        lower[i] = (char)tolower((unsigned char)name[i]);
    if (session->server->config.asks_hello && !session->answered)
        return ask(session, lower, alpn);
    if (session->refused) {
        tls_fail(session, "the site refused the name \"%s\"", lower);
        return -ENOENT;
    }
    if (!session->answer)
        return answer_by_config(session, lower, chosen);
    chosen[session->answer->kind] = session->answer;
    return 0;
}

int tls_names_add(struct tls_names *names, const char *name, size_t len)
{
    if (memchr(name, '\0', len))
        return 0;
    char **grown = realloc(names->names, (names->count + 1) * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    names->names = grown;
    names->names[names->count] = strndup(name, len);
    if (!names->names[names->count])
        return -ENOMEM;
    names->count++;
    return 0;
}

void tls_remember(struct tls_session *session, const void *bytes, size_t len)
{
    struct tls_memory *memory = session->memory;
    uint8_t *copy = memory ? malloc(len) : NULL;
    if (!copy)
        return; /* the next session will not be resumed: no harm */
    memcpy(copy, bytes, len);
    free(memory->bytes);
    memory->bytes = copy;
    memory->len = len;
    memory->library = session->backend == &tls_openssl ? TLS_OPENSSL : TLS_GNUTLS;
}

bool tls_remembers(const struct tls_session *session)
{
    return session->memory && session->memory->bytes &&
           backends[session->memory->library] == session->backend;
}

int tls_peer_add_name(struct tls_peer *peer, const char *kind, const char *name, size_t len)
{
    char *longer;
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] > '~' || name[i] == ',')
            return 0;
    const char *before = peer->names ? peer->names : "";
    if (asprintf(&longer, "%s%s%s:%.*s", before, before[0] ? ", " : "", kind, (int)len, name) < 0)
        return -ENOMEM;
    free(peer->names);
    peer->names = longer;
    return 0;
}

void tls_fail(struct tls_session *session, const char *format, ...)
{
    va_list args;
    if (session->error)
        return;
    session->error = malloc(TLS_ERROR_MAX_BYTES);
    if (!session->error) {
        session->error = no_memory;
        return;
    }
    va_start(args, format);
    vsnprintf(session->error, TLS_ERROR_MAX_BYTES, format, args);
    va_end(args);
}

const char *tls_error(const struct tls_session *session)
{
    return session->error ? session->error : "";
}

const char *tls_alert_text(unsigned alert)
{
    static const struct {
        unsigned alert;
        const char *text;
    } texts[] = {
        /* RFC 8446, 6 */
        {0, "close notify"},
        {10, "unexpected message"},
        {20, "bad record mac"},
        {22, "record overflow"},
        {40, "handshake failure"},
        {42, "bad certificate"},
        {43, "unsupported certificate"},
        {44, "certificate revoked"},
        {45, "certificate expired"},
        {46, "certificate unknown"},
        {47, "illegal parameter"},
        {48, "unknown CA"},
        {49, "access denied"},
        {50, "decode error"},
        {51, "decrypt error"},
        {70, "protocol version"},
        {71, "insufficient security"},
        {80, "internal error"},
        {86, "inappropriate fallback"},
        {90, "user canceled"},
        {100, "no renegotiation"},
        {109, "missing extension"},
        {110, "unsupported extension"},
        {112, "unrecognized name"},
        {113, "bad certificate status response"},
        {115, "unknown PSK identity"},
        {116, "certificate required"},
        {120, "no application protocol"},
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (texts[i].alert == alert)
            return texts[i].text;
    return "unknown";
}

void tls_explain(char **error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (vasprintf(error, format, args) < 0)
        *error = NULL;
    va_end(args);
}

bool tls_is_address(const char *name)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

char *tls_hex(const uint8_t *bytes, size_t len)
{
    char *text = malloc(2 * len + 1);
    if (!text)
        return NULL;
    for (size_t i = 0; i < len; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    text[2 * len] = '\0';
    return text;
}
