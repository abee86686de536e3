/*
 * Whoever waits for the end of a tunnel that outlives the exchange it began with: a line of an
 * access log, say. Owned by whoever has the tunnel, or else by the exchange.
 */
#ifndef HTTP_TUNNEL_NOTE_H
#define HTTP_TUNNEL_NOTE_H

#include "net/tunnel.h"

struct tunnel_state;

struct tunnel_note {
    /* The tunnel has ended, or goes on in another process, which tells of its end (TUNNEL_LEFT).
     * Frees the note. */
    void (*ended)(struct tunnel_note *note, const struct tunnel_result *result);
    /* Adds what that other process has to know. False if there is no room for it. */
    bool (*describe)(const struct tunnel_note *note, struct tunnel_state *state);
    struct tunnel_note *next;
};

/* Tells all of a list, which is gone then. */
static inline void tunnel_notes_end(struct tunnel_note *note, const struct tunnel_result *result)
{
    while (note) {
        struct tunnel_note *next = note->next;
        note->ended(note, result);
        note = next;
    }
}

#endif
