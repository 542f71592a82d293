"""Where a lab keeps what it owns.

    /run/lvsctl/<lab>.lock                  held by the command that changes the lab
    /run/lvsctl/<lab>/registry.json         what the lab is made of (kernel.registry)
    /run/lvsctl/<lab>/faults.json           how it is broken on purpose (kernel.injected)
    /run/lvsctl/<lab>/netns/<namespace>     its namespaces, on one private tmpfs
    /run/lvsctl/<lab>/run/<daemon>.pid      locked by each daemon for as long as it lives
    /run/lvsctl/<lab>/log/<node>.log        what the lab's processes print
    /run/netns/<namespace>                  a symlink to the above, for ip(8)

Everything that belongs to a lab lies in its directory or points into it: ownership
is seen from what exists, never remembered or guessed from a name.
"""

from __future__ import annotations

import functools
from pathlib import Path

from lvsctl.errors import UsageError

RUN = Path("/run/lvsctl")
"""Everything lvsctl keeps while labs run. Gone after a reboot where /run is a tmpfs."""

NETNS = Path("/run/netns")
"""Where ip-netns(8) looks for the names of namespaces."""

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_LONGEST = 63


def is_name(text: str) -> bool:
    """Whether a lab can be called that: one word that leads nowhere else as part of a path."""
    edges = text[:1], text[-1:]
    return 0 < len(text) <= _LONGEST and _LETTERS.issuperset(text) and "-" not in edges


def directory(lab: str) -> Path:
    """The directory of ``lab``. Raises UsageError for what cannot be a lab's name."""
    if not is_name(lab):
        raise UsageError(
            f"{lab!r} cannot be the name of a lab",
            hint="use lower-case letters, digits and dashes, such as dr or my-lab2",
        )
    return RUN / lab


def lock(lab: str) -> Path:
    """The file whose lock says who is changing ``lab``. Its dot keeps it apart from labs."""
    return directory(lab).with_name(f"{lab}.lock")


def registry(lab: str) -> Path:
    """The file that says what ``lab`` is made of."""
    return directory(lab) / "registry.json"


def faults(lab: str) -> Path:
    """The file that says how ``lab`` is broken on purpose; absent where it is not."""
    return directory(lab) / "faults.json"


@functools.cache
def namespaces(lab: str) -> Path:
    """The mount point of the tmpfs with the namespaces of ``lab``."""
    return directory(lab) / "netns"


def pids(lab: str) -> Path:
    """The directory of the pid files of the daemons of ``lab``."""
    return directory(lab) / "run"


def logs(lab: str) -> Path:
    """The directory of what the processes of ``lab`` print."""
    return directory(lab) / "log"
