"""Latency at fixed rates (bench/open_load): of what nginx does at most, the same for all, and of what each does at
most. And a Lua hook that makes garbage, with the longest time that one call of it took, collection included."""
import http.client
import statistics

import failure
import measure
from load import open_load, parse_ours
from workloads import TIMEOUT_SECONDS

BASE = "nginx"
LEFT_OUT = ("bare forwarder (epoll)", "bare forwarder (splice)")
GARBAGE = "garbage in Lua, 50 % of its own"
# name: share of saturation, whether of its own, the peer's listener
KINDS = {"50 %": (0.5, False, "port"), "80 %": (0.8, False, "port"), "80 % of its own": (0.8, True, "port"),
         GARBAGE: (0.5, True, "garbage_port")}
PATH = "/128"
LONGEST_HEADER = "X-Longest-Us" # of a call of the hook; asking resets it


def load(peer, port, rate, seconds, origins):
    return measure.window(peer, open_load(peer.ports[port], PATH, seconds, rate), parse_ours, origins)


def longest_call_us(peer):
    connection = http.client.HTTPConnection("127.0.0.1", peer.ports["garbage_port"], timeout=TIMEOUT_SECONDS)
    connection.request("GET", "/longest")
    return float(connection.getresponse().getheader(LONGEST_HEADER))


def saturated(running, origins, seconds):
    """Requests a second that each does at most, by listener and name: the better of two windows."""
    found = {}
    for _ in range(2):
        for port in ("port", "garbage_port"):
            for name, peer in running.items():
                if port in peer.listeners and name not in LEFT_OUT:
                    rate = load(peer, port, 0, seconds, origins)["rate"]
                    found[port, name] = max(rate, found.get((port, name), 0))
    return found


def rate_of(kind, name, most):
    share, own, port = KINDS[kind]
    return share * most[port, name if own or (port, BASE) not in most else BASE]


def one(peer, kind, most, origins, seconds):
    rate = rate_of(kind, peer.name, most)
    garbage = KINDS[kind][2] == "garbage_port"
    if garbage:
        longest_call_us(peer) # of the warm-up
    result = load(peer, KINDS[kind][2], rate, seconds, origins) | {"wanted_rate": rate}
    if garbage:
        result["longest_call_us"] = longest_call_us(peer)
    print(f"tail {kind:32} {peer.name:28} {rate:7.0f}/s  p99 {result['p99_us']:.0f} us  "
          f"p99.9 {result['p999_us']:.0f} us  others {100 * result['foreign_share']:4.1f} %", flush=True)
    return result


def run(running, origins, windows, seconds):
    """By kind and name, windows; and what failed."""
    found, failed = {}, {}
    try:
        most = saturated(running, origins, min(seconds, 1))
    except failure.ANY as why:
        return {}, {"tail": failure.reason(why)}
    for _ in range(windows):
        for kind in KINDS:
            for name, peer in running.items():
                if KINDS[kind][2] not in peer.listeners or name in LEFT_OUT:
                    continue
                try:
                    found.setdefault(kind, {}).setdefault(name, []).append(one(peer, kind, most, origins, seconds))
                except failure.ANY as why:
                    failed[f"tail {kind}: {name}"] = failure.reason(why)
    return found, failed


def middle(windows, key):
    """Of those that others did not disturb, if there are such."""
    quiet = [window for window in windows if window["foreign_share"] <= measure.FOREIGN_SHARE_MAX]
    return statistics.median(window[key] for window in quiet or windows)
