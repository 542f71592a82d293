"""verify, diagnose and inspect of labs with 2 to 300 real servers, as typed, in User-Mode Linux.

    .venv/bin/python benchmarks/looking.py [--sizes 2 30 100 300] [--rounds 3] [--into FOLDER]

For each size a dr lab is brought up in a machine of its own. In each round the three commands run
one after the other; then the director loses the VIP (a fault), and `diagnose` is asked of the lab
in which nothing answers. Lines are those that the command prints. Needs no root.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import report  # noqa: E402
from benchmarks.competitors.dr_shape import write_topology  # noqa: E402

LVSCTL = [sys.executable, "-m", "lvsctl"]
NAME = f"bench-{os.getpid()}"
ENVIRONMENT = {
    **os.environ, "LVSCTL_MACHINE": NAME, "LVSCTL_WHERE": "machine", "PYTHONPATH": str(HERE.parent)
}  # fmt: skip
COMMANDS = ("verify", "diagnose", "inspect")
SILENT = "diagnose, nothing answers"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--sizes", type=int, nargs="+", default=[2, 30, 100, 300])
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--into", type=Path, help="a folder for looking.md")
    chosen = words.parse_args()
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in chosen.sizes:
            rows += measure(size, chosen.rounds, Path(folder))
            print(*rows[-len(COMMANDS) - 1 :], sep="\n", file=sys.stderr, flush=True)
    text = "\n".join([*heading(chosen.rounds), *rows]) + "\n"
    print(text, end="")
    if chosen.into:
        (chosen.into / "looking.md").write_text(text)


def heading(rounds: int) -> list[str]:
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return [
        f"`python benchmarks/looking.py {' '.join(sys.argv[1:])}`".replace(" `", "`")
        + f" on Linux {os.uname().release}, {os.cpu_count()} CPUs, load {load}; {report.python()}.",
        f"Seconds, the median of {rounds} rounds and how far they go; lines printed.",
        "",
        "| real servers | command | seconds | lowest to highest | lines |",
        "|---|---|---|---|---|",
    ]


def measure(size: int, rounds: int, folder: Path) -> list[str]:
    """The rows of one size."""
    lab = f"look{size}"
    taken: dict[str, list[float]] = {}
    lines: dict[str, int] = {}
    try:
        lvsctl("up", str(write_topology(lab, size, folder)))
        for _ in range(rounds):
            for command in COMMANDS:
                seconds, lines[command] = lvsctl(command, lab)
                taken.setdefault(command, []).append(seconds)
        lvsctl("fault", "inject", "vip-missing-on-director", "--lab", lab)
        for _ in range(rounds):
            seconds, lines[SILENT] = lvsctl("diagnose", lab, status=1)
            taken.setdefault(SILENT, []).append(seconds)
    finally:
        lvsctl("machine", "stop")
    return [
        f"| {size} | {command} | {statistics.median(found):.1f} | {min(found):.1f} to "
        f"{max(found):.1f} | {lines[command]} |"
        for command, found in taken.items()
    ]


def lvsctl(*words: str, status: int = 0) -> tuple[float, int]:
    """The seconds that a command takes, and the lines that it prints."""
    begun = time.perf_counter()
    done = subprocess.run([*LVSCTL, *words], env=ENVIRONMENT, capture_output=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode != status:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.decode()}")
    return seconds, len(done.stdout.splitlines())


if __name__ == "__main__":
    main()
