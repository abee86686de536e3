"""A client of HTTP/2, on python3-h2, which checks every frame: many requests at a time on a connection."""
import asyncio
import time

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (ConnectionTerminated, DataReceived, RemoteSettingsChanged, ResponseReceived, StreamEnded,
                       StreamReset, WindowUpdated)
from h2.exceptions import ProtocolError

from http1 import Answer, Broken

CHUNK_BYTES = 16384
NO_ERROR, REFUSED_STREAM = 0, 7


class NotBegun(Exception):
    """The server says that it has not looked at the request: it may be sent again."""


class Session(H2Connection):
    """python3-h2 takes a GOAWAY for the end; streams that have begun go on behind it."""

    def _receive_goaway_frame(self, frame):
        event = ConnectionTerminated()
        event.error_code, event.last_stream_id = frame.error_code, frame.last_stream_id
        return [], [event]


class Stream:
    def __init__(self):
        self.done = asyncio.get_running_loop().create_future()
        self.fields, self.pieces = {}, []


class Connection:
    def __init__(self, address, tls=None):
        self.address, self.tls = address, tls
        self.opened = self.answered_at = time.monotonic()
        self.last = None  # the kind of the request before
        self.worker, self.closing, self.streams = None, False, {}
        self.h2 = Session(H2Configuration(client_side=True, header_encoding="latin-1"))
        self.window = asyncio.Event()

    async def open(self):
        try:
            self.reader, self.writer = await asyncio.open_connection(
                *self.address, ssl=self.tls, server_hostname="a.example" if self.tls else None)
        except OSError as error:
            raise Broken("connect", error) from error
        self.h2.initiate_connection()
        self.flush()
        self.receiving = asyncio.ensure_future(self.receive())
        return self

    def flush(self):
        data = self.h2.data_to_send()
        if data and not self.writer.is_closing():
            self.writer.write(data)

    async def receive(self):
        why = "closed"
        try:
            while data := await self.reader.read(65536):
                for event in self.h2.receive_data(data):
                    self.handle(event)
                self.flush()
        except (OSError, ProtocolError) as error:
            why = repr(error)
        self.closing = True
        for stream in self.streams.values():
            self.end(stream, Broken("body" if stream.fields else "head", why))
        self.writer.close()

    @staticmethod
    def end(stream, error=None):
        if not stream.done.done():
            if error:
                stream.done.set_exception(error)
            else:
                stream.done.set_result(None)

    def handle(self, event):
        if isinstance(event, ConnectionTerminated):
            self.closing = True
            for number, stream in self.streams.items():
                if number > event.last_stream_id:
                    self.end(stream, NotBegun("GOAWAY"))
        elif isinstance(event, (WindowUpdated, RemoteSettingsChanged)):
            self.window.set()
        stream = self.streams.get(getattr(event, "stream_id", None))
        if stream is None:
            return
        if isinstance(event, ResponseReceived):
            stream.fields = dict(event.headers)
        elif isinstance(event, DataReceived):
            stream.pieces.append(event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.end(stream)
        elif isinstance(event, StreamReset):
            if event.error_code == REFUSED_STREAM:
                self.end(stream, NotBegun("REFUSED_STREAM"))
            elif event.error_code != NO_ERROR or not stream.fields:
                self.end(stream, Broken("body" if stream.fields else "head", "reset with %d" % event.error_code))

    async def exchange(self, request):
        if self.closing:
            raise NotBegun("closing")
        number = self.h2.get_next_available_stream_id()
        stream = self.streams[number] = Stream()
        try:
            self.h2.send_headers(number, request.fields_h2(), end_stream=not request.body)
            self.flush()
            sending = asyncio.ensure_future(self.upload(number, stream, request.body))
            try:
                await stream.done
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        finally:
            del self.streams[number]
        return Answer(int(stream.fields[":status"]), stream.fields, b"".join(stream.pieces))

    async def upload(self, number, stream, body):
        at = 0
        while at < len(body) and not stream.done.done():
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, CHUNK_BYTES)
            if room <= 0:
                self.window.clear()
                await self.window.wait()
                continue
            self.h2.send_data(number, body[at:at + room], end_stream=at + room >= len(body))
            at += room
            self.flush()
            await self.writer.drain()

    def close(self):
        self.receiving.cancel()
        self.writer.close()

    abort = close
