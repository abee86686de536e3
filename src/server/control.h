/*
 * Messages between the supervisor and a worker, over a socket that keeps their bounds. Descriptors
 * travel with them. Never suspends.
 */
#ifndef SERVER_CONTROL_H
#define SERVER_CONTROL_H

#include <stdint.h>

enum { CONTROL_TEXT_MAX = 32768 };

enum control_kind {
    /* To a worker. */
    CONTROL_LISTEN,  /* text: the listener's key; with its descriptor */
    CONTROL_PREPARE, /* load generation `value` beside the present one; with its sources */
    CONTROL_COMMIT,  /* serve with it from now on */
    CONTROL_ABORT,   /* drop it */
    CONTROL_REOPEN,  /* reopen log files */
    CONTROL_DRAIN,   /* accept no more, finish within `value` milliseconds, exit */
    CONTROL_STOP,    /* exit now */
    CONTROL_PING,    /* say that you live */
    CONTROL_GIVE_UP, /* datagrams of clients are another program's to receive */
    /* From a worker. */
    CONTROL_READY,    /* serves generation `value` */
    CONTROL_PREPARED, /* generation `value` can be committed */
    CONTROL_FAILED,   /* generation `value` cannot; text: why */
    CONTROL_PONG,     /* lives */
    /* From a new program to the one before it (SIGUSR2), which then hears that it is ready. */
    CONTROL_ADOPTED, /* text: a listener's key, `value`: how many of its sockets it has taken */
    /* Behind all others, for the programs on both sides of an upgrade may be of two versions. */
    CONTROL_TAKES_TUNNELS, /* from a new program: messages of version `value` (tunnel_state.h) */
    CONTROL_HAND_OVER,     /* to a worker, before it drains: with the socket for its tunnels */
    CONTROL_STAND_IN, /* to a worker: with a socket of dead worker `value`; text: the listener's key
                       */
    CONTROL_STAND_BACK, /* to a worker: worker `value` lives again */
    CONTROL_SHARE,      /* to a worker, before CONTROL_PREPARE: with a shared dictionary's memory */
};

struct control_message {
    enum control_kind kind;
    uint64_t value;
    int fd;                      /* received with it, owned by the receiver; -1 if none */
    char text[CONTROL_TEXT_MAX]; /* NUL-terminated */
};

/* Makes the pair of sockets: non-blocking, close-on-exec. Returns 0 or a negative errno. */
int control_pair(int sockets[2]);

/* Sends; text may be NULL, fd -1. Text that is too long is cut. Returns 0 or a negative errno. */
int control_send(int socket, enum control_kind kind, uint64_t value, const char *text, int fd);

/* As control_send without a descriptor, but waits until the message can be sent. */
void control_send_all(int socket, enum control_kind kind, uint64_t value, const char *text);

/* Receives one message. Returns 1, 0 at the end, or a negative errno (-EAGAIN: none is there). */
int control_receive(int socket, struct control_message *message);

#endif
