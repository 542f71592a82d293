#!/usr/bin/env python3
"""Endurance run: bring labs up, break, diagnose and remove them many times in one machine.

    tools/soak.py --cycles 300            a number of cycles
    tools/soak.py --minutes 30            or a duration
    tools/soak.py --figures soak.csv      write every sample to a file

Each cycle runs the commands of a user: up, verify, fault inject, diagnose, fault restore, down,
with the shipped topologies in turn. After each cycle it measures the machine's kernel (memory,
slab, open files, network namespaces, mounts, processes), the machine's two long-lived processes,
and its broker on the host. At the end none of these may have grown.

The exit status is 0 if nothing grew, and 1 if something grew or a command failed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LVSCTL = [sys.executable, "-m", "lvsctl"]

WARM_UP = 27
"""Cycles until each shipped topology has been up once, so that caches, modules and Python's arenas
are full."""

SETTLED = r"""
tries=0
while [ $tries -lt 100 ]; do  # namespaces are freed in the background
    now=$(awk '$1 == "net_namespace" { print $2 }' /proc/slabinfo)
    held=$(ls /run/netns | wc -l)
    living=$(ls -d /proc/[0-9]* | wc -l)
    [ "$now/$living" = "$before" ] && [ "$held" = 0 ] && break
    before=$now/$living
    tries=$((tries + 1))
    sleep 0.1
done
sync; echo 3 > /proc/sys/vm/drop_caches
cat /proc/meminfo /proc/slabinfo
echo "files $(cut -f 1 /proc/sys/fs/file-nr)"
echo "netns $(ls /run/netns /run/lvsctl | grep -c lvs)"
echo "mounts $(wc -l < /proc/mounts)"
echo "processes $(ls -d /proc/[0-9]* | wc -l)"
for p in /proc/[0-9]*; do
    case $(cat $p/cmdline 2>/dev/null | tr '\0' ' ') in *guest*) rss=$((rss +
        $(awk '$1 == "VmRSS:" { print $2 }' $p/status)))
        fds=$((fds + $(ls $p/fd | wc -l))) ;;
    esac
done
echo "agent_rss $rss"
echo "agent_files $fds"
"""
"""Prints figures of the machine's kernel and processes once they are stable."""

CYCLE = (
    ("up", "{topology}"),
    ("verify", "{topology}"),
    ("fault", "inject", "{fault}", "--lab", "{topology}"),
    ("diagnose", "{topology}"),
    ("fault", "restore", "--lab", "{topology}"),
    ("down", "{topology}"),
)
"""The commands of a cycle, in order."""

EXPECTED_STATUSES = frozenset({("diagnose", 1)})
"""Commands that end with another status than 0: a broken lab has causes."""

SLACK = {
    "memory_used_kib": 4096,
    "slab_kib": 1024,
    "unreclaimable_kib": 1024,
    "agent_rss_kib": 2048,
    "broker_rss_kib": 2048,
}
"""How much larger the median of the last tenth may be than that of the first, for any number of
cycles. All other measures must be equal. A leak of one namespace (345 KiB) in every tenth cycle
shows in the kernel's count of namespaces, and in memory after 190 cycles."""


@dataclass(frozen=True)
class Sample:
    """The figures after a cycle. Memory in KiB."""

    cycle: int
    seconds: float
    topology: str
    memory_used_kib: int
    slab_kib: int
    unreclaimable_kib: int
    namespaces_kernel: int
    open_files: int
    names: int
    mounts: int
    processes: int
    agent_rss_kib: int
    agent_files: int
    broker_rss_kib: int
    broker_files: int


MEASURES = tuple(Sample.__dataclass_fields__)[3:]


class Failed(Exception):
    """A command ended with an unexpected status."""


def lvsctl(*words: str, status: int = 0) -> str:
    """Run a command and return its output."""
    done = subprocess.run(
        [*LVSCTL, *words], cwd=ROOT, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != status and (words[0], done.returncode) not in EXPECTED_STATUSES:
        raise Failed(f"lvsctl {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def faults_of(topology: str) -> list[str]:
    """Return the ids of the faults that apply to the running lab."""
    listed = json.loads(lvsctl("fault", "list", "--lab", topology, "--format", "json"))
    return [one["id"] for one in listed["faults"] if one.get("nodes")]


def sample(cycle: int, seconds: float, topology: str, broker: int) -> Sample:
    """Measure the machine and its broker."""
    text = lvsctl("machine", "run", "--", "sh", "-c", SETTLED)
    said = {line.split()[0].rstrip(":"): line.split() for line in text.splitlines() if line.split()}

    def value(name: str) -> int:
        return int(said[name][1])

    status = Path(f"/proc/{broker}/status").read_text(encoding="utf-8")
    rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return Sample(
        cycle=cycle,
        seconds=round(seconds, 1),
        topology=topology,
        memory_used_kib=value("MemTotal") - value("MemFree") - value("Cached") - value("Buffers"),
        slab_kib=value("Slab"),
        unreclaimable_kib=value("SUnreclaim"),
        namespaces_kernel=value("net_namespace"),
        open_files=value("files"),
        names=value("netns"),
        mounts=value("mounts"),
        processes=value("processes"),
        agent_rss_kib=value("agent_rss"),
        agent_files=value("agent_files"),
        broker_rss_kib=rss,
        broker_files=len(list(Path(f"/proc/{broker}/fd").iterdir())),
    )


def cycles(wanted: int, until: float) -> Iterator[Sample]:
    """Run cycles, and yield a sample after each."""
    topologies = [one["name"] for one in
                  json.loads(lvsctl("topologies", "--format", "json"))["topologies"]]  # fmt: skip
    faults: dict[str, list[str]] = {}
    broker = int(json.loads(lvsctl("machine", "status", "--format", "json"))["machine"]["pid"])
    begun = time.monotonic()
    cycle = 0
    while cycle < wanted and time.monotonic() < until:
        topology = topologies[cycle % len(topologies)]
        for words in CYCLE:
            if "{fault}" in words and topology not in faults:
                faults[topology] = faults_of(topology)
            some = faults.get(topology, [""])
            fault = some[cycle // len(topologies) % len(some)]
            lvsctl(*(word.format(topology=topology, fault=fault) for word in words))
        cycle += 1
        yield sample(cycle, time.monotonic() - begun, topology, broker)


def grown(samples: Sequence[Sample]) -> dict[str, tuple[float, float, float, bool]]:
    """Return for each measure the median of the first and of the last tenth, the slope per cycle
    (least squares), and whether it is flat."""
    settled = samples[WARM_UP:]
    tenth = max(3, len(settled) // 10)
    found = {}
    for name in MEASURES:
        values = [getattr(one, name) for one in settled]
        first = statistics.median(values[:tenth])
        last = statistics.median(values[-tenth:])
        slope = statistics.linear_regression([s.cycle for s in settled], values).slope
        found[name] = (first, last, slope, last - first <= SLACK.get(name, 0))
    return found


def main() -> int:
    """Run the cycles and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=0, help="number of cycles (default: 300)")
    parser.add_argument("--minutes", type=float, default=0, help="duration, instead of --cycles")
    parser.add_argument("--figures", type=Path, help="CSV file for every sample")
    options = parser.parse_args()
    wanted = options.cycles or (10**6 if options.minutes else 300)
    until = time.monotonic() + (options.minutes * 60 or 10**9)
    os.environ.setdefault("LVSCTL_MACHINE", f"soak-{os.getpid()}")
    os.environ["LVSCTL_WHERE"] = "machine"
    samples: list[Sample] = []
    lvsctl("machine", "start")
    problem = ""
    try:
        for one in cycles(wanted, until):
            samples.append(one)
            if one.cycle % 10 == 1:
                print(f"cycle {one.cycle:4} {one.seconds:7.0f} s  "
                      + "  ".join(f"{name} {getattr(one, name)}" for name in MEASURES),
                      flush=True)  # fmt: skip
    except (Failed, KeyboardInterrupt) as error:
        problem = f"{type(error).__name__}: {error}"
    finally:
        lvsctl("machine", "stop")
    if options.figures and samples:
        with options.figures.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Sample.__dataclass_fields__)
            writer.writerows([getattr(s, n) for n in Sample.__dataclass_fields__] for s in samples)
    flat = judge(samples)
    if problem:
        print(problem)
    return 0 if flat and not problem else 1


def judge(samples: Sequence[Sample]) -> bool:
    """Print the table of figures, and return whether all are flat."""
    if len(samples) < WARM_UP + 6:
        print(f"{len(samples)} cycles are too few: at least {WARM_UP + 6} are needed")
        return False
    found = grown(samples)
    print(f"{len(samples)} cycles in {samples[-1].seconds:.0f} s; "
          f"medians of the first and the last tenth after {WARM_UP}")  # fmt: skip
    print(f"{'':20}{'first':>10}{'last':>10}{'per cycle':>12}")
    for name, (first, last, slope, flat) in found.items():
        print(f"{name:20}{first:10.0f}{last:10.0f}{slope:12.3f}  {'flat' if flat else 'GREW'}")
    return all(flat for *_, flat in found.values())


if __name__ == "__main__":
    raise SystemExit(main())
