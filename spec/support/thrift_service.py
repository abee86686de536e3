"""A Thrift server and client of the Calculator (calculator.thrift), by Debian's python3-thrift.

usage: thrift_service.py GENERATED server ENCODING
       thrift_service.py GENERATED client ENCODING ADDRESS CASE

ENCODING is "binary", "compact" (both framed) or "theader". A server prints "listening on ADDRESS";
a client prints "CASE ok".
"""
import logging
import sys
import threading
import time

sys.path.insert(0, sys.argv[1])

from calculator import Calculator  # noqa: E402
from calculator.ttypes import Overflow  # noqa: E402
from thrift.protocol.TBinaryProtocol import TBinaryProtocolFactory  # noqa: E402
from thrift.protocol.TCompactProtocol import TCompactProtocolFactory  # noqa: E402
from thrift.protocol.THeaderProtocol import THeaderProtocol, THeaderProtocolFactory  # noqa: E402
from thrift.server.TServer import TThreadedServer  # noqa: E402
from thrift.Thrift import TApplicationException  # noqa: E402
from thrift.transport import TSocket, TTransport  # noqa: E402
from thrift.transport.THeaderTransport import THeaderClientType  # noqa: E402

logging.basicConfig(level=logging.ERROR)
ENCODING = sys.argv[3]
HEADERS = (THeaderClientType.HEADERS,)
INTERNAL = TApplicationException.INTERNAL_ERROR


class Handler:
    def __init__(self):
        self.noted = []

    def add(self, a, b):
        if a + b > 2**31 - 1:
            raise Overflow("%d and %d are too many" % (a, b))
        return a + b

    def echo(self, bytes):
        return bytes

    def slow(self, milliseconds):
        time.sleep(milliseconds / 1000)
        return milliseconds

    def broken(self):
        raise ValueError("as asked")

    def note(self, text):
        self.noted.append(text)

    def notes(self):
        return self.noted


def serve():
    socket = TSocket.TServerSocket("127.0.0.1", 0)
    socket.listen()
    if ENCODING == "theader":
        transport, protocol = TTransport.TTransportFactoryBase(), THeaderProtocolFactory(HEADERS)
    else:
        transport = TTransport.TFramedTransportFactory()
        protocol = TBinaryProtocolFactory() if ENCODING == "binary" else TCompactProtocolFactory()
    server = TThreadedServer(Calculator.Processor(Handler()), socket, transport, protocol, daemon=True)
    socket.listen = lambda: None  # it does already
    print("listening on %s:%d" % socket.handle.getsockname(), flush=True)
    server.serve()


def connect(address):
    host, port = address.rsplit(":", 1)
    socket = TSocket.TSocket(host, int(port))
    socket.setTimeout(20000)
    if ENCODING == "theader":
        transport, protocol = socket, THeaderProtocol(socket, HEADERS)
    else:
        transport = TTransport.TFramedTransport(socket)
        factory = TBinaryProtocolFactory() if ENCODING == "binary" else TCompactProtocolFactory()
        protocol = factory.getProtocol(transport)
    transport.open()
    return Calculator.Client(protocol)


def expect_exception(call, kinds, text):
    try:
        call()
    except TApplicationException as error:
        assert error.type in kinds and text in error.message, (error.type, error.message)
        return
    raise AssertionError("no exception")


def calls(client):
    for i in range(50):
        assert client.add(i, 1) == i + 1
    try:
        client.add(2**31 - 1, 1)
        raise AssertionError("no overflow")
    except Overflow as error:
        assert error.why == "2147483647 and 1 are too many", error.why
    expect_exception(client.broken, (INTERNAL, TApplicationException.UNKNOWN), "nternal")
    assert client.add(1, 1) == 2  # the connection goes on


def large(client):
    for size in (0, 1, 65000, 66000, 1 << 20, 3 << 20):
        data = bytes(i * 7 & 255 for i in range(min(size, 4096))) * (size // 4096 + 1)
        data = data[:size]
        assert client.echo(data) == data, size
    assert client.add(2, 2) == 4


def oneway(client):
    text = "noted at %r" % time.time()
    client.note(text)
    assert client.add(1, 2) == 3
    deadline = time.time() + 10
    while text not in client.notes():
        assert time.time() < deadline
        time.sleep(0.01)


def unknown(client):
    """A method that no route is for."""
    expect_exception(client.notes, (TApplicationException.UNKNOWN_METHOD,), "Not Found")
    expect_exception(client.notes, (TApplicationException.UNKNOWN_METHOD,), "Not Found")


def unreachable(client):
    expect_exception(lambda: client.add(1, 2), (INTERNAL,), "Bad Gateway")
    client.note("nobody hears of it")
    expect_exception(lambda: client.add(1, 2), (INTERNAL,), "Bad Gateway")


def timeout(client):
    expect_exception(lambda: client.slow(20000), (INTERNAL,), "Gateway Timeout")
    assert client.add(1, 2) == 3


def concurrent(address):
    failures = []

    def work(number):
        try:
            client = connect(address)
            for i in range(30):
                assert client.add(number * 1000, i) == number * 1000 + i
                if i % 10 == number % 10:
                    data = b"%d " % number * 2000
                    assert client.echo(data) == data
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


if sys.argv[2] == "server":
    serve()
else:
    address, case = sys.argv[4], sys.argv[5]
    if case == "concurrent":
        concurrent(address)
    else:
        globals()[case](connect(address))
    print(case + " ok")
