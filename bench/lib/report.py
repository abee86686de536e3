"""The result as Markdown: medians, spread, ratios to nginx, and what it was measured on."""
import datetime
import os
import platform
import statistics
import subprocess
from collections import Counter

import measure
import tail
from workloads import GROUPS, WORKLOADS

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

BUSY_SHARE_MIN = 0.9 # of its core: else the proxy was not the bottleneck

LOADS = {
    "HTTP": "wrk with 64 keep-alive connections; the browser's head has about 20 fields, the others two. The bare "
            "forwarders look at nothing that they forward: the best of them is the floor. HAProxy splices bodies, too.",
    "TLS": "TLS 1.3, AES-128-GCM, X25519, a P-256 certificate, tickets (one a handshake), no session cache. HTTPS: wrk "
           "with 64 keep-alive connections, HTTP/1.1. Handshakes: bench/handshakes with 64 in flight, each with one "
           "request of 128 B and the end of the connection; resumed ones with the newest ticket. monolake-lua uses "
           "OpenSSL as the others do, unless GnuTLS is named.",
    "HTTP/2": "h2load with 16 connections of 32 streams each, over TLS as above (h2) or in the clear (h2c), to an "
              "origin of HTTP/1.1; gRPC: calls with a message of 16 bytes each way to an origin of HTTP/2 (nghttpd).",
    "L4": "TCP, by bench/tcp_load. Messages: 64 connections, a request is 96 bytes there and back. Bulk: 8 connections "
          "that read without end, a request is 10^6 bytes, so that us/request is ms of CPU per GB; nginx with buffers "
          "of 512 KiB, HAProxy with splicing through pipes of 512 KiB. Connects: 64 in flight, a request is a "
          "connection with one message there and back.",
}


def median(result, key):
    return statistics.median(window[key] for window in result["windows"])


def measured(results, workload):
    return {name: result for name, result in results.get(workload, {}).items() if result["windows"]}


def base_of(names):
    """What the others of a workload are compared with."""
    return next((name for name in ("nginx", "nginx + Lua") if name in names), None)


def paired(ours, theirs):
    """CPU of both in each round in which both have a window that counts."""
    left, right = ({window["round"]: window["cpu_us"] for window in result["windows"]} for result in (ours, theirs))
    return [(left[number], right[number]) for number in left if number in right]


def ratio(rows, name):
    """The median of each round's ratio: a machine that changes its speed slows both parts of a pair."""
    base = base_of(rows)
    pairs = paired(rows[name], rows[base]) if base else []
    return f"{statistics.median(ours / theirs for ours, theirs in pairs):.2f}" if pairs else ""


def duration(us):
    return f"{us / 1e3:.2f} ms" if us >= 1e3 else f"{us:.0f} us"


def cpu_digits(us):
    return f"{us:.1f}" if us < 100 else f"{us:.0f}"


def percentile(result, key):
    """Empty where the load does not tell it."""
    return duration(median(result, key)) if key in result["windows"][0] else ""


def spread(result):
    values = [window["cpu_us"] for window in result["windows"]]
    return f"{cpu_digits(min(values))} to {cpu_digits(max(values))}"


def core(windows):
    """The share of its core that the proxy had: marked where that, and not the load's, was not the bottleneck."""
    shares = {key: statistics.median(window[key] for window in windows) for key in ("proxy_share", "load_share")}
    said = f"{100 * shares['proxy_share']:.0f} %"
    if shares["proxy_share"] >= BUSY_SHARE_MIN:
        return said
    return f"**{said} †** (load {100 * shares['load_share']:.0f} %)"


def table(rows):
    lines = ["| proxy | CPU us/request | spread | to nginx | requests/s | p50 | p99 | proxy's core | windows (dropped) |",
             "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for name, result in rows.items():
        lines.append(
            f"| {name} | {cpu_digits(median(result, 'cpu_us'))} | {spread(result)} | {ratio(rows, name)} "
            f"| {median(result, 'rate'):.0f} | {percentile(result, 'p50_us')} "
            f"| {percentile(result, 'p99_us')} | {core(result['windows'])} "
            f"| {len(result['windows'])} ({len(result['dropped'])}) |")
    return "\n".join(lines)


def in_group(results, group):
    return [workload for workload in results if WORKLOADS[workload].group == group and measured(results, workload)]


def short_table(results, group):
    """CPU per request alone, one column for each workload of the group."""
    workloads = in_group(results, group)
    names = dict.fromkeys(name for workload in workloads for name in measured(results, workload))
    lines = [f"| {group}: CPU us/request (to nginx) | " + " | ".join(workloads) + " |",
             "|---|" + "---:|" * len(workloads)]
    for name in names:
        cells = []
        for workload in workloads:
            rows = measured(results, workload)
            cell = f"{cpu_digits(median(rows[name], 'cpu_us'))} ({ratio(rows, name)})" if name in rows else ""
            cells.append(cell.replace(" ()", ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def short_tables(results):
    """One for each group; for README.md."""
    return "\n\n".join(short_table(results, group) for group in GROUPS if in_group(results, group))


def hook_costs(results):
    """What the trivial hook adds to each proxy, against its plain run at 128 B in the same round."""
    plain, hook = measured(results, "128 B"), measured(results, "Lua hook")
    lines = []
    for name, result in hook.items():
        bare = name.removesuffix(" + Lua")
        pairs = paired(result, plain[bare]) if bare in plain else []
        if pairs:
            cost = statistics.median(with_hook - without for with_hook, without in pairs)
            lines.append(f"- {name}: {cost:+.1f} us")
    return "\n".join(lines)


def idle_table(idle):
    """One column for each kind."""
    names = dict.fromkeys(name for rows in idle.values() for name in rows)
    lines = ["| bytes of memory for each | " + " | ".join(idle) + " |", "|---|" + "---:|" * len(idle)]
    for name in names:
        cells = [f"{rows[name]['bytes']:.0f}" if name in rows else "" for rows in idle.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tail_table(rows):
    garbage = any("longest_call_us" in window for windows in rows.values() for window in windows)
    lines = ["| proxy | requests/s | p50 | p99 | p99.9 | longest | proxy's core | load's core |"
             + (" longest call of the hook |" if garbage else ""), "|---|" + "---:|" * (8 if garbage else 7)]
    for name, windows in rows.items():
        shares = [f"{100 * tail.middle(windows, key):.0f} %" for key in ("proxy_share", "load_share")]
        times = [duration(tail.middle(windows, key)) for key in ("p50_us", "p99_us", "p999_us", "max_us")]
        if garbage:
            shares.append(duration(tail.middle(windows, "longest_call_us")))
        lines.append(f"| {name} | {tail.middle(windows, 'wanted_rate'):.0f} | " + " | ".join(times + shares) + " |")
    return "\n".join(lines)


def tails(found):
    if not found:
        return []
    parts = ["## Tail",
             "Latency of 128 B at fixed rates, by bench/open_load with 64 connections: requests are due by a schedule, "
             "and the time of each counts from when it was due, so that who would have come while a proxy stood still "
             "is not left out. The rates are shares of what nginx does at most, the same for all, then of what each does at "
             "most. In the last table a hook makes about 10 KB of garbage a request; its longest call has the longest "
             "step of LuaJIT's collector in it, in CPU time."]
    for kind, rows in found.items():
        parts += [f"### Tail, {kind}", tail_table(rows)]
    return parts


def disturbance(rows):
    """A sentence on who else used the CPUs."""
    dropped, kept, names = 0, [], Counter()
    for by_name in rows.values():
        for row in by_name.values():
            dropped += len(row["dropped"])
            kept += row["windows"]
            for window in row["dropped"]:
                names.update({name: share * window["seconds"] for name, share in window["foreign"].items()})
    text = (f"{dropped} windows were dropped because other programs used more than "
            f"{100 * measure.FOREIGN_SHARE_MAX:.0f} % of a core in them")
    if names:
        text += ": " + ", ".join(f"{name} ({seconds:.1f} s)" for name, seconds in names.most_common(6))
    if kept:
        kernel = Counter()
        for window in kept:
            kernel.update({name.split("/")[0]: share for name, share in window["kernel"].items()})
        told = ", ".join(f"{name} {100 * share / len(kept):.1f} %" for name, share in kernel.most_common(4)
                         if share / len(kept) >= 0.001)
        text += f". In the {len(kept)} that count, threads of the kernel used " + (told or "nothing to speak of")
        text += f" of a core, and the host took {100 * statistics.mean(w['stolen_share'] for w in kept):.1f} %"
    return text + "."


def markdown(results):
    rows, seconds = results["rows"], results["seconds"]
    parts = [
        "# Benchmark",
        f"Written by `./dev bench` on {datetime.date.today()}; `bench/run --help` says how it measures. "
        f"Medians of the windows of {seconds:g} s for each proxy, run in turns; a ratio is the "
        "median of the ratios within a round. CPU is what the proxy's "
        "processes used, in user and kernel mode, divided by the requests answered. Each proxy has one worker on "
        "core 0; the load and the origins share core 1. **†**: the proxy used less than "
        f"{100 * BUSY_SHARE_MIN:.0f} % of its core, so it was not the bottleneck: requests/s and latencies say nothing "
        "of it, CPU per request does (an idle core may make it a little dearer, since less is done in one turn).",
        disturbance(rows),
        "![CPU per request](results.svg)",
    ]
    if results["failed"]:
        parts.append("Not measured: " + "; ".join(f"{name} ({why})" for name, why in results["failed"].items()) + ".")
    if results["faults"]:
        parts.append("Failed once: " + "; ".join(f"{name} ({why})" for name, why in results["faults"].items()) + ".")
    for group in GROUPS:
        workloads = in_group(rows, group)
        if workloads:
            parts += [f"## {group}", LOADS[group]]
        for workload in workloads:
            parts += [f"### {workload}", table(measured(rows, workload))]
    costs = hook_costs(rows)
    if costs:
        parts += ["## What the Lua hook adds",
                  "It reads one field of the request and sets two of the response.", costs]
    if results["idle"]:
        count = max(row["connections"] for kind in results["idle"].values() for row in kind.values())
        parts += ["## Idle connections",
                  f"What each of {count} idle connections of clients takes of the proxy's process memory (Pss) once "
                  "it has had an answer, without the kernel's part. Tables of fixed size that are made and written at "
                  "the start (nginx has one of all its connections) are not in it.", idle_table(results["idle"])]
    parts += tails(results["tail"])
    parts += ["## Measured on", versions(results["congestion"])]
    return "\n\n".join(parts) + "\n"


def first_line(*command):
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return (result.stdout + result.stderr).strip().split("\n")[0]


def debian_version(package):
    return first_line("dpkg-query", "-W", "-f", "${Version}", package)


PACKAGES = ("nginx", "libnginx-mod-http-lua", "libnginx-mod-stream", "haproxy", "h2o", "nghttp2-proxy",
            "libluajit2-5.1-2", "liburing2", "libssl3", "libgnutls30", "libnghttp2-14", "wrk", "nghttp2-client")


def versions(congestion, packages=PACKAGES):
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    lines = [f"- {model}, {os.cpu_count()} cores; Linux {platform.release()}; TCP congestion control {congestion}, "
             "for all"]
    lines.append("- Debian packages: " + ", ".join(f"{name} {debian_version(name)}" for name in packages))
    commit = first_line("git", "-C", os.path.dirname(__file__), "rev-parse", "--short", "HEAD")
    lines.append(f"- monolake-lua at {commit}; {first_line('gcc', '--version')}")
    return "\n".join(lines)


def replace_block(text, block):
    """Puts the block between the two markers."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"README.md lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"
