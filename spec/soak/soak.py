#!/usr/bin/python3
"""Runs the program under mixed load and random faults for a while and checks every answer.

    ./dev soak MINUTES [--seed N] [--io io_uring|epoll] [--clients FACTOR]
    ./dev soak --reloads N [...]    nothing but reloads, one behind the other: no request may fail at all

The faults are drawn from the seed (their timing is the machine's). What a fault of ours explains is
counted as a failure; anything else is a violation: it is printed with the seed, and the exit code is 1.
"""
import argparse
import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from books import GRACE_SECONDS, ORIGIN, STAYED, UPGRADE, WORKER, Books
from clients import Clients
from faults import Faults
from program import Origins, Program, free_port, status_kib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CLIENTS = {"h1": 8, "h1 new": 3, "h1 lua": 6, "h1 tls": 4, "h2c": 2, "h2 tls": 2, "websocket": 6, "tunnel": 8,
           "udp": 4, "moving": 6}
LISTENERS = ("plain", "lua", "tls", "h2c", "tcp")
BASE_SECONDS = 8            # of load before reloads, to compare with
BROKEN_SHARE = 0.1          # of reloads in a row
RELOADS_SECONDS_MAX = 3600
WARM_SHARE = 0.2            # of the time, before memory is looked at for the first time
WARM_SECONDS_MAX = 120
GROWTH_MAX_KIB = 48 * 1024  # of a worker between then and the end
DESCRIPTORS_MORE_MAX = 8
REST_SECONDS = 20           # for what idles to be closed, after the last client
RECORD_WINDOW = 200000


class Record:
    """What the origins say of the POSTs that they took: none twice, and none of those lost that were
    answered. Reads the file as it grows."""

    def __init__(self, books, path):
        self.books, self.path = books, path
        self.offset, self.rest = 0, ""
        self.seen, self.owed = {}, {}

    def answered(self, ident):
        if ident not in self.seen:
            self.owed[ident] = time.monotonic()

    def read(self):
        with open(self.path) as file:
            file.seek(self.offset)
            text = file.read()
        self.offset += len(text)
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            ident, origin = line.split(" ")
            if ident in self.seen:
                self.books.violation("POST %s was carried out twice, by %s and %s" % (ident, self.seen[ident], origin))
            self.seen[ident] = origin
            self.owed.pop(ident, None)
        while len(self.seen) > RECORD_WINDOW:
            del self.seen[next(iter(self.seen))]

    def close(self):
        self.read()
        for ident in self.owed:
            self.books.violation("POST %s was answered, but no origin has taken it" % ident)


class Soak:
    def __init__(self, options):
        self.seed, self.seconds = options.seed, options.minutes * 60
        self.patience = 30.0 * float(os.environ.get("SPEC_PATIENCE", 1))
        self.think_seconds, self.fault_seconds = 0.1 / options.clients, 0.8
        self.books, self.faulty, self.upgraded_at = Books(), True, 0.0
        self.served, self.tasks = 1, set()
        self.at_start, self.warm, self.at_end, self.alive = {}, {}, {}, {}
        self.tunnel_causes = [WORKER, ORIGIN, STAYED]
        self.directory = tempfile.mkdtemp(prefix="monolake-soak-")
        self.options = options
        self.prepare()

    def prepare(self):
        certificates(self.directory)
        self.contexts = {}
        ports = {name: free_port() for name in LISTENERS}
        ports["udp"] = free_port(socket.SOCK_DGRAM)
        self.addresses = {name: ("127.0.0.1", port) for name, port in ports.items()}
        origins = [(free_port(), free_port(), free_port(socket.SOCK_DGRAM)) for _ in range(2)]
        for number, (http, echo, udp) in enumerate(origins, 1):
            ports.update({"http_%d" % number: http, "echo_%d" % number: echo, "udp_%d" % number: udp})
        self.spare_ports = [free_port(), free_port()]
        self.taken = socket.create_server(("127.0.0.1", 0))
        self.taken_port = self.taken.getsockname()[1]
        build = os.environ.get("MONOLAKE_BUILD", ROOT + "/build")
        arguments = ["--io", self.options.io, "-w", "2", "--log-level", "debug", "--script-timeout",
                     "%g" % (1 * float(os.environ.get("SPEC_PATIENCE", 1)))]
        self.program = Program(self.books, self.directory, build + "/monolake-lua", arguments,
                               dict(ports, grace="%ds" % GRACE_SECONDS), [free_port(), free_port()])
        self.serves(self.program.version)
        self.origins = Origins(self.books, self.directory, origins)
        self.record = Record(self.books, self.origins.record)

    # --- What clients and faults ask -------------------------------------------------------------

    def tls(self, alpn):
        if not alpn:
            return None
        if alpn not in self.contexts:
            context = self.contexts[alpn] = ssl.create_default_context(cafile=self.directory + "/a.pem")
            context.set_alpn_protocols([alpn])
        return self.contexts[alpn]

    def served_version(self):
        """No request that begins now may be served by an older one."""
        return self.served

    def serves(self, version):
        self.served = version
        self.addresses["moving"] = ("127.0.0.1", self.program.moving_port(version))

    def tunnel_seconds(self, rng):
        """Some outlive the program that accepted them: they move to its successor."""
        return rng.choice((0.2, 2, rng.uniform(5, 15), rng.uniform(20, 120)))

    def more_listeners(self, rng):
        chosen = [port for port in self.spare_ports if rng.random() < 0.5]
        return "".join('\nml.listen { address = "127.0.0.1:%d", chain = { ml.text "version %d" } }' %
                       (port, self.program.version + 1) for port in chosen)

    def background(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # --- The run ---------------------------------------------------------------------------------

    async def run(self):
        for number in range(2):
            await self.origins.start(number)
        await self.program.start()
        try:
            await self.soak()
        finally:
            self.program.kill()
            self.origins.kill()

    async def soak(self):
        began = time.monotonic()
        self.at_start = await self.at_rest()
        clients, faults = Clients(self), Faults(self)
        clients.start(CLIENTS)
        self.until = began + self.seconds
        if self.options.reloads:
            self.until = began + RELOADS_SECONDS_MAX
            self.books.phase = "before any reload"
            await asyncio.sleep(BASE_SECONDS)
            self.books.phase = "during reloads"
            lanes = [asyncio.ensure_future(faults.reloads(self.options.reloads, BROKEN_SHARE))]
        else:
            lanes = [asyncio.ensure_future(faults.lane(*lane)) for lane in faults.lanes()]
        warm_at = time.monotonic() + min(self.seconds * WARM_SHARE, WARM_SECONDS_MAX)
        next_word = began + 60
        while time.monotonic() < self.until:
            await asyncio.sleep(0.25)
            self.record.read()
            for lane in lanes:
                if lane.done():
                    lane.result()  # raises what went wrong in it
            now = time.monotonic()
            if not self.warm and now >= warm_at:
                self.warm = self.program.processes()
            if now >= next_word:
                next_word += 60
                print("%4d s: %d answered, %d failed by faults, %d faults, %d violations" % (
                    now - began, sum(self.books.answered.values()), sum(self.books.failed.values()),
                    sum(self.books.faults.values()), self.books.violations), flush=True)
        self.faulty = False
        await asyncio.wait_for(asyncio.gather(*lanes), RELOAD_AND_PATIENCE * self.patience)
        await clients.stop()
        faults.end()
        await asyncio.gather(*self.tasks)
        self.at_end = await self.at_rest(self.at_start)
        self.check_generations()
        self.check_growth()
        self.record.close()
        status = await self.program.stop(GRACE_SECONDS + self.patience)
        if status != 0:
            self.books.violation("the program ended with wait status %s" % status)

    def check_generations(self):
        """With nobody there, each worker holds the generation that serves and no other."""
        self.alive = {pid: sorted(self.program.generations.get(pid, ())) for pid in self.program.children()}
        for pid, held in self.alive.items():
            if len(held) != 1:
                self.books.violation("worker %d holds the generations %s" % (pid, held))

    async def at_rest(self, compared=None):
        """Memory and descriptors when nobody is there any more and what idles has been closed."""
        deadline = time.monotonic() + REST_SECONDS
        while True:
            processes = self.program.processes()
            if len(processes) == 3 and (not compared or settled(compared, processes)) and \
                    all(len(self.program.generations.get(pid, ())) == 1 for pid in self.program.children()):
                return processes
            if time.monotonic() > deadline:
                return processes
            await asyncio.sleep(0.2)

    def check_growth(self):
        for name, (kib, open_files) in self.at_end.items():
            start_kib, start_files = self.at_start.get(name, (0, 0))
            base_kib = max(start_kib, self.warm.get(name, (0, 0))[0])
            if "asan" not in self.program.binary and kib > base_kib + GROWTH_MAX_KIB:
                self.books.violation("%s grew from %d to %d KiB" % (name, base_kib, kib))
            if open_files > start_files + DESCRIPTORS_MORE_MAX:
                self.books.violation("%s has %d descriptors open, %d at the start" % (name, open_files, start_files))

    # --- The report ------------------------------------------------------------------------------

    def report(self):
        books = self.books
        print("\nrequests answered (ms):%sp50      p99      max" % (" " * 22))
        for kind, count in sorted(books.answered.items()):
            times = books.latency[kind]
            print("  %-28s %9d %8.1f %8.1f %8.1f" % (kind, count, times.quantile(0.5) * 1e3,
                                                     times.quantile(0.99) * 1e3, times.max * 1e3))
        print("  %-28s %9d" % ("all", sum(books.answered.values())))
        print("requests that faults have cost:")
        for what, count in sorted(books.failed.items()):
            print("  %9d  %s" % (count, what))
        print("faults:")
        for fault, count in sorted(books.faults.items()):
            print("  %9d  %s" % (count, fault))
        print("other outcomes:")
        for what, count in sorted(books.outcomes.items()):
            print("  %9d  %s" % (count, what))
        print("how long (ms):")
        for what, times in sorted(books.durations.items()):
            print("  %-32s %6d times, p50 %.0f, p99 %.0f, max %.0f" % (
                what, times.count, times.quantile(0.5) * 1e3, times.quantile(0.99) * 1e3, times.max * 1e3))
        for phase, times in books.phases.items():
            print("small requests %s: %d, p50 %.1f ms, p99 %.1f ms, max %.1f ms" % (
                phase, times.count, times.quantile(0.5) * 1e3, times.quantile(0.99) * 1e3, times.max * 1e3))
        print("processes, RSS in KiB and descriptors: at the start; warm; at the end")
        for name in sorted(self.at_end):
            print("  %-12s %8d %4d   %8d %4d   %8d %4d" % (
                name, *self.at_start.get(name, (0, 0)), *self.warm.get(name, (0, 0)), *self.at_end[name]))
        print("  %-12s %8d KiB" % ("this one", status_kib(os.getpid())))
        print("generations alive at the end: %s in each worker; at most at a time: %d; freed: %d" % (
            " and ".join(str(len(held)) for held in self.alive.values()), self.program.alive_max, self.program.freed))
        print("log lines (warnings and errors):")
        for text, count in books.shapes.most_common(25):
            print("  %9d  %s" % (count, text))


RELOAD_AND_PATIENCE = 3


def settled(before, now):
    return all(files <= before.get(name, (0, 0))[1] + DESCRIPTORS_MORE_MAX for name, (_, files) in now.items())


def certificates(directory):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=a.example", "-addext", "subjectAltName=DNS:a.example",
                    "-keyout", directory + "/a.key", "-out", directory + "/a.pem"],
                   check=True, stderr=subprocess.DEVNULL)


def parse():
    parser = argparse.ArgumentParser(prog="./dev soak", description="mixes load with random faults")
    parser.add_argument("minutes", type=float, nargs="?", default=0)
    parser.add_argument("--reloads", type=int, default=0, help="nothing but so many reloads in a row")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--io", default="auto", choices=("auto", "io_uring", "epoll"))
    parser.add_argument("--clients", type=float, default=1.0, help="load, as a multiple of the usual one")
    options = parser.parse_args()
    if not options.minutes and not options.reloads:
        parser.error("how many MINUTES, or --reloads N?")
    return options


def main():
    sys.stdout.reconfigure(line_buffering=True)
    options = parse()
    length = "%d reloads" % options.reloads if options.reloads else "%g minutes" % options.minutes
    print("soak of %s, seed %d, %s" % (length, options.seed, options.io))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    soak = Soak(options)
    try:
        asyncio.run(soak.run())
    except BaseException:
        soak.report()
        print("BROKEN OFF: seed %d; its files are in %s" % (options.seed, soak.directory))
        raise
    soak.report()
    if soak.books.violations:
        print("FAILED: %d violations, seed %d; the first %s\nits files are in %s" % (
            soak.books.violations, options.seed, soak.books.first, soak.directory))
        sys.exit(1)
    shutil.rmtree(soak.directory)
    print("passed: %d answered, none lost, none twice, none by a stranger; seed %d" % (
        sum(soak.books.answered.values()), options.seed))


main()
