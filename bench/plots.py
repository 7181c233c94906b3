"""Plots as SVG, written by hand: small, sharp at every size, and readable in a diff."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Protocol

from msgspec import Struct

from bench.figures import Figure, Samples, number

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 130, 40, 48
COLOURS = {"nginx": "#6b7280", "gateway": "#2563eb", "envoy": "#9333ea", "portkey": "#d97706", "litellm": "#dc2626"}


class Titled(Protocol):
    """Something with a title."""

    @property
    def title(self) -> str:
        """How it is called."""
        ...


class Line(Struct, frozen=True):
    """One server's figures, by what stands on the axis below."""

    title: str
    colour: str
    points: list[tuple[float, Figure]]


def pictures(servers: Mapping[str, Titled], samples: Samples) -> dict[str, str]:
    """Return the plots of a run by name."""

    def lines(scenario: str, metric: str, names: Iterable[str], unit: float = 1.0) -> list[Line]:
        found: list[Line] = []
        for name in names:
            points = [
                (float(case), Figure(figure.median * unit, figure.low * unit, figure.high * unit))
                for case in samples.cases(scenario, name)
                if case.isdigit() and (figure := samples.figure(scenario, name, case, metric))
            ]
            if points:
                found.append(Line(servers[name].title, COLOURS.get(name, "#000000"), points))
        return found

    all_names = [name for name in servers if name in COLOURS]
    bars = [
        (servers[name].title, COLOURS[name], figure)
        for name in all_names
        if (figure := samples.figure("cpu", name, "whole-1024", "cpu_us"))
    ]
    made = {
        "cpu": bar_chart("CPU per whole call, µs (logarithmic)", sorted(bars, key=lambda bar: bar[2].median)),
        "latency": line_chart("p99 of whole calls, ms", "calls a second", lines("latency", "p99", all_names, 1e-3)),
        "first-token": line_chart(
            "Time to the first token, p50, ms (60 of them are the upstream's)",
            "streams at a time",
            lines("streams", "ttft_p50", all_names, 1e-3),
        ),
    }
    sweeps = {
        "concurrency": ("waiting", "calls under way, at 500 a second"),
        "sizes": ("sent", "bytes sent"),
        "middlewares": ("middlewares", "middlewares"),
        "names": ("names", "keys, and as many models"),
    }
    for picture, (scenario, axis) in sweeps.items():
        there = [name for name in all_names if name in samples.servers(scenario)]
        made[picture] = line_chart("CPU per call, µs", axis, lines(scenario, "cpu_us", there))
    return made


def bar_chart(title: str, bars: Sequence[tuple[str, str, Figure]]) -> str:
    """Return horizontal bars on a logarithmic axis."""
    if not bars:
        return svg(title, [])
    low, high = 1.0, max(figure.median for _, _, figure in bars) * 2
    width, step = WIDTH - LEFT - RIGHT - 60, (HEIGHT - TOP - 20) / len(bars)
    parts: list[str] = []
    for i, (name, colour, figure) in enumerate(bars):
        y = TOP + i * step
        length = width * math.log(max(figure.median, low * 1.1) / low) / math.log(high / low)
        parts.append(text(LEFT + 50, y + step / 2 + 4, name, "end"))
        parts.append(
            f'<rect x="{LEFT + 60}" y="{y + 6:.1f}" width="{length:.1f}" height="{step - 12:.1f}" fill="{colour}"/>'
        )
        parts.append(text(LEFT + 66 + length, y + step / 2 + 4, number(figure.median)))
    return svg(title, parts)


def line_chart(title: str, axis: str, lines: Sequence[Line]) -> str:
    """Return lines with their ranges on two logarithmic axes."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, figure in line.points for y in (figure.low, figure.high) if y > 0]
    if not xs or not ys:
        return svg(title, [])
    across, up = Scale(xs, LEFT, WIDTH - RIGHT), Scale(ys, HEIGHT - BOTTOM, TOP)
    parts = [text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, axis, "middle")]
    for x in sorted(set(xs)):
        parts.append(text(across(x), HEIGHT - BOTTOM + 18, f"{x:,.0f}", "middle"))
    for y in ticks(ys):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#e5e7eb"/>'
            + text(LEFT - 8, up(y) + 4, f"{y:,g}", "end")
        )
    labels: list[tuple[float, Line]] = []
    for line in lines:
        path = " ".join(f"{across(x):.1f},{up(figure.median):.1f}" for x, figure in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"/>')
        for x, figure in line.points:
            parts.append(
                f'<line x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{up(figure.low):.1f}" y2="{up(figure.high):.1f}" '
                f'stroke="{line.colour}"/><circle cx="{across(x):.1f}" cy="{up(figure.median):.1f}" r="3" '
                f'fill="{line.colour}"/>'
            )
        labels.append((up(line.points[-1][1].median), line))
    below = 0.0
    for y, line in sorted(labels, key=lambda label: label[0]):
        below = max(y + 4, below + 15)  # names that would lie on each other are moved apart
        parts.append(text(WIDTH - RIGHT + 10, below, line.title, colour=line.colour))
    return svg(title, parts)


class Scale:
    """Maps values to places, logarithmically."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._low, high = math.log(min(values)), math.log(max(values))
        self._span = (high - self._low) or 1.0
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log(max(value, 1e-9)) - self._low) / self._span
        return self._start + (self._end - self._start) * share


def ticks(values: Sequence[float]) -> list[float]:
    """Return round numbers within the range of `values`: 1, 2, 5, 10 …"""
    low, high = min(values), max(values)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]


def text(x: float, y: float, said: str, anchor: str = "start", colour: str = "#111827") -> str:
    """Return a piece of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(said)}</text>'


def svg(title: str, parts: Iterable[str]) -> str:
    """Return a whole picture, on white, as it is also shown on dark pages."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
        + text(WIDTH / 2, 22, title, "middle")
        + "\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )
