"""What is measured: for each workload the listener it goes to, its load, and whether the answer is right."""
import http.client
import re
import socket
import ssl
import subprocess
from dataclasses import dataclass, field
from typing import Callable

import load
from failure import Failure

HOOK_VALUE = "from the client"
TLS_VERSION, TLS_CIPHER = "TLSv1.3", "TLS_AES_128_GCM_SHA256"
GRPC_PATH = "/bench.Echo/Unary"
GRPC_OPTIONS = ("-d", load.GRPC_FILE, "-H", "content-type: application/grpc", "-H", "te: trailers")
GRPC_BODY = b"\0\0\0\0\x10" + b"\x0a\x0e" + b"unary message!" # a frame that is not compressed, with one field
FIELDS = {"X-Bench": HOOK_VALUE}
# What a browser sends: with Host, about twenty fields.
BROWSER_FIELDS = FIELDS | {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
                  "Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Cache-Control": "max-age=0",
    "Cookie": "session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes; _ga=GA1.2.1234567890.1234567890",
    "DNT": "1",
    "Pragma": "no-cache",
    "Priority": "u=0, i",
    "Referer": "https://www.example.org/catalogue/search?q=proxies&page=2",
    "Sec-CH-UA": '"Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"',
    "Sec-CH-UA-Mobile": "?0",
    "Sec-CH-UA-Platform": '"Linux"',
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-User": "?1",
    "Sec-GPC": "1",
    "Upgrade-Insecure-Requests": "1",
}
BULK_CYCLE = 251 # bulk of the TCP origin counts up to it
TIMEOUT_SECONDS = 10


@dataclass
class Workload:
    group: str
    listener: str    # key of the peer's ports
    path: str
    body_bytes: int  # of the answer
    command: Callable # the load's arguments: load.py
    parse: Callable   # what the load says
    check: Callable   # fails if an answer through the peer is wrong
    fields: dict = field(default_factory=lambda: FIELDS) # of its requests


def fail(peer, what, found):
    raise Failure(f"{peer.name}: a wrong answer ({what}): {found}")


def context(*protocols):
    result = ssl.create_default_context()
    result.check_hostname, result.verify_mode = False, ssl.CERT_NONE
    result.set_alpn_protocols(protocols)
    return result


def fetch(connection, path, fields):
    connection.request("GET", path, headers=fields)
    response = connection.getresponse()
    return response, response.read()


def expected_body(workload, origin):
    connection = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=TIMEOUT_SECONDS)
    _, body = fetch(connection, workload.path, FIELDS)
    return body


def check_answer(peer, workload, origin, response, body):
    found = (response.status, response.getheader("Content-Length"), body == expected_body(workload, origin))
    if found != (200, str(workload.body_bytes), True):
        fail(peer, "status, length, same body", found)


def check_plain(peer, workload, origin):
    port = peer.ports[workload.listener]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    response, body = fetch(connection, workload.path, workload.fields)
    check_answer(peer, workload, origin, response, body)
    return response


def check_hook(peer, workload, origin):
    response = check_plain(peer, workload, origin)
    fields = (response.getheader("X-First"), response.getheader("X-Second"))
    if fields != (HOOK_VALUE, "constant"):
        fail(peer, "the hook's fields", fields)


def check_agreed(peer, tls, protocol):
    agreed = (tls.version(), tls.cipher()[0], tls.selected_alpn_protocol())
    if agreed != (TLS_VERSION, TLS_CIPHER, protocol):
        fail(peer, "TLS version, cipher, ALPN", agreed)


def check_https(peer, workload, origin):
    connection = http.client.HTTPSConnection(
        "127.0.0.1", peer.ports[workload.listener], timeout=TIMEOUT_SECONDS, context=context("http/1.1"))
    connection.connect()
    check_agreed(peer, connection.sock, "http/1.1")
    check_answer(peer, workload, origin, *fetch(connection, workload.path, workload.fields))


def check_by_load(peer, workload, _origin):
    """The load itself looks at each answer, and ends with an error if one is wrong."""
    command = workload.command(peer.ports[workload.listener], workload.path, 0.5)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        fail(peer, " ".join(command[1:]), result.stderr.split("\n")[0] or result.stdout)


def fetch_h2(peer, workload, *options):
    """The fields (and trailers) of the answer, and its body; by nghttp, which shows both."""
    scheme = "http" if workload.listener == "h2c_port" else "https"
    url = f"{scheme}://127.0.0.1:{peer.ports[workload.listener]}{workload.path}"
    command = ["nghttp", "--no-verify-peer", f"--timeout={TIMEOUT_SECONDS}", *options, url]
    body = subprocess.run(command, capture_output=True, check=False).stdout
    told = subprocess.run([*command, "-nv"], capture_output=True, text=True, check=False).stdout
    return re.findall(r"recv \(stream_id=\d+\) (\S+: .*)", told), body


def check_h2(peer, workload, origin):
    if workload.listener == "tls_port":
        with socket.create_connection(("127.0.0.1", peer.ports["tls_port"]), timeout=TIMEOUT_SECONDS) as raw:
            check_agreed(peer, context("h2", "http/1.1").wrap_socket(raw), "h2")
    fields, body = fetch_h2(peer, workload)
    if ":status: 200" not in fields or body != expected_body(workload, origin):
        fail(peer, "fields, length of the body", (fields, len(body)))


def check_grpc(peer, workload, _origin):
    with open(load.GRPC_FILE, "wb") as file:
        file.write(GRPC_BODY)
    fields, body = fetch_h2(peer, workload, *GRPC_OPTIONS)
    if not {":status: 200", "grpc-status: 0"} <= set(fields) or body != GRPC_BODY:
        fail(peer, "fields and trailers, body", (fields, body))


def http_1(path, body_bytes, listener="port", check=check_plain, fields=FIELDS):
    tls = listener == "tls_port"
    return Workload("TLS" if tls else "HTTP", listener, path, body_bytes, load.wrk(tls, fields), load.parse_wrk, check,
                    fields)


def handshake(mode):
    return Workload("TLS", "tls_port", "/128", 128, load.handshakes(mode), load.parse_ours, check_by_load)


def check_bulk(peer, workload, origin):
    """Every byte of the first megabytes, too."""
    check_by_load(peer, workload, origin)
    with socket.create_connection(("127.0.0.1", peer.ports[workload.listener]), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(b"b")
        with connection.makefile("rb") as answer:
            got = answer.read(BULK_CYCLE * 100_000)
    if got != bytes(range(BULK_CYCLE)) * 100_000:
        fail(peer, "bulk as the origin sends it", f"{len(got)} bytes")


def layer_4(mode, body_bytes, check=check_by_load, **options):
    return Workload("L4", "l4_port", mode, body_bytes, load.tcp_load(mode, **options), load.parse_ours, check)


WORKLOADS = {
    "128 B": http_1("/128", 128),
    "browser head": http_1("/128", 128, fields=BROWSER_FIELDS),
    "1 KiB": http_1("/1k", 1 << 10),
    "16 KiB": http_1("/16k", 16 << 10),
    "1 MiB": http_1("/1m", 1 << 20),
    "Lua hook": http_1("/128", 128, "hook_port", check_hook),
    "HTTPS 128 B": http_1("/128", 128, "tls_port", check_https),
    "HTTPS 16 KiB": http_1("/16k", 16 << 10, "tls_port", check_https),
    "TLS handshake": handshake("full"),
    "TLS resumed": handshake("resumed"),
    "h2 128 B": Workload("HTTP/2", "tls_port", "/128", 128, load.h2load("https"), load.parse_h2load, check_h2),
    "h2c 128 B": Workload("HTTP/2", "h2c_port", "/128", 128, load.h2load("http"), load.parse_h2load, check_h2),
    "gRPC unary": Workload("HTTP/2", "grpc_port", GRPC_PATH, len(GRPC_BODY),
                           load.h2load("https", *GRPC_OPTIONS), load.parse_h2load, check_grpc),
    "L4 messages": layer_4("messages", 96),
    "L4 bulk": layer_4("bulk", 10**6, check_bulk, connections=8),
    "L4 connects": layer_4("connects", 96),
}
GROUPS = list(dict.fromkeys(workload.group for workload in WORKLOADS.values()))
