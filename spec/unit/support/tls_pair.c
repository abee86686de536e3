#include "tls_pair.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A further library is tested by a line here. */
static const enum tls_library libraries[] = {
    TLS_OPENSSL,
    TLS_GNUTLS,
};

enum { LIBRARIES = sizeof(libraries) / sizeof(libraries[0]) };

/* --- Cases ------------------------------------------------------------------------------------ */

struct run {
    const struct tls_case *what;
    enum tls_library server;
    enum tls_library client;
    char name[128];
};

static void run_case(void **state)
{
    const struct run *run = *state;
    struct tls_pair pair = {.server_library = run->server, .client_library = run->client};
    run->what->run(&pair);
    tls_pair_end(&pair);
}

static int finish(void **state)
{
    (void)state;
    test_certificates_free();
    return 0;
}

int tls_cases_run(const struct tls_case *cases, size_t count)
{
    size_t total = count * LIBRARIES * LIBRARIES;
    struct run *runs = calloc(total, sizeof(*runs));
    struct CMUnitTest *tests = calloc(total, sizeof(*tests));
    for (size_t i = 0; i < total; i++) {
        struct run *run = &runs[i];
        run->what = &cases[i / LIBRARIES / LIBRARIES];
        run->server = libraries[i / LIBRARIES % LIBRARIES];
        run->client = libraries[i % LIBRARIES];
        snprintf(run->name, sizeof(run->name), "%s (%s serves %s)", run->what->name,
                 tls_library_name(run->server), tls_library_name(run->client));
        tests[i] =
            (struct CMUnitTest){.name = run->name, .test_func = run_case, .initial_state = run};
    }
    int failures = _cmocka_run_group_tests("tls", tests, total, NULL, finish);
    free(runs);
    free(tests);
    return failures;
}

/* --- Contexts --------------------------------------------------------------------------------- */

struct tls_certificate *tls_load(enum tls_library library, enum test_certificate_id id)
{
    char *error;
    struct tls_certificate_config config = {.chain = test_chain(id), .key = test_key(id)};
    struct tls_certificate *certificate = tls_certificate_load(library, &config, &error);
    if (!certificate)
        fail_msg("certificate %d: %s", id, error);
    return certificate;
}

static void drop_server(struct tls_pair *pair)
{
    if (pair->server)
        tls_server_release(pair->server);
    pair->server = NULL;
}

static void drop_client(struct tls_pair *pair)
{
    if (pair->client)
        tls_client_release(pair->client);
    pair->client = NULL;
}

void tls_pair_serve(struct tls_pair *pair, const struct tls_server_config *config)
{
    char *error;
    drop_server(pair);
    pair->server = tls_server_create(pair->server_library, config, &error);
    if (!pair->server)
        fail_msg("server: %s", error);
}

void tls_pair_serve_with(struct tls_pair *pair, struct tls_server_config config,
                         const enum test_certificate_id *ids, unsigned count)
{
    struct tls_certificate *certificates[CERT_COUNT];
    for (unsigned i = 0; i < count; i++)
        certificates[i] = tls_load(pair->server_library, ids[i]);
    config.certificates = certificates;
    config.certificate_count = count;
    tls_pair_serve(pair, &config);
    for (unsigned i = 0; i < count; i++)
        tls_certificate_release(certificates[i]);
}

void tls_pair_ask(struct tls_pair *pair, const struct tls_client_config *config)
{
    char *error;
    drop_client(pair);
    pair->client = tls_client_create(pair->client_library, config, &error);
    if (!pair->client)
        fail_msg("client: %s", error);
}

void tls_pair_prepare(struct tls_pair *pair)
{
    enum test_certificate_id id = CERT_ONE_ECDSA;
    tls_pair_serve_with(pair, (struct tls_server_config){0}, &id, 1);
    tls_pair_ask(pair, &(struct tls_client_config){.authorities = test_chain(CERT_CA)});
}

/* --- Sessions --------------------------------------------------------------------------------- */

static void end_side(struct tls_side *side)
{
    if (side->begun)
        tls_end(&side->session);
    free(side->inbox);
    *side = (struct tls_side){0};
}

void tls_pair_begin(struct tls_pair *pair, const char *name)
{
    struct tls_memory *memory = pair->remembers ? &pair->memory : NULL;
    end_side(&pair->at_server);
    end_side(&pair->at_client);
    assert_int_equal(tls_accept(&pair->at_server.session, pair->server), 0);
    pair->at_server.begun = true;
    assert_int_equal(tls_connect(&pair->at_client.session, pair->client, name, memory), 0);
    pair->at_client.begun = true;
    pair->at_server.result = pair->at_client.result = -EAGAIN;
    tls_pair_go_on(pair);
}

static void carry(struct tls_side *from, struct tls_side *to)
{
    struct tls_output *output = &from->session.output;
    if (!output->len)
        return;
    to->inbox = realloc(to->inbox, to->inbox_len + output->len);
    memcpy(to->inbox + to->inbox_len, output->bytes, output->len);
    to->inbox_len += output->len;
    tls_output_release(output);
}

void tls_pair_carry(struct tls_pair *pair)
{
    carry(&pair->at_server, &pair->at_client);
    carry(&pair->at_client, &pair->at_server);
}

/* Points the input at what has arrived, in a block of its own size so that ASan sees reads beyond
 * it. */
static void *feed(struct tls_side *side, size_t portion)
{
    size_t given = portion && portion < side->inbox_len ? portion : side->inbox_len;
    char *block = malloc(given + 1);
    char *bytes = block + 1;
    if (given)
        memcpy(bytes, side->inbox, given);
    side->session.input = slice_of(bytes, given);
    return block;
}

static size_t swallow(struct tls_side *side, size_t given, void *block)
{
    size_t taken = given - side->session.input.len;
    side->session.input = slice_of(NULL, 0);
    free(block);
    side->inbox_len -= taken;
    if (side->inbox_len)
        memmove(side->inbox, side->inbox + taken, side->inbox_len);
    return taken;
}

/* Returns whether anything has happened. */
static bool step(struct tls_pair *pair, struct tls_side *side)
{
    if (side->result != -EAGAIN)
        return false;
    void *block = feed(side, pair->portion);
    size_t given = side->session.input.len;
    side->result = tls_handshake(&side->session);
    bool sent = side->session.output.len > 0;
    size_t taken = swallow(side, given, block);
    tls_pair_carry(pair);
    return taken || sent || side->result != -EAGAIN;
}

void tls_pair_go_on(struct tls_pair *pair)
{
    bool moved;
    do {
        moved = step(pair, &pair->at_client);
        if (step(pair, &pair->at_server))
            moved = true;
    } while (moved);
}

ssize_t tls_side_read(struct tls_side *side, void *bytes, size_t size)
{
    void *block = feed(side, 0);
    size_t given = side->session.input.len;
    ssize_t result = tls_read(&side->session, bytes, size);
    swallow(side, given, block);
    return result;
}

void tls_pair_open(struct tls_pair *pair, const char *name)
{
    tls_pair_begin(pair, name);
    if (pair->at_server.result != 0 || pair->at_client.result != 0)
        fail_msg("%s: server %d \"%s\", client %d \"%s\"", name, pair->at_server.result,
                 tls_error(&pair->at_server.session), pair->at_client.result,
                 tls_error(&pair->at_client.session));
}

/* In TLS 1.3 a client may be content before its server is not. */
void tls_pair_refuse(struct tls_pair *pair, const char *name)
{
    char byte;
    tls_pair_begin(pair, name);
    if (pair->at_client.result == 0)
        pair->at_client.result = (int)tls_side_read(&pair->at_client, &byte, 1);
    tls_pair_carry(pair);
    if (pair->at_server.result == 0)
        pair->at_server.result = (int)tls_side_read(&pair->at_server, &byte, 1);
    assert_int_equal(pair->at_client.result, -EPROTO);
    assert_int_equal(pair->at_server.result, -EPROTO);
    assert_true(tls_error(&pair->at_client.session)[0]);
    assert_true(tls_error(&pair->at_server.session)[0]);
}

struct tls_info tls_side_info(const struct tls_side *side)
{
    struct tls_info info;
    tls_describe(&side->session, &info);
    return info;
}

void tls_pair_end(struct tls_pair *pair)
{
    end_side(&pair->at_server);
    end_side(&pair->at_client);
    drop_server(pair);
    drop_client(pair);
    tls_memory_free(&pair->memory);
}
