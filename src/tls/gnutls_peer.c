/*
 * What a session of GnuTLS agreed on, and whom it speaks with. Distinguished names are written by
 * hand: the library's own form differs from OpenSSL's in the names of attributes and in escapes.
 */
#include "tls/gnutls_internal.h"

#include <gnutls/crypto.h>
#include <gnutls/x509.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Distinguished names ---------------------------------------------------------------------- */

enum {
    TAG_UTF8 = 12,
    TAG_NUMERIC = 18,
    TAG_PRINTABLE = 19,
    TAG_T61 = 20, /* in practice Latin-1 */
    TAG_IA5 = 22,
    TAG_VISIBLE = 26,
    TAG_UNIVERSAL = 28,
    TAG_BMP = 30,
};

static const char *attribute_name(const char *oid)
{
    static const struct {
        const char *oid;
        const char *name;
    } known[] = {
        {"2.5.4.3", "CN"},
        {"2.5.4.4", "SN"},
        {"2.5.4.5", "serialNumber"},
        {"2.5.4.6", "C"},
        {"2.5.4.7", "L"},
        {"2.5.4.8", "ST"},
        {"2.5.4.9", "street"},
        {"2.5.4.10", "O"},
        {"2.5.4.11", "OU"},
        {"2.5.4.12", "title"},
        {"2.5.4.13", "description"},
        {"2.5.4.15", "businessCategory"},
        {"2.5.4.17", "postalCode"},
        {"2.5.4.20", "telephoneNumber"},
        {"2.5.4.41", "name"},
        {"2.5.4.42", "GN"},
        {"2.5.4.43", "initials"},
        {"2.5.4.44", "generationQualifier"},
        {"2.5.4.45", "x500UniqueIdentifier"},
        {"2.5.4.46", "dnQualifier"},
        {"2.5.4.65", "pseudonym"},
        {"2.5.4.97", "organizationIdentifier"},
        {"0.9.2342.19200300.100.1.1", "UID"},
        {"0.9.2342.19200300.100.1.25", "DC"},
        {"1.2.840.113549.1.9.1", "emailAddress"},
        {"1.2.840.113549.1.9.2", "unstructuredName"},
        {"1.3.6.1.4.1.311.60.2.1.1", "jurisdictionL"},
        {"1.3.6.1.4.1.311.60.2.1.2", "jurisdictionST"},
        {"1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC"},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(known[i].oid, oid) == 0)
            return known[i].name;
    return NULL;
}

/* Bytes of one character; 0 for those of types that are no text. */
static unsigned width_of(unsigned long tag)
{
    switch (tag) {
    case TAG_UTF8:
    case TAG_NUMERIC:
    case TAG_PRINTABLE:
    case TAG_T61:
    case TAG_IA5:
    case TAG_VISIBLE:
        return 1;
    case TAG_BMP:
        return 2;
    case TAG_UNIVERSAL:
        return 4;
    default:
        return 0;
    }
}

static void write_utf8(FILE *to, uint32_t c)
{
    if (c < 0x80) {
        fputc((int)c, to);
        return;
    }
    if (c < 0x800) {
        fputc((int)(0xc0 | c >> 6), to);
    } else if (c < 0x10000) {
        fputc((int)(0xe0 | c >> 12), to);
        fputc((int)(0x80 | (c >> 6 & 0x3f)), to);
    } else {
        fputc((int)(0xf0 | (c >> 18 & 0x07)), to);
        fputc((int)(0x80 | (c >> 12 & 0x3f)), to);
        fputc((int)(0x80 | (c >> 6 & 0x3f)), to);
    }
    fputc((int)(0x80 | (c & 0x3f)), to);
}

/* Escapes what has a meaning in a name's text (RFC 4514, 2.4), and control characters. */
static void write_character(FILE *to, uint32_t c, bool first, bool last)
{
    bool special = c < 0x80 && c > ' ' && strchr(",+\"\\<>;", (int)c);
    if (c < ' ' || c == 0x7f) {
        fprintf(to, "\\%02X", (unsigned)c);
        return;
    }
    if (special || (c == ' ' && (first || last)) || (c == '#' && first))
        fputc('\\', to);
    write_utf8(to, c);
}

static void write_hex(FILE *to, const gnutls_x509_ava_st *part)
{
    fprintf(to, "#%02lX", part->value_tag);
    if (part->value.size >= 0x100)
        fprintf(to, "82%02X", part->value.size >> 8 & 0xff);
    else if (part->value.size >= 0x80)
        fputs("81", to);
    fprintf(to, "%02X", part->value.size & 0xff);
    for (unsigned i = 0; i < part->value.size; i++)
        fprintf(to, "%02X", part->value.data[i]);
}

static void write_value(FILE *to, const gnutls_x509_ava_st *part)
{
    const gnutls_datum_t *value = &part->value;
    unsigned width = width_of(part->value_tag);
    if (!width || value->size % width) {
        write_hex(to, part);
        return;
    }
    for (unsigned i = 0; i < value->size; i += width) {
        uint32_t c = 0;
        for (unsigned j = 0; j < width; j++)
            c = c << 8 | value->data[i + j];
        if (part->value_tag == TAG_UTF8 && c >= 0x80)
            fputc((int)c, to);
        else
            write_character(to, c, i == 0, i + width == value->size);
    }
}

static void write_part(FILE *to, const gnutls_x509_ava_st *part, const char *separator)
{
    char oid[128];
    size_t len = part->oid.size < sizeof(oid) - 1 ? part->oid.size : sizeof(oid) - 1;
    memcpy(oid, part->oid.data, len);
    oid[len] = '\0';
    const char *name = attribute_name(oid);
    fprintf(to, "%s%s=", separator, name ? name : oid);
    if (name)
        write_value(to, part);
    else
        write_hex(to, part);
}

/* The last part comes first, and so it is with parts that stand together. */
static char *name_text(gnutls_x509_dn_t name)
{
    char *text = NULL;
    size_t size = 0;
    gnutls_x509_ava_st part;
    FILE *to = open_memstream(&text, &size);
    int rdn = 0;
    const char *separator = "";
    if (!to)
        return NULL;
    while (gnutls_x509_dn_get_rdn_ava(name, rdn, 0, &part) == 0)
        rdn++;
    while (rdn-- > 0) {
        int ava = 0;
        while (gnutls_x509_dn_get_rdn_ava(name, rdn, ava, &part) == 0)
            ava++;
        while (ava-- > 0 && gnutls_x509_dn_get_rdn_ava(name, rdn, ava, &part) == 0) {
            write_part(to, &part, separator);
            separator = "+";
        }
        separator = ",";
    }
    if (fclose(to) == 0)
        return text;
    free(text);
    return NULL;
}

/* --- Peers ------------------------------------------------------------------------------------ */

static char *serial_text(gnutls_x509_crt_t certificate)
{
    unsigned char serial[128];
    size_t size = sizeof(serial);
    size_t skip = 0;
    if (gnutls_x509_crt_get_serial(certificate, serial, &size) < 0)
        size = 0;
    while (skip + 1 < size && serial[skip] == 0) /* it only says that the number is positive */
        skip++;
    return tls_hex(serial + skip, size - skip);
}

static char *fingerprint_text(const gnutls_datum_t *certificate)
{
    unsigned char digest[32];
    size_t size = sizeof(digest);
    if (gnutls_fingerprint(GNUTLS_DIG_SHA256, certificate, digest, &size) < 0)
        return NULL;
    return tls_hex(digest, size);
}

static int add_address(struct tls_peer *peer, const char *address, size_t len)
{
    char text[INET6_ADDRSTRLEN];
    int family = len == 4 ? AF_INET : AF_INET6;
    if ((len != 4 && len != 16) || !inet_ntop(family, address, text, sizeof(text)))
        return 0;
    return tls_peer_add_name(peer, "IP", text, strlen(text));
}

static int add_name(struct tls_peer *peer, unsigned type, const char *name, size_t len)
{
    switch (type) {
    case GNUTLS_SAN_DNSNAME:
        return tls_peer_add_name(peer, "DNS", name, len);
    case GNUTLS_SAN_URI:
        return tls_peer_add_name(peer, "URI", name, len);
    case GNUTLS_SAN_RFC822NAME:
        return tls_peer_add_name(peer, "email", name, len);
    case GNUTLS_SAN_IPADDRESS:
        return add_address(peer, name, len);
    default:
        return 0;
    }
}

static int add_names(struct tls_peer *peer, gnutls_x509_crt_t certificate)
{
    enum { NAME_BYTES_MAX = 4096 };
    char name[NAME_BYTES_MAX];
    peer->names = strdup("");
    if (!peer->names)
        return -ENOMEM;
    for (unsigned i = 0;; i++) {
        size_t size = sizeof(name);
        unsigned type = 0;
        int code = gnutls_x509_crt_get_subject_alt_name2(certificate, i, name, &size, &type, NULL);
        if (code == GNUTLS_E_SHORT_MEMORY_BUFFER)
            continue;
        if (code < 0)
            return 0;
        if (add_name(peer, type, name, size) < 0)
            return -ENOMEM;
    }
}

static int describe(gnutls_x509_crt_t certificate, const gnutls_datum_t *bytes,
                    struct tls_peer *peer)
{
    gnutls_x509_dn_t name;
    if (gnutls_x509_crt_import(certificate, bytes, GNUTLS_X509_FMT_DER) < 0)
        return -ENOMEM;
    if (gnutls_x509_crt_get_subject(certificate, &name) == 0)
        peer->subject = name_text(name);
    if (gnutls_x509_crt_get_issuer(certificate, &name) == 0)
        peer->issuer = name_text(name);
    peer->serial = serial_text(certificate);
    peer->fingerprint = fingerprint_text(bytes);
    return add_names(peer, certificate);
}

int tls_gnutls_describe_peer(const struct tls_session *session, struct tls_peer *peer)
{
    const struct tls_gnutls_state *state = session->library;
    unsigned count = 0;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(state->session, &count);
    gnutls_x509_crt_t certificate;
    if (!chain || !count)
        return -ENOENT;
    if (gnutls_x509_crt_init(&certificate) < 0)
        return -ENOMEM;
    int result = describe(certificate, &chain[0], peer);
    gnutls_x509_crt_deinit(certificate);
    return result;
}

/* --- What was agreed on ----------------------------------------------------------------------- */

void tls_gnutls_describe(const struct tls_session *session, struct tls_info *info)
{
    const struct tls_gnutls_state *state = session->library;
    const char *cipher = gnutls_ciphersuite_get(state->session);
    bool sends_name = session->server || (state->name && !tls_is_address(state->name));
    gnutls_datum_t alpn;
    unsigned count = 0;
    info->version =
        gnutls_protocol_get_version(state->session) == GNUTLS_TLS1_3 ? "TLSv1.3" : "TLSv1.2";
    snprintf(info->cipher, sizeof(info->cipher), "%s", cipher ? cipher : "");
    snprintf(info->name, sizeof(info->name), "%s", sends_name && state->name ? state->name : "");
    if (gnutls_alpn_get_selected_protocol(state->session, &alpn) == 0)
        snprintf(info->alpn, sizeof(info->alpn), "%.*s", (int)alpn.size, (char *)alpn.data);
    info->resumed = gnutls_session_is_resumed(state->session) != 0;
    info->has_peer = gnutls_certificate_get_peers(state->session, &count) && count;
}
