/*
 * TLS as bytes in, bytes out: a session is fed what came from the peer and gives out what must go
 * to it. Two libraries stand behind one interface and nobody in front of it can tell which. Pure:
 * knows no sockets, never suspends.
 *
 *   tls_accept ──▶ handshaking ──tls_handshake = 0──▶ open ──tls_read = 0──▶ the peer has closed
 *   tls_connect       │    ▲ │
 *                     │    │ └── -EPROTO ──▶ failed (tls_error; an alert is in the output)
 *                TLS_HELLO │
 *                     ▼    │
 *                tls_answer_hello
 *
 * Input: the caller points session->input at received bytes before a call; what is left in it after
 * the call was not consumed. Output: session->output gathers records, whatever a call returned;
 * whoever sends them sets output.len to 0 or calls tls_output_release.
 */
#ifndef TLS_TLS_H
#define TLS_TLS_H

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum tls_library { TLS_OPENSSL, TLS_GNUTLS, TLS_LIBRARY_COUNT };

enum {
    TLS_NAME_MAX_BYTES = 256,
    TLS_ERROR_MAX_BYTES = 256,
    TLS_ALPN_MAX_BYTES = 32, /* of one protocol's name, with its NUL */
    TLS_RECORD_MAX_BYTES = 16384,
    TLS_TICKET_SECRET_BYTES = 64,
    TLS_HELLO = 1, /* of tls_handshake */
};

enum tls_version { TLS_1_2 = 12, TLS_1_3 = 13 };

/* Ciphers for both versions (with ECDHE in TLS 1.2; there is nothing weaker to choose). */
enum tls_cipher { TLS_AES128_GCM, TLS_AES256_GCM, TLS_CHACHA20_POLY1305, TLS_CIPHER_COUNT };
enum tls_group { TLS_X25519, TLS_SECP256R1, TLS_SECP384R1, TLS_SECP521R1, TLS_GROUP_COUNT };

/* What both sides may choose; a list of no length stands for the default: all, in that order. */
struct tls_policy {
    enum tls_version version_min;              /* 0: TLS_1_2 */
    enum tls_version version_max;              /* 0: TLS_1_3 */
    enum tls_cipher ciphers[TLS_CIPHER_COUNT]; /* most wanted first */
    unsigned cipher_count;
    enum tls_group groups[TLS_GROUP_COUNT];
    unsigned group_count;
    const char *const *alpn; /* most wanted first, NULL-terminated; NULL: none; borrowed */
};

/* --- Certificates ----------------------------------------------------------------------------- */

struct tls_certificate_config {
    struct slice chain;       /* PEM, the leaf first */
    struct slice key;         /* PEM */
    struct slice ocsp;        /* a response to staple, DER; empty: none */
    const char *const *names; /* that it serves, wildcards allowed, NULL-terminated; NULL: those in
                                 it: the DNS names of subjectAltName, else the common name */
};

/* A chain with its key, loaded by one of the libraries; counted references. */
struct tls_certificate;

/* Loads it; key and leaf must belong together. NULL with *error (malloc'ed; NULL if even that
 * failed). */
struct tls_certificate *tls_certificate_load(enum tls_library library,
                                             const struct tls_certificate_config *config,
                                             char **error);
void tls_certificate_retain(struct tls_certificate *certificate);
void tls_certificate_release(struct tls_certificate *certificate);

/* When its validity ends, in seconds since 1970. One that is over still loads: that says little of
 * what clients will take it for. */
int64_t tls_certificate_end_s(const struct tls_certificate *certificate);

/* --- Contexts --------------------------------------------------------------------------------- */

/* Does the server ask for the client's certificate? */
enum tls_client_auth { TLS_CLIENT_NONE, TLS_CLIENT_OPTIONAL, TLS_CLIENT_REQUIRED };

struct tls_server_config {
    struct tls_policy policy;
    struct tls_certificate *const *certificates; /* all of the server's library; the first is the
                                                    default. Of one name there may be several, with
                                                    keys of different kinds: ECDSA is preferred. */
    unsigned certificate_count;                  /* may be 0 with asks_hello */
    bool strict_sni; /* refuse names that no certificate has, and clients that send none */
    bool asks_hello; /* stop with TLS_HELLO when the client's hello has come */
    enum tls_client_auth client_auth;
    struct slice client_authorities; /* PEM; for client_auth */
    /* Tickets are encrypted under keys that both libraries derive from this secret and the time, so
     * that whoever has it (all workers) can resume them. NULL: no tickets. */
    const uint8_t *ticket_secret; /* TLS_TICKET_SECRET_BYTES */
};

struct tls_client_config {
    struct tls_policy policy;
    bool insecure;                       /* verify nothing */
    struct slice authorities;            /* PEM; empty: those of the system */
    struct tls_certificate *certificate; /* for servers that ask for one; NULL: none */
};

struct tls_server;
struct tls_client;

/* Contexts: configs are copied, certificates retained; both are counted, and sessions hold theirs.
 * NULL with *error (malloc'ed) on failure. */
struct tls_server *tls_server_create(enum tls_library library,
                                     const struct tls_server_config *config, char **error);
struct tls_client *tls_client_create(enum tls_library library,
                                     const struct tls_client_config *config, char **error);
void tls_client_retain(struct tls_client *client);
void tls_server_release(struct tls_server *server);
void tls_client_release(struct tls_client *client);

/* --- Sessions --------------------------------------------------------------------------------- */

/* Records that are to be sent. */
struct tls_output {
    char *bytes; /* malloc'ed; NULL when nothing is kept */
    size_t len;
    size_t capacity;
    bool failed; /* memory was exhausted: the session is lost */
};

/* What a client said first; valid from TLS_HELLO to tls_answer_hello. */
struct tls_hello {
    char name[TLS_NAME_MAX_BYTES]; /* SNI, in lower case; "" if none was sent */
    struct slice alpn;             /* as on the wire: a length byte before each name */
};

/* May that be the name of a server in a hello? Of printable ASCII (RFC 6066 section 3), and of
 * nothing that means something in a path or a log's line: names get to both. */
bool tls_name_valid(const char *name, size_t len);

/* Without the dot that makes a name absolute, which is none of it in TLS (RFC 6066 section 3). */
struct slice tls_name_bare(struct slice name);

/* What a client remembers of a server, so that its next session is resumed. Zeroed at first; freed
 * with tls_memory_free. Must outlive the sessions that were given it. */
struct tls_memory {
    uint8_t *bytes; /* the library's serialized session; malloc'ed */
    size_t len;
    enum tls_library library;
};

struct tls_session {
    const struct tls_backend *backend;
    struct tls_server *server; /* one of both; retained */
    struct tls_client *client;
    void *library;      /* the library's session; owned */
    struct slice input; /* received and not consumed yet */
    struct tls_output output;
    struct tls_hello *hello;        /* while it is asked for; owned */
    struct tls_certificate *answer; /* to the hello, or NULL: as configured; retained */
    bool answered;
    bool refused;              /* the answer: this name is not served */
    struct tls_memory *memory; /* of a client; borrowed, or NULL */
    char *error;               /* see tls_error; owned, unless tls.c says otherwise */
};

/* Why it failed, a sentence without full stop; empty as long as it has not. */
const char *tls_error(const struct tls_session *session);

/* Begins a session of a server. Returns 0 or -ENOMEM; tls_end is needed only after 0. */
int tls_accept(struct tls_session *session, struct tls_server *server);

/* Begins a session of a client. The name is for SNI and verification: a host name, or the text of
 * an address, which is verified but never sent (RFC 6066, 3). `memory` may be NULL. */
int tls_connect(struct tls_session *session, struct tls_client *client, const char *name,
                struct tls_memory *memory);

/* Goes on with the handshake. 0: done; -EAGAIN: more input is needed; TLS_HELLO: tls_answer_hello
 * is awaited; -EPROTO: failed; -ENOMEM. Send the output in any case. */
int tls_handshake(struct tls_session *session);

/* Answers a TLS_HELLO: with this certificate (of the same library), NULL: with the server's own; or
 * refuses the name, with the alert unrecognized_name. Then tls_handshake goes on. */
void tls_answer_hello(struct tls_session *session, struct tls_certificate *certificate);
void tls_refuse_hello(struct tls_session *session);

/* Decrypts into a buffer. Returns the number of bytes, 0 when the peer has closed its side in order
 * (close_notify), -EAGAIN: more input is needed; -EPROTO; -ENOMEM. An end of the input without the
 * 0 before it is a truncation. May put something into the output (alerts, key updates). */
ssize_t tls_read(struct tls_session *session, void *bytes, size_t size);

/* Encrypts all of it into the output, in records of at most `record` bytes (1 to
 * TLS_RECORD_MAX_BYTES). Returns 0, -EPROTO or -ENOMEM. */
int tls_write(struct tls_session *session, const void *bytes, size_t size, size_t record);

/* Says in the output that nothing more will be written (close_notify). */
void tls_close(struct tls_session *session);

/* The peer's certificate, verified against the authorities. Texts are malloc'ed, "" if missing. */
struct tls_peer {
    char *subject; /* distinguished name, RFC 4514: "CN=alice,O=Example" */
    char *issuer;
    char *serial;      /* lower-case hexadecimal */
    char *fingerprint; /* SHA-256 of the certificate, lower-case hexadecimal */
    char *names; /* of subjectAltName: "DNS:a.example, URI:spiffe://b, email:c@d, IP:127.0.0.1" */
};

/* Of a finished handshake. */
struct tls_info {
    const char *version;           /* "TLSv1.2", "TLSv1.3" */
    char cipher[64];               /* the name that IANA registered: "TLS_AES_128_GCM_SHA256" */
    char name[TLS_NAME_MAX_BYTES]; /* SNI, in lower case; "" if the client sent none */
    char alpn[TLS_ALPN_MAX_BYTES]; /* "" if none was agreed on */
    bool resumed;
    bool has_peer; /* the peer has shown a certificate, and it was verified (if not insecure) */
};

void tls_describe(const struct tls_session *session, struct tls_info *info);

/* Returns 0, -ENOENT without a peer's certificate, or -ENOMEM. */
int tls_describe_peer(const struct tls_session *session, struct tls_peer *peer);
void tls_peer_free(struct tls_peer *peer);

/* Frees all of a session. */
void tls_end(struct tls_session *session);

/* Gives the output's memory back, whatever is in it. */
void tls_output_release(struct tls_output *output);

void tls_memory_free(struct tls_memory *memory);

/* "openssl" or "gnutls"; -1 for names that are neither. */
const char *tls_library_name(enum tls_library library);
int tls_library_find(const char *name);

/* Of what is linked: "3.0.15". */
const char *tls_library_version(enum tls_library library);

/* Lets OpenSSL keep what it frees for its next use (base/blocks.h); only as the first call to it in
 * a process, else nothing changes. */
void tls_keep_memory(void);

/* What contexts use that do not say it: OpenSSL, unless set when the program starts. */
enum tls_library tls_default_library(void);
void tls_set_default_library(enum tls_library library);

/* The secret of this program's tickets, TLS_TICKET_SECRET_BYTES: random, made at the first call;
 * processes that were forked after that share it. */
const uint8_t *tls_ticket_secret(void);

/* Takes the secret of another program, whose tickets are good here, too. Before the first call of
 * the above. */
void tls_set_ticket_secret(const uint8_t secret[TLS_TICKET_SECRET_BYTES]);

/* "aes128-gcm", "x25519" and so on; -1 for names that are none of these. */
int tls_cipher_find(const char *name);
int tls_group_find(const char *name);

#endif
