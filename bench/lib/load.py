"""The programs that make the load: their arguments, and what their output says in microseconds and seconds."""
import re

from paths import BUILD

CONNECTIONS = 64
H2_CONNECTIONS, H2_STREAMS = 16, 32
GRPC_FILE = f"{BUILD}/bench/unary.grpc" # the body of a call, since h2load posts files


def wrk(tls, hook_value):
    scheme = "https" if tls else "http"
    return lambda port, path, seconds: [
        "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", "-H", f"X-Bench: {hook_value}",
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


def counted(requests, seconds, output):
    if requests == 0:
        raise SystemExit("the load made no request:\n" + output)
    return {"requests": requests, "seconds": seconds, "rate": requests / seconds}


def parse_wrk(output):
    errors = re.search(r"Socket errors:.*|Non-2xx.*", output)
    if errors:
        raise SystemExit("wrk saw errors: " + errors.group())
    total = re.search(r"(\d+) requests in ([\d.]+)(\w+)", output)
    seconds = float(total.group(2)) * {"ms": 1e-3, "s": 1, "m": 60}[total.group(3)]
    result = counted(int(total.group(1)), seconds, output)
    for percent in (50, 99):
        value, unit = re.search(rf"^ +{percent}% +([\d.]+)(\w+)", output, re.M).groups()
        result[f"p{percent}_us"] = float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
    return result


def parse_ours(output):
    """What bench/handshakes and bench/tcp_load print; bulk has no latency."""
    words = output.split()
    said = dict(zip(words[::2], words[1::2]))
    result = counted(int(said["requests"]), float(said["seconds"]), output)
    return result | {key: float(said[key]) for key in ("p50_us", "p99_us") if key in said}


def parse_h2load(output):
    """h2load tells no percentiles."""
    total = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    done, succeeded, *bad = map(int, total.groups())
    if any(bad) or done != succeeded:
        raise SystemExit("h2load saw errors: " + total.group())
    elapsed = re.search(r"finished in ([\d.]+)(\w+)", output)
    return counted(done, float(elapsed.group(1)) * {"us": 1e-6, "ms": 1e-3, "s": 1}[elapsed.group(2)], output)
