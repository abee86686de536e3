"""A client of HTTP/1.1 that holds every answer against the id of its request."""
import asyncio
import time

import wire


class Broken(Exception):
    """A connection failed. `stage`: "connect", "idle" (not a byte of an answer, on a connection that had
    served before), "head" (the same on a fresh one, or within the head), "body"."""

    def __init__(self, stage, why):
        super().__init__("%s: %s" % (stage, why))
        self.stage, self.reset = stage, isinstance(why, ConnectionResetError)
        self.refused = isinstance(why, ConnectionRefusedError)


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body


class Connection:
    """One connection; one request at a time."""

    def __init__(self, address, tls=None):
        self.address, self.tls = address, tls
        self.opened = self.answered_at = time.monotonic()
        self.last = None  # the kind of the request before
        self.served, self.worker = 0, None

    async def open(self):
        try:
            self.reader, self.writer = await asyncio.open_connection(
                *self.address, ssl=self.tls, server_hostname="a.example" if self.tls else None,
                limit=wire.HEAD_MAX)
        except OSError as error:
            raise Broken("connect", error) from error
        return self

    async def send(self, request):
        """The head and the body, which is a list of pieces where it is chunked."""
        self.writer.write(request.head())
        if request.chunked:
            for piece in request.pieces():
                self.writer.write(wire.chunk(piece))
                await self.writer.drain()
            self.writer.write(b"0\r\n\r\n")
        elif request.body:
            self.writer.write(request.body)
        await self.writer.drain()

    async def exchange(self, request):
        # An origin may be gone while the request is still being sent: then the answer says so.
        sending = asyncio.ensure_future(self.send(request))
        try:
            return await self.receive(request)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def receive(self, request):
        try:
            first = await self.reader.read(1)
            if not first:
                raise EOFError("closed")
        except (OSError, EOFError) as error:
            raise Broken("idle" if self.served else "head", str(error)) from error
        try:
            line, fields = wire.parse_head(first + await self.reader.readuntil(b"\r\n\r\n"))
        except (OSError, EOFError) as error:
            raise Broken("head", str(error)) from error
        try:
            body = await wire.read_body(self.reader, fields, request.pause)
        except (OSError, EOFError) as error:
            raise Broken("body", str(error)) from error
        self.served, self.answered_at = self.served + 1, time.monotonic()
        self.closing = "close" in fields.get("connection", "")
        return Answer(int(line.split(" ")[1]), fields, body)

    def close(self):
        self.writer.close()

    def abort(self):
        self.writer.transport.abort()
