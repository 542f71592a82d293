"""Benchmarks' results: of ``building`` as JSON, as a table in Markdown and as a plot in SVG."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import resource
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lvsctl.machine import records, runtime_files

Row = dict[str, Any]

COLOURS = ("#111111", "#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b")
LEFT, TOP, WIDTH, HEIGHT = 70, 30, 520, 330


def heading() -> str:
    """What was run, and on what."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    words = " ".join(["python", *sys.argv])
    return (
        f"`{words}` on Linux {os.uname().release}, {os.cpu_count()} CPUs, load {load}; {python()}."
    )


def python() -> str:
    """Which Python this is: they differ, by how they were built, more than their versions do."""
    return f"Python {platform.python_version()} ({os.path.realpath(sys.executable)})"


def cpu_time(machine: str) -> float:
    """Seconds of CPU time: of children that have ended, and of a machine's processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = 0
    record = records.read(runtime_files.for_machine(machine).record)
    for pid in records.members(record) if record else ():
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, words[11:15]))
    return used.ru_utime + used.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def write(folder: Path, about: dict[str, Any], rows: list[Row]) -> None:
    """building.json, building.md and building.svg in ``folder``."""
    result = {"about": about, "results": rows}
    (folder / "building.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "building.md").write_text("\n".join(table(about, rows)) + "\n")
    (folder / "building.svg").write_text("\n".join(plot(rows)) + "\n")


def table(about: dict[str, Any], rows: list[Row]) -> Iterator[str]:
    """Medians in ms, and how they compare with the floor and with lvsctl."""
    by = {(row["size"], row["name"]): row for row in rows}
    load = ", ".join(f"{value:.1f}" for value in about["load"])
    yield (f"`{about['command']}` on Linux {about['kernel']}, {about['cpus']} CPUs, load {load}; "
           f"{about['python']}.")  # fmt: skip
    rounds = ", ".join(f"{n} (N = {size})" for size, n in counted(rows).items())
    yield f"Interleaved rounds: {rounds}. Medians, in ms; CPU time in parentheses. Ratios are the"
    yield "medians of those in each round, and how far they go."
    yield ""
    yield "| N | | building | ÷ floor | whole `up` | ÷ lvsctl | `down` |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        floor, ours = by.get((row["size"], "floor (C)")), by.get((row["size"], "lvsctl"))
        cells = [
            str(row["size"]),
            row["name"],
            f"{row['building']:,.0f} ({row['building_cpu']:,.0f})",
            ratio(row, floor, "building"),
            f"{row['up']:,.0f} ({row['up_cpu']:,.0f})",
            ratio(row, ours, "up"),
            f"{row['down']:,.0f}",
        ]
        yield "| " + " | ".join(cells) + " |"


def ratio(row: Row, other: Row | None, key: str) -> str:
    """Wall times against wall times, round by round, and CPU against CPU."""
    if other is None:
        return ""
    if row is other:
        return "1"
    pairs = list(zip(row["samples"], other["samples"], strict=False))
    wall, cpu = (
        sorted(one[what] / two[what] for one, two in pairs) for what in (key, f"{key}_cpu")
    )
    return (f"{statistics.median(wall):.2f} ({statistics.median(cpu):.2f}), "
            f"{wall[0]:.2f} to {wall[-1]:.2f}")  # fmt: skip


def counted(rows: list[Row]) -> dict[int, int]:
    """The rounds that every competitor has done, by size."""
    found: dict[int, int] = {}
    for row in rows:
        done = len(row["samples"])
        found[row["size"]] = min(found.get(row["size"], done), done)
    return found


def plot(rows: list[Row]) -> Iterator[str]:
    """Whole `up` over N, both logarithmic."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    x = scale([row["size"] for row in rows], LEFT, LEFT + WIDTH)
    y = scale([row["up"] for row in rows], TOP + HEIGHT, TOP)
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 130}" '
           f'height="{TOP + HEIGHT + 50}" font-family="sans-serif" font-size="12">')  # fmt: skip
    yield '<rect width="100%" height="100%" fill="white"/>'
    yield f'<text x="{LEFT}" y="18">whole command `up`, ms, over the number of real servers</text>'
    for size in sorted({row["size"] for row in rows}):
        yield line(x(size), TOP, x(size), TOP + HEIGHT, "#dddddd")
        yield f'<text x="{x(size):.0f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{size}</text>'
    lowest, highest = (pick(math.log10(row["up"]) for row in rows) for pick in (min, max))
    for power in range(math.ceil(lowest), math.floor(highest) + 1):
        at = y(10**power)
        yield line(LEFT, at, LEFT + WIDTH, at, "#dddddd")
        yield f'<text x="{LEFT - 6}" y="{at + 4:.0f}" text-anchor="end">{10**power:,}</text>'
    for name, colour in zip(names, COLOURS, strict=False):
        points = [(x(row["size"]), y(row["up"])) for row in rows if row["name"] == name]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        a, b = points[-1]
        yield f'<text x="{a + 6:.0f}" y="{b + 4:.0f}" fill="{colour}">{name}</text>'
    yield "</svg>"


def scale(values: list[float], low: float, high: float) -> Any:
    """A logarithmic scale of ``values`` onto pixels."""
    a, b = math.log(min(values)), math.log(max(values))
    return lambda value: low + (math.log(value) - a) / ((b - a) or 1) * (high - low)


def line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke="{colour}"/>'
