"""The table of open files, as /proc shows it (FDSize), in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHILD = """
import os, resource, sys
from pathlib import Path
from lvsctl.kernel import descriptors
soft, *words = map(int, sys.argv[2:])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
before = descriptors.open_now()
if sys.argv[1] == "hold":
    descriptors.make_table_hold(*words)
else:
    descriptors.allow(words[0], spare=words[1])
assert descriptors.open_now() == before, "all closed again"
lines = Path("/proc/self/status").read_text().splitlines()
size = next(int(line.split()[1]) for line in lines if line.startswith("FDSize"))
print(size, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def sizes(*words: object) -> tuple[int, int]:
    """The table's size and the limit of open files in the end."""
    command = [sys.executable, "-c", CHILD, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    size, limit = map(int, done.stdout.split())
    return size, limit


def test_the_table_holds_what_was_asked_for() -> None:
    few, _ = sizes("hold", 900, 10)
    many, limit = sizes("hold", 900, 800)
    assert few < 800 <= many
    assert limit == 900


@pytest.mark.parametrize("count", [0, 1, 3, 2000])
def test_where_it_cannot_nothing_is_said(count: int) -> None:
    before, _ = sizes("hold", 64, 10)
    assert sizes("hold", 64, count) == (before, 64)


def test_the_limit_is_raised_as_far_as_is_needed() -> None:
    size, limit = sizes("allow", 300, 600, 50)
    assert limit == 650
    assert size >= 600
    assert sizes("allow", 300, 100, 50)[1] == 300
