/*
 * What a request or a response is in Thrift: the head of its message in an exchange's arena, and
 * the writing of such heads. Key-values whose keys are texts are the message's header fields. Never
 * suspends.
 */
#ifndef THRIFT_EXCHANGE_H
#define THRIFT_EXCHANGE_H

#include "http/message.h"
#include "thrift/message.h"

/* Kinds of TApplicationException, as on the wire. */
enum thrift_exception {
    THRIFT_UNKNOWN = 0,
    THRIFT_UNKNOWN_METHOD = 1,
    THRIFT_INTERNAL_ERROR = 6,
    THRIFT_PROTOCOL_ERROR = 7,
    THRIFT_EXCEPTION_MAX = 10,
};

struct thrift_message {
    enum thrift_transport transport;
    enum thrift_protocol protocol;
    enum thrift_type type;
    uint16_t flags;
    int32_t seqid;
    int32_t header_seqid;
    bool idempotent;        /* a request: it may be sent again */
    uint32_t timeout_ms;    /* a request: for its reply; 0: the upstream's */
    struct slice method;    /* in the arena */
    struct slice token;     /* TTHeader's; ptr NULL: none */
    struct headers numbers; /* key-values whose keys are numbers, in decimal */
};

/* Makes a message of the bytes of a valid head, which live as long as the arena; adds its fields to
 * `fields`. NULL when memory is exhausted. */
struct thrift_message *thrift_message_read(struct arena *arena, struct slice bytes,
                                           const struct thrift_limits *limits,
                                           struct headers *fields);

/* The head of a message with so many bytes of arguments. Returns 0, -ENOMEM, or -EMSGSIZE when
 * fields are longer, or more, than a header can have. */
int thrift_write_head(struct arena *arena, const struct thrift_message *message,
                      const struct headers *fields, uint64_t body_bytes, struct slice *out);

/* The arguments of an exception: TApplicationException in the protocol. NULL ptr when memory is
 * exhausted. */
struct slice thrift_write_exception(struct arena *arena, enum thrift_protocol protocol,
                                    enum thrift_exception kind, struct slice text);

/* A response to a call: an exception. NULL when memory is exhausted. */
struct response *thrift_create_exception(struct request *request, enum thrift_exception kind,
                                         struct slice text);

/* A method's name without that of the service, which multiplexed calls put before it. */
struct slice thrift_own_name(struct slice method);

/* The message of a reply to a call. NULL when memory is exhausted. */
struct thrift_message *thrift_create_reply(const struct request *request);

/* What a failure with that status, which HTTP would have, is in Thrift. */
enum thrift_exception thrift_exception_of(uint16_t status);

#endif
