"""One window: the load for some seconds, and what every process used of the CPU meanwhile.

Other programs disturb a measurement, so a window in which they used noticeable CPU does not count. They are
named in it. The kernel's threads are no such programs: those of this machine's packets, of paced sends and of
io_uring work for the proxy and the load, and whose work one does cannot be told; where it is somebody
else's, that one is seen as well. Their share is recorded, too (io_uring's own workers are threads of the
proxy, and part of what it used).
"""
import os
import resource
import subprocess
from collections import Counter
from dataclasses import dataclass

from failure import Failure
from peers import LOAD_CPU

FOREIGN_SHARE_MAX = 0.03 # of one core
ATTEMPTS = 2             # at a window in its round
NAMED_SHARE_MIN = 0.001  # of one core: who used less is not named
KERNEL_THREAD = 0x00200000 # PF_KTHREAD of the flags in /proc/PID/stat
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass
class Process:
    name: str
    parent: int
    kernel: bool
    cpu_ns: int      # of all of its threads
    children_ns: int # of those that ended, and theirs; in whole ticks


def snapshot():
    """Every process of the machine, by its id."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
            found[int(pid)] = read_process(pid, sum(task_cpu(pid, task) for task in tasks))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def read_process(pid, cpu_ns):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        head, _, rest = file.read().rpartition(")")
    fields = rest.split()
    return Process(head.partition("(")[2], int(fields[1]), bool(int(fields[6]) & KERNEL_THREAD), cpu_ns,
                   (int(fields[13]) + int(fields[14])) * TICK_NS)


def task_cpu(pid, task):
    with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0])


def used_between(before, after):
    """Nanoseconds by process. Those that began and ended in between are found in what their parents waited for."""
    known = Counter() # what ended processes had used before, which is no news in who is left above them
    for pid, process in before.items():
        if pid not in after:
            known[heir(process.parent, before, after)] += process.cpu_ns + process.children_ns
    nobody = Process("", 0, False, 0, 0)
    used = {}
    for pid, process in after.items():
        earlier = before.get(pid, nobody)
        children = process.children_ns - earlier.children_ns - known[pid]
        used[pid] = process.cpu_ns - earlier.cpu_ns + max(0, children)
    return used


def heir(pid, before, after):
    """The process, or the nearest one above it that has not ended."""
    while pid in before and pid not in after:
        pid = before[pid].parent
    return pid


def tree(processes, root):
    """A process and all below it."""
    found, grown = set(), {root}
    while grown:
        found |= grown
        grown = {pid for pid, process in processes.items() if process.parent in found} - found
    return found


def shares(used, processes, chosen, seconds):
    """Of one core, by name, the largest first."""
    total = Counter()
    for pid in chosen:
        total[processes[pid].name] += used[pid] / 1e9 / seconds
    return {name: round(share, 4) for name, share in total.most_common() if share >= NAMED_SHARE_MIN}


def stolen_ns():
    """What the host gave to other machines, of all cores."""
    with open("/proc/stat", encoding="ascii") as file:
        return int(file.readline().split()[8]) * TICK_NS


def new_row():
    return {"windows": [], "dropped": []}


def attempt(row, label, number, *arguments):
    """A window of a round; a second one when others disturbed the first. Adds them to the row."""
    for _ in range(ATTEMPTS):
        result = window(*arguments) | {"round": number}
        print(f"{label:42} {result['cpu_us']:8.2f} us/request {result['rate']:9.0f}/s"
              f"  core {100 * result['proxy_share']:3.0f} %  others {100 * result['foreign_share']:4.1f} %", flush=True)
        if result["foreign_share"] <= FOREIGN_SHARE_MAX:
            row["windows"].append(result)
            return
        row["dropped"].append(result)


def run_load(command):
    result = subprocess.run(["taskset", "-c", str(LOAD_CPU), *command], check=False, capture_output=True, text=True)
    if result.returncode:
        said = (result.stderr or result.stdout).strip().split("\n")[0]
        raise Failure(f"{os.path.basename(command[0])} ended with {result.returncode}: {said}")
    return result.stdout


def window(peer, command, parse, origins):
    stolen, before = stolen_ns(), snapshot()
    load_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = run_load(command)
    load_after = resource.getrusage(resource.RUSAGE_CHILDREN)
    after, stolen = snapshot(), stolen_ns() - stolen

    result = parse(output)
    seconds, used = result["seconds"], used_between(before, after)
    proxy, sources = tree(after, peer.process.pid), {origin.process.pid for origin in origins}
    kernel = {pid for pid, process in after.items() if process.kernel}
    foreign = set(after) - proxy - sources - kernel - {os.getpid()}
    proxy_ns = sum(used[pid] for pid in proxy)
    load_s = (load_after.ru_utime + load_after.ru_stime) - (load_before.ru_utime + load_before.ru_stime)
    result["cpu_us"] = proxy_ns / 1e3 / result["requests"]
    result["proxy_share"] = proxy_ns / 1e9 / seconds
    result["load_share"] = (load_s + sum(used.get(pid, 0) for pid in sources) / 1e9) / seconds
    result["foreign_share"] = sum(used[pid] for pid in foreign) / 1e9 / seconds
    result["stolen_share"] = stolen / 1e9 / seconds
    result["foreign"] = shares(used, after, foreign, seconds)
    result["kernel"] = shares(used, after, kernel, seconds)
    return result
