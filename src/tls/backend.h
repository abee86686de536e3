/*
 * What the file of a TLS library implements for tls.c, and what tls.c does for it. A backend turns
 * bytes of its library's records over, and knows nothing of names, defaults or reference counts.
 */
#ifndef TLS_BACKEND_H
#define TLS_BACKEND_H

#include "tls/tls.h"

/* Kinds of keys; ECDSA handshakes are cheaper, so the first kind that a client can verify is used.
 */
enum tls_key_kind { TLS_KEY_ECDSA, TLS_KEY_RSA, TLS_KEY_KINDS };

/* Names that a certificate serves. */
struct tls_names {
    char **names; /* owned, as is each */
    unsigned count;
};

struct tls_certificate {
    const struct tls_backend *backend;
    void *loaded; /* the library's */
    struct tls_names names;
    enum tls_key_kind kind;
    int64_t end_s; /* of its validity, since 1970 */
    unsigned users;
};

struct tls_server {
    const struct tls_backend *backend;
    struct tls_server_config config; /* with certificates of its own array; alpn is copied */
    void *context;                   /* the library's */
    unsigned users;
};

struct tls_client {
    const struct tls_backend *backend;
    struct tls_client_config config;
    void *context;
    unsigned users;
};

struct tls_backend {
    const char *name;
    const char *(*version)(void);
    /* Fills loaded, kind and end_s and, unless config->names is given, names (with tls_names_add).
     * Returns 0 or a negative errno with *error; then nothing is left loaded, but names may be
     * filled. */
    int (*certificate_load)(struct tls_certificate *certificate,
                            const struct tls_certificate_config *config, char **error);
    void (*certificate_free)(void *loaded);
    /* Fill context. Return 0 or a negative errno with *error. The slices of the config are valid
     * during the call only. */
    int (*server_create)(struct tls_server *server, char **error);
    void (*server_destroy)(void *context);
    int (*client_create)(struct tls_client *client, char **error);
    void (*client_destroy)(void *context);
    /* Of sessions, as in tls.h; session->output.failed is looked at by tls.c. */
    int (*accept)(struct tls_session *session);
    int (*connect)(struct tls_session *session, const char *name);
    int (*handshake)(struct tls_session *session);
    ssize_t (*read)(struct tls_session *session, void *bytes, size_t size);
    int (*write)(struct tls_session *session, const void *bytes, size_t size, size_t record);
    void (*close)(struct tls_session *session);
    void (*describe)(const struct tls_session *session, struct tls_info *info);
    int (*describe_peer)(const struct tls_session *session, struct tls_peer *peer);
    void (*end)(struct tls_session *session);
};

extern const struct tls_backend tls_openssl;
extern const struct tls_backend tls_gnutls;

/* The library's reads and writes of the transport. tls_take gives 0 when there is no input. */
size_t tls_take(struct tls_session *session, void *bytes, size_t size);
int tls_put(struct tls_session *session, const void *bytes, size_t size);

/* What a server answers to a client's hello. Called by the library's hook, once more behind each
 * TLS_HELLO. Returns 0 with the certificates of each kind (NULL: none of that kind), -EAGAIN:
 * tls_handshake is to return TLS_HELLO; -ENOENT: the alert unrecognized_name is to be sent;
 * -ENOMEM. `name` may be NULL; `alpn` is as on the wire and may be empty. */
int tls_hello_answer(struct tls_session *session, const char *name, size_t name_len,
                     struct slice alpn, struct tls_certificate *chosen[TLS_KEY_KINDS]);

/* Adds to a certificate's names; one with a NUL in it is left out (it is no name). */
int tls_names_add(struct tls_names *names, const char *name, size_t len);

/* Adds to a peer's names. Those with characters that no name has (commas, spaces, non-ASCII) are
 * left out: they could pretend to be several. */
int tls_peer_add_name(struct tls_peer *peer, const char *kind, const char *name, size_t len);

/* Puts a serialized session into a client's memory (a copy). */
void tls_remember(struct tls_session *session, const void *bytes, size_t len);

/* Is the memory's content of this session's library? */
bool tls_remembers(const struct tls_session *session);

/* Says why the session has failed, unless that was said already: the first cause counts. */
void tls_fail(struct tls_session *session, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What an alert says: "unknown CA". */
const char *tls_alert_text(unsigned alert);

/* Makes *error of a format; for failures to load or make something. */
void tls_explain(char **error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Is the text an IPv4 or IPv6 address? */
bool tls_is_address(const char *name);

/* Lower-case hexadecimal, malloc'ed; NULL when memory is exhausted. */
char *tls_hex(const uint8_t *bytes, size_t len);

#endif
