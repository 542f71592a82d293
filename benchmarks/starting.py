"""What a command costs that hardly does anything: lvsctl's, beside the help of two others.

    .venv/bin/python benchmarks/starting.py [--rounds 9] [--into DIR]

Mininet's and httpie's `--help` are what issue 6 compares with: programs of a like size, in the
same language. In each round every command runs once, the first one another each time. CPU time
is what counts, user and system; how long it takes depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from benchmarks import report  # noqa: E402

PROGRAMS = Path(sys.executable).parent
MININET = ROOT / ".tools/root/usr"
HTTPIE = ROOT / ".tools/httpie"


class Command(NamedTuple):
    """A command line, and what its environment has besides."""

    words: tuple[str, ...]
    env: dict[str, str]


def lvsctl(*words: str, **env: str) -> Command:
    return Command((str(PROGRAMS / "lvsctl"), *words), {"LVSCTL_WHERE": "host", **env})


def completing(line: str) -> Command:
    """What the shell runs when the user presses TAB at the end of ``line``."""
    at = str(len(line.split(" ")) - 1)
    return lvsctl(_LVSCTL_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=at)


COMMANDS = {
    "bare Python": Command((sys.executable, "-c", "pass"), {}),
    "`lvsctl --help`": lvsctl("--help"),
    "`lvsctl up --help`": lvsctl("up", "--help"),
    "`lvsctl ls`": lvsctl("ls"),
    "`lvsctl up `TAB": completing("lvsctl up "),
    "`lvsctl down `TAB": completing("lvsctl down "),
    "`lvsctl `TAB": completing("lvsctl "),
    "`mn --help` (Mininet)": Command(
        ("/usr/bin/python3", str(MININET / "bin/mn"), "--help"),
        {"PYTHONPATH": str(MININET / "lib/python3/dist-packages")},
    ),
    "`http --help` (httpie)": Command(
        (sys.executable, str(HTTPIE / "bin/http"), "--help"), {"PYTHONPATH": str(HTTPIE)}
    ),
}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--rounds", type=int, default=9)
    words.add_argument("--into", type=Path, default=HERE / "results")
    chosen = words.parse_args()
    for folder in (ROOT / "lvsctl", MININET / "lib/python3/dist-packages", HTTPIE):
        subprocess.run([sys.executable, "-m", "compileall", "-q", folder], check=False)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    names = list(COMMANDS)
    for number in range(chosen.rounds + 1):
        shift = number % len(names)
        for name in (*names[shift:], *names[:shift]):
            sample = measured(COMMANDS[name])
            if number:  # the first time, everything comes from the disk
                samples[name].append(sample)
    chosen.into.mkdir(parents=True, exist_ok=True)
    (chosen.into / "starting.json").write_text(json.dumps(samples, indent=1) + "\n")
    (chosen.into / "starting.md").write_text(table(chosen.rounds, samples))


def measured(command: Command) -> tuple[float, float]:
    """CPU time and wall time of a command, in ms."""
    dropped = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "COLUMNS"}
    env = {key: value for key, value in os.environ.items() if key not in dropped} | command.env
    begun = time.perf_counter()
    process = subprocess.Popen(command.words, env=env, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command.words)} ended with status {process.returncode}")
    return (used.ru_utime + used.ru_stime) * 1e3, wall * 1e3


def table(rounds: int, samples: dict[str, list[tuple[float, float]]]) -> str:
    cpu = {name: statistics.median(cpu for cpu, _ in mine) for name, mine in samples.items()}
    lines = [
        report.heading(),
        f"Medians of {rounds} interleaved rounds, in ms.",
        "",
        "| | CPU | least CPU | wall | ÷ Mininet's | ÷ httpie's |",
        "|---|---|---|---|---|---|",
    ]
    for name, mine in samples.items():
        least = min(one for one, _ in mine)
        wall = statistics.median(one for _, one in mine)
        others = [cpu[other] for other in list(COMMANDS)[-2:]]
        ratios = " | ".join(f"{cpu[name] / other:.2f}" for other in others)
        lines.append(f"| {name} | {cpu[name]:.0f} | {least:.0f} | {wall:.0f} | {ratios} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
