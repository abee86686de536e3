/* A listener in a plain LuaJIT, for scripted origins and specs with real sockets. */
#include "script/harness.h"

#include "http/server.h"
#include "io/io.h"
#include "proxy/chain.h"
#include "proxy/site.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BACKLOG = 1024, CLOSE_MS = 10000 };

struct server {
    struct service service; /* first: the h1 server's */
    struct http_server http;
    const struct chain *chain;
    struct site *site; /* retained */
    struct io_op accept;
    struct address address; /* as bound */
    uint32_t users;
    bool accept_ended;
};

static struct response *handle(struct service *service, struct request *request)
{
    return chain_run(((struct server *)service)->chain, request);
}

static void retain(struct service *service)
{
    ((struct server *)service)->users++;
}

static void release(struct service *service)
{
    ((struct server *)service)->users--;
}

static void accepted(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    struct server *server = op->owner;
    (void)buf;
    if (result >= 0)
        http_server_accept(&server->http, result);
    if (!more)
        server->accept_ended = true;
}

static int open_socket(struct server *server)
{
    int family = server->address.any.sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    socklen_t len = sizeof(struct sockaddr_un);
    if (bind(fd, &server->address.any, server->address.len) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, &server->address.any, &len) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    server->address.len = len;
    return fd;
}

static void close_server(struct server *server)
{
    struct io *io = server->http.io;
    http_server_abort(&server->http);
    io_cancel(io, &server->accept);
    for (int turn = 0; turn < CLOSE_MS; turn++) {
        if (server->accept_ended && server->http.connection_count == 0)
            break;
        harness_turn(io, 1);
    }
    close(server->accept.fd);
    http_server_fini(&server->http);
    site_release(server->site);
    free(server);
}

static int collect_server(lua_State *L)
{
    struct server **box = luaL_checkudata(L, 1, "monolake.server");
    struct server *server = *box;
    *box = NULL;
    if (server)
        close_server(server);
    return 0;
}

static struct server *server_of(lua_State *L)
{
    struct server **box = luaL_checkudata(L, 1, "monolake.server");
    if (!*box)
        luaL_error(L, "the server is closed");
    return *box;
}

static int server_port(lua_State *L)
{
    lua_pushinteger(L, address_port(&server_of(L)->address));
    return 1;
}

static int server_address(lua_State *L)
{
    char text[ADDRESS_TEXT_MAX];
    size_t len = address_format(&server_of(L)->address, text);
    lua_pushlstring(L, text, len);
    return 1;
}

static const luaL_Reg server_methods[] = {
    {"port", server_port},
    {"address", server_address},
    {"close", collect_server},
    {NULL, NULL},
};

static void start_accepting(struct server *server, int fd)
{
    server->accept.kind = IO_OP_ACCEPT;
    server->accept.fd = fd;
    server->accept.done = accepted;
    server->accept.owner = server;
    io_submit(server->http.io, &server->accept);
}

/* core.serve(site, chain, address) */
static int serve(lua_State *L)
{
    struct site *site = harness_site(L, 1);
    size_t len;
    const char *text = luaL_checklstring(L, 3, &len);
    const char *why = "";
    struct io *io = harness_io(L);
    struct server **box = lua_newuserdata(L, sizeof(*box));
    *box = NULL;
    harness_set_metatable(L, "monolake.server", server_methods, collect_server);
    struct server *server = calloc(1, sizeof(*server));
    if (!server)
        return luaL_error(L, "out of memory");
    int fd = -EINVAL;
    if (address_parse(slice_of(text, len), &server->address, &why) == 0)
        fd = open_socket(server);
    if (fd < 0) {
        free(server);
        return luaL_error(L, "serve %s: %s", text, *why ? why : strerror(-fd));
    }
    server->service = (struct service){.handle = handle, .retain = retain, .release = release};
    server->chain = lua_touserdata(L, 2);
    server->site = site;
    site_retain(site);
    struct listener_config config;
    listener_config_init(&config);
    http_server_init(&server->http, io);
    http_server_set_service(&server->http, &server->service, &config);
    start_accepting(server, fd);
    *box = server;
    return 1;
}

const luaL_Reg harness_server_functions[] = {
    {"serve", serve},
    {NULL, NULL},
};
