"""A client of HTTP/2 that is not nghttp2's kin: python3-h2 checks each frame and state of what it gets.

    h2_independent.py HOST:PORT     runs every scenario; prints "NAME ok" for each, raises otherwise
"""
import os
import socket
import sys

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (ConnectionTerminated, DataReceived, PingAckReceived, ResponseReceived,
                       SettingsAcknowledged, StreamEnded, StreamReset, TrailersReceived)
from h2.settings import SettingCodes

SECONDS = 20


class Answer:
    def __init__(self):
        self.status, self.headers, self.body, self.ended, self.reset = None, {}, b"", False, None


class Client:
    """One connection; `pace` is how many bytes it takes at a time."""

    def __init__(self, address, pace=65536, **config):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), SECONDS)
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="ascii", **config))
        self.pace, self.answers, self.events, self.terminated = pace, {}, [], None
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def request(self, headers=(), path="/", method="GET", end=True):
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        pseudo = [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path)]
        self.h2.send_headers(stream, [*pseudo, *headers], end_stream=end)
        self.flush()
        return stream

    def send(self, stream, data, end=True):
        """Sends a body as the windows allow."""
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if not room:
                self.receive()
                continue
            self.h2.send_data(stream, data[:room])
            data = data[room:]
            self.flush()
        if end:
            self.h2.end_stream(stream)
            self.flush()

    def receive(self):
        data = self.socket.recv(self.pace)
        if not data:
            raise EOFError("the server has closed")
        for event in self.h2.receive_data(data):
            self.events.append(event)
            self.handle(event)
        self.flush()

    def handle(self, event):
        answer = self.answers.get(getattr(event, "stream_id", None))
        if isinstance(event, ResponseReceived):
            answer.headers = dict(event.headers)
            answer.status = int(answer.headers[":status"])
        elif isinstance(event, DataReceived):
            answer.body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            answer.ended = True
        elif isinstance(event, StreamReset) and answer:
            answer.reset = event.error_code
        elif isinstance(event, ConnectionTerminated):
            self.terminated = event.error_code

    def until(self, kind):
        while not any(isinstance(event, kind) for event in self.events):
            self.receive()

    def answer(self, stream):
        answer = self.answers[stream]
        while not (answer.ended or answer.reset is not None):
            self.receive()
        return answer


def expect(what, expected, got):
    if expected != got:
        raise AssertionError(f"{what}: expected {expected!r}, not {got!r}")


def requests_in_turn(address):
    client = Client(address)
    for _ in range(20):
        answer = client.answer(client.request(path="/hello"))
        expect("status", 200, answer.status)
        expect("body", b"GET /hello ", answer.body)


def bodies_at_once(address):
    client = Client(address, pace=1000)
    bodies = {}
    for i in range(30):
        stream = client.request(method="POST", path="/echo", end=False)
        bodies[stream] = os.urandom(i * 1500)
        client.send(stream, bodies[stream])
    for stream, body in bodies.items():
        expect("the echo", True, client.answer(stream).body == body)


def request_trailers(address):
    client = Client(address)
    stream = client.request([("trailer", "x-sum")], method="POST", path="/trailers", end=False)
    client.send(stream, b"data", end=False)
    client.h2.send_headers(stream, [("x-sum", "17")], end_stream=True)
    client.flush()
    expect("the trailer", b"17", client.answer(stream).body)


def settings_that_change(address):
    client = Client(address)
    for table, window, frame in ((0, 10, 16384), (8192, 100000, 65536), (100, 1, 16777215),
                                 (4096, 65535, 16384)):
        client.events.clear()
        client.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: table,
                                   SettingCodes.INITIAL_WINDOW_SIZE: window,
                                   SettingCodes.MAX_FRAME_SIZE: frame})
        client.flush()
        client.until(SettingsAcknowledged)
        stream = client.request([("x-many", "m" * 50)], method="POST", path="/echo", end=False)
        client.send(stream, b"e" * 300)
        expect("the echo", b"e" * 300, client.answer(stream).body)


def pings_and_priorities(address):
    client = Client(address)
    client.h2.ping(b"12345678")
    client.h2.prioritize(1, weight=7, depends_on=0, exclusive=True)
    client.flush()
    client.until(PingAckReceived)
    expect("status", 200, client.answer(client.request(path="/hello")).status)


def resets_and_more(address):
    client = Client(address)
    given_up = client.request(method="POST", path="/echo", end=False)
    client.send(given_up, b"half", end=False)
    client.h2.reset_stream(given_up, ErrorCodes.CANCEL)
    client.flush()
    expect("status", 200, client.answer(client.request(path="/hello")).status)


HOSTILE = {
    "upper case": [("X-Upper", "1")],
    "connection": [("connection", "close")],
    "transfer-encoding": [("transfer-encoding", "chunked")],
    "te": [("te", "gzip")],
    "a late pseudo-header field": [("x", "y"), (":path", "/")],
    "an unknown pseudo-header field": [(":other", "x")],
    "white space": [("x", " y")],
    "a line end": [("x", "y\r\nz: 1")],
    "another host": [("host", "b.example")],
}


def hostile_fields(address):
    loose = {"validate_outbound_headers": False, "normalize_outbound_headers": False}
    for what, headers in HOSTILE.items():
        client = Client(address, **loose)
        expect(what, ErrorCodes.PROTOCOL_ERROR, client.answer(client.request(headers)).reset)
        expect("status", 200, client.answer(client.request(path="/hello")).status)


def hostile_lengths(address):
    client = Client(address)
    stream = client.request([("content-length", "3")], method="POST", path="/echo", end=False)
    client.send(stream, b"four")
    expect("too long a body", ErrorCodes.PROTOCOL_ERROR, client.answer(stream).reset)


SCENARIOS = (requests_in_turn, bodies_at_once, request_trailers, settings_that_change,
             pings_and_priorities, resets_and_more, hostile_fields, hostile_lengths)

if __name__ == "__main__":
    for scenario in SCENARIOS:
        scenario(sys.argv[1])
        print(scenario.__name__, "ok", flush=True)
