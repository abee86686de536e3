"""The load of a soak: clients of every kind, each checking what it gets byte for byte."""
import asyncio
import base64
import hashlib
import os
import random
import time

import http1
import http2
import wire
from books import NOTICED_SECONDS, ORIGIN, UPGRADE, WORKER

REQUESTS_PER_CONNECTION = 60
STREAMS_AT_ONCE = 6
UDP_SECONDS = 3.0
# A program that ends waits a second for another request of an idle connection, from when it has sent the
# last answer: who has not asked for so long may meet its FIN.
DRAIN_IDLE_SECONDS = 0.5
BODY_MAX = 600000
SMALL_MAX = 4000


class Request:
    """A request of which the id decides the bodies. `query` tells the origin how to answer."""

    def __init__(self, ident, path, size, **query):
        self.ident, self.size = ident, size
        self.method, self.body, self.chunked, self.pause = "GET", b"", False, None
        query["size"] = size
        self.target = path + "?" + "&".join("%s=%s" % item for item in query.items())

    def upload(self, rng, chunked):
        self.method, self.chunked, self.rng = "POST", chunked, rng
        self.body = wire.pattern("up " + self.ident, rng.choice((0, 100, SMALL_MAX, rng.randint(1, BODY_MAX))))
        return self

    def head(self):
        framing = ""
        if self.chunked:
            framing = "transfer-encoding: chunked\r\n"
        elif self.method == "POST":
            framing = "content-length: %d\r\n" % len(self.body)
        return ("%s %s HTTP/1.1\r\nhost: a.example\r\nx-id: %s\r\n%s\r\n" %
                (self.method, self.target, self.ident, framing)).encode()

    def fields_h2(self):
        return [(":method", self.method), (":scheme", "http"), (":authority", "a.example"),
                (":path", self.target), ("x-id", self.ident)]

    def pieces(self):
        at = 0
        while at < len(self.body):
            step = self.rng.randint(1, 40000)
            yield self.body[at:at + step]
            at += step


async def dawdle():
    await asyncio.sleep(0.05)


def some_request(rng, ident, lua):
    """A request of some kind, and the kind's name."""
    kind = rng.choices(("small", "large", "chunked", "slow", "upload", "upload chunked", "slow reader"),
                       (40, 10, 10, 6, 12, 8, 2))[0]
    path = rng.choices(("/get", "/sleep", "/map", "/shared"), (5, 2, 2, 2))[0] if lua else "/get"
    small, any_size = rng.randint(0, SMALL_MAX), rng.randint(SMALL_MAX, BODY_MAX)
    if kind == "small":
        return kind, Request(ident, path, small)
    if kind == "large":
        return kind, Request(ident, path, any_size)
    if kind == "chunked":
        return kind, Request(ident, path, any_size // 4, chunked=1, pieces=rng.randint(1, 50))
    if kind == "slow":
        return kind, Request(ident, path, any_size // 8, delay=round(rng.uniform(0, 1), 2),
                             pieces=rng.randint(2, 8), pause=round(rng.uniform(0, 0.4), 2))
    if kind == "slow reader":
        request = Request(ident, path, any_size)
        request.pause = dawdle
        return kind, request
    return kind, Request(ident, path, small).upload(rng, kind == "upload chunked")


class Clients:
    """Starts and counts them. `soak` has books, rng, addresses, seconds of patience."""

    def __init__(self, soak):
        self.soak, self.books = soak, soak.books
        self.tasks, self.running = [], True
        self.count_max = 0  # of the shared counts that were answered: whoever asks later gets a higher one

    def start(self, counts):
        kinds = {"h1": self.h1, "h1 new": self.h1_new, "h1 lua": self.h1_lua, "h1 tls": self.h1_tls,
                 "h2c": self.h2c, "h2 tls": self.h2_tls, "websocket": self.websocket, "tunnel": self.tunnel,
                 "udp": self.udp, "moving": self.moving}
        for kind, count in counts.items():
            for index in range(count):
                rng = random.Random("%s %s %d" % (self.soak.seed, kind, index))
                self.tasks.append(asyncio.ensure_future(self.forever(kinds[kind], kind, index, rng)))

    async def stop(self):
        self.running = False
        done, pending = await asyncio.wait(self.tasks, timeout=self.soak.patience)
        for task in pending:
            self.books.violation("a client did not come to its end: %r" % task)
            task.cancel()
        for task in done:
            task.result()

    async def forever(self, run, kind, index, rng):
        sequence = iter(range(1, 1 << 60))
        while self.running:
            try:
                await run("%s-%d" % (kind.replace(" ", "_"), index), sequence, rng, kind)
            except http1.Broken as broken:
                # A connection that could not be opened. Handshakes may end so, and a tunnel without a peer
                # is reset, perhaps before we look; nobody may ever be refused.
                causes = [WORKER] if "tls" in kind else [ORIGIN] if broken.reset else []
                self.books.failure(kind, str(broken), causes, time.monotonic() - 1)
                await asyncio.sleep(0.1)

    async def pace(self, rng):
        await asyncio.sleep(rng.expovariate(1 / self.soak.think_seconds))

    # --- HTTP ------------------------------------------------------------------------------------

    def h1(self, *arguments):
        return self.http1_client("plain", None, REQUESTS_PER_CONNECTION, *arguments)

    def h1_new(self, *arguments):
        return self.http1_client("plain", None, 1, *arguments)

    def h1_lua(self, *arguments):
        return self.http1_client("lua", None, REQUESTS_PER_CONNECTION, *arguments)

    def h1_tls(self, *arguments):
        return self.http1_client("tls", "http/1.1", 10, *arguments)

    async def moving(self, name, sequence, rng, kind):
        """Follows a listener that each reload moves to another port. Who is let in where it was is served,
        and who is not finds it where it is: a reload swaps the two."""
        version = self.soak.served_version()
        try:
            await self.http1_client("moving", None, 1, name, sequence, rng, kind)
        except http1.Broken as broken:
            if not broken.refused or not await self.moved(version):
                raise
            self.books.outcomes["moving: refused where it was"] += 1

    async def moved(self, version):
        """Has another version come to serve? It may have a moment before we hear of it."""
        deadline = time.monotonic() + NOTICED_SECONDS
        while self.soak.served_version() == version and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return self.soak.served_version() != version

    async def opened(self, connection):
        async with asyncio.timeout(self.soak.patience):
            return await connection.open()

    async def identified(self, kind, connection):
        """The connection, which knows its worker now; None if it broke meanwhile."""
        await self.opened(connection)
        try:
            async with asyncio.timeout(self.soak.patience):
                answer = await connection.exchange(Request("whoami", "/whoami", 0))
                connection.worker = int(answer.body)
                return connection
        except http1.Broken as broken:
            self.books.failure(kind, "at once, %s" % broken, [WORKER], connection.opened)
        except TimeoutError:
            self.books.violation("%s: no answer on a new connection" % kind)
        except http2.NotBegun:
            self.books.outcomes["%s: not begun, may be sent again" % kind] += 1
        connection.abort()
        return None

    async def http1_client(self, listener, alpn, requests, name, sequence, rng, kind):
        connection = http1.Connection(self.soak.addresses[listener], self.soak.tls(alpn))
        if not await self.identified(kind, connection):
            return
        for _ in range(rng.randint(1, requests)):
            ident = "%s-%d" % (name, next(sequence))
            what, request = some_request(rng, ident, listener == "lua")
            if connection.closing or not self.running or \
                    not await self.attempt(kind, what, connection, request):
                break
            await self.pace(rng)
        connection.close()

    def h2c(self, *arguments):
        return self.http2_client("h2c", None, *arguments)

    def h2_tls(self, *arguments):
        return self.http2_client("tls", "h2", *arguments)

    async def http2_client(self, listener, alpn, name, sequence, rng, kind):
        connection = http2.Connection(self.soak.addresses[listener], self.soak.tls(alpn))
        if not await self.identified(kind, connection):
            return

        async def streams():
            for _ in range(rng.randint(1, REQUESTS_PER_CONNECTION)):
                what, request = some_request(rng, "%s-%d" % (name, next(sequence)), False)
                if connection.closing or not self.running or \
                        not await self.attempt(kind, what, connection, request):
                    return
                await self.pace(rng)
        await asyncio.gather(*(streams() for _ in range(STREAMS_AT_ONCE)))
        connection.close()

    async def attempt(self, kind, what, connection, request):
        """One request and the judgement of what became of it. False: the connection is of no more use."""
        begun = time.monotonic()
        version, count = self.soak.served_version(), self.count_max
        try:
            async with asyncio.timeout(self.soak.patience):
                answer = await connection.exchange(request)
        except http2.NotBegun:
            self.books.outcomes["%s: not begun, may be sent again" % kind] += 1
            return False
        except TimeoutError:
            self.books.violation("%s: no answer to %s (%s) within %.0f s" %
                                 (kind, request.ident, what, self.soak.patience))
            return False
        except http1.Broken as broken:
            causes = [WORKER]
            if broken.stage == "idle" and (connection.last == "slow reader" or
                                           begun - connection.answered_at > DRAIN_IDLE_SECONDS):
                causes.append(UPGRADE)
            if broken.stage == "body" or "reset with" in str(broken):
                causes.append(ORIGIN)
            self.books.failure(kind, str(broken), causes, begun, connection.worker, "%s of %.2f s, %s %s; idle for %.2f s behind %s" % (
                what, time.monotonic() - begun, request.method, request.target,
                begun - connection.answered_at, connection.last))
            return False
        self.judge(kind, what, connection, request, answer, begun, version, count)
        connection.last = what
        return True

    def judge(self, kind, what, connection, request, answer, begun, version, count):
        if answer.status != 200:
            return self.books.failure(kind, "status %d" % answer.status,
                                      [ORIGIN] if answer.status in (502, 503, 504) else [], begun)
        fields, wrong = answer.fields, None
        if fields.get("x-id") != request.ident:
            wrong = "the answer to another request: %s" % fields.get("x-id")
        elif answer.body != wire.pattern(request.ident, request.size):
            wrong = "not the body that the origin sent: %d bytes of %d" % (len(answer.body), request.size)
        elif fields.get("x-sum") != wire.checksum(answer.body):
            wrong = "not the checksum that the origin told"
        elif fields.get("x-got") != "%d %s" % (len(request.body), wire.checksum(request.body)):
            wrong = "the origin got another body: %s" % fields.get("x-got")
        elif "x-version" in fields and int(fields["x-version"]) < version and \
                connection.opened > self.soak.upgraded_at:
            wrong = "served by version %s, but %d was in force" % (fields["x-version"], version)
        elif int(fields.get("x-count", count + 1)) <= count:
            wrong = "the shared count is %s, but was %d before" % (fields["x-count"], count)
        if wrong:
            return self.books.violation("%s: %s (%s): %s" % (kind, request.ident, what, wrong))
        self.count_max = max(self.count_max, int(fields.get("x-count", 0)))
        if request.method == "POST":
            self.soak.record.answered(request.ident)
        self.books.success("%s, %s" % (kind, what), time.monotonic() - begun,
                           small=what == "small" and "/sleep" not in request.target)

    # --- Tunnels ---------------------------------------------------------------------------------

    async def websocket(self, name, sequence, rng, kind):
        connection = await self.opened(http1.Connection(self.soak.addresses[rng.choice(("plain", "lua"))]))
        reader, writer = connection.reader, connection.writer
        ident = "%s-%d" % (name, next(sequence))
        key = base64.b64encode(rng.randbytes(16))
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self.soak.patience):
                writer.write(b"GET /ws HTTP/1.1\r\nhost: a.example\r\nx-id: " + ident.encode() +
                             b"\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
                             b"sec-websocket-key: " + key + b"\r\n\r\n")
                line, fields = await wire.read_head(reader)
        except (OSError, EOFError, TimeoutError) as error:
            connection.abort()
            return self.books.failure(kind, "no answer: %r" % error, [WORKER], begun)
        status = int(line.split(" ")[1])
        accept = base64.b64encode(hashlib.sha1(key + wire.WEBSOCKET_GUID).digest()).decode()
        if status != 101:
            connection.abort()
            return self.books.failure(kind, "status %d" % status, [ORIGIN] if status > 500 else [], begun)
        if fields.get("x-id") != ident or fields.get("sec-websocket-accept") != accept:
            return self.books.violation("%s: %s got the handshake of another" % (kind, ident))

        async def say(payload):
            writer.write(wire.frame(payload, rng.randbytes(4)))
            return await wire.read_frame(reader)
        await self.talk(kind, ident, connection, say, rng, 60000)

    async def tunnel(self, name, sequence, rng, kind):
        connection = await self.opened(http1.Connection(self.soak.addresses["tcp"]))

        async def say(payload):
            connection.writer.write(payload)
            return await connection.reader.readexactly(len(payload))
        await self.talk(kind, "%s-%d" % (name, next(sequence)), connection, say, rng, 200000)

    async def talk(self, kind, ident, connection, say, rng, size_max):
        """Says something again and again and hears its echo, until the tunnel's time is over."""
        until = connection.opened + self.soak.tunnel_seconds(rng)
        number = 0
        while self.running and time.monotonic() < until:
            number += 1
            begun = time.monotonic()
            payload = wire.pattern("%s %d" % (ident, number), rng.choice((10, 1000, rng.randint(1, size_max))))
            try:
                async with asyncio.timeout(self.soak.patience):
                    heard = await say(payload)
            except TimeoutError:
                self.books.violation("%s: no echo of word %d of %s" % (kind, number, ident))
                break
            except (OSError, EOFError, ValueError) as error:
                if isinstance(error, ValueError):
                    self.books.violation("%s: %s: %s" % (kind, ident, error))
                self.books.failure(kind, "broke: %s" % type(error).__name__, self.soak.tunnel_causes,
                                   connection.opened)
                break
            if heard != payload:
                self.books.violation("%s: word %d of %s came back as another" % (kind, number, ident))
                break
            self.books.success(kind, time.monotonic() - begun)
            await self.pace(rng)
        connection.close()

    # --- UDP -------------------------------------------------------------------------------------

    async def udp(self, name, sequence, rng, kind):
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            Datagrams, remote_addr=self.soak.addresses["udp"])
        until = time.monotonic() + rng.uniform(1, 15)
        while self.running and time.monotonic() < until:
            ident = "%s-%d" % (name, next(sequence))
            begun = time.monotonic()
            payload = ident.encode() + b" " + os.urandom(rng.randint(0, 1200))
            protocol.sent.add(payload)
            transport.sendto(payload)
            if await protocol.heard(payload):
                self.books.success(kind, time.monotonic() - begun)
            else:
                self.books.outcomes["udp: lost"] += 1
            if protocol.wrong:
                self.books.violation("udp: %s got a datagram that it never sent or got one twice" % ident)
                break
            await self.pace(rng)
        transport.close()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self):
        self.sent, self.wrong, self.arrived = set(), False, asyncio.Event()

    def datagram_received(self, data, address):
        if data not in self.sent:
            self.wrong = True
        self.sent.discard(data)
        self.arrived.set()

    async def heard(self, payload):
        try:
            async with asyncio.timeout(UDP_SECONDS):
                while payload in self.sent and not self.wrong:
                    self.arrived.clear()
                    await self.arrived.wait()
                return True
        except TimeoutError:
            return False
