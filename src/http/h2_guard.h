/*
 * Budgets against clients that make work without asking for any: rapid resets, errors that provoke
 * resets of ours, floods of frames that carry nothing. Pure counting in windows of time; real
 * traffic earns the control frames that come with it. Never suspends.
 */
#ifndef HTTP_H2_GUARD_H
#define HTTP_H2_GUARD_H

#include <stdbool.h>
#include <stdint.h>

enum { H2_GUARD_WINDOW_MS = 10000 };

struct h2_guard_limits {
    uint32_t resets_max;  /* streams that the client resets in a window, if that is most of them */
    uint32_t faults_max;  /* stream errors of the client in a window: each makes us send a reset */
    uint32_t control_max; /* PING, SETTINGS, WINDOW_UPDATE, empty and unknown frames in a window,
                             beyond those that requests and DATA earn */
};

/* Budgets of one connection; zero it. */
struct h2_guard {
    int64_t window_start_ms;
    uint32_t requests;
    uint32_t resets;
    uint32_t faults;
    uint32_t control;
    uint32_t earned; /* control frames by traffic */
};

enum h2_event {
    H2_EVENT_REQUEST, /* a head has begun */
    H2_EVENT_DATA,    /* DATA with bytes, received or sent */
    H2_EVENT_RESET,   /* the client gave up a stream */
    H2_EVENT_FAULT,   /* it broke a rule of a stream */
    H2_EVENT_CONTROL, /* a frame that carries nothing of a message */
};

/* Counts. Returns NULL, or what the client does too much of (static text). */
const char *h2_guard_count(struct h2_guard *guard, const struct h2_guard_limits *limits,
                           enum h2_event event, int64_t now_ms);

#endif
