"""From no machine to a proven dr lab in User-Mode Linux, as typed; and `make demo`.

    .venv/bin/python benchmarks/cold_start.py [--rounds N] [--into FOLDER] [CHECKOUT...]

Each round, in each checkout (this one where none is named): `machine stop`, `up dr`, `verify dr`,
`verify dr` again, `machine stop`, `make demo`. Checkouts take turns, so that they can be compared
on a machine that is busy with other things. CPU time is of the machine's processes on the host,
the commands' own added. Needs no root, and everything installed (`tools/setup checks witnesses`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import report  # noqa: E402

NAME = f"bench-{os.getpid()}"
ENVIRONMENT = {**os.environ, "LVSCTL_MACHINE": NAME, "LVSCTL_WHERE": "machine"}
STEPS = {
    "up dr, no machine": ["-m", "lvsctl", "up", "dr"],
    "verify dr after it": ["-m", "lvsctl", "verify", "dr"],
    "verify dr again": ["-m", "lvsctl", "verify", "dr"],
}
COLD = "from no machine to a proven dr lab"
DEMO = "make demo, no machine"

Sample = tuple[float, float]
"""Seconds; seconds of CPU time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[HERE.parent])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--into", type=Path, help="a folder for cold_start.md")
    choose_kind = parser.parse_args()
    samples: dict[tuple[str, str], list[Sample]] = {}
    for _ in range(choose_kind.rounds):
        for checkout in choose_kind.checkouts:
            for step, sample in one_round(checkout.resolve()):
                samples.setdefault((step, checkout.resolve().name), []).append(sample)
    text = "\n".join(table(samples, choose_kind.rounds)) + "\n"
    print(text, end="")
    if choose_kind.into:
        (choose_kind.into / "cold_start.md").write_text(text)


def one_round(checkout: Path) -> Iterator[tuple[str, Sample]]:
    python = str(checkout / ".venv/bin/python")
    taken = []
    try:
        for step, words in STEPS.items():
            taken.append(timed([python, *words], checkout))
            yield step, taken[-1]
        yield COLD, (taken[0][0] + taken[1][0], taken[0][1] + taken[1][1])
        stop(python, checkout)
        yield DEMO, timed(["make", "-s", "demo"], checkout)
    finally:
        stop(python, checkout)


def stop(python: str, checkout: Path) -> None:
    command = [python, "-m", "lvsctl", "machine", "stop"]
    subprocess.run(command, cwd=checkout, env=ENVIRONMENT, check=True, capture_output=True)


def timed(command: list[str], checkout: Path) -> Sample:
    cpu, begun = report.cpu_time(NAME), time.perf_counter()
    subprocess.run(command, cwd=checkout, env=ENVIRONMENT, check=True, capture_output=True)
    seconds = time.perf_counter() - begun
    return seconds, report.cpu_time(NAME) - cpu


def table(samples: dict[tuple[str, str], list[Sample]], rounds: int) -> Iterator[str]:
    yield report.heading()
    yield f"Medians of {rounds} rounds and the best of them; seconds."
    yield ""
    yield "| | checkout | median | best | CPU |"
    yield "|---|---|---|---|---|"
    for (step, checkout), found in samples.items():
        seconds, cpu = zip(*found, strict=True)
        middle = statistics.median(seconds)
        least = min(seconds)
        used = statistics.median(cpu)
        yield f"| {step} | {checkout} | {middle:.1f} | {least:.1f} | {used:.1f} |"


if __name__ == "__main__":
    main()
