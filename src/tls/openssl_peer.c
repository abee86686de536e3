/* What a session of OpenSSL agreed on, and whom it speaks with. */
#include "tls/openssl_internal.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Borrowed; NULL without a certificate that may be believed. */
static X509 *trusted_peer(const struct tls_session *session)
{
    struct openssl_session *own = session->library;
    bool insecure = session->client && session->client->config.insecure;
    if (!insecure && SSL_get_verify_result(own->ssl) != X509_V_OK)
        return NULL;
    return SSL_get0_peer_certificate(own->ssl);
}

void openssl_describe(const struct tls_session *session, struct tls_info *info)
{
    struct openssl_session *own = session->library;
    const SSL_CIPHER *cipher = SSL_get_current_cipher(own->ssl);
    const char *cipher_name = cipher ? SSL_CIPHER_standard_name(cipher) : NULL;
    const unsigned char *alpn;
    unsigned alpn_len;
    info->version = SSL_get_version(own->ssl);
    snprintf(info->cipher, sizeof(info->cipher), "%s", cipher_name ? cipher_name : "");
    snprintf(info->name, sizeof(info->name), "%s", own->name ? own->name : "");
    SSL_get0_alpn_selected(own->ssl, &alpn, &alpn_len);
    if (alpn_len < sizeof(info->alpn))
        snprintf(info->alpn, sizeof(info->alpn), "%.*s", (int)alpn_len, (const char *)alpn);
    info->resumed = SSL_session_reused(own->ssl);
    info->has_peer = trusted_peer(session) != NULL;
}

static char *name_text(const X509_NAME *name)
{
    /* RFC 4514 lets UTF-8 stand as it is. */
    unsigned long flags = XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB;
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    char *bytes;
    if (bio && X509_NAME_print_ex(bio, name, 0, flags) >= 0) {
        long len = BIO_get_mem_data(bio, &bytes);
        text = len > 0 ? strndup(bytes, (size_t)len) : strdup("");
    }
    BIO_free(bio);
    return text;
}

static char *serial_text(X509 *certificate)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
    return tls_hex(ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial));
}

static char *fingerprint_text(X509 *certificate)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len;
    if (X509_digest(certificate, EVP_sha256(), digest, &len) != 1)
        return NULL;
    return tls_hex(digest, len);
}

static int add_address(struct tls_peer *peer, const ASN1_OCTET_STRING *address)
{
    char text[INET6_ADDRSTRLEN];
    int len = ASN1_STRING_length(address);
    int family = len == 4 ? AF_INET : AF_INET6;
    if ((len != 4 && len != 16) ||
        !inet_ntop(family, ASN1_STRING_get0_data(address), text, sizeof(text)))
        return 0;
    return tls_peer_add_name(peer, "IP", text, strlen(text));
}

static int add_name(struct tls_peer *peer, const GENERAL_NAME *name)
{
    static const struct {
        int type;
        const char *kind;
    } kinds[] = {{GEN_DNS, "DNS"}, {GEN_URI, "URI"}, {GEN_EMAIL, "email"}};
    int type;
    const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
    if (type == GEN_IPADD)
        return add_address(peer, value);
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (kinds[i].type == type)
            return tls_peer_add_name(peer, kinds[i].kind,
                                     (const char *)ASN1_STRING_get0_data(value),
                                     (size_t)ASN1_STRING_length(value));
    return 0;
}

static int add_names(struct tls_peer *peer, X509 *certificate)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    int result = 0;
    peer->names = strdup("");
    if (!peer->names)
        result = -ENOMEM;
    for (int i = 0; result == 0 && i < sk_GENERAL_NAME_num(names); i++)
        result = add_name(peer, sk_GENERAL_NAME_value(names, i));
    GENERAL_NAMES_free(names);
    return result;
}

int openssl_describe_peer(const struct tls_session *session, struct tls_peer *peer)
{
    X509 *certificate = trusted_peer(session);
    if (!certificate)
        return -ENOENT;
    peer->subject = name_text(X509_get_subject_name(certificate));
    peer->issuer = name_text(X509_get_issuer_name(certificate));
    peer->serial = serial_text(certificate);
    peer->fingerprint = fingerprint_text(certificate);
    int result = add_names(peer, certificate);
    ERR_clear_error();
    return result;
}
