"""The result as Markdown: medians, spread, ratios to nginx, and what it was measured on."""
import datetime
import os
import platform
import statistics
import subprocess

from workloads import GROUPS, WORKLOADS

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

LOADS = {
    "HTTP": "wrk with 64 keep-alive connections.",
    "TLS": "TLS 1.3, AES-128-GCM, X25519, a P-256 certificate, tickets (one a handshake), no session cache. HTTPS: wrk "
           "with 64 keep-alive connections, HTTP/1.1. Handshakes: bench/handshakes with 64 in flight, each with one "
           "request of 128 B and the end of the connection; resumed ones with the newest ticket. monolake-lua uses "
           "OpenSSL as the others do, unless GnuTLS is named.",
    "HTTP/2": "h2load with 16 connections of 32 streams each, over TLS as above (h2) or in the clear (h2c), to an "
              "origin of HTTP/1.1; gRPC: calls with a message of 16 bytes each way to an origin of HTTP/2 (nghttpd).",
    "L4": "TCP, by bench/tcp_load. Messages: 64 connections, a request is 96 bytes there and back. Bulk: 8 connections "
          "that read without end, a request is 10^6 bytes, so that us/request is ms of CPU per GB; nginx with buffers "
          "of 64 KiB, HAProxy with splicing. Connects: 64 in flight, a request is a connection with one message there "
          "and back.",
}


def median(result, key):
    return statistics.median(window[key] for window in result["windows"])


def measured(results, workload):
    return {name: result for name, result in results.get(workload, {}).items() if result["windows"]}


def base_of(names):
    """What the others of a workload are compared with."""
    return next((name for name in ("nginx", "nginx + Lua") if name in names), None)


def ratio(rows, name):
    """The median of each round's ratio: a machine that changes its speed slows both parts of a pair."""
    base = base_of(rows)
    if not base:
        return ""
    pairs = zip(rows[name]["windows"], rows[base]["windows"])
    return f"{statistics.median(ours['cpu_us'] / theirs['cpu_us'] for ours, theirs in pairs):.2f}"


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


def table(rows):
    lines = ["| proxy | CPU us/request | spread | to nginx | requests/s | p50 | p99 | proxy's core | windows (dropped) |",
             "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for name, result in rows.items():
        lines.append(
            f"| {name} | {cpu_digits(median(result, 'cpu_us'))} | {spread(result)} | {ratio(rows, name)} "
            f"| {median(result, 'rate'):.0f} | {percentile(result, 'p50_us')} "
            f"| {percentile(result, 'p99_us')} | {100 * median(result, 'proxy_share'):.0f} % "
            f"| {len(result['windows'])} ({result['dropped']}) |")
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
    """What the trivial hook adds to each proxy, against its plain run at 128 B."""
    plain, hook = measured(results, "128 B"), measured(results, "Lua hook")
    lines = []
    for name, result in hook.items():
        bare = name.removesuffix(" + Lua")
        if bare in plain:
            lines.append(f"- {name}: {median(result, 'cpu_us') - median(plain[bare], 'cpu_us'):+.1f} us")
    return "\n".join(lines)


def markdown(results, windows, seconds):
    parts = [
        "# Benchmark",
        f"Written by `./dev bench` on {datetime.date.today()}; `bench/run --help` says how it measures. "
        f"Medians of {windows} windows of {seconds:g} s for each proxy, run in turns; a ratio is the median of "
        "the ratios within a round. CPU is what the proxy's "
        "processes used, in user and kernel mode, divided by the requests answered. Each proxy has one worker on "
        "core 0; the load and the origins share core 1. Where the proxy's core is not near "
        "100 %, the load was the limit: then requests/s says nothing of the proxy, CPU per request does.",
        "![CPU per request](results.svg)",
    ]
    for group in GROUPS:
        workloads = in_group(results, group)
        if workloads:
            parts += [f"## {group}", LOADS[group]]
        for workload in workloads:
            parts += [f"### {workload}", table(measured(results, workload))]
    costs = hook_costs(results)
    if costs:
        parts += ["## What the Lua hook adds",
                  "It reads one field of the request and sets two of the response.", costs]
    parts += ["## Measured on", versions()]
    return "\n\n".join(parts) + "\n"


def first_line(*command):
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return (result.stdout + result.stderr).strip().split("\n")[0]


def debian_version(package):
    return first_line("dpkg-query", "-W", "-f", "${Version}", package)


def versions():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="utf-8") as file:
        congestion = file.read().strip()
    lines = [f"- {model}, {os.cpu_count()} cores; Linux {platform.release()}; TCP congestion control {congestion}"]
    packages = ("nginx", "libnginx-mod-http-lua", "libnginx-mod-stream", "haproxy", "h2o", "nghttp2-proxy",
                "libluajit2-5.1-2", "liburing2", "libssl3", "libgnutls30", "libnghttp2-14", "wrk", "nghttp2-client")
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
