"""What goes wrong in a soak, drawn from its seed. Each fault ends when what must follow has followed."""
import asyncio
import os
import random
import signal
import time

import http1
import wire
from books import GRACE_SECONDS, ORIGIN, UPGRADE, WORKER

RELOAD_SECONDS = 30
PEER_BACK_SECONDS = 3.0   # after which a peer that has failed is tried again
LOOP_SECONDS = 8
HALF_OPEN_MAX = 40

BROKEN_SITES = {
    "syntax": "local x = = 1",
    "error": "error 'on purpose'",
    "option": 'require("monolake").listen { adress = 1 }',
    "loop": "while true do end",
    "nothing": "require 'monolake'",
}

GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 300,
    b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"\r\n" * 2000,
    b"A" * 100000,
)

class Faults:
    def __init__(self, soak):
        self.soak, self.books, self.program = soak, soak.books, soak.program
        self.half_open = []
        self.killing = 0  # faults under way that end workers: they may end a reload as well
        self.last_kill = 0.0

    async def lane(self, name, faults, seconds_between):
        """Draws one after the other until the soak ends. Lanes run beside each other."""
        rng = random.Random("%s %s" % (self.soak.seed, name))
        names = list(faults)
        while True:
            await asyncio.sleep(rng.expovariate(1 / seconds_between))
            if not self.soak.faulty:
                return
            fault = rng.choices(names, [faults[each] for each in names])[0]
            self.books.faults[fault.__name__.replace("_", " ")] += 1
            await fault(rng)

    def lanes(self):
        between = self.soak.fault_seconds
        yield "control", {self.reload: 60, self.broken_reload: 20, self.taken_reload: 5, self.upgrade: 12}, between
        yield "death", {self.kill: 10, self.crash: 5, self.pause: 5, self.loop: 2, self.interpreted_loop: 2}, \
            between * 4
        yield "origins", {self.origin_pause: 10, self.origin_restart: 6}, between * 3
        yield "clients", {self.abort: 10, self.abort_upload: 10, self.half_open_socket: 10, self.garbage: 10,
                          self.slow_head: 3}, between / 2

    # --- Reloads and upgrades --------------------------------------------------------------------

    def disturbed(self, begun):
        """Has a worker been killed since, which may end a reload or an upgrade?"""
        return self.killing > 0 or self.last_kill >= begun

    async def hup(self, expected):
        """Returns the line that tells how it ended; None after a violation."""
        ended = self.program.expect(r"generation (\d+) serves \((\d+) ms\)|reload failed")
        os.kill(self.program.pid, signal.SIGHUP)
        try:
            return await asyncio.wait_for(ended, RELOAD_SECONDS + self.soak.patience)
        except asyncio.TimeoutError:
            self.books.violation("a reload (%s) neither succeeded nor failed" % expected)
            return None

    async def reload(self, rng):
        for _ in range(10):
            begun = time.monotonic()
            self.program.more = self.soak.more_listeners(rng)
            self.program.version += 1
            self.program.write_site()
            line = await self.hup("of a good site")
            if line and line[1]:
                self.books.durations["reload, as the program says"].add(int(line[2]) / 1000)
                self.soak.serves(self.program.version)
                return await self.check_listeners()
            if line and not self.disturbed(begun):
                self.books.violation("a good site was refused: " + line.string)
            self.books.outcomes["reloads that a dying worker ended"] += 1
            await asyncio.sleep(0.2)

    async def reloads(self, count, broken_share):
        """So many in a row, some with sites that fail."""
        rng = random.Random("%s reloads" % self.soak.seed)
        while self.books.faults["reload"] + self.books.faults["broken reload"] < count:
            broken = rng.random() < broken_share
            self.books.faults["broken reload" if broken else "reload"] += 1
            await (self.broken_reload(rng) if broken else self.reload(rng))
        self.soak.until = time.monotonic()

    async def check_listeners(self):
        """Those that the site added answer, the others refuse."""
        for port in self.soak.spare_ports:
            wanted = "127.0.0.1:%d" % port in self.program.more
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                if wanted:
                    self.books.violation("nobody listens on an address that a reload has added")
                continue
            if not wanted:
                self.books.violation("somebody listens on an address that a reload has removed")
            begun = time.monotonic()
            try:
                async with asyncio.timeout(self.soak.patience):
                    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                    text = await reader.read()
                # The old program's, if a layer's loop keeps its worker from hearing of the upgrade.
                if not text.endswith(b"version %d" % self.program.version):
                    self.books.failure("added listener", "answered %r" % text[-60:], [WORKER, UPGRADE], begun)
            except (OSError, TimeoutError) as error:
                self.books.failure("added listener", repr(error), [WORKER], begun)
            writer.close()

    async def broken_reload(self, rng):
        name = rng.choice(list(BROKEN_SITES))
        self.program.write_site(BROKEN_SITES[name])
        await self.expect_refusal(name)

    async def taken_reload(self, rng):
        kept = self.program.more
        self.program.more = '\nml.listen { address = "127.0.0.1:%d", chain = {} }' % self.soak.taken_port
        self.program.write_site()
        await self.expect_refusal("address taken")
        self.program.more = kept

    async def expect_refusal(self, name):
        line = await self.hup(name)
        if line and line[1]:
            self.books.violation("a broken site serves: " + name)

    async def upgrade(self, rng):
        begun, old = time.monotonic(), self.program.pid
        self.program.write_site()
        event = self.books.event(UPGRADE)
        started = self.program.expect(r"is started as process (\d+)|upgrade failed|no upgrade now")
        ended = self.program.expect(r"process (\d+) has taken over|upgrade failed|no upgrade now")
        os.kill(old, signal.SIGUSR2)
        try:
            line = await asyncio.wait_for(started, self.soak.patience)
            if line[1]:
                self.program.supervisors.append(int(line[1]))
            line = await asyncio.wait_for(ended, RELOAD_SECONDS + self.soak.patience)
        except asyncio.TimeoutError:
            return self.books.violation("an upgrade neither succeeded nor failed")
        if not line[1]:
            if not self.disturbed(begun):
                self.books.violation("an upgrade failed: " + line.string)
            self.books.outcomes["upgrades that a dying worker ended"] += 1
            event.end()
            return
        self.program.pid = int(line[1])
        self.soak.upgraded_at = time.monotonic()
        self.soak.serves(self.program.version)
        self.books.durations["upgrade"].add(time.monotonic() - begun)
        event.end(later=GRACE_SECONDS + 5)
        with open(self.program.directory + "/pid") as file:
            if int(file.read()) != self.program.pid:
                self.books.violation("the pid file does not follow an upgrade")
        self.soak.background(self.old_one_ends(old))

    async def old_one_ends(self, old):
        if not await self.program.gone(old, GRACE_SECONDS + 10 + self.soak.patience):
            return self.books.violation("process %d has not ended after its upgrade" % old)
        self.program.supervisors.remove(old)
        self.books.outcomes["upgraded processes: wait status %s" % self.program.exits.pop(old, "?")] += 1

    # --- Dying workers ---------------------------------------------------------------------------

    async def ask(self, target, connection=None):
        """One request beside the load. Returns the connection and the answer's body; None if it broke."""
        connection = connection or http1.Connection(self.soak.addresses["lua"])
        try:
            async with asyncio.timeout(self.soak.patience):
                if not connection.served:
                    await connection.open()
                connection.writer.write(b"GET %s HTTP/1.1\r\nhost: a\r\nx-id: 0\r\n\r\n" % target)
                _, fields = await wire.read_head(connection.reader)
                body = await wire.read_body(connection.reader, fields)
                connection.served += 1
                return connection, body
        except (http1.Broken, OSError, EOFError):
            return None
        except TimeoutError:
            self.books.violation("no answer to %r within %.0f s" % (target, self.soak.patience))
            return None

    async def some_worker(self):
        """A connection and the pid of the worker that it is on."""
        for _ in range(10):
            got = await self.ask(b"/whoami")
            if got and got[1].isdigit():
                return got[0], int(got[1])
            await asyncio.sleep(0.1)
        return None, None

    async def end_worker(self, number):
        connection, pid = await self.some_worker()
        if not pid or pid not in self.program.children():
            return
        self.killing += 1
        served = time.monotonic()
        try:
            self.program.kill_worker(pid, number)
        except ProcessLookupError:
            self.killing -= 1
            return
        await self.program.gone(pid, self.soak.patience)
        if await self.ask(b"/whoami"):
            self.books.durations["served again after a death"].add(time.monotonic() - served)
        self.killing -= 1
        self.last_kill = time.monotonic()
        connection.abort()
        return pid

    async def kill(self, rng):
        await self.end_worker(signal.SIGKILL)

    async def crash(self, rng):
        words = self.program.expect("crashed: Segmentation fault|AddressSanitizer")
        if await self.end_worker(signal.SIGSEGV):
            try:
                await asyncio.wait_for(words, self.soak.patience)
            except asyncio.TimeoutError:
                self.books.violation("a worker has crashed without last words")
        words.cancel()

    async def pause(self, rng):
        """A worker that the system holds up for a while, less than it may be silent for."""
        connection, pid = await self.some_worker()
        if not pid:
            return
        try:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(rng.uniform(0.05, 1))
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
        connection.abort()

    async def loop(self, rng):
        """An endless loop, compiled: the worker is killed, nobody else."""
        connection, pid = await self.some_worker()
        if not pid or pid not in self.program.children():
            return
        self.killing += 1
        event = self.books.event(WORKER, pid)
        self.soak.background(self.ask(b"/loop", connection))
        if not await self.program.gone(pid, LOOP_SECONDS + self.soak.patience):
            self.books.violation("a worker whose layer loops was not killed")
        event.end(later=0.5)
        self.killing -= 1
        self.last_kill = time.monotonic()
        connection.abort()

    async def interpreted_loop(self, rng):
        """A loop that can be interrupted: it costs its request, not the worker."""
        connection, pid = await self.some_worker()
        if not pid:
            return
        got = await self.ask(b"/interpreted", connection)
        if not got and not self.books.excuse([WORKER], connection.opened, pid):
            self.books.violation("a loop that could be interrupted has cost its connection")
        connection.abort()

    # --- Origins ---------------------------------------------------------------------------------

    async def origin_pause(self, rng):
        number = rng.randrange(len(self.soak.origins.running))
        self.soak.origins.signal(number, signal.SIGSTOP)
        await asyncio.sleep(rng.uniform(0.1, 2))
        self.soak.origins.signal(number, signal.SIGCONT)

    async def origin_restart(self, rng):
        number = rng.randrange(len(self.soak.origins.running))
        event = self.books.event(ORIGIN)
        self.soak.origins.signal(number, signal.SIGKILL)
        await asyncio.sleep(rng.uniform(0, 0.5))
        await self.soak.origins.start(number)
        event.end(later=PEER_BACK_SECONDS)

    # --- Clients ---------------------------------------------------------------------------------

    async def connected(self, rng, listeners=("plain", "lua", "tcp", "h2c", "tls")):
        try:
            return await asyncio.open_connection(*self.soak.addresses[rng.choice(listeners)])
        except OSError as error:
            self.books.failure("fault", "connect: %s" % error, [WORKER], time.monotonic() - 1)
            return None, None

    async def begin_and_abort(self, rng, head):
        reader, writer = await self.connected(rng, ("plain", "lua"))
        if writer:
            try:
                writer.write(head)
                await asyncio.wait_for(reader.read(1000), rng.uniform(0.01, 0.5))
            except (OSError, asyncio.TimeoutError):
                pass
            writer.transport.abort()

    async def abort(self, rng):
        await self.begin_and_abort(rng, b"GET /get?size=500000&delay=0.1 HTTP/1.1\r\nhost: a\r\nx-id: 0\r\n\r\n")

    async def abort_upload(self, rng):
        await self.begin_and_abort(rng, b"PUT /get HTTP/1.1\r\nhost: a\r\nx-id: 0\r\ncontent-length: 900000\r\n\r\n" +
                                   b"u" * rng.randint(0, 300000))

    async def half_open_socket(self, rng):
        """Says nothing, or half of something, and stays."""
        _, writer = await self.connected(rng)
        if writer:
            writer.write(rng.choice((b"", b"GET / HT", b"\x16\x03", b"PRI * HT")))
            self.half_open.append(writer)
        if len(self.half_open) > HALF_OPEN_MAX:
            self.half_open.pop(0).transport.abort()

    async def garbage(self, rng):
        reader, writer = await self.connected(rng, ("plain", "lua", "h2c", "tls"))
        if not writer:
            return
        try:
            writer.write(rng.choice(GARBAGE) if rng.random() < 0.7 else rng.randbytes(2000))
            writer.write_eof()
            async with asyncio.timeout(self.soak.patience):
                while await reader.read(65536):
                    pass
        except TimeoutError:
            self.books.violation("garbage with an end behind it holds a connection open")
        except OSError:
            pass
        writer.transport.abort()

    async def slow_head(self, rng):
        reader, writer = await self.connected(rng, ("plain",))
        try:
            for byte in b"GET / HTTP/1.1\r\nhost: a\r\nx-id: ":
                if not writer or writer.is_closing():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)
        except OSError:
            pass
        if writer:
            writer.transport.abort()

    def end(self):
        for writer in self.half_open:
            writer.transport.abort()
        self.half_open = []
