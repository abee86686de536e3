/*
 * The infos of TTHeader and THeader: key-values that travel with a message. TTHeader has keys that
 * are texts, keys that are numbers, and a token. Pure.
 *
 *   TTHeader  0x01 count {length key length value}...     texts; all lengths of 16 bits
 *             0x10 count {key length value}...            numbers of 16 bits
 *             0x11 length token
 *   THeader   1 count {length key length value}...        all in varints
 *   a zero is padding
 */
#ifndef THRIFT_INFO_H
#define THRIFT_INFO_H

#include "base/slice.h"
#include "thrift/cursor.h"

#include <stdbool.h>
#include <stdint.h>

enum thrift_info_kind {
    THRIFT_INFO_PADDING = 0,
    THRIFT_INFO_TEXT_KEY = 0x01,
    THRIFT_INFO_NUMBER_KEY = 0x10,
    THRIFT_INFO_TOKEN = 0x11,
};

struct thrift_info {
    enum thrift_info_kind kind;
    struct slice key; /* borrowed, as is the value */
    uint16_t number;  /* the key, of THRIFT_INFO_NUMBER_KEY */
    struct slice value;
};

struct thrift_info_reader {
    struct cursor cursor;
    bool varints; /* THeader */
    enum thrift_info_kind kind;
    uint32_t left; /* key-values of the present kind */
};

void thrift_info_begin(struct thrift_info_reader *reader, struct slice infos, bool varints);

/* Reads the next. Returns 1, 0 at the end, or -EPROTO with *why (static text). */
int thrift_info_next(struct thrift_info_reader *reader, struct thrift_info *info, const char **why);

#endif
