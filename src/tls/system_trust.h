/*
 * When the system's authorities have changed: those that upstreams trust which name none of their
 * own.
 */
#ifndef TLS_SYSTEM_TRUST_H
#define TLS_SYSTEM_TRUST_H

#include <stdint.h>

/* Another number after another set of files was installed or named (SSL_CERT_FILE, SSL_CERT_DIR).
 */
uint64_t tls_system_trust_stamp(void);

#endif
