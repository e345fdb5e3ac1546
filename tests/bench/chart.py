"""Draws grouped horizontal bars on a logarithmic axis as an SVG that reads on light and dark pages.

    bars("Time relative to native", ["sort", "hash"], {"A": {"sort": (1, 2, 3)}})     low, middle, high
"""
import math
from xml.sax.saxutils import escape

COLOURS = ("#2f7ed8", "#e08214", "#7b8794")
LEFT, WIDTH, BAR, GAP, TOP = 176, 540, 11, 9, 64
# The first colours read on both; a viewer that knows which page it is on gets better ones.
STYLE = """<style>
text { font: 12px sans-serif; fill: #727c88 }
text.value { font-size: 10px }
.title { font-size: 15px; font-weight: bold }
.grid, .one, .spread { stroke: #727c88 }
.grid { stroke-opacity: .35 }
.spread { stroke-width: 1.5 }
@media (prefers-color-scheme: light) {
  text { fill: #24292f }
  .one, .spread { stroke: #24292f }
}
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .one, .spread { stroke: #e6edf3 }
}
</style>"""


def ticks(low, high):
    steps = [m * 10.0 ** e for e in range(-3, 6) for m in (1, 2, 5)]
    first = max(s for s in steps if s <= min(low, 1))
    last = min(s for s in steps if s >= max(high, 2))
    return [s for s in steps if first <= s <= last]


def figure(value):
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def bars(title, names, series):
    """Each bar goes from 1 to the middle value, a line over it from the lowest to the highest."""
    values = [v for one in series.values() for three in one.values() for v in three]
    axis = ticks(min(values), max(values))
    x = lambda value: LEFT + WIDTH * math.log(value / axis[0]) / math.log(axis[-1] / axis[0])
    group = len(series) * BAR + GAP
    bottom = TOP + group * len(names)
    parts = [f'<text class="title" x="8" y="20">{escape(title)}</text>']
    for i, name in enumerate(series):
        parts.append(f'<rect x="{LEFT + 170 * i}" y="30" width="11" height="11" fill="{COLOURS[i]}"/>'
                     f'<text x="{LEFT + 170 * i + 16}" y="40">{escape(name)}</text>')
    for tick in axis:
        parts.append(f'<line class="{"one" if tick == 1 else "grid"}" x1="{x(tick):.1f}" y1="{TOP - 6}" x2="{x(tick):.1f}" y2="{bottom}"/>'
                     f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for row, name in enumerate(names):
        y = TOP + group * row
        parts.append(f'<text x="{LEFT - 8}" y="{y + (group - GAP) / 2 + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        for i, one in enumerate(series.values()):
            if name not in one:
                continue
            low, middle, high = (x(v) for v in one[name])
            at = y + i * BAR
            left, right = sorted((x(1), middle))
            parts.append(f'<rect x="{left:.1f}" y="{at}" width="{right - left:.1f}" height="{BAR - 1}" fill="{COLOURS[i]}"/>'
                         f'<line class="spread" x1="{low:.1f}" y1="{at + BAR / 2 - .5}" x2="{high:.1f}" y2="{at + BAR / 2 - .5}"/>'
                         f'<text class="value" x="{max(x(1), middle, high) + 5:.1f}" y="{at + BAR - 1.5}">{figure(one[name][1])}</text>')
    width, height = LEFT + WIDTH + 60, bottom + 26
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
            + STYLE + "\n" + "\n".join(parts) + "\n</svg>\n")
