/*
 * What the files of the GnuTLS backend share: gnutls.c runs sessions, gnutls_hello.c reads what a
 * client says first and gnutls_answer.c answers it, gnutls_verify.c shows and verifies
 * certificates, gnutls_certificate.c loads them, gnutls_context.c makes contexts with the words of
 * gnutls_policy.c and the authorities of gnutls_trust.c, gnutls_peer.c says what was agreed on and
 * gnutls_failure.c what went wrong.
 */
#ifndef TLS_GNUTLS_INTERNAL_H
#define TLS_GNUTLS_INTERNAL_H

#include "tls/backend.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

enum {
    TLS_GNUTLS_ALPN_MAX_COUNT = 8, /* the library takes no more */
    /* This long after a full handshake there must be another one. The library derives keys of
     * tickets from its key and from the time in steps of three times that; it takes the keys of
     * this step and of the one before it. */
    TLS_GNUTLS_RESUMABLE_S = 24 * 3600,
};

/* A certificate with its key. */
struct tls_gnutls_loaded {
    gnutls_pcert_st *chain; /* the leaf first; owned */
    unsigned chain_count;
    gnutls_privkey_t key;
    gnutls_pk_algorithm_t algorithm;
    gnutls_sign_algorithm_t sign; /* the only one of an EC key in TLS 1.3; else UNKNOWN */
    gnutls_ocsp_data_st ocsp;     /* response owned; empty: none */
};

/* Of a server or a client. */
struct tls_gnutls_context {
    gnutls_certificate_credentials_t credentials;
    struct tls_gnutls_trust *system; /* trusted instead of who is in the credentials; or NULL */
    bool is_server;
    gnutls_priority_t order; /* the usual one of the following */
    /* By whether ChaCha20 goes first, and by the group that does; NULL: not wanted yet. */
    gnutls_priority_t orders[2][TLS_GROUP_COUNT];
    gnutls_datum_t alpn[TLS_GNUTLS_ALPN_MAX_COUNT]; /* borrowed from the policy */
    unsigned alpn_count;
    bool tickets;
    uint8_t ticket_key[TLS_TICKET_SECRET_BYTES];
};

/* The record that a handshake reads. */
struct tls_gnutls_watch {
    uint8_t header[5];
    unsigned len; /* of the header */
    unsigned body_len;
    unsigned body_left;
    uint8_t last;  /* byte of the body that came */
    size_t bodies; /* bytes of all of them so far */
    bool any;
    const char *foreign; /* what the first bytes are if they are no record; NULL: they are */
};

/* Of a session. */
struct tls_gnutls_state {
    gnutls_session_t session;
    char *name; /* a server: SNI in lower case; a client: whom it calls; NULL: nobody; owned */
    struct tls_certificate *chosen[TLS_KEY_KINDS]; /* borrowed from the server or the answer */
    uint8_t *replay; /* records of a hello that waits for its answer; owned */
    size_t replay_len;
    size_t replay_at;
    struct tls_gnutls_watch watch;
    int alert;         /* to send instead of what the library thinks fit; -1: none */
    bool hello_done;   /* the hello was answered */
    bool offers_ecdsa; /* the client takes a suite of TLS 1.2 for ECDSA keys */
    bool starved;      /* the library asked for input and there was none */
    bool open;         /* the handshake is done */
    bool failed;
    bool closed;        /* close_notify was sent */
    bool ticket_came;   /* from the server, and is not remembered yet */
    bool renegotiated;  /* the peer has asked for a new handshake and was refused */
    bool hello_dropped; /* its hello is to be thrown away */
};

/* Certificates that were read; owned. */
struct tls_gnutls_list {
    gnutls_x509_crt_t *certificates;
    unsigned count;
};

/* Of gnutls_certificate.c. Reads all certificates of a PEM text; `what` names the text: "the
 * chain". Returns 0, or a negative errno with *error if there is none or one is damaged. */
int tls_gnutls_read_certificates(struct slice pem, const char *what, struct tls_gnutls_list *list,
                                 char **error);
void tls_gnutls_list_free(struct tls_gnutls_list *list);

/* Puts a library's error into words: "what: why". Returns it as a negative errno. */
int tls_gnutls_refuse(char **error, int code, const char *what);

/* As in struct tls_backend; the contexts are gnutls_context.c's. */
int tls_gnutls_certificate_load(struct tls_certificate *certificate,
                                const struct tls_certificate_config *config, char **error);
void tls_gnutls_certificate_free(void *owned);
int tls_gnutls_server_create(struct tls_server *server, char **error);
int tls_gnutls_client_create(struct tls_client *client, char **error);
void tls_gnutls_context_destroy(void *owned);

/* Of gnutls_trust.c. The authorities of the system; NULL if memory is exhausted. */
struct tls_gnutls_trust *tls_gnutls_trust_system(void);
void tls_gnutls_trust_release(struct tls_gnutls_trust *trust);

gnutls_x509_trust_list_t tls_gnutls_trust_list(const struct tls_gnutls_trust *trust);

/* As gnutls_certificate_verify_peers, but whoever is in the list is trusted, also where the peer
 * sends the authorities above that one along. */
int tls_gnutls_trust_verify(gnutls_x509_trust_list_t list, gnutls_session_t session,
                            gnutls_typed_vdata_st *expected, unsigned expected_count,
                            unsigned *status);

/* Of gnutls_policy.c. What may be chosen, with this in front; NULL if memory is exhausted. */
gnutls_priority_t tls_gnutls_order(struct tls_gnutls_context *context,
                                   const struct tls_policy *policy, bool chacha_first,
                                   enum tls_group group);
void tls_gnutls_orders_free(struct tls_gnutls_context *context);

/* What a client says first; the slices point into its message. */
struct tls_gnutls_hello {
    struct slice name;
    struct slice alpn;
    struct slice versions; /* two bytes each; empty: those up to version */
    unsigned version;
    bool knows_group[TLS_GROUP_COUNT];
    bool has_share[TLS_GROUP_COUNT]; /* for a key in that group (TLS 1.3) */
    bool offers_ecdsa;               /* a suite of TLS 1.2 for ECDSA keys */
    bool wants_chacha;               /* rather than AES */
};

/* Of gnutls_hello.c. Returns 0 or an error of the library. */
int tls_gnutls_hello_read(struct tls_gnutls_hello *hello, const struct tls_policy *policy,
                          const gnutls_datum_t *message);
/* The version that will be agreed on; 0: none. */
unsigned tls_gnutls_agree(const struct tls_gnutls_hello *hello, const struct tls_policy *policy);
/* The library would take its first group that the client knows even if the client sent a share for
 * another, at the price of a round trip. This is the one to put in front. */
enum tls_group tls_gnutls_first_group(const struct tls_gnutls_hello *hello,
                                      const struct tls_policy *policy);

/* Of gnutls_answer.c. Reads a client's hello before the library does and asks what to answer; with
 * -EAGAIN, it keeps the hello for replay and gives GNUTLS_E_AGAIN. */
int tls_gnutls_on_hello(gnutls_session_t library, unsigned type, unsigned when, unsigned incoming,
                        const gnutls_datum_t *message);

/* Of gnutls_verify.c. Gives the library the certificate to show, of a server or of a client. */
int tls_gnutls_on_retrieve(gnutls_session_t library, const struct gnutls_cert_retr_st *info,
                           gnutls_pcert_st **chain, unsigned *chain_count,
                           gnutls_ocsp_data_st **ocsp, unsigned *ocsp_count, gnutls_privkey_t *key,
                           unsigned *flags);

/* Verifies the peer's certificate; a reason and an alert are left in the session. */
int tls_gnutls_on_verify(gnutls_session_t library);

/* Of gnutls_failure.c. Looks at what the library is given, as long as it shakes hands. */
void tls_gnutls_watch(struct tls_gnutls_state *state, const uint8_t *bytes, size_t size);

/* The session is lost: says why, to its owner and to the peer. Returns -EPROTO or -ENOMEM. */
int tls_gnutls_fail(struct tls_session *session, int code);

/* Of gnutls_peer.c: as in struct tls_backend. */
void tls_gnutls_describe(const struct tls_session *session, struct tls_info *info);
int tls_gnutls_describe_peer(const struct tls_session *session, struct tls_peer *peer);

#endif
