"""The proxies that are compared, each as one process tree on core 0, and the origin on core 1."""
import os
import shutil
import signal
import socket
import subprocess
import time

PROXY_CPU, LOAD_CPU = 0, 1
CONF = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conf")
STARTING_SECONDS_MAX = 10
PLAIN = ("128 B", "16 KiB", "1 MiB")
HOOK = ("Lua hook",)

# name: program, its arguments, the configuration (a file in bench/conf), workloads
PEERS = {
    "monolake-lua": ("{build}/monolake-lua", ["-w", "1", "--io", "io_uring", "{conf}"], "site.lua", PLAIN + HOOK),
    "monolake-lua (epoll)": ("{build}/monolake-lua", ["-w", "1", "--io", "epoll", "{conf}"], "site.lua", PLAIN + HOOK),
    "nginx": ("nginx", ["-p", "{folder}", "-e", "stderr", "-c", "{conf}"], "nginx.conf", PLAIN),
    "nginx + Lua": ("nginx", ["-p", "{folder}", "-e", "stderr", "-c", "{conf}"], "nginx-lua.conf", HOOK),
    "HAProxy": ("haproxy", ["-db", "-f", "{conf}"], "haproxy.cfg", PLAIN),
    "HAProxy + Lua": ("haproxy", ["-db", "-f", "{conf}"], "haproxy-lua.cfg", HOOK),
    "bare forwarder": ("{build}/bench/floor", ["{port}", "{origin}"], None, PLAIN),
}


class Process:
    """A process that was started here, with its children."""

    def __init__(self, arguments, cpu, **pipes):
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}), **pipes)
        self.port = None
        self.workloads = ()

    def stop(self):
        """Ends the process, and with it the group that it leads."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sign)
            except ProcessLookupError:
                break
            try:
                self.process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                continue

    def pids(self):
        """The process and all below it."""
        parents = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                    parents[int(pid)] = int(file.read().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
        tree = {self.process.pid}
        while True:
            more = {pid for pid, parent in parents.items() if parent in tree} - tree
            if not more:
                return tree
            tree |= more


def start_origin(build):
    origin = Process([f"{build}/bench/origin", "0"], LOAD_CPU, stdout=subprocess.PIPE)
    origin.port = int(origin.process.stdout.readline())
    return origin


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(name, build, folder, origin_port):
    """Starts a proxy and waits until it accepts. None if the program is not there."""
    program, arguments, template, workloads = PEERS[name]
    values = {"build": build, "folder": folder, "port": free_port(), "hook_port": free_port(),
              "origin": origin_port, "conf": ""}
    program = shutil.which(program.format(**values))
    if not program:
        print(f"{name}: not found, left out")
        return None
    if template:
        # site.lua serves under two names (two back ends) that must not share a file.
        values["conf"] = os.path.join(folder, f"{len(os.listdir(folder))}-{template}")
        render(os.path.join(CONF, template), values)
        if template.endswith("-lua.cfg"):
            shutil.copy(os.path.join(CONF, "haproxy-hook.lua"), folder)
    log = open(os.path.join(folder, f"{len(os.listdir(folder))}.log"), "w+b")
    peer = Process([program] + [a.format(**values) for a in arguments], PROXY_CPU, cwd=folder, stdout=log, stderr=log)
    peer.name, peer.port, peer.workloads = name, values["port"], workloads
    peer.hook_port = values["hook_port"] if template == "site.lua" else peer.port
    await_port(peer, log)
    return peer


def render(template, values):
    """Fills in @port@, @origin@ and so on."""
    with open(template, encoding="utf-8") as file:
        text = file.read()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    with open(values["conf"], "w", encoding="utf-8") as file:
        file.write(text)


def await_port(peer, log):
    end = time.monotonic() + STARTING_SECONDS_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", peer.port), timeout=1).close()
            return
        except OSError:
            ended = peer.process.poll() is not None
        if ended or time.monotonic() > end:
            peer.stop()
            log.seek(0)
            raise SystemExit(f"{peer.name} does not start:\n{log.read().decode(errors='replace')}")
        time.sleep(0.02)
