#include "http/proxy_info.h"

#include <stdlib.h>

struct proxy_info *proxy_info_create(struct slice bytes, const struct address *sender)
{
    const char *why;
    struct proxy_info *info = malloc(sizeof(*info) + bytes.len);
    if (!info)
        return NULL;
    info->users = 1;
    info->sender = *sender;
    memcpy(info->bytes, bytes.ptr, bytes.len);
    proxy_header_parse(slice_of(info->bytes, bytes.len), &info->header, &why);
    return info;
}

void proxy_info_retain(struct proxy_info *info)
{
    info->users++;
}

void proxy_info_release(struct proxy_info *info)
{
    if (info && --info->users == 0)
        free(info);
}
