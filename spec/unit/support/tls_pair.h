/*
 * A server and a client of TLS that speak with each other in memory. Every case runs with each
 * library on each side.
 */
#ifndef SUPPORT_TLS_PAIR_H
#define SUPPORT_TLS_PAIR_H

#include "tls_certificates.h"
#include "tls/tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct tls_side {
    struct tls_session session;
    bool begun;
    int result;  /* of the last tls_handshake */
    char *inbox; /* bytes that are on their way to it */
    size_t inbox_len;
};

struct tls_pair {
    enum tls_library server_library;
    enum tls_library client_library;
    size_t portion; /* so many bytes arrive at once; 0: all */
    struct tls_server *server;
    struct tls_client *client;
    struct tls_memory memory; /* used if its flag is set */
    bool remembers;
    struct tls_side at_server;
    struct tls_side at_client;
};

struct tls_case {
    const char *name;
    void (*run)(struct tls_pair *pair);
};

#define TLS_CASE(function)                                                                         \
    {                                                                                              \
#function, function                                                                        \
    }

/* Runs cases on all pairs of libraries; returns the number of failures. */
int tls_cases_run(const struct tls_case *cases, size_t count);

/* A certificate of a side's library; the caller releases it. */
struct tls_certificate *tls_load(enum tls_library library, enum test_certificate_id id);

/* Make the contexts (in place of earlier ones). */
void tls_pair_serve(struct tls_pair *pair, const struct tls_server_config *config);
void tls_pair_serve_with(struct tls_pair *pair, struct tls_server_config config,
                         const enum test_certificate_id *ids, unsigned count);
void tls_pair_ask(struct tls_pair *pair, const struct tls_client_config *config);

/* The usual ones: CERT_ONE_ECDSA, and a client that trusts CERT_CA. */
void tls_pair_prepare(struct tls_pair *pair);

/* Begins both sessions (in place of earlier ones), and goes on as far as it gets. */
void tls_pair_begin(struct tls_pair *pair, const char *name);
void tls_pair_go_on(struct tls_pair *pair);

/* Both, and all must go well. */
void tls_pair_open(struct tls_pair *pair, const char *name);
/* Both, and both must fail: one with the cause, the other by its alert. */
void tls_pair_refuse(struct tls_pair *pair, const char *name);

/* Carries what is in the outputs over. */
void tls_pair_carry(struct tls_pair *pair);

/* Reads from what has arrived: as tls_read. */
ssize_t tls_side_read(struct tls_side *side, void *bytes, size_t size);

struct tls_info tls_side_info(const struct tls_side *side);

void tls_pair_end(struct tls_pair *pair);

#endif
