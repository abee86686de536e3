"""The result as a drawing: for each workload, bars of CPU per request with their spread."""
from html import escape

from report import cpu_digits, measured, median

WIDTH, LABEL, RIGHT, BAR, GAP, TITLE = 760, 210, 90, 20, 6, 40
COLOURS = {"monolake-lua": "#1b6ca8", "monolake-lua (epoll)": "#6aa6d0", "monolake-lua (GnuTLS)": "#4a90b8",
           "monolake-lua (GnuTLS + epoll)": "#8ab8d8"}
FLOOR_COLOUR = "#b0b0b0"
PEER_COLOUR = "#d08a3c"
STYLE = ("text { font: 13px sans-serif; fill: #222 } .title { font-weight: bold } "
         ".spread { stroke: #222; stroke-width: 1.5 }")


def colour(name):
    return FLOOR_COLOUR if name.startswith("bare ") else COLOURS.get(name, PEER_COLOUR)


def bar(name, result, y, scale):
    values = [window["cpu_us"] for window in result["windows"]]
    middle, length = y + BAR / 2, median(result, "cpu_us") * scale
    low, high = LABEL + min(values) * scale, LABEL + max(values) * scale
    return [
        f'<text x="{LABEL - 8}" y="{middle + 4.5:.1f}" text-anchor="end">{escape(name)}</text>',
        f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour(name)}"/>',
        f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{max(high, LABEL + length) + 6:.1f}" y="{middle + 4.5:.1f}">'
        f'{cpu_digits(median(result, "cpu_us"))}</text>',
    ]


def svg(results):
    shapes, y = [], 10
    for workload in results:
        rows = measured(results, workload)
        if not rows:
            continue
        largest = max(window["cpu_us"] for result in rows.values() for window in result["windows"])
        scale = (WIDTH - LABEL - RIGHT) / largest
        shapes.append(f'<text class="title" x="{LABEL}" y="{y + 20}">{escape(workload)}: CPU us/request</text>')
        y += TITLE - 8
        for name, result in rows.items():
            shapes += bar(name, result, y, scale)
            y += BAR + GAP
        y += 8
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}">\n'
            f'<style>{STYLE}</style>\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(shapes) + "\n</svg>\n")
