/* The native HTTP/1 proxy between a scripted client and a scripted origin, on both back ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "support/proxy_fixture.h"

static struct fixture fixture;

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a.example\r\n\r\n"

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in \"%s\"", part, text);
}

static void assert_lacks(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("\"%s\" is in \"%s\"", part, text);
}

static void forwards_and_reuses(void **state)
{
    (void)state;
    int client = fixture_connect(&fixture);
    send_text(client, "GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nX-One: 1\r\nConnection: x-gone\r\n"
                      "X-Gone: y\r\n\r\n");
    int origin = fixture_accept(&fixture);
    const char *head = read_until(origin, "\r\n\r\n");
    assert_has(head, "GET /a?b=c HTTP/1.1\r\n");
    assert_has(head, "Host: a.example\r\n");
    assert_has(head, "X-One: 1\r\n");
    assert_has(head, "Via: 1.1 monolake-lua\r\n");
    assert_lacks(head, "X-Gone");
    send_text(origin, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Two: 2\r\n\r\nhello");
    head = read_until(client, "hello");
    assert_has(head, "HTTP/1.1 200 OK\r\n");
    assert_has(head, "X-Two: 2\r\n");
    assert_has(head, "Content-Length: 5\r\n");

    send_text(client, GET("/second"));
    read_until(origin, "/second"); /* on the same connection */
    send_text(origin, "HTTP/1.1 204 No Content\r\n\r\n");
    head = read_until(client, "\r\n\r\n");
    assert_has(head, "HTTP/1.1 204 No Content\r\n");
    assert_lacks(head, "Content-Length");
    close(client);
    close(origin);
}

static void pipelines(void **state)
{
    (void)state;
    int client = fixture_connect(&fixture);
    send_text(client, GET("/1") GET("/2"));
    int origin = fixture_accept(&fixture);
    assert_lacks(read_until(origin, "\r\n\r\n"), "/2");
    send_text(origin, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    read_until(client, "one");
    assert_has(read_until(origin, "\r\n\r\n"), "GET /2 ");
    send_text(origin, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo");
    read_until(client, "two");
    close(client);
    close(origin);
}

static void streams_chunked_both_ways(void **state)
{
    (void)state;
    int client = fixture_connect(&fixture);
    send_text(client,
              "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    int origin = fixture_accept(&fixture);
    assert_has(read_until(origin, "3\r\nabc\r\n"), "Transfer-Encoding: chunked\r\n");
    send_text(client, "2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n");
    assert_has(read_until(origin, "\r\n\r\n"), "X-Trailer: t\r\n");
    send_text(origin, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n");
    assert_has(read_until(client, "4\r\nwxyz\r\n"), "Transfer-Encoding: chunked\r\n");
    send_text(origin, "0\r\nX-End: e\r\n\r\n");
    assert_has(read_until(client, "\r\n\r\n"), "0\r\nX-End: e\r\n");
    close(client);
    close(origin);
}

static void never_completes_a_truncated_response(void **state)
{
    (void)state;
    int reset;
    int client = fixture_connect(&fixture);
    send_text(client, GET("/cut"));
    int origin = fixture_accept(&fixture);
    read_until(origin, "\r\n\r\n");
    send_text(origin, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n");
    read_until(client, "wxyz");
    close(origin);
    assert_lacks(read_to_end(client, &reset), "0\r\n\r\n");
    assert_true(reset);
    close(client);
}

static void relays_interim_responses(void **state)
{
    (void)state;
    int client = fixture_connect(&fixture);
    send_text(client,
              "PUT /big HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    int origin = fixture_accept(&fixture);
    assert_has(read_until(origin, "\r\n\r\n"), "Expect: 100-continue\r\n");
    send_text(origin, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    assert_has(read_until(client, "\r\n\r\n"), "Link: </x>\r\n");
    send_text(origin, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_has(read_until(client, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n");
    send_text(client, "body");
    read_until(origin, "body");
    send_text(origin, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_has(read_until(client, "\r\n\r\n"), "HTTP/1.1 200 OK\r\n");
    close(client);
    close(origin);
}

static void answers_a_half_closed_client(void **state)
{
    (void)state;
    int reset;
    int client = fixture_connect(&fixture);
    send_text(client, GET("/half"));
    shutdown(client, SHUT_WR);
    int origin = fixture_accept(&fixture);
    read_until(origin, "\r\n\r\n");
    send_text(origin, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    const char *all = read_to_end(client, &reset);
    assert_has(all, "\r\n\r\nok");
    assert_has(all, "Connection: close\r\n");
    assert_false(reset);
    close(client);
    close(origin);
}

static void cancels_for_a_client_that_resets(void **state)
{
    (void)state;
    int reset;
    int client = fixture_connect(&fixture);
    send_text(client, GET("/gone"));
    int origin = fixture_accept(&fixture);
    read_until(origin, "\r\n\r\n");
    close_with_reset(client);
    read_to_end(origin, &reset);
    close(origin);
}

/* Warms one connection up, so that the next request reuses it. */
static int warm_up(int client)
{
    send_text(client, GET("/warm"));
    int origin = fixture_accept(&fixture);
    read_until(origin, "\r\n\r\n");
    send_text(origin, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwarm");
    read_until(client, "warm");
    return origin;
}

static void replays_only_what_is_idempotent(void **state)
{
    (void)state;
    int client = fixture_connect(&fixture);
    int origin = warm_up(client);
    send_text(client, GET("/again"));
    read_until(origin, "\r\n\r\n");
    close(origin);
    origin = fixture_accept(&fixture);
    read_until(origin, "GET /again ");
    send_text(origin, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_has(read_until(client, "\r\n\r\n"), "HTTP/1.1 200 OK\r\n");

    send_text(client, "POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    read_until(origin, "\r\n\r\nx");
    close(origin);
    assert_has(read_until(client, "\r\n\r\n"), "HTTP/1.1 502 ");
    assert_true(fixture_origin_untouched(&fixture));
    close(client);
}

static void tunnels_an_upgrade(void **state)
{
    (void)state;
    int reset;
    int client = fixture_connect(&fixture);
    send_text(client,
              "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    int origin = fixture_accept(&fixture);
    assert_has(read_until(origin, "\r\n\r\n"), "Upgrade: websocket\r\n");
    send_text(origin, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                      "Upgrade: websocket\r\n\r\nfirst");
    const char *head = read_until(client, "first");
    assert_has(head, "HTTP/1.1 101 Switching Protocols\r\n");
    assert_has(head, "Upgrade: websocket\r\n");
    send_text(client, "ping");
    read_until(origin, "ping");
    shutdown(client, SHUT_WR);
    read_to_end(origin, &reset);
    send_text(origin, "pong");
    read_until(client, "pong");
    close(origin);
    read_to_end(client, &reset);
    close(client);
}

static void answers_502_for_no_origin(void **state)
{
    (void)state;
    int client = fixture_connect(&fixture);
    close(fixture.origin);
    send_text(client, GET("/"));
    assert_has(read_until(client, "\r\n\r\n"), "HTTP/1.1 502 ");
    close(client);
}

static void refuses_what_is_malformed(void **state)
{
    (void)state;
    int reset;
    int client = fixture_connect(&fixture);
    send_text(
        client,
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_has(read_to_end(client, &reset), "HTTP/1.1 400 ");
    assert_true(fixture_origin_untouched(&fixture));
    close(client);
}

static int start_uring(void **state)
{
    (void)state;
    fixture_start(&fixture, IO_KIND_URING, NULL);
    return 0;
}

static int start_epoll(void **state)
{
    (void)state;
    fixture_start(&fixture, IO_KIND_EPOLL, NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    fixture_stop(&fixture);
    return 0;
}

#define ON_BOTH(test)                                                                              \
    {#test " (io_uring)", test, start_uring, stop, NULL},                                          \
    {                                                                                              \
#test " (epoll)", test, start_epoll, stop, NULL                                            \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(forwards_and_reuses),
        ON_BOTH(pipelines),
        ON_BOTH(streams_chunked_both_ways),
        ON_BOTH(never_completes_a_truncated_response),
        ON_BOTH(relays_interim_responses),
        ON_BOTH(answers_a_half_closed_client),
        ON_BOTH(cancels_for_a_client_that_resets),
        ON_BOTH(replays_only_what_is_idempotent),
        ON_BOTH(tunnels_an_upgrade),
        ON_BOTH(answers_502_for_no_origin),
        ON_BOTH(refuses_what_is_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
