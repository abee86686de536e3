"""The programs that make the load: their arguments, and what their output says in microseconds and seconds."""
import re

from failure import Failure
from paths import BUILD

CONNECTIONS = 64
H2_CONNECTIONS, H2_STREAMS = 16, 32
GRPC_FILE = f"{BUILD}/bench/unary.grpc" # the body of a call, since h2load posts files


def wrk(tls, fields):
    """wrk knows whole seconds only."""
    scheme = "https" if tls else "http"
    options = [word for name, value in fields.items() for word in ("-H", f"{name}: {value}")]
    return lambda port, path, seconds: [
        "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", *options,
        f"{scheme}://127.0.0.1:{port}{path}"]


def handshakes(mode):
    return lambda port, path, seconds: [
        f"{BUILD}/bench/handshakes", str(port), path, str(CONNECTIONS), f"{seconds:g}", mode]


def h2load(scheme, *options):
    return lambda port, path, seconds: [
        "h2load", f"-c{H2_CONNECTIONS}", f"-m{H2_STREAMS}", f"-D{seconds:g}", *options,
        f"{scheme}://127.0.0.1:{port}{path}"]


def tcp_load(mode, connections=CONNECTIONS):
    return lambda port, path, seconds: [
        f"{BUILD}/bench/tcp_load", str(port), mode, str(connections), f"{seconds:g}"]


def open_load(port, path, seconds, rate):
    """At a fixed rate; 0: as fast as it gets answers."""
    return [f"{BUILD}/bench/open_load", str(port), path, str(CONNECTIONS), f"{seconds:g}", f"{rate:.0f}"]


def counted(requests, seconds, output):
    if requests == 0:
        raise Failure("the load made no request:\n" + output)
    return {"requests": requests, "seconds": seconds, "rate": requests / seconds}


def parse_wrk(output):
    errors = re.search(r"Socket errors:.*|Non-2xx.*", output)
    if errors:
        raise Failure("wrk saw errors: " + errors.group())
    total = re.search(r"(\d+) requests in ([\d.]+)(\w+)", output)
    seconds = float(total.group(2)) * {"ms": 1e-3, "s": 1, "m": 60}[total.group(3)]
    result = counted(int(total.group(1)), seconds, output)
    for percent in (50, 99):
        value, unit = re.search(rf"^ +{percent}% +([\d.]+)(\w+)", output, re.M).groups()
        result[f"p{percent}_us"] = float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
    return result


def parse_ours(output):
    """What bench/handshakes, bench/tcp_load and bench/open_load print; bulk has no latency."""
    words = output.split()
    said = dict(zip(words[::2], words[1::2]))
    result = counted(int(said["requests"]), float(said["seconds"]), output)
    return result | {key: float(value) for key, value in said.items() if key.endswith("_us")}


def parse_h2load(output):
    """h2load tells no percentiles."""
    total = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    done, succeeded, *bad = map(int, total.groups())
    if any(bad) or done != succeeded:
        raise Failure("h2load saw errors: " + total.group())
    elapsed = re.search(r"finished in ([\d.]+)(\w+)", output)
    return counted(done, float(elapsed.group(1)) * {"us": 1e-6, "ms": 1e-3, "s": 1}[elapsed.group(2)], output)
