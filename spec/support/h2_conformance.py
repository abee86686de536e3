"""Asks a server of HTTP/2 what RFC 9113 and RFC 7541 ask of it, section by section: the questions that
conformance suites of the field ask, in their strict reading. Frames are made and read here, fields by
python3-hpack; neither shares anything with nghttp2 or with the other specs.

    h2_conformance.py HOST:PORT [tls]    prints "ok SECTION QUESTION" or "FAILED ..." for each; 1 if any failed

The server answers GET and POST of any path with a body of some bytes, HEAD without one, and allows at
most MAX_CONCURRENT_STREAMS of some hundreds.
"""
import socket
import ssl
import struct
import sys

from hpack import Decoder, Encoder

SECONDS = 10
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS, PADDED, WITH_PRIORITY = 4, 8, 32
NO_ERROR, PROTOCOL, INTERNAL, FLOW_CONTROL, TIMEOUT, STREAM_CLOSED, FRAME_SIZE, REFUSED, CANCEL, COMPRESSION = range(10)
TABLE_SIZE, PUSH, STREAMS_MAX, WINDOW, FRAME_MAX = range(1, 6)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

CASES = []


def case(section, question, handshake=True):
    def add(function):
        CASES.append((section, question, function, handshake))
        return function
    return add


def simple(section, question, run):
    """A case that one of the makers of cases below has made."""
    CASES.append((section, question, run, True))


def u32(number):
    return struct.pack(">I", number)


def setting(*pairs):
    return b"".join(struct.pack(">HI", *pair) for pair in pairs)


class Failed(Exception):
    pass


class Connection:
    def __init__(self, address, tls, handshake=True):
        host, port = address.rsplit(":", 1)
        self.scheme = "https" if tls else "http"
        self.socket = socket.create_connection((host, int(port)), SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
            if self.socket.selected_alpn_protocol() != "h2":
                raise Failed("h2 is not agreed on")
        self.buffer, self.encoder, self.decoder, self.settings = b"", Encoder(), Decoder(), {}
        if handshake:
            self.send(PREFACE)
            self.frame(SETTINGS, 0, 0, setting((WINDOW, 65535)))
            self.until(lambda kind, flags, stream, payload: kind == SETTINGS and flags & ACK)

    def send(self, octets):
        try:
            self.socket.sendall(octets)
        except OSError:
            pass  # what the server has said before it closed is read all the same

    def frame(self, kind, flags, stream, payload=b""):
        self.send(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def fields(self, method="GET", extra=(), without=(), replace=None):
        pseudo = {":method": method, ":scheme": self.scheme, ":path": "/", ":authority": "127.0.0.1"}
        pseudo.update(replace or {})
        return [(name, value) for name, value in pseudo.items() if name not in without] + list(extra)

    def block(self, fields):
        return self.encoder.encode(fields, huffman=False)

    def headers(self, stream=1, flags=END_STREAM | END_HEADERS, **fields):
        self.frame(HEADERS, flags, stream, self.block(self.fields(**fields)))

    def trailers(self, stream, fields):
        self.frame(HEADERS, END_STREAM | END_HEADERS, stream, self.block(fields))

    def take(self, count):
        while len(self.buffer) < count:
            octets = self.socket.recv(65536)
            if not octets:
                raise EOFError
            self.buffer += octets
        octets, self.buffer = self.buffer[:count], self.buffer[count:]
        return octets

    def read(self):
        """The next frame, None at the end of the connection."""
        try:
            head = self.take(9)
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            stream, payload = int.from_bytes(head[5:], "big") & 0x7fffffff, self.take(length)
        except socket.timeout:
            raise Failed("no answer in time") from None
        except (EOFError, OSError):
            return None
        if kind == SETTINGS and not flags & ACK:
            for i in range(0, length, 6):
                self.settings.update([struct.unpack(">HI", payload[i:i + 6])])
            self.frame(SETTINGS, ACK, 0)
        if kind == HEADERS:
            self.decoder.decode(payload)
        return kind, flags, stream, payload

    def until(self, wanted):
        """Reads frames up to one that is wanted, and returns it."""
        while True:
            frame = self.read()
            if frame is None:
                raise Failed("the connection is closed")
            if frame[0] == GOAWAY:
                raise Failed(f"GOAWAY with code {int.from_bytes(frame[3][4:8], 'big')}")
            if wanted(*frame):
                return frame

    # What is expected.

    def answered(self, stream=1):
        def ended(kind, flags, of, payload):
            if kind == RST_STREAM and of == stream:
                raise Failed(f"RST_STREAM with code {int.from_bytes(payload, 'big')}")
            return of == stream and kind in (DATA, HEADERS) and flags & END_STREAM
        return self.until(ended)

    def alive(self):
        self.frame(PING, 0, 0, b"a fence.")
        self.until(lambda kind, flags, stream, payload: (kind, flags, payload) == (PING, ACK, b"a fence."))

    def one_octet(self):
        """DATA as long as a window of 1 allows."""
        _, _, _, payload = self.until(lambda kind, flags, stream, payload: kind == DATA)
        if len(payload) != 1:
            raise Failed(f"DATA of {len(payload)} octets in a window of 1")

    def connection_error(self, *codes):
        while True:
            frame = self.read()
            if frame is None:
                raise Failed("closed without GOAWAY")
            if frame[0] == GOAWAY:
                code = int.from_bytes(frame[3][4:8], "big")
                if code not in codes:
                    raise Failed(f"GOAWAY with code {code}, not {codes}")
                while self.read() is not None:
                    pass
                return

    def stream_error(self, *codes, stream=1):
        """Of the stream or, where the server chooses so, of the connection."""
        while True:
            frame = self.read()
            if frame is None:
                raise Failed("closed without GOAWAY")
            kind, flags, of, payload = frame
            if kind == GOAWAY or (kind == RST_STREAM and of == stream):
                code = int.from_bytes(payload[4:8] if kind == GOAWAY else payload, "big")
                if code not in codes:
                    raise Failed(f"code {code}, not {codes}")
                return
            if kind in (DATA, HEADERS) and of == stream and flags & END_STREAM:
                raise Failed("answered as if nothing were wrong")


# --- starting HTTP/2 (RFC 9113, section 3) ----------------------------------------------------------

@case("3.4", "a preface that is none ends the connection", handshake=False)
def _(c):
    c.send(b"INVALID CONNECTION PREFACE\r\n\r\n")
    while c.read() is not None:
        pass


@case("3.4", "SETTINGS come first", handshake=False)
def _(c):
    c.send(PREFACE)
    c.frame(SETTINGS, 0, 0)
    kind, flags, stream, _ = c.read()
    if (kind, flags, stream) != (SETTINGS, 0, 0):
        raise Failed(f"a frame of kind {kind} came first")


# --- frames (section 4) -----------------------------------------------------------------------------

@case("4.1", "a frame of unknown type is ignored")
def _(c):
    c.frame(22, 0, 0, b"\0" * 8)
    c.alive()


@case("4.1", "undefined flags are ignored")
def _(c):
    c.frame(PING, 0x16, 0, b"a fence.")
    c.until(lambda kind, flags, stream, payload: kind == PING and flags & ACK)


@case("4.1", "the reserved bit is ignored")
def _(c):
    c.frame(PING, 0, 0x80000000, b"a fence.")
    c.until(lambda kind, flags, stream, payload: kind == PING and flags & ACK)


@case("4.2", "DATA of 2^14 octets is taken")
def _(c):
    c.headers(flags=END_HEADERS, method="POST")
    c.frame(DATA, END_STREAM, 1, b"x" * 16384)
    c.answered()


@case("4.2", "DATA beyond SETTINGS_MAX_FRAME_SIZE: FRAME_SIZE_ERROR")
def _(c):
    c.headers(flags=END_HEADERS, method="POST")
    c.frame(DATA, END_STREAM, 1, b"x" * (c.settings.get(FRAME_MAX, 16384) + 1))
    c.stream_error(FRAME_SIZE)


@case("4.2", "HEADERS beyond SETTINGS_MAX_FRAME_SIZE: a connection error FRAME_SIZE_ERROR")
def _(c):
    c.headers(extra=[(f"x-{i}", "y" * 4000) for i in range(c.settings.get(FRAME_MAX, 16384) // 4000 + 1)])
    c.connection_error(FRAME_SIZE)


simple("4.3", "a field block that ends in the middle of a field: COMPRESSION_ERROR",
       lambda c: (c.frame(HEADERS, END_STREAM | END_HEADERS, 1, c.block(c.fields()) + b"\x40\x01x"),
                  c.connection_error(COMPRESSION)))


def inside_block(kind, flags, stream, payload=b""):
    def run(c):
        c.headers(flags=END_STREAM)
        c.frame(kind, flags, stream, payload)
        c.connection_error(PROTOCOL)
    return run


simple("4.3", "PRIORITY inside a field block: PROTOCOL_ERROR", inside_block(PRIORITY, 0, 1, u32(0) + b"\xff"))
simple("4.3", "PING inside a field block: PROTOCOL_ERROR", inside_block(PING, 0, 0, b"12345678"))
simple("4.3", "HEADERS of another stream inside a field block: PROTOCOL_ERROR",
       inside_block(HEADERS, END_STREAM | END_HEADERS, 3, b"\x82\x86\x84\x41\x01a"))
simple("5.5", "an unknown frame inside a field block: PROTOCOL_ERROR", inside_block(22, 0, 1, b"\0" * 8))


# --- streams (section 5) ----------------------------------------------------------------------------

def idle(kind, payload, flags=0):
    def run(c):
        c.frame(kind, flags, 1, payload)
        c.connection_error(PROTOCOL)
    return run


simple("5.1", "idle: DATA: PROTOCOL_ERROR", idle(DATA, b"test"))
simple("5.1", "idle: RST_STREAM: PROTOCOL_ERROR", idle(RST_STREAM, u32(CANCEL)))
simple("5.1", "idle: WINDOW_UPDATE: PROTOCOL_ERROR", idle(WINDOW_UPDATE, u32(100)))
simple("5.1", "idle: CONTINUATION: PROTOCOL_ERROR", idle(CONTINUATION, b"\x82", END_HEADERS))


@case("5.1", "idle: PRIORITY is taken, the stream served")
def _(c):
    c.frame(PRIORITY, 0, 1, u32(0) + b"\x0f")
    c.headers()
    c.answered()


def half_closed(kind, flags, make, *codes):
    def run(c):
        c.headers(replace={":path": "/slow"})
        c.frame(kind, flags, 1, make(c))
        c.stream_error(*codes)
    return run


simple("5.1", "half-closed (remote): DATA: STREAM_CLOSED", half_closed(DATA, END_STREAM, lambda c: b"x", STREAM_CLOSED))
simple("5.1", "half-closed (remote): HEADERS: STREAM_CLOSED",
       half_closed(HEADERS, END_STREAM | END_HEADERS, lambda c: c.block(c.fields()), STREAM_CLOSED))
simple("5.1", "half-closed (remote): CONTINUATION: STREAM_CLOSED or PROTOCOL_ERROR",
       half_closed(CONTINUATION, END_HEADERS, lambda c: c.block(c.fields()), STREAM_CLOSED, PROTOCOL))


@case("5.1", "half-closed (remote): WINDOW_UPDATE and PRIORITY are taken")
def _(c):
    c.headers()
    c.frame(WINDOW_UPDATE, 0, 1, u32(100))
    c.frame(PRIORITY, 0, 1, u32(0) + b"\x0f")
    c.answered()


@case("5.1", "half-closed (remote): RST_STREAM is taken")
def _(c):
    c.headers(replace={":path": "/slow"})
    c.frame(RST_STREAM, 0, 1, u32(CANCEL))
    c.alive()


def behind_reset(kind, flags, make, *codes):
    def run(c):
        c.headers(flags=END_HEADERS, method="POST", replace={":path": "/slow"})
        c.frame(RST_STREAM, 0, 1, u32(CANCEL))
        c.frame(kind, flags, 1, make(c))
        c.stream_error(*codes)
    return run


simple("5.1", "closed by RST_STREAM: DATA: STREAM_CLOSED",
       behind_reset(DATA, END_STREAM, lambda c: b"test", STREAM_CLOSED))
simple("5.1", "closed by RST_STREAM: HEADERS: STREAM_CLOSED",
       behind_reset(HEADERS, END_STREAM | END_HEADERS, lambda c: c.block(c.fields()), STREAM_CLOSED))
simple("5.1", "closed by RST_STREAM: CONTINUATION: STREAM_CLOSED or PROTOCOL_ERROR",
       behind_reset(CONTINUATION, END_HEADERS, lambda c: c.block([("x", "y")]), STREAM_CLOSED, PROTOCOL))


def behind_end(kind, flags, make, *codes):
    def run(c):
        c.headers()
        c.answered()
        c.frame(kind, flags, 1, make(c))
        c.connection_error(*codes)
    return run


simple("5.1", "closed: DATA: a connection error STREAM_CLOSED",
       behind_end(DATA, END_STREAM, lambda c: b"test", STREAM_CLOSED))
simple("5.1", "closed: HEADERS: a connection error STREAM_CLOSED",
       behind_end(HEADERS, END_STREAM | END_HEADERS, lambda c: c.block(c.fields()), STREAM_CLOSED))
simple("5.1", "closed: CONTINUATION: a connection error STREAM_CLOSED or PROTOCOL_ERROR",
       behind_end(CONTINUATION, END_HEADERS, lambda c: c.block([("x", "y")]), STREAM_CLOSED, PROTOCOL))


@case("5.1", "closed: PRIORITY is taken")
def _(c):
    c.headers()
    c.answered()
    c.frame(PRIORITY, 0, 1, u32(0) + b"\x0f")
    c.alive()


@case("5.1.1", "an even stream number: PROTOCOL_ERROR")
def _(c):
    c.headers(stream=2)
    c.connection_error(PROTOCOL)


@case("5.1.1", "a stream number below the last: PROTOCOL_ERROR")
def _(c):
    c.headers(stream=5)
    c.headers(stream=3)
    c.connection_error(PROTOCOL)


@case("5.1.2", "more streams than SETTINGS_MAX_CONCURRENT_STREAMS: PROTOCOL_ERROR or REFUSED_STREAM")
def _(c):
    streams = c.settings[STREAMS_MAX]
    for i in range(streams + 1):
        c.headers(stream=2 * i + 1, replace={":path": "/slow"})
    c.stream_error(PROTOCOL, REFUSED, stream=2 * streams + 1)


@case("5.3.1", "HEADERS that depend on their own stream: PROTOCOL_ERROR")
def _(c):
    c.frame(HEADERS, END_STREAM | END_HEADERS | WITH_PRIORITY, 1, u32(1) + b"\xff" + c.block(c.fields()))
    c.stream_error(PROTOCOL)


@case("5.3.1", "PRIORITY that depends on its own stream: PROTOCOL_ERROR")
def _(c):
    c.frame(PRIORITY, 0, 1, u32(1) + b"\xff")
    c.stream_error(PROTOCOL)


@case("5.4.1", "behind a connection error comes GOAWAY, and the end")
def _(c):
    c.frame(PING, 0, 3, b"12345678")
    c.connection_error(PROTOCOL)


@case("5.5", "a frame of an unknown extension is ignored")
def _(c):
    c.frame(200, 0, 0, b"extension")
    c.headers()
    c.answered()


# --- definitions of frames (section 6) --------------------------------------------------------------

def on_stream(stream, kind, payload, *codes, flags=0, opened=None):
    """One frame that ends the connection, behind HEADERS with the flags `opened`, if given."""
    def run(c):
        if opened is not None:
            c.headers(flags=opened, method="POST", replace={":path": "/slow"})
        c.frame(kind, flags, stream, payload(c) if callable(payload) else payload)
        c.connection_error(*codes)
    return run


def of_stream(kind, payload, *codes, flags=0, opened=END_HEADERS):
    def run(c):
        if opened is not None:
            c.headers(flags=opened, method="POST", replace={":path": "/slow"})
        c.frame(kind, flags, 1, payload)
        c.stream_error(*codes)
    return run


def request_block(c):
    return c.block(c.fields())


simple("6.1", "DATA on stream 0: PROTOCOL_ERROR", on_stream(0, DATA, b"test", PROTOCOL, flags=END_STREAM))
simple("6.1", "DATA with padding longer than the payload: PROTOCOL_ERROR",
       on_stream(1, DATA, b"\x06Test", PROTOCOL, flags=END_STREAM | PADDED, opened=END_HEADERS))
simple("6.1", "DATA of exactly its padding's length: PROTOCOL_ERROR",
       on_stream(1, DATA, b"\x06Test\0", PROTOCOL, flags=END_STREAM | PADDED, opened=END_HEADERS))
simple("6.2", "HEADERS on stream 0: PROTOCOL_ERROR",
       on_stream(0, HEADERS, request_block, PROTOCOL, flags=END_STREAM | END_HEADERS))
simple("6.2", "HEADERS with padding longer than the payload: PROTOCOL_ERROR",
       on_stream(1, HEADERS, lambda c: b"\xff" + request_block(c), PROTOCOL, flags=END_STREAM | END_HEADERS | PADDED))
simple("6.2", "HEADERS without END_HEADERS, then another stream's: PROTOCOL_ERROR",
       on_stream(3, HEADERS, request_block, PROTOCOL, flags=END_STREAM | END_HEADERS, opened=0))
simple("6.3", "PRIORITY on stream 0: PROTOCOL_ERROR", on_stream(0, PRIORITY, u32(0) + b"\x0f", PROTOCOL))
simple("6.3", "PRIORITY of 4 octets: FRAME_SIZE_ERROR", of_stream(PRIORITY, u32(0), FRAME_SIZE))
simple("6.4", "RST_STREAM on stream 0: PROTOCOL_ERROR", on_stream(0, RST_STREAM, u32(CANCEL), PROTOCOL))
simple("6.4", "RST_STREAM of 3 octets: FRAME_SIZE_ERROR",
       on_stream(1, RST_STREAM, b"\0\0\0", FRAME_SIZE, opened=END_HEADERS))
simple("6.5", "SETTINGS with ACK and a payload: FRAME_SIZE_ERROR",
       on_stream(0, SETTINGS, setting((STREAMS_MAX, 100)), FRAME_SIZE, flags=ACK))
simple("6.5", "SETTINGS on a stream: PROTOCOL_ERROR", on_stream(1, SETTINGS, setting((STREAMS_MAX, 100)), PROTOCOL))
simple("6.5", "SETTINGS of 3 octets: FRAME_SIZE_ERROR", on_stream(0, SETTINGS, b"\0\3\0", FRAME_SIZE))
simple("6.5.2", "ENABLE_PUSH of 2: PROTOCOL_ERROR", on_stream(0, SETTINGS, setting((PUSH, 2)), PROTOCOL))
simple("6.5.2", "INITIAL_WINDOW_SIZE of 2^31: FLOW_CONTROL_ERROR",
       on_stream(0, SETTINGS, setting((WINDOW, 2**31)), FLOW_CONTROL))
simple("6.5.2", "MAX_FRAME_SIZE of 2^14-1: PROTOCOL_ERROR", on_stream(0, SETTINGS, setting((FRAME_MAX, 16383)), PROTOCOL))
simple("6.5.2", "MAX_FRAME_SIZE of 2^24: PROTOCOL_ERROR", on_stream(0, SETTINGS, setting((FRAME_MAX, 2**24)), PROTOCOL))


@case("6.5.2", "an unknown setting is ignored")
def _(c):
    c.frame(SETTINGS, 0, 0, setting((0xff, 1)))
    c.until(lambda kind, flags, stream, payload: kind == SETTINGS and flags & ACK)
    c.alive()


@case("6.5.3", "of several values of a setting the last counts")
def _(c):
    c.frame(SETTINGS, 0, 0, setting((WINDOW, 100), (WINDOW, 1)))
    c.headers()
    c.one_octet()


@case("6.5.3", "SETTINGS are acknowledged")
def _(c):
    c.frame(SETTINGS, 0, 0)
    c.until(lambda kind, flags, stream, payload: kind == SETTINGS and flags & ACK)


simple("6.6", "PUSH_PROMISE of a client: PROTOCOL_ERROR",
       on_stream(1, PUSH_PROMISE, lambda c: u32(2) + request_block(c), PROTOCOL, flags=END_HEADERS, opened=END_HEADERS))


@case("6.7", "PING is answered with its payload")
def _(c):
    c.frame(PING, 0, 0, b"h2suite!")
    c.until(lambda kind, flags, stream, payload: (kind, flags, payload) == (PING, ACK, b"h2suite!"))


@case("6.7", "PING with ACK is not answered")
def _(c):
    c.frame(PING, ACK, 0, b"invalid!")
    c.frame(PING, 0, 0, b"a fence.")
    _, _, _, payload = c.until(lambda kind, flags, stream, payload: kind == PING)
    if payload != b"a fence.":
        raise Failed("an answer was answered")


simple("6.7", "PING on a stream: PROTOCOL_ERROR", on_stream(1, PING, b"12345678", PROTOCOL))
simple("6.7", "PING of 6 octets: FRAME_SIZE_ERROR", on_stream(0, PING, b"123456", FRAME_SIZE))
simple("6.8", "GOAWAY on a stream: PROTOCOL_ERROR", on_stream(1, GOAWAY, u32(0) + u32(0), PROTOCOL))
simple("6.8", "GOAWAY of 7 octets: FRAME_SIZE_ERROR", on_stream(0, GOAWAY, u32(0) + b"\0\0\0", FRAME_SIZE))
simple("6.9", "WINDOW_UPDATE of 0: PROTOCOL_ERROR", on_stream(0, WINDOW_UPDATE, u32(0), PROTOCOL))
simple("6.9", "WINDOW_UPDATE of 0 on a stream: PROTOCOL_ERROR", of_stream(WINDOW_UPDATE, u32(0), PROTOCOL))
simple("6.9", "WINDOW_UPDATE of 3 octets: FRAME_SIZE_ERROR", on_stream(0, WINDOW_UPDATE, b"\0\0\1", FRAME_SIZE))


@case("6.9.1", "no DATA beyond the window")
def _(c):
    c.frame(SETTINGS, 0, 0, setting((WINDOW, 1)))
    c.headers()
    c.one_octet()


@case("6.9.1", "a connection's window above 2^31-1: FLOW_CONTROL_ERROR")
def _(c):
    c.frame(WINDOW_UPDATE, 0, 0, u32(2**31 - 1))
    c.frame(WINDOW_UPDATE, 0, 0, u32(2**31 - 1))
    c.connection_error(FLOW_CONTROL)


@case("6.9.1", "a stream's window above 2^31-1: FLOW_CONTROL_ERROR")
def _(c):
    c.headers(flags=END_HEADERS, method="POST", replace={":path": "/slow"})
    c.frame(WINDOW_UPDATE, 0, 1, u32(2**31 - 1))
    c.frame(WINDOW_UPDATE, 0, 1, u32(2**31 - 1))
    c.stream_error(FLOW_CONTROL)


@case("6.9.2", "INITIAL_WINDOW_SIZE counts for streams that are open")
def _(c):
    c.frame(SETTINGS, 0, 0, setting((WINDOW, 0)))
    c.headers()
    c.frame(SETTINGS, 0, 0, setting((WINDOW, 1)))
    c.one_octet()


@case("6.9.2", "a window may become negative")
def _(c):
    c.frame(SETTINGS, 0, 0, setting((WINDOW, 3)))
    c.headers()
    c.until(lambda kind, flags, stream, payload: kind == DATA and len(payload) == 3)
    c.frame(SETTINGS, 0, 0, setting((WINDOW, 2)))  # -1
    c.frame(WINDOW_UPDATE, 0, 1, u32(2))           # 1
    c.one_octet()


@case("6.10", "any number of CONTINUATIONs is taken")
def _(c):
    c.headers(flags=END_STREAM)
    c.frame(CONTINUATION, 0, 1, c.block([("x-a", "1")]))
    c.frame(CONTINUATION, END_HEADERS, 1, c.block([("x-b", "2")]))
    c.answered()


simple("6.10", "CONTINUATION on stream 0: PROTOCOL_ERROR",
       on_stream(0, CONTINUATION, lambda c: c.block([("x", "y")]), PROTOCOL, flags=END_HEADERS, opened=END_STREAM))
simple("6.10", "CONTINUATION behind HEADERS with END_HEADERS: PROTOCOL_ERROR",
       on_stream(1, CONTINUATION, lambda c: c.block([("x", "y")]), PROTOCOL, flags=END_HEADERS, opened=END_HEADERS))


@case("6.10", "CONTINUATION behind one with END_HEADERS: PROTOCOL_ERROR")
def _(c):
    c.headers(flags=0, method="POST", replace={":path": "/slow"})
    c.frame(CONTINUATION, END_HEADERS, 1, c.block([("x", "y")]))
    c.frame(CONTINUATION, END_HEADERS, 1, c.block([("x", "y")]))
    c.connection_error(PROTOCOL)


@case("6.10", "CONTINUATION behind DATA: PROTOCOL_ERROR")
def _(c):
    c.headers(flags=END_HEADERS, method="POST", replace={":path": "/slow"})
    c.frame(DATA, 0, 1, b"test")
    c.frame(CONTINUATION, END_HEADERS, 1, c.block([("x", "y")]))
    c.connection_error(PROTOCOL)


# --- error codes (section 7) ------------------------------------------------------------------------

@case("7", "a GOAWAY with an unknown code does no more than others")
def _(c):
    c.headers()
    c.frame(GOAWAY, 0, 0, u32(0) + u32(0xff))
    c.answered()


@case("7", "a RST_STREAM with an unknown code does no more than others")
def _(c):
    c.headers(flags=END_HEADERS, method="POST", replace={":path": "/slow"})
    c.frame(RST_STREAM, 0, 1, u32(0xff))
    c.alive()


# --- messages (section 8) ---------------------------------------------------------------------------

@case("8.1", "GET, HEAD and POST, with padding, priority and trailers, are answered")
def _(c):
    c.headers()
    c.answered()
    c.headers(stream=3, method="HEAD")
    c.answered(3)
    c.headers(stream=5, flags=END_HEADERS, method="POST", extra=[("trailer", "x-test")])
    c.frame(DATA, PADDED, 5, b"\x04test\0\0\0\0")
    c.frame(DATA, 0, 5, b"more")
    c.trailers(5, [("x-test", "ok")])
    c.answered(5)
    c.frame(HEADERS, END_STREAM | END_HEADERS | WITH_PRIORITY | PADDED, 7,
            b"\x03" + u32(0x80000005) + b"\xff" + c.block(c.fields()) + b"\0\0\0")
    c.answered(7)


@case("8.1", "a second HEADERS without END_STREAM: PROTOCOL_ERROR")
def _(c):
    c.headers(flags=END_HEADERS, method="POST", replace={":path": "/slow"})
    c.frame(HEADERS, END_HEADERS, 1, c.block([("x-test", "ok")]))
    c.stream_error(PROTOCOL)


def malformed(**fields):
    def run(c):
        c.headers(**fields)
        c.stream_error(PROTOCOL)
        c.headers(stream=3)
        c.answered(3)  # the others do not notice
    return run


simple("8.2", "a field name in upper case", malformed(extra=[("X-TEST", "ok")]))
simple("8.2.1", "a field name with a control character", malformed(extra=[("x\x01", "ok")]))
simple("8.2.1", "a field value with a line end", malformed(extra=[("x", "a\nb")]))
simple("8.2.1", "a field value that begins with a space", malformed(extra=[("x", " a")]))
simple("8.2.2", "a connection-specific field", malformed(extra=[("connection", "keep-alive")]))
simple("8.2.2", "TE other than trailers", malformed(extra=[("te", "trailers, deflate;q=0.5")]))
simple("8.3", "an unknown pseudo-header field", malformed(extra=[(":test", "ok")]))
simple("8.3", "a pseudo-header field of responses", malformed(extra=[(":status", "200")]))
simple("8.3", "a pseudo-header field behind others", malformed(extra=[("x", "y"), (":authority", "b")], without=(":authority",)))
simple("8.3.1", "an empty :path", malformed(replace={":path": ""}))
for omitted in (":method", ":scheme", ":path"):
    simple("8.3.1", f"no {omitted}", malformed(without=(omitted,)))
for twice in (":method", ":scheme", ":path", ":authority"):
    def repeated(c, name=twice):
        fields = c.fields()
        c.frame(HEADERS, END_STREAM | END_HEADERS, 1, c.block([*fields, (name, dict(fields)[name])]))
        c.stream_error(PROTOCOL)
    simple("8.3.1", f"{twice} twice", repeated)


@case("8.3", "a pseudo-header field among trailers")
def _(c):
    c.headers(flags=END_HEADERS, method="POST", replace={":path": "/slow"}, extra=[("trailer", "x-test")])
    c.trailers(1, [("x-test", "ok"), (":method", "POST")])
    c.stream_error(PROTOCOL)


def declared(length, *parts):
    def run(c):
        c.headers(flags=END_HEADERS, method="POST", extra=[("content-length", length)])
        for i, part in enumerate(parts):
            c.frame(DATA, END_STREAM if i == len(parts) - 1 else 0, 1, part)
        c.stream_error(PROTOCOL)
    return run


simple("8.1.1", "a Content-Length below the body's", declared("1", b"test"))
simple("8.1.1", "a Content-Length above the body's", declared("5", b"test"))
simple("8.1.1", "a Content-Length below the body's in pieces", declared("4", b"tes", b"test"))


# --- HPACK (RFC 7541) -------------------------------------------------------------------------------

def compressed(block, good=False):
    """Behind a request's pseudo-header fields."""
    def run(c):
        c.frame(HEADERS, END_STREAM | END_HEADERS, 1, c.block(c.fields()) + block)
        if good:
            c.answered()
        else:
            c.connection_error(COMPRESSION)
    return run


simple("HPACK 2.3.3", "an index beyond both tables", compressed(b"\xc6"))
simple("HPACK 2.3.3", "a literal whose name's index is beyond both tables", compressed(b"\x7f\x07\x01x"))
simple("HPACK 4.2", "a table size update at the end of a field block", compressed(b"\x20"))
simple("HPACK 5.1", "an integer that overflows", compressed(b"\xff" + b"\xff" * 10 + b"\x01"))
simple("HPACK 5.2", "a string longer than the block", compressed(b"\x00\x01x\x7f\x01"))
simple("HPACK 5.2", "Huffman padding longer than 7 bits", compressed(b"\x00\x01x\x82\x07\xff"))
simple("HPACK 5.2", "Huffman padding of zeros", compressed(b"\x00\x01x\x81\x00"))
simple("HPACK 5.2", "a Huffman string with EOS", compressed(b"\x00\x01x\x84\xff\xff\xff\xff"))
simple("HPACK 6.1", "index 0", compressed(b"\x80"))


@case("HPACK 6.3", "a table size above SETTINGS_HEADER_TABLE_SIZE")
def _(c):
    size = c.settings.get(TABLE_SIZE, 4096) + 1
    rest, update = size - 31, b"\x3f"
    while rest >= 128:
        update, rest = update + bytes([rest % 128 + 128]), rest // 128
    c.frame(HEADERS, END_STREAM | END_HEADERS, 1, update + bytes([rest]) + c.block(c.fields()))
    c.connection_error(COMPRESSION)


@case("HPACK 6.3", "table size updates at the beginning are taken")
def _(c):
    c.frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x20\x3f\xe1\x1f" + c.block(c.fields()))
    c.answered()


simple("HPACK 6.1", "an indexed field of the static table", compressed(b"\x90", good=True))
simple("HPACK 6.2.1", "a literal with indexing, then its index", compressed(b"\x40\x01x\x01y\xbe", good=True))
simple("HPACK 6.2.1", "a literal with indexing and an indexed name", compressed(b"\x53\x03*/*", good=True))
simple("HPACK 6.2.2", "a literal without indexing", compressed(b"\x00\x01x\x01y", good=True))
simple("HPACK 6.2.2", "a literal without indexing and an indexed name", compressed(b"\x0f\x04\x03*/*", good=True))
simple("HPACK 6.2.3", "a literal never indexed", compressed(b"\x10\x01x\x01y", good=True))
simple("HPACK 5.2", "a Huffman string", compressed(b"\x00\x01x\x81\x07", good=True))


def main(address, tls):
    failed = 0
    for section, question, run, handshake in CASES:
        try:
            connection = Connection(address, tls, handshake)
            try:
                run(connection)
            finally:
                connection.socket.close()
            print("ok", section, question)
        except (Failed, OSError) as why:
            failed += 1
            print("FAILED", section, question + ":", why)
    print(len(CASES) - failed, "ok,", failed, "failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "tls" in sys.argv[2:]))
