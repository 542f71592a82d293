"""The files of a lab: where they are, their errors, and the record of injected faults.

    /run/lvsctl/<lab>.lock                  held by the command that changes the lab
    /run/lvsctl/<lab>/registry.json         what the lab is made of (``registry``)
    /run/lvsctl/<lab>/faults.json           how it is broken on purpose (``write_faults``)
    /run/lvsctl/<lab>/taught.json           what lvsctl's own requests taught wrong (``learnt``)
    /run/lvsctl/<lab>/servers.json          which programs listen (``own_servers``)
    /run/lvsctl/<lab>/netns/<namespace>     its namespaces, on one private tmpfs
    /run/lvsctl/<lab>/run/<daemon>.pid      locked by each daemon for as long as it lives
    /run/lvsctl/<lab>/log/<node>.log        what the lab's processes print
    /run/netns/<namespace>                  a symlink to the above, for ip(8)

Everything that belongs to a lab is in its directory or points into it: what exists shows
what the lab owns. ``diagnosis`` never reads the injected faults: only the kernel's state and
frames.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lvsctl.errors import HostError, UsageError

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


class LabPaths(NamedTuple):
    """The places of one lab.

    ``lock``: whose lock says which command is changing the lab; its dot keeps it apart from
    labs. ``registry``: what the lab is made of. ``faults``: the faults that are injected,
    ``taught``: wrong neighbours that lvsctl's own requests left behind;
    absent without any. ``servers``: which programs listen for the users' own real servers.
    ``namespaces``: the mount point of their tmpfs. ``pids``: the daemons'
    pid files. ``logs``: what the lab's processes print.
    """

    directory: Path
    lock: Path
    registry: Path
    faults: Path
    taught: Path
    servers: Path
    stopped: Path
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
        taught=directory / "taught.json",
        servers=directory / "servers.json",
        stopped=directory / "stopped",
        namespaces=directory / "netns",
        pids=directory / "run",
        logs=directory / "log",
    )


_HINTS = {
    errno.ENOSPC: "make room on it: `df -h /run; df -i /run`",
    errno.EROFS: "that file system is mounted read-only; lvsctl keeps its labs there",
}


@contextlib.contextmanager
def wrap_os_errors(doing: str, path: Path | None = None) -> Iterator[None]:
    """Raise file system errors as HostErrors with the path and the reason."""
    try:
        yield
    except OSError as error:
        described = describe_os_error(error, path)
        raise HostError(f"cannot {doing}: {described.message}", hint=described.hint) from error


def describe_os_error(error: OSError, path: Path | None = None) -> HostError:
    """Return an error with the path and the reason; ``hint`` may be empty.

    Of two files (a link, a renaming) it names the second, which is the one changed.
    """
    where = path or error.filename2 or error.filename
    message = f"{where}: {error.strerror}" if where else str(error.strerror or error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return HostError(message, hint=_permission(str(where or "/run")))
    return HostError(message, hint=_HINTS.get(error.errno or 0, ""))


def _permission(where: str) -> str:
    """Return the hint. Root may lack CAP_DAC_OVERRIDE, as in containers, or a file is immutable."""
    if os.geteuid():
        return f"run it as root: `namei -l {where}` shows who may"
    return f"root may not do all here (a container's?): `namei -l {where}` shows who may"


def raise_file_limit(more: int) -> None:
    """Raise the limit so that ``more`` files than now can be open, at most to the hard limit.

    Raises OSError if not even one more file can be opened.
    """
    need = len(os.listdir("/proc/self/fd")) + more  # noqa: PTH208 (a tenth of the time)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(need, hard), hard))


class InjectedFault(NamedTuple):
    """A fault, by its id, injected at a node."""

    fault: str
    node: str

    def __str__(self) -> str:
        return f"{self.fault} at {self.node}"


def read_faults(lab: str) -> tuple[InjectedFault, ...]:
    """Read the faults injected into ``lab``, the first one first; empty if unreadable."""
    try:
        said = json.loads(of(lab).faults.read_text(encoding="utf-8"))
        return tuple(InjectedFault(str(one["fault"]), str(one["node"])) for one in said)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()


def write_faults(lab: str, injected: Iterable[InjectedFault]) -> None:
    """Replace the record atomically, before the fault's first effect. Raises HostError.

    Without faults there is no file.
    """
    file, noted = of(lab).faults, tuple(injected)
    fresh = file.with_suffix(".new")
    with wrap_os_errors(f"note the faults of lab {lab}", file):
        if not noted:
            file.unlink(missing_ok=True)
            return
        try:
            fresh.write_text(json.dumps([one._asdict() for one in noted]) + "\n", encoding="utf-8")
            fresh.replace(file)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
