"""One window: wrk for some seconds, and what the proxy's processes used of the CPU meanwhile."""
import http.client
import os
import re
import resource
import subprocess

from peers import LOAD_CPU

CONNECTIONS = 64
FOREIGN_SHARE_MAX = 0.03 # of one core
RETRIES_MAX = 2          # rounds that may be added for dropped windows, in multiples of the rounds wanted
HOOK_VALUE = "from the client"

# name: path at the origin, length of the body
WORKLOADS = {
    "128 B": ("/128", 128),
    "16 KiB": ("/16k", 16 << 10),
    "1 MiB": ("/1m", 1 << 20),
    "Lua hook": ("/128", 128),
}


def port_of(peer, workload):
    return peer.hook_port if workload == "Lua hook" else peer.port


def fetch(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"X-Bench": HOOK_VALUE})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def check(peer, workload, origin):
    """Is the answer through the proxy what the origin said, and has the hook done its work?"""
    path, length = WORKLOADS[workload]
    response, body = fetch(port_of(peer, workload), path)
    _, expected = fetch(origin.port, path)
    found = (response.status, response.getheader("Content-Length"), body == expected)
    if found != (200, str(length), True):
        raise SystemExit(f"{peer.name}, {workload}: a wrong answer (status, length, same body): {found}")
    if workload == "Lua hook":
        fields = (response.getheader("X-First"), response.getheader("X-Second"))
        if fields != (HOOK_VALUE, "constant"):
            raise SystemExit(f"{peer.name}: the hook's fields are wrong: {fields}")


def alternate(running, workload, origin, windows, seconds):
    """Windows in turns: A B C A B C ... Returns by name the windows that count and how many do not."""
    results = {name: {"windows": [], "dropped": 0} for name in running}
    for _ in range(windows * (1 + RETRIES_MAX)):
        behind = [name for name in running if len(results[name]["windows"]) < windows]
        for name in behind:
            result = window(running[name], workload, origin, seconds)
            if result["foreign_share"] > FOREIGN_SHARE_MAX:
                results[name]["dropped"] += 1
            else:
                results[name]["windows"].append(result)
            print(f"{workload:9} {name:21} {result['cpu_us']:8.2f} us/request {result['rate']:9.0f}/s"
                  f"  others {100 * result['foreign_share']:4.1f} %", flush=True)
        if not behind:
            break
    return results


def window(peer, workload, origin, seconds):
    path, _ = WORKLOADS[workload]
    tree, before = peer.pids(), cpu_of_all()
    load_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run(
        ["taskset", "-c", str(LOAD_CPU), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency",
         "-H", f"X-Bench: {HOOK_VALUE}", f"http://127.0.0.1:{port_of(peer, workload)}{path}"],
        check=True, capture_output=True, text=True).stdout
    load_after = resource.getrusage(resource.RUSAGE_CHILDREN)
    after = cpu_of_all()

    result = parse(output)
    used = {pid: ns - before.get(pid, 0) for pid, ns in after.items()}
    proxy_ns = sum(used.get(pid, 0) for pid in tree)
    ours = tree | {origin.process.pid, os.getpid()}
    foreign_ns = sum(ns for pid, ns in used.items() if pid not in ours)
    load_s = (load_after.ru_utime + load_after.ru_stime) - (load_before.ru_utime + load_before.ru_stime)
    result["cpu_us"] = proxy_ns / 1e3 / result["requests"]
    result["proxy_share"] = proxy_ns / 1e9 / result["seconds"]
    result["load_share"] = (load_s + used.get(origin.process.pid, 0) / 1e9) / result["seconds"]
    result["foreign_share"] = foreign_ns / 1e9 / result["seconds"]
    return result


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


def parse(output):
    """What wrk says, in microseconds and seconds."""
    errors = re.search(r"Socket errors:.*|Non-2xx.*", output)
    if errors:
        raise SystemExit("wrk saw errors: " + errors.group())
    total = re.search(r"(\d+) requests in ([\d.]+)(\w+)", output)
    if not total or total.group(1) == "0":
        raise SystemExit("wrk made no request:\n" + output)
    seconds = float(total.group(2)) * {"ms": 1e-3, "s": 1, "m": 60}[total.group(3)]
    result = {"requests": int(total.group(1)), "seconds": seconds, "rate": int(total.group(1)) / seconds}
    for percent in (50, 99):
        value, unit = re.search(rf"^ +{percent}% +([\d.]+)(\w+)", output, re.M).groups()
        result[f"p{percent}_us"] = float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
    return result
