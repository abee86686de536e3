/* What a proxy in front has said of a client, by the PROXY protocol. Shared by the connection and
 * by those who may outlive it. Never suspends. */
#ifndef HTTP_PROXY_INFO_H
#define HTTP_PROXY_INFO_H

#include "net/proxy_protocol.h"

struct proxy_info {
    uint32_t users;
    struct proxy_header header; /* its slices point to `bytes` */
    struct address sender;      /* who has connected and said so */
    char bytes[];
};

/* A copy of a header that was parsed without an error; retained. NULL when memory is exhausted. */
struct proxy_info *proxy_info_create(struct slice bytes, const struct address *sender);

void proxy_info_retain(struct proxy_info *info);

/* NULL is passed over. */
void proxy_info_release(struct proxy_info *info);

#endif
