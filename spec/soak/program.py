"""The program under soak: its files, its processes, its log."""
import asyncio
import ctypes
import os
import random
import re
import signal
import socket
import string
import subprocess
import time

from books import GRACE_SECONDS, STAYED, WORKER

HERE = os.path.dirname(os.path.abspath(__file__))
PR_SET_CHILD_SUBREAPER = 36
LOG_EVERY_SECONDS = 0.05

ALARMS = re.compile(r"ERROR: (Address|Leak)Sanitizer|runtime error:|Assertion .*failed|VIOLATION")
ENDED = re.compile(r"worker (\d+) \(pid (\d+)\) (was ended by signal (\d+)|ended with exit code (\d+))")
GENERATION = re.compile(r"\[worker \d+\] generation (\d+) is (loaded|freed) \(pid (\d+)\)")


def free_port(kind=socket.SOCK_STREAM):
    """A port that stays ours while nobody is bound to it: none of those that the kernel gives to others."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first_given = int(file.read().split()[0])
    while True:
        port = random.randrange(10000, max(first_given, 20000))
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def status_kib(pid, key="VmRSS"):
    try:
        with open("/proc/%d/status" % pid) as file:
            return next((int(line.split()[1]) for line in file if line.startswith(key + ":")), 0)
    except OSError:
        return 0


def descriptors(pid):
    try:
        return len(os.listdir("/proc/%d/fd" % pid))
    except OSError:
        return 0


class Template(string.Template):
    pattern = r"\$\{(?:(?P<named>\w+)|(?P<braced>(?!))|(?P<escaped>(?!))|(?P<invalid>(?!)))\}"


class Program:
    def __init__(self, books, directory, binary, arguments, values, moving_ports):
        self.books, self.directory, self.binary = books, directory, binary
        self.arguments, self.values = arguments, values
        self.version, self.more = 1, ""
        self.moving_ports = moving_ports
        self.exits, self.ended = {}, asyncio.Event()  # pid -> how it ended
        self.waiters = []
        self.generations = {}  # pid of a worker -> those that it holds
        self.freed, self.alive_max = 0, 0
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        with open(os.path.join(HERE, "site.lua")) as file:
            self.template = Template(file.read())

    def moving_port(self, version):
        """Where that version has the listener that each of them moves."""
        return self.moving_ports[version % len(self.moving_ports)]

    def write_site(self, text=None):
        """The site of this version, or another text."""
        values = dict(self.values, version=self.version, more=self.more, moving=self.moving_port(self.version))
        with open(self.directory + "/site.lua", "w") as file:
            file.write(self.template.substitute(values) if text is None else text)

    async def start(self):
        self.write_site()
        self.log_path = self.directory + "/log"
        self.log_offset, self.log_rest = 0, ""
        with open(self.log_path, "wb") as log, open(self.directory + "/out", "wb") as out:
            self.pid = subprocess.Popen(
                [self.binary, *self.arguments, "--pid", self.directory + "/pid", self.directory + "/site.lua"],
                stdout=out, stderr=log).pid
        self.supervisors = [self.pid]
        self.monitor = asyncio.ensure_future(self.watch())
        deadline = time.monotonic() + 60
        while b"listening on" not in open(self.directory + "/out", "rb").read():
            if time.monotonic() > deadline or self.pid in self.exits:
                raise SystemExit("the program did not start:\n" + open(self.log_path).read())
            await asyncio.sleep(0.05)

    async def watch(self):
        while True:
            self.reap()
            self.read_log()
            await asyncio.sleep(LOG_EVERY_SECONDS)

    def reap(self):
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self.exits[ended[0]] = ended[1]
                self.ended.set()
        except ChildProcessError:
            pass

    # --- The log ---------------------------------------------------------------------------------

    def read_log(self):
        with open(self.log_path, "rb") as file:
            file.seek(self.log_offset)
            text = file.read()
        self.log_offset += len(text)
        *lines, self.log_rest = (self.log_rest + text.decode("utf-8", "replace")).split("\n")
        for line in lines:
            self.hear(line)

    def hear(self, line):
        if ALARMS.search(line):
            self.books.violation("the log says: " + line)
        generation = GENERATION.search(line)
        if generation:
            self.note_generation(int(generation[1]), generation[2], int(generation[3]))
        ended = ENDED.search(line)
        if ended:
            self.generations.pop(int(ended[2]), None)
        if ended and int(ended[2]) not in self.books.killed:
            self.books.violation("a worker has ended that nobody killed: " + line)
        if "a tunnel stays in this program" in line:
            self.books.event(STAYED).end(later=GRACE_SECONDS + 5)
        if " error " in line or " warn " in line:
            self.books.shape(re.sub(r"\d+", "N", re.sub(r"^\S+ ", "", line))[:110])
        for waiter in self.waiters[:]:
            pattern, future = waiter
            found = pattern.search(line)
            if found and not future.done():
                future.set_result(found)
            if future.done():
                self.waiters.remove(waiter)

    def note_generation(self, number, what, pid):
        held = self.generations.setdefault(pid, set())
        if what == "loaded":
            held.add(number)
        else:
            held.discard(number)
            self.freed += 1
        self.alive_max = max(self.alive_max, len(held))

    def expect(self, pattern):
        """A future of the next line that matches."""
        future = asyncio.get_running_loop().create_future()
        self.waiters.append((re.compile(pattern), future))
        return future

    # --- Processes -------------------------------------------------------------------------------

    def children(self, pid=None):
        pid = pid or self.pid
        try:
            with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
                return [int(child) for child in file.read().split() if int(child) not in self.supervisors]
        except OSError:
            return []

    def processes(self):
        """What the supervisor and its workers take: name -> (RSS in KiB, open descriptors)."""
        found = {"supervisor": (status_kib(self.pid), descriptors(self.pid))}
        for number, pid in enumerate(self.children()):
            found["worker %d" % number] = (status_kib(pid), descriptors(pid))
        return found

    def kill_worker(self, pid, number):
        event = self.books.event(WORKER, pid)
        os.kill(pid, number)
        event.end(later=0.5)
        return event

    async def gone(self, pid, seconds):
        """Waits for a process's end. False: it lives on."""
        deadline = time.monotonic() + seconds
        while os.path.exists("/proc/%d" % pid) and pid not in self.exits:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    async def stop(self, seconds):
        os.kill(self.pid, signal.SIGTERM)
        if not await self.gone(self.pid, seconds):
            self.books.violation("the program did not end within %.0f s of SIGTERM" % seconds)
            self.kill()
        self.monitor.cancel()
        self.reap()
        self.read_log()
        return self.exits.get(self.pid)

    def kill(self):
        for pid in self.supervisors:
            for victim in [*self.children(pid), pid]:
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    pass


class Origins:
    """The origins' processes, which can be stopped, continued and replaced."""

    def __init__(self, books, directory, ports):
        self.books, self.directory, self.ports = books, directory, ports
        self.running = [None] * len(ports)
        self.record = directory + "/posts"

    async def start(self, number):
        path = "%s/origin-%d.out" % (self.directory, number)
        with open(path, "wb") as out:
            self.running[number] = subprocess.Popen(
                ["/usr/bin/python3", os.path.join(HERE, "origin.py"), "origin-%d" % number,
                 *map(str, self.ports[number]), self.record], stdout=out)
        deadline = time.monotonic() + 60
        while b"listening" not in open(path, "rb").read():
            if time.monotonic() > deadline:
                raise SystemExit("an origin did not start")
            await asyncio.sleep(0.02)

    def signal(self, number, which):
        os.kill(self.running[number].pid, which)

    def kill(self):
        for origin in self.running:
            if origin:
                os.kill(origin.pid, signal.SIGKILL)
