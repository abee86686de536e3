/* Heads of Thrift messages: each encoding is understood whole and asks for more wherever it is cut;
 * what is written is what is read; malformed ones are refused with a reason. */
#include "thrift/exchange.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct arena arena;

static const struct thrift_limits limits = {
    .frame_max_bytes = 1 << 20, .head_max_bytes = 4096, .field_count_max = 8};

static int setup(void **state)
{
    (void)state;
    arena_init(&arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

#define BYTES(literal) slice_of((literal), sizeof(literal) - 1)

#define BINARY_CALL                                                                                \
    "\x80\x01\x00\x01\x00\x00\x00\x03"                                                             \
    "add"                                                                                          \
    "\x00\x00\x00\x07"
#define COMPACT_CALL                                                                               \
    "\x82\x21\xac\x02\x03"                                                                         \
    "add"

static const char framed_binary[] = "\x00\x00\x00\x10" BINARY_CALL "\x00";
static const char framed_compact[] = "\x00\x00\x00\x09" COMPACT_CALL "\x00";
/* Two texts, two numbers, a token, padding between and behind. */
static const char ttheader[] = "\x00\x00\x00\x42\x10\x00\x00\x01\x01\x02\x03\x04\x00\x0a"
                               "\x00\x00"
                               "\x01\x00\x02\x00\x01"
                               "a"
                               "\x00\x02"
                               "bc"
                               "\x00\x03"
                               "key"
                               "\x00\x00"
                               "\x10\x00\x02\x00\x02\x00\x01"
                               "x"
                               "\x01\x00\x00\x00"
                               "\x00"
                               "\x11\x00\x03"
                               "tok"
                               "\x00\x00" BINARY_CALL "\x00";
static const char ttheader_framed[] = "\x00\x00\x00\x1a\x10\x00\x00\x00\x00\x00\x00\x09\x00\x01"
                                      "\x00\x00\x00\x00"
                                      "\x00\x00\x00\x08"
                                      "\x82\x21\x01\x03"
                                      "add"
                                      "\x00";
static const char theader[] = "\x00\x00\x00\x23\x0f\xff\x00\x00\x00\x00\x00\x07\x00\x03"
                              "\x02\x00\x01\x01\x03"
                              "key"
                              "\x01"
                              "v"
                              "\x00\x00" COMPACT_CALL "\x00\x00\x00\x00\x00";

static struct thrift_head parse(struct slice bytes)
{
    struct thrift_head head;
    const char *why;
    assert_int_equal(thrift_parse(&head, bytes.ptr, bytes.len, &limits, &why), 0);
    return head;
}

/* Every cut asks for more, never for more than the head has, and always for something. */
static void assert_cuts(struct slice bytes)
{
    struct thrift_head whole = parse(bytes);
    assert_int_equal(whole.head_bytes + whole.body_bytes, bytes.len);
    for (size_t len = 0; len < whole.head_bytes; len++) {
        struct thrift_head head;
        const char *why;
        char *exact = malloc(len ? len : 1);
        assert_non_null(exact);
        memcpy(exact, bytes.ptr, len);
        assert_int_equal(thrift_parse(&head, exact, len, &limits, &why), -EAGAIN);
        assert_true(head.needed_bytes > len);
        assert_true(head.needed_bytes <= whole.head_bytes);
        free(exact);
    }
    struct thrift_head cut;
    const char *why;
    assert_int_equal(thrift_parse(&cut, bytes.ptr, whole.head_bytes, &limits, &why), 0);
    assert_int_equal(cut.body_bytes, whole.body_bytes);
}

static void heads_of_every_encoding_are_understood_wherever_they_are_cut(void **state)
{
    (void)state;
    struct thrift_head head = parse(BYTES(framed_binary));
    assert_int_equal(head.transport, THRIFT_FRAMED);
    assert_int_equal(head.protocol, THRIFT_BINARY);
    assert_int_equal(head.type, THRIFT_CALL);
    assert_int_equal(head.seqid, 7);
    assert_true(slice_equal(head.method, SLICE("add")));
    assert_int_equal(head.body_bytes, 1);
    assert_cuts(BYTES(framed_binary));

    head = parse(BYTES(framed_compact));
    assert_int_equal(head.protocol, THRIFT_COMPACT);
    assert_int_equal(head.seqid, 300);
    assert_true(slice_equal(head.method, SLICE("add")));
    assert_cuts(BYTES(framed_compact));

    head = parse(BYTES(ttheader));
    assert_int_equal(head.transport, THRIFT_TTHEADER);
    assert_int_equal(head.flags, THRIFT_HEADER_OUT_OF_ORDER);
    assert_int_equal(head.header_seqid, 0x01020304);
    assert_int_equal(head.seqid, 7);
    assert_cuts(BYTES(ttheader));
    assert_cuts(BYTES(theader));
}

static void a_frame_inside_a_header_s_is_found(void **state)
{
    (void)state;
    static const char binary[] = "\x00\x00\x00\x22\x10\x00\x00\x00\x00\x00\x00\x09\x00\x01"
                                 "\x00\x00\x00\x00"
                                 "\x00\x00\x00\x10" BINARY_CALL "\x00";
    const char *why;
    struct thrift_head head = parse(BYTES(binary));
    assert_int_equal(head.transport, THRIFT_TTHEADER_FRAMED);
    assert_cuts(BYTES(binary));
    /* The header says binary, the message is compact. */
    assert_int_equal(
        thrift_parse(&head, ttheader_framed, sizeof(ttheader_framed) - 1, &limits, &why), -EPROTO);
    assert_string_equal(why, "the header says another protocol than the message is in");
}

static void key_values_become_fields(void **state)
{
    (void)state;
    struct headers fields;
    headers_init(&fields, &arena);
    struct thrift_message *message = thrift_message_read(&arena, BYTES(ttheader), &limits, &fields);
    assert_non_null(message);
    assert_true(slice_equal(headers_get(&fields, SLICE("a")), SLICE("bc")));
    assert_int_equal(headers_get(&fields, SLICE("key")).len, 0);
    assert_non_null(headers_get(&fields, SLICE("key")).ptr);
    assert_true(slice_equal(headers_get(&message->numbers, SLICE("2")), SLICE("x")));
    assert_non_null(headers_get(&message->numbers, SLICE("256")).ptr);
    assert_true(slice_equal(message->token, SLICE("tok")));

    headers_init(&fields, &arena);
    message = thrift_message_read(&arena, BYTES(theader), &limits, &fields);
    assert_non_null(message);
    assert_true(slice_equal(headers_get(&fields, SLICE("key")), SLICE("v")));
    assert_int_equal(message->protocol, THRIFT_COMPACT);
}

/* Writes a message with another sequence id and reads it again. */
static void assert_rewritten(struct slice bytes, int32_t seqid)
{
    struct headers fields;
    struct headers again;
    struct slice out;
    headers_init(&fields, &arena);
    headers_init(&again, &arena);
    struct thrift_message *message = thrift_message_read(&arena, bytes, &limits, &fields);
    assert_non_null(message);
    message->seqid = seqid;
    message->header_seqid = seqid;
    assert_int_equal(thrift_write_head(&arena, message, &fields, 5, &out), 0);
    struct thrift_head head;
    const char *why;
    assert_int_equal(thrift_parse(&head, out.ptr, out.len, &limits, &why), 0);
    assert_int_equal(head.head_bytes, out.len);
    assert_int_equal(head.body_bytes, 5);
    struct thrift_message *read = thrift_message_read(&arena, out, &limits, &again);
    assert_non_null(read);
    assert_int_equal(read->seqid, seqid);
    assert_int_equal(read->transport, message->transport);
    assert_int_equal(read->protocol, message->protocol);
    assert_int_equal(read->type, message->type);
    assert_int_equal(read->flags, message->flags);
    assert_int_equal(read->header_seqid, message->transport == THRIFT_FRAMED ? 0 : seqid);
    assert_true(slice_equal(read->method, message->method));
    assert_true(slice_equal(read->token, message->token));
    assert_int_equal(again.count, fields.count);
    for (uint32_t i = 0; i < fields.count; i++) {
        assert_true(slice_equal(again.items[i].name, fields.items[i].name));
        assert_true(slice_equal(again.items[i].value, fields.items[i].value));
    }
    assert_int_equal(read->numbers.count, message->numbers.count);
}

static void what_is_written_is_what_is_read(void **state)
{
    (void)state;
    static const int32_t seqids[] = {0, 1, 127, 128, 300, 65536, INT32_MAX, -1, INT32_MIN};
    for (size_t i = 0; i < sizeof(seqids) / sizeof(seqids[0]); i++) {
        assert_rewritten(BYTES(framed_binary), seqids[i]);
        assert_rewritten(BYTES(framed_compact), seqids[i]);
        assert_rewritten(BYTES(ttheader), seqids[i]);
        assert_rewritten(BYTES(theader), seqids[i]);
    }
}

static struct thrift_message *read_ttheader(struct headers *fields)
{
    headers_init(fields, &arena);
    struct thrift_message *message = thrift_message_read(&arena, BYTES(ttheader), &limits, fields);
    assert_non_null(message);
    return message;
}

static void fields_too_long_for_a_header_are_told_of(void **state)
{
    (void)state;
    struct headers fields;
    struct slice out;
    struct thrift_message *message = read_ttheader(&fields);
    char *value = arena_zalloc(&arena, UINT16_MAX + 1);
    assert_non_null(value);
    headers_set(&fields, SLICE("a"), slice_of(value, UINT16_MAX + 1));
    assert_int_equal(thrift_write_head(&arena, message, &fields, 0, &out), -EMSGSIZE);
    for (int i = 0; i < 5; i++)
        headers_add(&fields, SLICE("a"), slice_of(value, UINT16_MAX));
    headers_set(&fields, SLICE("a"), SLICE("short"));
    assert_int_equal(thrift_write_head(&arena, message, &fields, 0, &out), 0);
    assert_int_equal(thrift_write_head(&arena, message, &fields, INT32_MAX, &out), -EMSGSIZE);
}

/* A header says its size in 16 bits: one too long would be cut where the next call begins. */
static void a_token_counts_for_the_length_of_a_header(void **state)
{
    (void)state;
    struct headers fields;
    struct slice out;
    struct thrift_message *message = read_ttheader(&fields);
    char *value = arena_zalloc(&arena, UINT16_MAX);
    assert_non_null(value);
    for (int i = 0; i < 3; i++)
        headers_add(&fields, SLICE("a"), slice_of(value, UINT16_MAX));
    message->token = slice_of(value, 60000);
    assert_int_equal(thrift_write_head(&arena, message, &fields, 0, &out), 0);
    headers_add(&fields, SLICE("a"), slice_of(value, 60000));
    assert_int_equal(thrift_write_head(&arena, message, &fields, 0, &out), -EMSGSIZE);
}

static void malformed_heads_are_refused_with_a_reason(void **state)
{
    (void)state;
    static const struct {
        struct slice bytes;
        const char *why;
    } cases[] = {
        {SLICE_INIT("\x00\x00\x00\x00"), "the frame has no message"},
        {SLICE_INIT(BINARY_CALL),
         "the message is not framed: make the client use the framed transport"},
        {SLICE_INIT(COMPACT_CALL),
         "the message is not framed: make the client use the framed transport"},
        {SLICE_INIT("\xff\xff\xff\xff"), "this is not Thrift: it begins with no length of a frame"},
        {SLICE_INIT("GET / HTTP/1.1\r\n"),
         "the frame has no message in the binary or the compact protocol"},
        {SLICE_INIT("\x00\x00\x00\x0c\x00\x00\x00\x03"
                    "add"
                    "\x01\x00\x00\x00\x07"),
         "the message is in the binary protocol without a version, which is not taken: make the "
         "client write it strictly"},
        {SLICE_INIT("\x00\x00\x00\x08\x80\x02\x00\x01\x00\x00\x00\x03"),
         "the message is of a version of the binary protocol that is not known"},
        {SLICE_INIT("\x00\x00\x00\x08\x80\x01\x00\x01\x00\x00\x00\x03"
                    "a"),
         "the message is cut short by its frame"},
        {SLICE_INIT("\x00\x00\x10\x08\x80\x01\x00\x01\x00\x00\x04\x01"
                    "a"),
         "the name of the method is too long"},
        {SLICE_INIT("\x00\x00\x10\x08\x80\x01\x00\x01\xff\xff\xff\xff"),
         "the name of the method is too long"},
        {SLICE_INIT("\x00\x00\x00\x0f\x80\x01\x00\x05\x00\x00\x00\x03"
                    "add"
                    "\x00\x00\x00\x07"),
         "the message is of a type that is not known"},
        {SLICE_INIT("\x00\x00\x00\x0f\x80\x01\x00\x01\x00\x00\x00\x03"
                    "a d"
                    "\x00\x00\x00\x07"),
         "the name of the method is empty or has bytes that no name has"},
        {SLICE_INIT("\x00\x00\x00\x0c\x80\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07"),
         "the name of the method is empty or has bytes that no name has"},
        {SLICE_INIT("\x00\x00\x00\x09\x82\x22\x01\x03"
                    "add"),
         "the message is of a version of the compact protocol that is not known"},
        {SLICE_INIT("\x00\x00\x00\x0c\x82\x21\xff\xff\xff\xff\x1f\x03"
                    "add"),
         "the message is cut short by its frame"},
        {SLICE_INIT("\x00\x00\x00\x20\x10\x01\x00\x00"),
         "the frame has no message in the binary or the compact protocol"},
        {SLICE_INIT("\x00\x00\x00\x20\x10\x00\x00\x00\x00\x00\x00\x09\xff\xff"),
         "the header is too long"},
        {SLICE_INIT("\x00\x00\x00\x0a\x10\x00\x00\x00\x00\x00\x00\x09\x00\x01"),
         "the header is cut short by its frame"},
        {SLICE_INIT("\x00\x00\x00\x0a\x10\x00\x00\x00\x00\x00\x00\x09\x00\x00"),
         "the header is too short"},
        {SLICE_INIT("\x00\x00\x00\x20\x10\x00\x00\x00\x00\x00\x00\x09\x00\x01\x00\x01\x01\x00"),
         "the header asks for transforms, which are not taken here: make the client send without "
         "compression"},
        {SLICE_INIT("\x00\x00\x00\x20\x10\x00\x00\x02\x00\x00\x00\x09\x00\x01\x00\x00\x00\x00"),
         "the frame is one of a stream, which is not taken here"},
        {SLICE_INIT("\x00\x00\x00\x20\x10\x00\x00\x00\x00\x00\x00\x09\x00\x01\x00\x00\x07\x00"),
         "the header has infos of a kind that is not known"},
        {SLICE_INIT("\x00\x00\x00\x20\x10\x00\x00\x00\x00\x00\x00\x09\x00\x01\x00\x00\x01\x00"),
         "the infos of the header are cut short"},
        {SLICE_INIT("\x00\x00\x00\x20\x10\x00\x00\x00\x00\x00\x00\x09\x00\x01\x00\x00\x00\x00"
                    "\x00\x00\x00\x08"),
         "the frame inside the header's has another length"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct thrift_head head;
        const char *why;
        assert_int_equal(thrift_parse(&head, cases[i].bytes.ptr, cases[i].bytes.len, &limits, &why),
                         -EPROTO);
        assert_string_equal(why, cases[i].why);
    }
}

static void too_many_key_values_are_refused(void **state)
{
    (void)state;
    static const char bytes[] = "\x00\x00\x00\x40\x10\x00\x00\x00\x00\x00\x00\x09\x00\x0b"
                                "\x00\x00\x10\x00\x09"
                                "\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00"
                                "\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00"
                                "\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00";
    struct thrift_head head;
    const char *why;
    assert_int_equal(thrift_parse(&head, bytes, sizeof(bytes) - 1, &limits, &why), -EPROTO);
    assert_string_equal(why, "the header has too many key-values");
}

static void a_frame_over_the_limit_is_known_by_its_head(void **state)
{
    (void)state;
    static const char bytes[] = "\x00\x10\x00\x01" BINARY_CALL;
    struct thrift_head head;
    const char *why;
    assert_int_equal(thrift_parse(&head, bytes, sizeof(bytes) - 1, &limits, &why), -EMSGSIZE);
    assert_int_equal(head.seqid, 7);
    assert_true(slice_equal(head.method, SLICE("add")));
    assert_int_equal(head.body_bytes, (1 << 20) + 1 - 15);
    struct headers fields;
    headers_init(&fields, &arena);
    assert_non_null(thrift_message_read(&arena, BYTES(bytes), &limits, &fields));
}

static void exceptions_are_structs_of_the_protocol(void **state)
{
    (void)state;
    static const char binary[] = "\x0b\x00\x01\x00\x00\x00\x02no\x08\x00\x02\x00\x00\x00\x06\x00";
    static const char compact[] = "\x18\x02no\x15\x0c\x00";
    assert_true(slice_equal(
        thrift_write_exception(&arena, THRIFT_BINARY, THRIFT_INTERNAL_ERROR, SLICE("no")),
        BYTES(binary)));
    assert_true(slice_equal(
        thrift_write_exception(&arena, THRIFT_COMPACT, THRIFT_INTERNAL_ERROR, SLICE("no")),
        BYTES(compact)));
}

static void own_names_are_never_empty(void **state)
{
    (void)state;
    assert_true(slice_equal(thrift_own_name(SLICE("Service:add")), SLICE("add")));
    assert_true(slice_equal(thrift_own_name(SLICE("a:Service:add")), SLICE("add")));
    assert_true(slice_equal(thrift_own_name(SLICE("add")), SLICE("add")));
    assert_true(slice_equal(thrift_own_name(SLICE("add:")), SLICE("add:")));
    assert_true(slice_equal(thrift_own_name(SLICE(":")), SLICE(":")));
}

static void exceptions_answer_by_the_method_s_own_name(void **state)
{
    (void)state;
    struct headers fields;
    headers_init(&fields, &arena);
    struct thrift_message *message =
        thrift_message_read(&arena, BYTES(framed_binary), &limits, &fields);
    message->method = SLICE("Service:add");
    struct request request = {.arena = &arena, .thrift = message};
    struct response *response =
        thrift_create_exception(&request, THRIFT_UNKNOWN_METHOD, SLICE("none"));
    assert_non_null(response);
    assert_int_equal(response->status, 500);
    assert_int_equal(response->thrift->type, THRIFT_EXCEPTION);
    assert_int_equal(response->thrift->seqid, 7);
    assert_true(slice_equal(response->thrift->method, SLICE("add")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(heads_of_every_encoding_are_understood_wherever_they_are_cut),
        TEST(a_frame_inside_a_header_s_is_found),
        TEST(key_values_become_fields),
        TEST(what_is_written_is_what_is_read),
        TEST(fields_too_long_for_a_header_are_told_of),
        TEST(a_token_counts_for_the_length_of_a_header),
        TEST(malformed_heads_are_refused_with_a_reason),
        TEST(too_many_key_values_are_refused),
        TEST(a_frame_over_the_limit_is_known_by_its_head),
        TEST(exceptions_are_structs_of_the_protocol),
        TEST(own_names_are_never_empty),
        TEST(exceptions_answer_by_the_method_s_own_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
