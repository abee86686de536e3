"""The proxies that are compared, each as one process tree on core 0, and the origins on core 1."""
import os
import resource
import shutil
import signal
import socket
import subprocess
import time

from failure import Failure
from paths import BUILD, CONF
from workloads import GRPC_BODY, GRPC_PATH, WORKLOADS

PROXY_CPU, LOAD_CPU = 0, 1
STARTING_SECONDS_MAX = 60 # under callgrind, on a busy machine
STARTS_MAX = 3
DESCRIPTORS = 16384
LISTENERS = ("port", "hook_port", "garbage_port", "tls_port", "h2c_port", "grpc_port", "l4_port")
PLAIN = ("128 B", "browser head", "1 KiB", "16 KiB", "1 MiB")
HOOK = ("Lua hook",)
TLS = ("HTTPS 128 B", "HTTPS 16 KiB", "TLS handshake", "TLS resumed", "h2 128 B")
GRPC = ("gRPC unary",)
H2C = ("h2c 128 B",)
L4 = ("L4 messages", "L4 bulk", "L4 connects")
NGINX = ["-p", "{folder}", "-e", "stderr", "-c", "{conf}"]


def monolake(*options):
    return "{build}/monolake-lua", ["-w", "1", *options, "{conf}"], "site.lua"


def floor(kind, port="port", origin="origin"):
    return "{build}/bench/floor", [f"{{{port}}}", f"{{{origin}}}", kind], None


# name: program, its arguments, the configuration (a file in bench/conf), workloads
PEERS = {
    "monolake-lua": (*monolake("--io", "io_uring"), PLAIN + HOOK + TLS + H2C + GRPC + L4),
    "monolake-lua (epoll)": (*monolake("--io", "epoll"), PLAIN + HOOK + TLS + H2C + GRPC + L4),
    "monolake-lua (GnuTLS)": (*monolake("--io", "io_uring", "--tls", "gnutls"), TLS + GRPC),
    "monolake-lua (GnuTLS + epoll)": (*monolake("--io", "epoll", "--tls", "gnutls"), TLS + GRPC),
    "nginx": ("nginx", NGINX, "nginx.conf", PLAIN + TLS + H2C + GRPC + L4),
    "nginx + Lua": ("nginx", NGINX, "nginx-lua.conf", HOOK),
    "HAProxy": ("haproxy", ["-db", "-f", "{conf}"], "haproxy.cfg", PLAIN + TLS + H2C + GRPC + L4),
    "HAProxy + Lua": ("haproxy", ["-db", "-f", "{conf}"], "haproxy-lua.cfg", HOOK),
    "h2o": ("h2o", ["-c", "{conf}"], "h2o.conf", PLAIN + TLS + H2C),
    "nghttpx": ("nghttpx", ["--conf={conf}"], "nghttpx.conf", TLS + H2C + GRPC),
    "bare forwarder": (*floor("io_uring"), PLAIN),
    "bare forwarder (epoll)": (*floor("epoll"), ("128 B", "1 KiB", "16 KiB", "1 MiB")),
    "bare forwarder (splice)": (*floor("splice"), ("16 KiB", "1 MiB")),
    "bare forwarder L4": (*floor("io_uring", "l4_port", "tcp_origin"), L4),
    "bare forwarder L4 (epoll)": (*floor("epoll", "l4_port", "tcp_origin"), ("L4 messages", "L4 bulk")),
    "bare forwarder L4 (splice)": (*floor("splice", "l4_port", "tcp_origin"), ("L4 bulk",)),
}


def prepare_child(cpus):
    os.sched_setaffinity(0, cpus)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class Process:
    """A process that was started here, with its children."""

    def __init__(self, arguments, cpus, **pipes):
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=lambda: prepare_child(cpus), **pipes)
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


def start_origin(program="origin", *options):
    """One of ours, which prints its port."""
    origin = Process([f"{BUILD}/bench/{program}", "0", *options], {LOAD_CPU}, stdout=subprocess.PIPE)
    origin.port = int(origin.process.stdout.readline())
    return origin


def start_grpc_origin(folder):
    """Answers each call with the same message."""
    answer = os.path.join(folder, GRPC_PATH.lstrip("/"))
    os.mkdir(os.path.dirname(answer))
    with open(answer, "wb") as file:
        file.write(GRPC_BODY)
    port = free_port()
    origin = Process(["nghttpd", "--no-tls", "--address=127.0.0.1", f"--htdocs={folder}", "--trailer=grpc-status: 0",
                      "--max-concurrent-streams=1000", str(port)], {LOAD_CPU}, stdout=subprocess.DEVNULL)
    origin.name, origin.port = "nghttpd", port
    await_port(origin, port)
    return origin


def make_certificate(folder):
    """P-256, signed by itself; certificate and key in one file. And what all that use OpenSSL shall do alike."""
    key, certificate = os.path.join(folder, "site.key"), os.path.join(folder, "site.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with open(certificate, "a", encoding="ascii") as file, open(key, encoding="ascii") as source:
        file.write(source.read())
    os.environ["OPENSSL_CONF"] = os.path.join(CONF, "openssl.cnf")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(*arguments):
    """As start_once. A port that was free may be somebody's when the proxy binds it: then others are tried."""
    for _ in range(STARTS_MAX - 1):
        try:
            return start_once(*arguments)
        except Failure as why:
            if "in use" not in str(why):
                raise
    return start_once(*arguments)


def start_once(name, folder, origin_port, grpc_origin_port, tcp_origin_port):
    """Starts a proxy and waits until it accepts."""
    program, arguments, template, workloads = PEERS[name]
    ports = {listener: free_port() for listener in LISTENERS}
    origins = {"origin": origin_port, "grpc_origin": grpc_origin_port, "tcp_origin": tcp_origin_port}
    if template and template.endswith("-lua.cfg"):
        shutil.copy(os.path.join(CONF, "haproxy-hook.lua"), folder)
    listeners = {WORKLOADS[workload].listener for workload in workloads}
    if template == "site.lua" and "port" in listeners:
        listeners.add("garbage_port")
    peer = launch(name, [program, *arguments], folder, template, ports | origins, {PROXY_CPU},
                  {listener: ports[listener] for listener in listeners})
    peer.workloads = workloads
    return peer


def launch(name, command, folder, template, values, cpus, ports):
    """Fills in values, starts, and waits until all ports accept."""
    values = values | {"build": BUILD, "folder": folder, "conf": ""}
    program = shutil.which(command[0].format(**values))
    if not program:
        raise Failure(f"{name} is not installed")
    if template:
        # Sites serve under several names that must not share a file.
        values["conf"] = os.path.join(folder, f"{len(os.listdir(folder))}-{template}")
        render(os.path.join(CONF, template), values)
    log = open(os.path.join(folder, f"{len(os.listdir(folder))}.log"), "w+b")
    peer = Process([program] + [a.format(**values) for a in command[1:]], cpus, cwd=folder, stdout=log, stderr=log)
    peer.name, peer.ports, peer.listeners, peer.log = name, ports, set(ports), log
    for port in ports.values():
        await_port(peer, port, log)
    return peer


def render(template, values):
    """Fills in @port@, @origin@ and so on."""
    with open(template, encoding="utf-8") as file:
        text = file.read()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    with open(values["conf"], "w", encoding="utf-8") as file:
        file.write(text)


def await_port(process, port, log=None):
    end = time.monotonic() + STARTING_SECONDS_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            ended = process.process.poll() is not None
        if ended or time.monotonic() > end:
            process.stop()
            said = ""
            if log:
                log.seek(0)
                said = log.read().decode(errors="replace")
            raise Failure(f"{process.name} does not start:\n{said}")
        time.sleep(0.02)
