/*
 * The authorities of the system for GnuTLS. They are many: some megabytes, and tens of milliseconds
 * to read. So clients share them for as long as the system's have not changed.
 */
#include "tls/gnutls_internal.h"
#include "tls/system_trust.h"

#include <stdlib.h>

struct tls_gnutls_trust {
    gnutls_x509_trust_list_t list;
    unsigned users;
    uint64_t stamp; /* of the system's when they were read */
};

static struct tls_gnutls_trust *newest; /* without being one of its users; NULL: none is left */

static void destroy(struct tls_gnutls_trust *trust)
{
    if (trust->list)
        gnutls_x509_trust_list_deinit(trust->list, 1);
    free(trust);
}

/* Those of the system, and those that OpenSSL finds by these variables. None: nobody is trusted. */
static void read_all(struct tls_gnutls_trust *trust)
{
    const char *file = getenv("SSL_CERT_FILE");
    const char *directory = getenv("SSL_CERT_DIR");
    if (file)
        gnutls_x509_trust_list_add_trust_file(trust->list, file, NULL, GNUTLS_X509_FMT_PEM, 0, 0);
    if (directory)
        gnutls_x509_trust_list_add_trust_dir(trust->list, directory, NULL, GNUTLS_X509_FMT_PEM, 0,
                                             0);
    else
        gnutls_x509_trust_list_add_system_trust(trust->list, 0, 0);
}

static struct tls_gnutls_trust *create(uint64_t stamp)
{
    struct tls_gnutls_trust *trust = calloc(1, sizeof(*trust));
    if (!trust)
        return NULL;
    trust->users = 1;
    trust->stamp = stamp;
    if (gnutls_x509_trust_list_init(&trust->list, 0) < 0) {
        destroy(trust);
        return NULL;
    }
    read_all(trust);
    return trust;
}

struct tls_gnutls_trust *tls_gnutls_trust_system(void)
{
    uint64_t stamp = tls_system_trust_stamp();
    if (newest && newest->stamp == stamp) {
        newest->users++;
        return newest;
    }
    struct tls_gnutls_trust *trust = create(stamp);
    if (trust)
        newest = trust;
    return trust;
}

void tls_gnutls_trust_release(struct tls_gnutls_trust *trust)
{
    if (--trust->users)
        return;
    if (newest == trust)
        newest = NULL;
    destroy(trust);
}

gnutls_x509_trust_list_t tls_gnutls_trust_list(const struct tls_gnutls_trust *trust)
{
    return trust->list;
}

/* Takes the chain as the peer has sent it. The library looks for one who has signed the last of it,
 * so what stands above whom it would find is left out in turn. */
static int verify_chain(gnutls_x509_trust_list_t list, gnutls_x509_crt_t *chain, unsigned count,
                        gnutls_typed_vdata_st *expected, unsigned expected_count, unsigned *status)
{
    /* Stapled responses are for browsers: OpenSSL's client does not ask for them. */
    unsigned flags =
        GNUTLS_PROFILE_TO_VFLAGS(GNUTLS_PROFILE_MEDIUM) | GNUTLS_VERIFY_DISABLE_CRL_CHECKS;
    int code;
    do
        code = gnutls_x509_trust_list_verify_crt2(list, chain, count, expected, expected_count,
                                                  flags, status, NULL);
    while (code >= 0 && *status & GNUTLS_CERT_SIGNER_NOT_FOUND && --count);
    return code;
}

int tls_gnutls_trust_verify(gnutls_x509_trust_list_t list, gnutls_session_t session,
                            gnutls_typed_vdata_st *expected, unsigned expected_count,
                            unsigned *status)
{
    enum { CHAIN_MAX = 16 };
    gnutls_x509_crt_t chain[CHAIN_MAX];
    unsigned sent = 0;
    unsigned count = 0;
    const gnutls_datum_t *bytes = gnutls_certificate_get_peers(session, &sent);
    int code = bytes && sent ? 0 : GNUTLS_E_NO_CERTIFICATE_FOUND;
    if (sent > CHAIN_MAX)
        return GNUTLS_E_CERTIFICATE_ERROR;
    while (code >= 0 && count < sent) {
        code = gnutls_x509_crt_init(&chain[count]);
        if (code < 0)
            break;
        code = gnutls_x509_crt_import(chain[count], &bytes[count], GNUTLS_X509_FMT_DER);
        count++;
    }
    if (code >= 0)
        code = verify_chain(list, chain, count, expected, expected_count, status);
    for (unsigned i = 0; i < count; i++)
        gnutls_x509_crt_deinit(chain[i]);
    return code;
}
