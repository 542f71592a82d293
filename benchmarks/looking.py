"""verify, diagnose and inspect of labs with 2 to 300 real servers, as typed, in User-Mode Linux.

    .venv/bin/python benchmarks/looking.py [--sizes 2 30 100 300] [--rounds 3] [--into FOLDER]
                                           [CHECKOUT...]

For each size a dr lab is brought up in a machine of its own, of each checkout (this one where none
is named). In each round the three commands run one after the other; then the director loses the
VIP (a fault), and `diagnose` is asked of the lab in which nothing answers. Checkouts take turns, so
that they can be compared on a machine that is busy with other things. CPU time is of the machine's
processes on the host, the command's own added. Lines are those that the command prints. Needs no
root.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import report  # noqa: E402
from benchmarks.competitors.dr_shape import write_topology  # noqa: E402

COMMANDS = ("verify", "diagnose", "inspect")
SILENT = "diagnose, nothing answers"
PAUSES = itertools.cycle((2.0, 3.2, 2.4, 3.6, 2.8))
"""Seconds before each command, as someone needs who reads what the last one printed. IPVS adds up
its counters every two seconds: a command that follows at once upon another waits twice, because the
other's last packets are not added up yet, and each time in the same phase."""


class Sample(NamedTuple):
    """A command: seconds, seconds of CPU time, lines printed."""

    seconds: float
    cpu: float
    lines: int


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("checkouts", nargs="*", type=Path, default=[HERE.parent])
    words.add_argument("--sizes", type=int, nargs="+", default=[2, 30, 100, 300])
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--into", type=Path, help="a folder for looking.md")
    chosen = words.parse_args()
    checkouts = [one.resolve() for one in chosen.checkouts]
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in chosen.sizes:
            found = list(measure(size, chosen.rounds, Path(folder), checkouts))
            print(*found, sep="\n", file=sys.stderr, flush=True)
            rows += found
    text = "\n".join([*heading(chosen.rounds), *rows]) + "\n"
    print(text, end="")
    if chosen.into:
        chosen.into.mkdir(parents=True, exist_ok=True)
        (chosen.into / "looking.md").write_text(text)


def heading(rounds: int) -> list[str]:
    return [
        report.heading(),
        f"The median of {rounds} rounds and how far they go; lines printed.",
        "",
        "| real servers | command | checkout | seconds | lowest to highest | CPU s | lines |",
        "|---|---|---|---|---|---|---|",
    ]


def measure(size: int, rounds: int, folder: Path, checkouts: Sequence[Path]) -> Iterator[str]:
    """Yield the rows of one size."""
    lab = f"look{size}"
    taken: dict[tuple[str, Path], list[Sample]] = {}

    def note(command: str, *words: str, status: int = 0) -> None:
        for checkout in checkouts:
            sample = lvsctl(checkout, *words, status=status)
            taken.setdefault((command, checkout), []).append(sample)

    try:
        for checkout in checkouts:
            lvsctl(checkout, "up", str(write_topology(lab, size, folder)))
        for _ in range(rounds):
            for command in COMMANDS:
                note(command, command, lab)
        for checkout in checkouts:
            lvsctl(checkout, "fault", "inject", "vip-missing-on-director", "--lab", lab)
        for _ in range(rounds):
            note(SILENT, "diagnose", lab, status=1)
    finally:
        for checkout in checkouts:
            lvsctl(checkout, "machine", "stop")
    for (command, checkout), found in taken.items():
        seconds = [one.seconds for one in found]
        yield (
            f"| {size} | {command} | {checkout.name} | {statistics.median(seconds):.1f} | "
            f"{min(seconds):.1f} to {max(seconds):.1f} | "
            f"{statistics.median(one.cpu for one in found):.1f} | {found[-1].lines} |"
        )


def lvsctl(checkout: Path, *words: str, status: int = 0) -> Sample:
    """Run a command of a checkout, whose machine has its name."""
    name = f"bench-{checkout.name}-{os.getpid()}"
    environment = {
        **os.environ,
        "LVSCTL_MACHINE": name,
        "LVSCTL_WHERE": "machine",
        "PYTHONPATH": str(checkout),
    }
    command = [sys.executable, "-m", "lvsctl", *words]
    time.sleep(next(PAUSES))  # noqa: TID251 (nothing is waited for)
    cpu, begun = report.cpu_time(name), time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode != status:
        said = (done.stdout + done.stderr).decode()
        raise SystemExit(f"{checkout}: {' '.join(words)} ended with {done.returncode}:\n{said}")
    return Sample(seconds, report.cpu_time(name) - cpu, len(done.stdout.splitlines()))


if __name__ == "__main__":
    main()
