"""Record which faults are injected into a lab, before the first effect of each.

Used to list and restore them. ``diagnosis`` never reads it: only the kernel's state and frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from lvsctl.kernel import paths
from lvsctl.kernel.files import explaining


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault, by its id, at a node."""

    fault: str
    node: str

    def __str__(self) -> str:
        return f"{self.fault} at {self.node}"


def read(lab: str) -> tuple[Injected, ...]:
    """Read the faults injected into ``lab``, the first one first; empty if unreadable."""
    try:
        said = json.loads(paths.of(lab).faults.read_text(encoding="utf-8"))
        return tuple(Injected(str(one["fault"]), str(one["node"])) for one in said)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()


def write(lab: str, injected: Iterable[Injected]) -> None:
    """Replace the record in one step; without faults there is no file. Raises HostError."""
    file, noted = paths.of(lab).faults, tuple(injected)
    fresh = file.with_suffix(".new")
    with explaining(f"note the faults of lab {lab}", file):
        if not noted:
            file.unlink(missing_ok=True)
            return
        fresh.write_text(json.dumps([asdict(one) for one in noted]) + "\n", encoding="utf-8")
        fresh.replace(file)
