/* Socket addresses: "127.0.0.1:80", "[::1]:80", "unix:/run/site.sock", "host:80". Never suspends.
 */
#ifndef NET_ADDRESS_H
#define NET_ADDRESS_H

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <netinet/in.h>

enum { ADDRESS_TEXT_MAX = 128 }; /* longest text of an address, with NUL */

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    };
    socklen_t len; /* bytes in use; 0: no address */
};

/* Parses a numeric address. Returns 0, or -EINVAL; `*why` then says what is wrong, as a phrase. A
 * host name is -EINVAL here: address_split tells names from addresses. */
int address_parse(struct slice text, struct address *address, const char **why);

/* Splits "host:port" into its parts ("[...]" removed); host may be a name. Returns 0 or -EINVAL. */
int address_split(struct slice text, struct slice *host, uint16_t *port, const char **why);

/* Writes "127.0.0.1:80", "[::1]:80" or "unix:/path" and returns the length without the NUL. */
size_t address_format(const struct address *address, char text[ADDRESS_TEXT_MAX]);

/* Writes the host part alone: "127.0.0.1", "::1", or "unix:" for a local socket. */
size_t address_format_host(const struct address *address, char text[ADDRESS_TEXT_MAX]);

/* Port of an internet address, 0 for a local one. */
uint16_t address_port(const struct address *address);

bool address_equal(const struct address *a, const struct address *b);

#endif
