"""Memory that is mapped ahead: what comes of it can be counted in page faults, on any kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

START = """
import ctypes, json, resource, sys
sys.path.insert(0, sys.argv[1])
from lvsctl.machine.guest import memory
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def fill(): return [bytes(400) for _ in range(20_000)]  # 8 MB of Python's arenas
"""

AHEAD = """
def allocator():
    found = memory._Arenas()
    ctypes.pythonapi.PyObject_GetArenaAllocator(ctypes.byref(found))
    return [found.ctx, found.alloc, found.free]
usual, begun = allocator(), faults()
with memory.Ahead(16 << 20):
    entered = faults()
    ahead, inside = fill(), allocator()
    filled = faults()
left = allocator()
del ahead  # arenas of the heap's, given back by munmap
before = faults()
later = fill()
touched = faults() - before
raw = bytearray(64 << 20)
assert all(len(one) == 400 for one in later + fill()) and not any(raw)
print(json.dumps({
    "inside": inside != usual, "left": left == usual,
    "filling": filled - entered, "usual": touched,
}))
"""

CODE = """
memory.map_code()
sizes, name = {}, ""
for line in open("/proc/self/smaps"):
    words = line.split()
    if "-" in words[0]: name = words[-1] if words[1] == "r-xp" else ""
    elif name and words[0] in ("Size:", "Rss:"): sizes.setdefault(name, []).append(int(words[1]))
print(json.dumps(sizes))
"""


def found_by(script: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", START + script, str(ROOT)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def test_what_is_allocated_meanwhile_is_mapped_already() -> None:
    found = found_by(AHEAD)
    assert found["inside"]
    assert found["left"]
    assert found["usual"] > 1500  # 8 MB in pages of 4 KiB, less what is left over
    assert found["filling"] < found["usual"] / 5


def test_the_interpreters_code_is_mapped_and_goes_on_running() -> None:
    sizes = {Path(name).name: size for name, size in found_by(CODE).items()}
    of_python = [size for name, size in sizes.items() if name.startswith(("libpython", "python"))]
    assert any(resident == size for size, resident in of_python), sizes
