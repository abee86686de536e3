"""What both ends of the soak agree on: bodies that follow from a request's id, and HTTP/1 heads."""
import hashlib
import zlib

HEAD_MAX = 65536


def pattern(ident, size):
    """The body that belongs to an id: nobody else's bytes look like it."""
    block = hashlib.sha256(ident.encode()).hexdigest().encode()
    return (block * (size // len(block) + 1))[:size]


def checksum(body):
    return "%08x" % zlib.crc32(body)


def parse_head(head):
    """The start line and a dictionary of fields, names in lower case."""
    lines = head.decode("latin-1").split("\r\n")
    fields = {}
    for line in lines[1:]:
        if line:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
    return lines[0], fields


async def read_head(reader):
    return parse_head(await reader.readuntil(b"\r\n\r\n"))


async def read_chunks(reader):
    """Yields the chunks of a body, up to and including its end."""
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size == 0:
            await reader.readuntil(b"\r\n")
            return
        data = await reader.readexactly(size + 2)
        if data[-2:] != b"\r\n":
            raise ValueError("a chunk does not end with CRLF")
        yield data[:-2]


async def read_body(reader, fields, pause=None):
    """A whole body. `pause`, if given, is awaited between the pieces, for slow readers."""
    pieces = []
    if fields.get("transfer-encoding", "").lower() == "chunked":
        async for piece in read_chunks(reader):
            pieces.append(piece)
            if pause:
                await pause()
    else:
        left = int(fields.get("content-length", 0))
        while left:
            piece = await reader.read(min(left, 16384))
            if not piece:
                raise EOFError("the body is cut off")
            pieces.append(piece)
            left -= len(piece)
            if pause:
                await pause()
    return b"".join(pieces)


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


# --- WebSocket frames (RFC 6455), as far as an echo needs them -----------------------------------

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(payload, mask=None):
    """A binary frame; clients mask."""
    head = bytearray([0x82])
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head.append(bit | len(payload))
    else:
        head.append(bit | 126)
        head += len(payload).to_bytes(2, "big")
    return bytes(head) + (mask + masked(payload, mask) if mask else payload)


def masked(payload, mask):
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


async def read_frame(reader):
    """The payload of the next frame."""
    head = await reader.readexactly(2)
    if head[0] != 0x82:
        raise ValueError("not a binary frame: %r" % head)
    size = head[1] & 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    mask = await reader.readexactly(4) if head[1] & 0x80 else None
    payload = await reader.readexactly(size)
    return masked(payload, mask) if mask else payload
