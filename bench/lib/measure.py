"""One window: the load for some seconds, and what the proxy's processes used of the CPU meanwhile."""
import os
import resource
import subprocess

from peers import LOAD_CPU
from workloads import WORKLOADS

FOREIGN_SHARE_MAX = 0.03 # of one core
RETRIES_MAX = 2          # rounds that may be added for dropped windows, in multiples of the rounds wanted


def alternate(running, workload, origins, windows, seconds):
    """Windows in turns: A B C A B C ... Returns by name the windows that count and how many do not."""
    results = {name: {"windows": [], "dropped": 0} for name in running}
    for _ in range(windows * (1 + RETRIES_MAX)):
        behind = [name for name in running if len(results[name]["windows"]) < windows]
        for name in behind:
            result = window(running[name], workload, origins, seconds)
            if result["foreign_share"] > FOREIGN_SHARE_MAX:
                results[name]["dropped"] += 1
            else:
                results[name]["windows"].append(result)
            print(f"{workload:13} {name:21} {result['cpu_us']:8.2f} us/request {result['rate']:9.0f}/s"
                  f"  others {100 * result['foreign_share']:4.1f} %", flush=True)
        if not behind:
            break
    return results


def window(peer, workload, origins, seconds):
    chosen = WORKLOADS[workload]
    command = chosen.command(peer.ports[chosen.listener], chosen.path, seconds)
    tree, before = peer.pids(), cpu_of_all()
    load_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run(
        ["taskset", "-c", str(LOAD_CPU), *command], check=True, stdout=subprocess.PIPE, text=True).stdout
    load_after = resource.getrusage(resource.RUSAGE_CHILDREN)
    after = cpu_of_all()

    result = chosen.parse(output)
    used = {pid: ns - before.get(pid, 0) for pid, ns in after.items()}
    proxy_ns = sum(used.get(pid, 0) for pid in tree)
    sources = {origin.process.pid for origin in origins}
    ours = tree | sources | softirq_threads() | {os.getpid()}
    foreign_ns = sum(ns for pid, ns in used.items() if pid not in ours)
    load_s = (load_after.ru_utime + load_after.ru_stime) - (load_before.ru_utime + load_before.ru_stime)
    result["cpu_us"] = proxy_ns / 1e3 / result["requests"]
    result["proxy_share"] = proxy_ns / 1e9 / result["seconds"]
    result["load_share"] = (load_s + sum(used.get(pid, 0) for pid in sources) / 1e9) / result["seconds"]
    result["foreign_share"] = foreign_ns / 1e9 / result["seconds"]
    return result


def softirq_threads():
    """The kernel's threads for packets that come faster than they can be handled at once: part of the load."""
    return {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if name_of(pid).startswith("ksoftirqd/")}


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cpu_of_all():
    """Nanoseconds on a CPU of every process, all of its threads together."""
    total = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
            total[int(pid)] = sum(task_cpu(pid, task) for task in tasks)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def task_cpu(pid, task):
    with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0])
