/*
 * monolake.h: the interface for native layers of monolake-lua. A layer is compiled to a shared
 * object that exports `const ml_layer monolake_layer` and is loaded with monolake.native "path.so".
 *
 * A layer runs in a coroutine of a single-threaded worker, on a stack of 64 KiB: keep large buffers
 * elsewhere, never block, use only the waits offered here. It must not keep request or response
 * pointers after it returns.
 */
#ifndef MONOLAKE_H
#define MONOLAKE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ML_ABI 1 /* changes when a layer must be compiled again */

#define ML_API __attribute__((visibility("default")))

typedef struct request ml_request;
typedef struct response ml_response;
typedef struct headers ml_headers;
typedef struct ml_next ml_next;

/* One layer of the chain. `handle` is required. */
typedef struct ml_layer {
    int abi;          /* ML_ABI */
    const char *name; /* for the log and the summary of -t */
    /* Makes an instance from the second argument of monolake.native, as JSON text ("null" if none).
     * On failure returns NULL and points *error at a static text. May be NULL: no instance. */
    void *(*create)(const char *config_json, const char **error);
    void (*destroy)(void *self);
    /* Answers the request, usually by calling ml_next_call once and changing what it returns.
     * Returns NULL only if ml_next_call did, or when memory is exhausted. */
    ml_response *(*handle)(void *self, ml_request *request, ml_next *next);
} ml_layer;

/* What a shared object defines; declared here so that it is exported whatever the compiler's flags
 * say about visibility. */
extern ML_API const ml_layer monolake_layer;

/* Runs the rest of the chain. May suspend. NULL when the request was cancelled (the client is
 * gone) or memory is exhausted: return NULL then. Upstream failures are responses (502, 504). */
ML_API ml_response *ml_next_call(ml_next *next, ml_request *request);

/* A text response of this layer's own. NULL when memory is exhausted. */
ML_API ml_response *ml_respond(ml_request *request, int status, const char *text);

/* The method, path, query ("" if none) and authority; NUL-terminated, valid during the request. */
ML_API const char *ml_request_method(ml_request *request);
ML_API const char *ml_request_path(ml_request *request);
ML_API const char *ml_request_query(ml_request *request);
ML_API const char *ml_request_host(ml_request *request);
/* Client's IP address as text. */
ML_API const char *ml_request_ip(ml_request *request);
/* Changes the path that later layers and the upstream see. 0, or -ENOMEM, -EINVAL. */
ML_API int ml_request_set_path(ml_request *request, const char *path);

ML_API int ml_response_status(const ml_response *response);
/* 200 to 599; others are -EINVAL. */
ML_API int ml_response_set_status(ml_response *response, int status);

/* Fields of a message. ml_header_* below take a request or a response. */
ML_API ml_headers *ml_request_headers(ml_request *request);
ML_API ml_headers *ml_response_headers(ml_response *response);

/* Value of the first field of that name, NUL-terminated, valid during the request; NULL if none. */
ML_API const char *ml_headers_get(ml_headers *headers, const char *name);
/* Replace all fields of that name, add one, remove all. Names and values are copied. Return 0,
 * -ENOMEM, or -EINVAL for a name or value that RFC 9110 section 5 does not allow. */
ML_API int ml_headers_set(ml_headers *headers, const char *name, const char *value);
ML_API int ml_headers_add(ml_headers *headers, const char *name, const char *value);
ML_API int ml_headers_remove(ml_headers *headers, const char *name);
ML_API int ml_headers_setf(ml_headers *headers, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#ifndef __cplusplus
#define ML_HEADERS(message)                                                                        \
    _Generic((message), ml_request *                                                               \
             : ml_request_headers, ml_response *                                                   \
             : ml_response_headers)(message)
#define ml_header_get(message, name)        ml_headers_get(ML_HEADERS(message), (name))
#define ml_header_set(message, name, value) ml_headers_set(ML_HEADERS(message), (name), (value))
#define ml_header_add(message, name, value) ml_headers_add(ML_HEADERS(message), (name), (value))
#define ml_header_remove(message, name)     ml_headers_remove(ML_HEADERS(message), (name))
#define ml_header_setf(message, name, ...)  ml_headers_setf(ML_HEADERS(message), (name), __VA_ARGS__)
#endif

/* Monotonic time in microseconds. */
ML_API uint64_t ml_now_us(void);

/* Suspends this request only. Returns 0, or -ECANCELED. */
ML_API int ml_sleep_ms(ml_request *request, uint32_t ms);

/* Memory that lives as long as the request; NULL when exhausted. */
ML_API void *ml_alloc(ml_request *request, size_t size);

enum { ML_LOG_ERROR, ML_LOG_WARN, ML_LOG_INFO, ML_LOG_DEBUG };
ML_API void ml_log(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif
#endif
