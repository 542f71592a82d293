"""Where a lab keeps what it owns.

    /run/lvsctl/<lab>.lock                  held by the command that changes the lab
    /run/lvsctl/<lab>/registry.json         what the lab is made of (kernel.registry)
    /run/lvsctl/<lab>/faults.json           how it is broken on purpose (kernel.injected)
    /run/lvsctl/<lab>/netns/<namespace>     its namespaces, on one private tmpfs
    /run/lvsctl/<lab>/run/<daemon>.pid      locked by each daemon for as long as it lives
    /run/lvsctl/<lab>/log/<node>.log        what the lab's processes print
    /run/netns/<namespace>                  a symlink to the above, for ip(8)

Everything that belongs to a lab lies in its directory or points into it: what exists shows
what the lab owns.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from lvsctl.errors import UsageError

RUN = Path("/run/lvsctl")
"""Everything lvsctl keeps while labs run. Gone after a reboot where /run is a tmpfs."""

NETNS = Path("/run/netns")
"""Where ip-netns(8) looks for the names of namespaces."""

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_LONGEST = 63


def is_name(text: str) -> bool:
    """Return whether a lab can have that name: one word that is safe as part of a path."""
    edges = text[:1], text[-1:]
    return 0 < len(text) <= _LONGEST and _LETTERS.issuperset(text) and "-" not in edges


@dataclass(frozen=True, slots=True)
class LabPaths:
    """The places of one lab.

    ``lock``: whose lock says which command is changing the lab; its dot keeps it apart from
    labs. ``registry``: what the lab is made of. ``faults``: the faults that are injected;
    absent without any. ``namespaces``: the mount point of their tmpfs. ``pids``: the daemons'
    pid files. ``logs``: what the lab's processes print.
    """

    directory: Path
    lock: Path
    registry: Path
    faults: Path
    namespaces: Path
    pids: Path
    logs: Path


def of(lab: str) -> LabPaths:
    """Return the places of ``lab``. Raises UsageError for what cannot be a lab's name."""
    return _of(RUN, lab)


@functools.lru_cache(maxsize=64)
def _of(run: Path, lab: str) -> LabPaths:
    if not is_name(lab):
        raise UsageError(
            f"{lab!r} cannot be the name of a lab",
            hint="use lower-case letters, digits and dashes, such as dr or my-lab2",
        )
    directory = run / lab
    return LabPaths(
        directory=directory,
        lock=run / f"{lab}.lock",
        registry=directory / "registry.json",
        faults=directory / "faults.json",
        namespaces=directory / "netns",
        pids=directory / "run",
        logs=directory / "log",
    )
