"""What an idle connection costs the proxy's processes in memory: Pss of a fresh one, before and with many."""
import subprocess
import time
from contextlib import contextmanager

import failure
import measure
import peers
from failure import Failure
from paths import BUILD
from workloads import WORKLOADS

CONNECTIONS = 9000 # a proxy that kept an upstream connection for each would need 18,000 descriptors
WARM_CONNECTIONS = 8 # before, so that what is made once counts for nobody; few, since some keep what they had
SETTLED_SECONDS, SETTLING_SECONDS_MAX = 2.5, 10 # some give back after a second or two what a burst has taken
KINDS = {"idle keep-alive": ("128 B", "plain"), "idle TLS": ("HTTPS 128 B", "tls")}


def memory_bytes(peer):
    total = 0
    for pid in measure.tree(measure.snapshot(), peer.process.pid):
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            total += next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
    return total


def settled_memory_bytes(peer):
    """The least that it takes, when that has not become less for a while."""
    began = fell = time.monotonic()
    least = memory_bytes(peer)
    while time.monotonic() - fell < SETTLED_SECONDS and time.monotonic() - began < SETTLING_SECONDS_MAX:
        time.sleep(0.25)
        now = memory_bytes(peer)
        if now < least:
            least, fell = now, time.monotonic()
    return least


@contextmanager
def held(port, path, count, kind):
    """Idle connections, each of which has had an answer."""
    arguments = ["taskset", "-c", str(peers.LOAD_CPU), f"{BUILD}/bench/idle", str(port), path, str(count), kind]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          preexec_fn=lambda: peers.prepare_child({peers.LOAD_CPU})) as holder:
        if holder.stdout.readline() != "idle\n":
            raise Failure("bench/idle: " + holder.communicate()[1].strip().split("\n")[0])
        yield
        holder.communicate()


def bytes_of_each(name, kind, folder, origins, count):
    workload, how = KINDS[kind]
    peer = peers.start(name, folder, *(origin.port for origin in origins))
    try:
        port, path = peer.ports[WORKLOADS[workload].listener], WORKLOADS[workload].path
        with held(port, path, WARM_CONNECTIONS, how):
            pass
        before = settled_memory_bytes(peer)
        with held(port, path, count, how):
            return (settled_memory_bytes(peer) - before) / count
    finally:
        peer.stop()


def run(names, folder, origins, count=CONNECTIONS):
    """By kind and name; and what failed."""
    found, failed = {}, {}
    for kind, (workload, _) in KINDS.items():
        for name in names:
            if workload not in peers.PEERS[name][-1] or name.startswith("bare"):
                continue
            try:
                each = bytes_of_each(name, kind, folder, origins, count)
                found.setdefault(kind, {})[name] = {"bytes": each, "connections": count}
                print(f"{kind:15} {name:28} {each:8.0f} bytes", flush=True)
            except failure.ANY as why:
                failed[f"{kind}: {name}"] = failure.reason(why)
    return found, failed
