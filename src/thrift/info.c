#include "thrift/info.h"

void thrift_info_begin(struct thrift_info_reader *reader, struct slice infos, bool varints)
{
    *reader = (struct thrift_info_reader){
        .cursor = {.bytes = (const unsigned char *)infos.ptr, .len = infos.len, .end = infos.len},
        .varints = varints,
    };
}

static uint32_t length(struct thrift_info_reader *reader)
{
    return reader->varints ? cursor_varint(&reader->cursor) : cursor_number(&reader->cursor, 2);
}

static bool known(const struct thrift_info_reader *reader, uint32_t kind)
{
    if (kind == THRIFT_INFO_TEXT_KEY)
        return true;
    return !reader->varints && (kind == THRIFT_INFO_NUMBER_KEY || kind == THRIFT_INFO_TOKEN);
}

/* Passes padding and finds the next block. */
static int begin_block(struct thrift_info_reader *reader, const char **why)
{
    struct cursor *cursor = &reader->cursor;
    uint32_t kind = THRIFT_INFO_PADDING;
    while (kind == THRIFT_INFO_PADDING && cursor->at < cursor->end && !cursor->error)
        kind = reader->varints ? cursor_varint(cursor) : cursor_number(cursor, 1);
    if (cursor->error)
        return -EPROTO;
    if (kind == THRIFT_INFO_PADDING)
        return 0;
    if (!known(reader, kind)) {
        *why = "the header has infos of a kind that is not known";
        return -EPROTO;
    }
    reader->kind = (enum thrift_info_kind)kind;
    reader->left = kind == THRIFT_INFO_TOKEN ? 1 : length(reader);
    return 1;
}

int thrift_info_next(struct thrift_info_reader *reader, struct thrift_info *info, const char **why)
{
    *why = "the infos of the header are cut short";
    while (!reader->left) {
        int result = begin_block(reader, why);
        if (result <= 0)
            return result;
    }
    *info = (struct thrift_info){.kind = reader->kind};
    if (info->kind == THRIFT_INFO_TEXT_KEY)
        info->key = cursor_text(&reader->cursor, length(reader));
    if (info->kind == THRIFT_INFO_NUMBER_KEY)
        info->number = (uint16_t)cursor_number(&reader->cursor, 2);
    info->value = cursor_text(&reader->cursor, length(reader));
    reader->left--;
    return reader->cursor.error ? -EPROTO : 1;
}
