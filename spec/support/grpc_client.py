"""Calls grpc_server.py, perhaps by way of a proxy. usage: grpc_client.py ADDRESS CASE [CA NAME]

Exits 0 and prints "CASE ok" if all was as it should be.
"""
import queue
import sys
import threading
import time

import grpc

SECONDS = 30


def channel():
    options = [("grpc.max_receive_message_length", -1)]
    if len(sys.argv) == 5:
        options.append(("grpc.ssl_target_name_override", sys.argv[4]))
        return grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials(open(sys.argv[3], "rb").read()), options)
    return grpc.insecure_channel(sys.argv[1], options)


def path(method, service="spec.Spec"):
    return f"/{service}/{method}"


def expect(found, wanted):
    assert found == wanted, f"{found!r} instead of {wanted!r}"


def expect_status(call, code, details=None):
    try:
        call()
    except grpc.RpcError as error:
        expect(error.code(), code)
        if details is not None:
            expect(error.details(), details)
        return error
    raise AssertionError("the call went well")


def unary(to):
    call = to.unary_unary(path("Unary"))
    response, info = call.with_call(b"hello", timeout=SECONDS,
                                    metadata=(("x-word", "up"), ("x-up-bin", b"\xfe\0bytes")))
    expect(response, b"hello")
    expect(dict(info.initial_metadata())["x-initial"], "up")
    expect(dict(info.initial_metadata())["x-raw-bin"], b"\0\1\xff")
    expect(dict(info.trailing_metadata())["x-trailing"], "end")
    expect(dict(info.trailing_metadata())["x-back-bin"], b"\xfe\0bytes")
    expect(info.code(), grpc.StatusCode.OK)


def fail(to):
    expect_status(lambda: to.unary_unary(path("Fail"))(b"", timeout=SECONDS),
                  grpc.StatusCode.FAILED_PRECONDITION, "as asked: \u00e9 100%")
    expect_status(lambda: to.unary_unary(path("Missing"))(b"", timeout=SECONDS), grpc.StatusCode.UNIMPLEMENTED)


def large(to):
    body = b"l" * (4 << 20)
    expect(to.unary_unary(path("Unary"))(body, timeout=SECONDS), body)


def collect(to):
    expect(to.stream_unary(path("Collect"))((b"c" * 1000 for _ in range(200)), timeout=SECONDS), b"200000")


def spread(to):
    sizes = [len(one) for one in to.unary_stream(path("Spread"))(b"200 5000", timeout=SECONDS)]
    expect(sizes, [5000] * 200)


def slow_reader(to):
    total = 0
    for i, one in enumerate(to.unary_stream(path("Spread"))(b"400 50000", timeout=SECONDS)):
        total += len(one)
        if i % 100 == 0:
            time.sleep(0.1)
    expect(total, 20000000)


def echo(to):
    """Each message is answered before the next is sent."""
    outgoing = queue.Queue()
    answers = to.stream_stream(path("Echo"))(iter(outgoing.get, None), timeout=SECONDS)
    for i in range(50):
        outgoing.put(b"message %d" % i)
        expect(next(answers), b"message %d" % i)
    outgoing.put(None)
    expect(list(answers), [])


def deadline(to):
    expect_status(lambda: to.unary_unary(path("Slow"))(b"", timeout=0.3), grpc.StatusCode.DEADLINE_EXCEEDED)


def cancel(to):
    call = to.unary_stream(path("Forever"))(b"", timeout=SECONDS)
    expect(next(call), b"first")
    call.cancel()
    expect_status(lambda: next(call), grpc.StatusCode.CANCELLED)


def concurrent(to):
    call = to.unary_unary(path("Unary"))
    futures = [call.future(b"%d" % i, timeout=SECONDS) for i in range(200)]
    expect([one.result() for one in futures], [b"%d" % i for i in range(200)])


def trickle(to):
    """A stream that lasts about 2 s, while others come and go."""
    expect([int(one) for one in to.unary_stream(path("Trickle"))(b"100", timeout=SECONDS)], list(range(100)))


def layer(to):
    """What the layers of the site do: a field more each way, and a refusal."""
    _, info = to.unary_unary(path("Unary")).with_call(b"", timeout=SECONDS)
    expect(dict(info.initial_metadata())["x-seen"], "/spec.Spec/Unary application/grpc")
    expect(dict(info.trailing_metadata())["x-added"], "behind it")
    expect_status(lambda: to.unary_unary(path("Denied"))(b"", timeout=SECONDS),
                  grpc.StatusCode.PERMISSION_DENIED, "not here")


def unavailable(to):
    expect_status(lambda: to.unary_unary(path("Unary"))(b"", timeout=SECONDS), grpc.StatusCode.UNAVAILABLE)


def main():
    case = sys.argv[2]
    with channel() as to:
        globals()[case](to)
    print(case, "ok")


threading.excepthook = lambda _: None
main()
