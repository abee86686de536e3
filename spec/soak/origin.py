"""An origin of the soak: origin.py NAME HTTP_PORT ECHO_PORT UDP_PORT RECORD

It answers HTTP/1 (keep-alive, uploads, chunked and slow answers, WebSocket), echoes TCP and UDP, and
appends the id of every POST that it has taken to RECORD in one write: what was taken stays on record
however the process ends.
"""
import asyncio
import base64
import hashlib
import os
import socket
import sys
from urllib.parse import parse_qsl, urlsplit

import wire

PIECE_BYTES = 20000


class Origin:
    def __init__(self, name, record):
        self.name = name
        self.record = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def serve(self, reader, writer):
        try:
            while await self.exchange(reader, writer):
                pass
        except (OSError, EOFError, asyncio.IncompleteReadError, ValueError):
            pass  # the other end went away, or was made to
        finally:
            writer.close()

    async def exchange(self, reader, writer):
        line, fields = await wire.read_head(reader)
        method, target, _ = line.split(" ")
        query = dict(parse_qsl(urlsplit(target).query))
        if fields.get("upgrade") == "websocket":
            return await self.websocket(reader, writer, fields)
        if fields.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        got = await wire.read_body(reader, fields)
        if method == "POST":
            os.write(self.record, b"%s %s\n" % (fields["x-id"].encode(), self.name.encode()))
        await asyncio.sleep(float(query.get("delay", 0)))
        await self.answer(writer, fields, got, query)
        return fields.get("connection") != "close"

    async def answer(self, writer, fields, got, query):
        body = wire.pattern(fields["x-id"], int(query.get("size", 0)))
        pieces, pause = int(query.get("pieces", 1)), float(query.get("pause", 0))
        chunked = "chunked" in query
        head = ["HTTP/1.1 200 OK", "x-id: " + fields["x-id"], "x-origin: " + self.name,
                "x-sum: " + wire.checksum(body), "x-size: %d" % len(body),
                "x-got: %d %s" % (len(got), wire.checksum(got)),
                "transfer-encoding: chunked" if chunked else "content-length: %d" % len(body)]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
        step = max(1, min(PIECE_BYTES, -(-len(body) // pieces)))
        for at in range(0, len(body), step):
            piece = body[at:at + step]
            writer.write(wire.chunk(piece) if chunked else piece)
            await writer.drain()
            if pause and at + step < len(body):
                await asyncio.sleep(pause)
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def websocket(self, reader, writer, fields):
        key = fields["sec-websocket-key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + wire.WEBSOCKET_GUID).digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
                     b"sec-websocket-accept: " + accept + b"\r\nx-id: " + fields["x-id"].encode() + b"\r\n\r\n")
        while True:
            writer.write(wire.frame(await wire.read_frame(reader)))
            await writer.drain()

    async def echo(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


async def main(name, http_port, echo_port, udp_port, record):
    origin = Origin(name, record)
    loop = asyncio.get_running_loop()
    options = {"backlog": 1024, "limit": wire.HEAD_MAX}
    await asyncio.start_server(origin.serve, "127.0.0.1", int(http_port), **options)
    await asyncio.start_server(origin.echo, "127.0.0.1", int(echo_port), **options)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    udp.bind(("127.0.0.1", int(udp_port)))
    await loop.create_datagram_endpoint(Datagrams, sock=udp)
    print("listening", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
