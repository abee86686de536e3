/* Content types by the ending of a file's name. Pure. */
#ifndef PROXY_CONTENT_TYPE_H
#define PROXY_CONTENT_TYPE_H

#include "base/slice.h"

/* "text/html; charset=utf-8" for "a/b.HTML"; application/octet-stream if nothing is known. */
struct slice content_type_of(struct slice path);

#endif
