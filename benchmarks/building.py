"""Building and removing the dr shape: lvsctl beside what else can do it, in one interleaved run.

    sudo .venv/bin/python benchmarks/building.py [--sizes 2 10 100] [--rounds 5] [--into DIR]

In each round every competitor builds and removes its lab once, one after the other, the first
one another each time; after each the kernel gets the time to take the namespaces apart. Up to
N = 10 there are three times as many rounds as said. All of
it happens in network and mount namespaces of its own: this host's stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from benchmarks import report  # noqa: E402
from benchmarks.competitors.dr_shape import write_topology  # noqa: E402
from lvsctl.kernel import netns_cleanup  # noqa: E402

SOURCES = HERE / "competitors"
INSIDE = "LVSCTL_BENCHMARK_INSIDE"
UP_TO = {"plain shell": 100, "Mininet": 100, "ip -batch": 500}
"""The largest size at which a competitor takes part without --all: beyond, it takes minutes."""

LVSCTL = "from benchmarks.competitors.lvsctl_up import main"
"""A module, so that it is compiled ahead, as a console script's is."""

PYTHON = [sys.executable, "-X", "utf8"]
COMPETITORS: dict[str, list[str]] = {
    "floor (C)": ["{floor}"],
    "lvsctl": [*PYTHON, "-c", f"{LVSCTL}; main()"],
    "ip -batch": [str(SOURCES / "batch.sh")],
    "plain shell": [str(SOURCES / "plain.sh")],
    "Mininet": [*PYTHON, str(SOURCES / "star.py")],
}
SMALL = 10
"""Up to so many real servers there are three times as many rounds: times are close there."""

PAUSE_SECONDS = 0.3
"""Between two competitors: see ``settle``."""


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--sizes", type=int, nargs="+", default=[2, 10, 100, 500, 1000])
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--only", nargs="+", choices=list(COMPETITORS), default=list(COMPETITORS))
    words.add_argument("--all", action="store_true", help="the slow ones at every size")
    words.add_argument("--into", type=Path, default=HERE / "results")
    chosen = words.parse_args()
    if INSIDE not in os.environ:
        go_inside()
    with tempfile.TemporaryDirectory() as folder:
        floor = f"{folder}/floor"
        subprocess.run(["cc", "-O2", "-o", floor, SOURCES / "floor.c"], check=True)
        measure(chosen, floor)


def keep(chosen: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """Write what there is so far."""
    about = {
        "command": f"python benchmarks/building.py {' '.join(sys.argv[1:])}".strip(),
        "kernel": os.uname().release,
        "cpus": os.cpu_count(),
        "python": report.python(),
        "load": os.getloadavg(),
    }
    chosen.into.mkdir(parents=True, exist_ok=True)
    report.write(chosen.into, about, results)


def go_inside() -> None:
    """This script anew, in namespaces of its own: an empty /run, no devices but lo."""
    compiled = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for package in ("lvsctl", "benchmarks"):
        subprocess.run([sys.executable, "-m", "compileall", "-q", ROOT / package], check=True)
    path = ":".join([str(ROOT / ".tools/bin"), "/usr/sbin", "/sbin", os.environ["PATH"]])
    modules = [str(ROOT), str(ROOT / ".tools/root/usr/lib/python3/dist-packages")]
    env = compiled | {INSIDE: "1", "PATH": path, "PYTHONPATH": ":".join(modules)}
    script = 'mount --make-rprivate / && mount -t tmpfs run /run && exec "$@"'
    inner = [sys.executable, *sys.argv]
    os.execvpe("unshare", ["unshare", "-n", "-m", "sh", "-c", script, "sh", *inner], env)


def measure(chosen: argparse.Namespace, floor: str) -> None:
    """One result for each size and competitor, with every sample; kept after each round."""
    sizes, rounds, names = chosen.sizes, chosen.rounds, chosen.only
    before: list[dict[str, Any]] = []
    for size in sizes:
        here = [name for name in names if chosen.all or size <= UP_TO.get(name, size)]
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in here}
        for number in range(rounds if size > SMALL else 3 * rounds):
            shift = number % len(here)
            for name in (*here[shift:], *here[:shift]):
                sample = build_and_remove(name, size, f"b{size}x{number}-", floor)
                samples[name].append(sample)
                print(f"N={size} {name}: {sample}", file=sys.stderr, flush=True)
            results = [*before, *(result(size, name, samples[name]) for name in here)]
            keep(chosen, results)
        before = results


def result(size: int, name: str, samples: list[dict[str, float]]) -> dict[str, Any]:
    """The medians of what was measured of one competitor, and all of it."""
    medians = {key: round(statistics.median(s[key] for s in samples), 2) for key in samples[0]}
    return {"size": size, "name": name, **medians, "samples": samples}


def build_and_remove(name: str, size: int, prefix: str, floor: str) -> dict[str, float]:
    """Milliseconds: the whole commands, their CPU time, and the building part where it is told."""
    command = [word.format(floor=floor) for word in COMPETITORS[name]]
    up_words, down_words = ["up", str(size), prefix], ["down", str(size), prefix]
    if name == "lvsctl":
        lab = prefix.rstrip("-")
        up_words = ["up", str(write_topology(lab, size, Path("/run")))]  # /run is ours
        down_words = ["down", lab]
    told, up, up_cpu = timed([*command, *up_words])
    gone, down, down_cpu = timed([*command, *down_words])
    settle()
    inside = json.loads(told.splitlines()[-1]) if told.strip() else {}
    building = inside.get("ms", up)
    if "down_ms" in inside:  # Mininet, whose one process does both
        up, down = up - inside["down_ms"], inside["down_ms"]
    elif gone.startswith("{"):
        down = json.loads(gone)["ms"]
    return {
        "building": building, "building_cpu": inside.get("cpu_ms", up_cpu),
        "up": up, "up_cpu": up_cpu, "down": down, "down_cpu": down_cpu,
    }  # fmt: skip


def timed(command: list[str]) -> tuple[str, float, float]:
    """What a command prints, and the wall and CPU time of it and its children, in ms."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    said = process.stdout.readline()
    while line := process.stdout.readline():
        said += line
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    return said, wall * 1e3, (used.ru_utime + used.ru_stime) * 1e3


def settle() -> None:
    """Wait until the kernel has destroyed the released namespaces and freed their memory.

    For the latter there is no event, and whoever starts a process meanwhile waits for it:
    without the pause, whoever comes after the floor, whose `down` returns at once, takes 20 to
    60 ms longer.
    """
    with netns_cleanup.wait_for_cleanup("no-such-lab"):
        pass
    time.sleep(PAUSE_SECONDS)  # noqa: TID251 (no event: above)


if __name__ == "__main__":
    main()
