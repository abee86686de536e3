/*
 * What Lua calls through the FFI to read and change messages. Every function takes the request's
 * address and the generation that the handle was made for, and does nothing but return ACCESS_OVER
 * when the request has ended; so a handle that was kept never touches freed memory. A message is
 * the request (its own address) or one of its responses. Never suspends.
 *
 * Addresses are numbers here: that spares Lua an allocation for each. lua/ffi.lua declares the same
 * functions to LuaJIT.
 */
#ifndef SCRIPT_ACCESS_H
#define SCRIPT_ACCESS_H

#include "monolake.h"

#include <stddef.h>
#include <stdint.h>

enum {
    ACCESS_FOUND = 1,
    ACCESS_NONE = 0,
    ACCESS_OVER = -1,    /* the request has ended */
    ACCESS_INVALID = -2, /* a value that the message cannot take */
    ACCESS_MEMORY = -3,  /* exhausted */
};

struct script_text {
    const char *ptr;
    size_t len;
};

enum script_field {
    FIELD_METHOD,
    FIELD_PATH,
    FIELD_QUERY,
    FIELD_SCHEME,
    FIELD_HOST,
    FIELD_IP,
    FIELD_PORT,
    FIELD_ID,
    FIELD_VERSION,
    FIELD_LOCAL_IP,
    FIELD_LOCAL_PORT,
};

enum script_part {
    PART_HEADERS,
    PART_TRAILERS,
    PART_NUMBERS, /* of Thrift: key-values whose keys are numbers */
};

ML_API int script_request_text(intptr_t request, uint32_t generation, int field,
                               struct script_text *out);
ML_API double script_request_number(intptr_t request, uint32_t generation, int field);
ML_API int script_request_set(intptr_t request, uint32_t generation, int field, const char *text,
                              size_t len);

/* Adds a member to the request's lines in access logs of JSON: `text` is a string, or, with
 * `plain`, JSON. ACCESS_NONE: there is no more room. */
ML_API int script_request_log(intptr_t request, uint32_t generation, const char *name,
                              const char *text, size_t len, int plain);

/* A parameter by its name, or by its index from 0 (then *name is filled too). */
ML_API int script_param(intptr_t request, uint32_t generation, const char *name, size_t len,
                        struct script_text *out);
ML_API int script_param_at(intptr_t request, uint32_t generation, unsigned index,
                           struct script_text *name, struct script_text *out);

ML_API int script_header_get(intptr_t request, uint32_t generation, intptr_t message, int part,
                             const char *name, size_t name_len, struct script_text *out);
ML_API int script_header_set(intptr_t request, uint32_t generation, intptr_t message, int part,
                             const char *name, size_t name_len, const char *value,
                             size_t value_len);
ML_API int script_header_add(intptr_t request, uint32_t generation, intptr_t message, int part,
                             const char *name, size_t name_len, const char *value,
                             size_t value_len);
ML_API int script_header_remove(intptr_t request, uint32_t generation, intptr_t message, int part,
                                const char *name, size_t name_len);
/* The first field at or after index *at, which is moved past it. */
ML_API int script_header_next(intptr_t request, uint32_t generation, intptr_t message, int part,
                              uint32_t *at, struct script_text *name, struct script_text *value);

ML_API int script_response_status(intptr_t request, uint32_t generation, intptr_t response);
ML_API int script_response_set_status(intptr_t request, uint32_t generation, intptr_t response,
                                      int status);
ML_API int script_response_error(intptr_t request, uint32_t generation, intptr_t response,
                                 struct script_text *out);
/* A response with a body of these bytes (copied) and, if len is not 0, a content type. Returns its
 * address or a negative ACCESS_. */
ML_API double script_response_make(intptr_t request, uint32_t generation, int status,
                                   const char *type, size_t type_len, const char *body,
                                   size_t body_len);
/* The response to a failure: a short public text; `why` is for res.error. */
ML_API double script_response_fail(intptr_t request, uint32_t generation, int status,
                                   const char *why, size_t why_len);

/* Replaces the body of a message by these bytes (copied). */
ML_API int script_body_set(intptr_t request, uint32_t generation, intptr_t message,
                           const char *bytes, size_t len);
/* Address of the message's body, for the verbs "read" and "buffer"; with `take` the body is moved
 * out of the message, which is left with an empty one. Or a negative ACCESS_. */
ML_API double script_body_address(intptr_t request, uint32_t generation, intptr_t message,
                                  int take);
/* 1 while a forwarding may still be sending the request's body on. */
ML_API int script_body_busy(intptr_t request, uint32_t generation);
/* Makes the body of a message what the function at `index` of the request's handle gives, or what
 * it makes of the present body (`map`). */
ML_API int script_body_stream(intptr_t request, uint32_t generation, intptr_t message, int index,
                              int map);

/* Thrift: what a message is, if it is one (else ACCESS_NONE). */
enum script_thrift_field {
    FIELD_THRIFT_METHOD,
    FIELD_THRIFT_TYPE,
    FIELD_THRIFT_PROTOCOL,
    FIELD_THRIFT_TRANSPORT,
};

ML_API int script_thrift_text(intptr_t request, uint32_t generation, intptr_t message, int field,
                              struct script_text *out);
ML_API int script_thrift_seqid(intptr_t request, uint32_t generation, intptr_t message,
                               int32_t *seqid);
/* May the call be sent again; and how many milliseconds its reply may take (0: as the upstream has
 * it). Negative values leave them as they are. Returns ACCESS_. */
ML_API int script_thrift_options(intptr_t request, uint32_t generation, double *idempotent,
                                 double *timeout_ms);
/* A response that is an exception. Returns its address or a negative ACCESS_. */
ML_API double script_thrift_exception(intptr_t request, uint32_t generation, int kind,
                                      const char *text, size_t len);

/* Clocks, in seconds: since 1970, and monotonic. */
ML_API double script_now(void);
ML_API double script_clock(void);

#endif
