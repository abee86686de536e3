"""How the costs of a request grow with what a site has, and how quick starts and reloads are: bench/scale.md."""
import http.client
import os
import re
import signal
import socket
import statistics
import threading
import time

import failure
import idle
import load
import measure
import peers
from failure import Failure
from paths import BUILD, ROOT
from report import cpu_digits, duration, median, paired, spread, versions
from workloads import FIELDS, TIMEOUT_SECONDS

PATH = "/128"
ONE_CORE, BOTH_CORES = {peers.PROXY_CPU}, {peers.PROXY_CPU, peers.LOAD_CPU}
# Sections of bench/conf/scale.lua: what each of its listeners has; the first is what others are compared with.
SECTIONS = {
    "layers": ["0 Lua layers", "5 Lua layers", "20 Lua layers"],
    "routes": ["1 route", "100 routes", "10,000 routes"],
    "peers": [f"{count} peers, {balance}" for balance in ("round_robin", "least_conn", "hash")
              for count in ("10", "1,000")],
}
IDLE, ALONE, CROWDED = "idle", "alone", "beside 9,000 idle connections"
WORKERS, ONE, TWO = "workers", "one worker, 64 connections", "two workers, 128 connections"
CONNECTIONS_IDLE = 9000
TARGETS = {"layer_us": 0.5, "idle_share": 0.05, "start_ms": 50, "reload_ms": 100}
STARTS, RELOADS, RELOAD_RATE, RELOAD_GAP_SECONDS = 15, 5, 3000, 0.5


def launch(section, folder, origins, listeners=1, workers=1, cpus=None, wait=True):
    ports = [peers.free_port() for _ in range(listeners)]
    values = {"section": section, "ports": ", ".join(map(str, ports)), "origin": origins[0].port,
              "any_origin": origins[1].port}
    name = f"monolake-lua ({section})"
    return peers.launch(name, ["{build}/monolake-lua", "-w", str(workers), "{conf}"], folder, "scale.lua", values,
                        cpus or ONE_CORE, dict(enumerate(ports)) if wait else {}), ports


def wrk(port, seconds, connections=load.CONNECTIONS):
    command = load.wrk(False, FIELDS)(port, PATH, seconds)
    return [f"-c{connections}" if word.startswith("-c") else word for word in command]


def check(peer):
    """Every listener answers, through its chain."""
    for port in peer.ports.values():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        connection.request("GET", PATH, headers=FIELDS)
        response = connection.getresponse()
        if response.status != 200 or len(response.read()) != 128:
            raise Failure(f"{peer.name}: a wrong answer: {response.status}")


def curves(folder, origins, rounds, seconds, started):
    """By section and size, windows in turns."""
    rows, todo = {}, []
    for section, sizes in SECTIONS.items():
        peer, ports = launch(section, folder, origins, len(sizes))
        started.append(peer)
        check(peer)
        todo += [(section, size, peer, wrk(port, seconds)) for size, port in zip(sizes, ports)]
    for section, size, workers in ((IDLE, ALONE, 1), (IDLE, CROWDED, 1), (WORKERS, ONE, 1), (WORKERS, TWO, 2)):
        peer, (port,) = launch("plain", folder, origins, workers=workers, cpus=BOTH_CORES if workers > 1 else ONE_CORE)
        started.append(peer)
        check(peer)
        todo.append((section, size, peer, wrk(port, seconds, workers * load.CONNECTIONS)))
        if size == CROWDED:
            crowded_port = port
    for _, _, _, command in todo: # connections to peers are made before anything counts
        measure.run_load(command)
    with idle.held(crowded_port, PATH, CONNECTIONS_IDLE, "plain"):
        for number in range(rounds):
            for section, size, peer, command in todo:
                row = rows.setdefault(section, {}).setdefault(size, measure.new_row())
                measure.attempt(row, size, number, peer, command, load.parse_wrk, origins)
    return rows


def first_answer_ms(folder, origins):
    """From the start of the program to the end of the first answer."""
    before = time.monotonic()
    peer, (port,) = launch("plain", folder, origins, wait=False)
    try:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection:
                    connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    if connection.recv(64).startswith(b"HTTP/1.1 200"):
                        return 1e3 * (time.monotonic() - before)
                    raise Failure("the first answer is wrong")
            except ConnectionRefusedError:
                if time.monotonic() - before > TIMEOUT_SECONDS:
                    raise Failure("it does not start") from None
                time.sleep(0.0005)
    finally:
        peer.stop()


def hang_up(pid, done):
    for _ in range(RELOADS):
        if done.wait(RELOAD_GAP_SECONDS):
            return
        os.kill(pid, signal.SIGHUP)


def reloads(folder, origins, rounds, started):
    """How long each took until every worker served the new site, and the latency of a fixed load with and without."""
    peer, (port,) = launch("reload", folder, origins, workers=2, cpus=BOTH_CORES)
    started.append(peer)
    check(peer)
    seconds = RELOAD_GAP_SECONDS * (RELOADS + 1)
    command = load.open_load(port, PATH, seconds, RELOAD_RATE)
    calm, reloading = [], []
    for _ in range(rounds):
        calm.append(measure.window(peer, command, load.parse_ours, origins))
        done = threading.Event()
        hangs = threading.Thread(target=hang_up, args=(peer.process.pid, done))
        hangs.start()
        try:
            reloading.append(measure.window(peer, command, load.parse_ours, origins))
        finally:
            done.set()
            hangs.join()
    peer.log.seek(0)
    said = peer.log.read().decode(errors="replace")
    took = [int(ms) for ms in re.findall(r"generation \d+ serves \((\d+) ms\)", said)]
    if len(took) < rounds * RELOADS - rounds:
        raise Failure(f"only {len(took)} of {rounds * RELOADS} reloads were done")
    return {"took_ms": took, "calm": calm, "reloading": reloading}


def run(folder, quick):
    """What was found, and what failed, by name."""
    os.mkdir(folder)
    found, failed, started = {}, {}, []
    origins = [peers.start_origin(), peers.start_origin("origin", "any")]
    rounds = 1 if quick else 5
    parts = {
        "curves": lambda: curves(folder, origins, rounds, 1, started),
        "starts_ms": lambda: [first_answer_ms(folder, origins) for _ in range(3 if quick else STARTS)],
        "reloads": lambda: reloads(folder, origins, 1 if quick else 3, started),
    }
    try:
        for name, part in parts.items():
            try:
                found[name] = part()
            except failure.ANY as why:
                print(f"{name}: {why}")
                failed[name] = failure.reason(why)
            while started:
                started.pop().stop()
    finally:
        for process in [*started, *origins]:
            process.stop()
    return found, failed


def verdict(value, target, unit):
    return f"{value:.2g} {unit} (target: at most {target:g} {unit}{'' if value <= target else '; **missed**'})"


def curve_table(rows):
    base = rows[next(iter(rows))]
    lines = ["| | CPU us/request | spread | to the first | windows (dropped) |", "|---|---:|---:|---:|---:|"]
    for size, row in rows.items():
        if not row["windows"]:
            lines.append(f"| {size} | | | | 0 ({len(row['dropped'])}) |")
            continue
        pairs = paired(row, base)
        times = f"{statistics.median(ours / theirs for ours, theirs in pairs):.2f}" if pairs else ""
        lines.append(f"| {size} | {cpu_digits(median(row, 'cpu_us'))} | {spread(row)} | {times} "
                     f"| {len(row['windows'])} ({len(row['dropped'])}) |")
    return "\n".join(lines)


def layer_costs(rows):
    sizes = SECTIONS["layers"]
    told = []
    for size, count in zip(sizes[1:], (5, 20)):
        pairs = paired(rows[size], rows[sizes[0]])
        if pairs:
            each = statistics.median(ours - theirs for ours, theirs in pairs) / count
            told.append(f"One of {count} Lua layers costs {verdict(each, TARGETS['layer_us'], 'us')}.")
    return " ".join(told)


def idle_cost(rows):
    pairs = paired(rows[CROWDED], rows[ALONE])
    if not pairs:
        return ""
    more = statistics.median(ours / theirs for ours, theirs in pairs) - 1
    return (f"They change the cost of a request by {100 * more:+.1f} % (target: less than "
            f"{100 * TARGETS['idle_share']:.0f} %{'' if more < TARGETS['idle_share'] else '; **missed**'}).")


def reload_lines(found):
    lines = [f"Every worker of two served a new site of 1,000 routes within "
             f"{verdict(statistics.median(found['took_ms']), TARGETS['reload_ms'], 'ms')}, at most "
             f"{max(found['took_ms'])} ms, of {len(found['took_ms'])} reloads under {RELOAD_RATE} requests a second.",
             "", "| | p50 | p99 | p99.9 | longest |", "|---|---:|---:|---:|---:|"]
    for name, windows in (("no reload", found["calm"]), ("reloads", found["reloading"])):
        times = [duration(statistics.median(window[key] for window in windows))
                 for key in ("p50_us", "p99_us", "p999_us", "max_us")]
        lines.append(f"| {name} | " + " | ".join(times) + " |")
    return "\n".join(lines)


def markdown(found, failed, congestion):
    parts = ["# Scaling", "Written by `./dev bench --scale`. CPU of the proxy's processes for each request of 128 B, "
             "windows of 1 s in turns; wrk with 64 connections on core 1, the proxy on core 0."]
    if failed:
        parts.append("Not measured: " + "; ".join(f"{name} ({why})" for name, why in failed.items()) + ".")
    if "curves" in found:
        curve = found["curves"]
        parts += ["## Lua layers", "Each looks at a field of the request. " + layer_costs(curve["layers"]),
                  curve_table(curve["layers"])]
        parts += ["## Routes", "What is asked for is found by a parameter, beside the others.",
                  curve_table(curve["routes"])]
        parts += ["## Peers", "Addresses of one origin; `hash` is of a field that is always the same.",
                  curve_table(curve["peers"])]
        parts += ["## Idle connections", idle_cost(curve[IDLE]), curve_table(curve[IDLE])]
        parts += ["## Workers", "Two workers share the second core with the load.", curve_table(curve[WORKERS])]
    if "starts_ms" in found:
        starts = found["starts_ms"]
        parts += ["## Start", f"From the start of the program to the first answer: "
                  f"{verdict(statistics.median(starts), TARGETS['start_ms'], 'ms')}, at most {max(starts):.0f} ms, "
                  f"of {len(starts)}."]
    if "reloads" in found:
        parts += ["## Reload", reload_lines(found["reloads"])]
    parts += ["## Measured on", versions(congestion, ("libluajit2-5.1-2", "liburing2", "wrk"))]
    return "\n\n".join(parts) + "\n"


def publish(folder, congestion, check, quick):
    """Where only a check was wanted, or something failed: to the build. True: all of it was measured."""
    found, failed = run(folder, quick)
    path = os.path.join(BUILD if failed or check else ROOT, "bench", "scale.md")
    with open(path, "w", encoding="utf-8") as file:
        file.write(markdown(found, failed, congestion))
    print("wrote", os.path.relpath(path, ROOT))
    return not failed
