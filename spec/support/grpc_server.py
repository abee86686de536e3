"""A gRPC server with methods for every kind of call, on bytes. usage: grpc_server.py [CERT KEY]

Prints "listening on 127.0.0.1:PORT", then a line for each call that ended early: "cancelled METHOD".
"""
import concurrent.futures
import sys
import threading
import time

import grpc


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", metadata.get("x-word", "none")), ("x-raw-bin", b"\0\1\xff")))
    context.set_trailing_metadata((("x-trailing", "end"), ("x-back-bin", metadata.get("x-up-bin", b""))))
    return request


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: \u00e9 100%")


def collect(requests, context):
    return str(sum(len(one) for one in requests)).encode()


def spread(request, context):
    count, size = (int(part) for part in request.split())
    for _ in range(count):
        yield b"s" * size


def echo(requests, context):
    for one in requests:
        yield one


def forever(request, context):
    """Sends a message, then waits until nobody wants another. A cancelled call's generator may not be
    asked for more, so it is not the one who tells."""
    gone = threading.Event()

    def tell():
        say("cancelled forever")
        gone.set()

    context.add_callback(tell)
    yield b"first"
    gone.wait(30)


def slow(request, context):
    gone = threading.Event()
    context.add_callback(gone.set)
    say(f"remaining {context.time_remaining():.1f}")
    if gone.wait(30):
        say("cancelled slow")
    return b"late"


def trickle(request, context):
    for i in range(int(request)):
        yield str(i).encode()
        time.sleep(0.02)


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Spread": grpc.unary_stream_rpc_method_handler(spread),
    "Forever": grpc.unary_stream_rpc_method_handler(forever),
    "Trickle": grpc.unary_stream_rpc_method_handler(trickle),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
}


def main():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64),
                         options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("spec.Spec", METHODS),))
    if len(sys.argv) == 3:
        chain, key = (open(path, "rb").read() for path in sys.argv[1:])
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(f"listening on 127.0.0.1:{port}")
    server.wait_for_termination()


main()
