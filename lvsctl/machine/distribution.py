"""Kernels from the packages of Debian, or of a distribution based on it, by name.

Searched in this order: the system's package lists, new lists of the same sources, then Debian's
suites one by one, each with temporary lists of its own.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lvsctl.errors import HostError, UsageError
from lvsctl.machine import packages
from lvsctl.machine.packages import Apt, Emit

SUITES = ("bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid")
"""Suites to search for kernels of other releases."""

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
META = f"linux-image-{ARCHITECTURE}"

_PREFIX = "linux-image-"
_VERSION = re.compile(r"\d+(\.\d+)+")
_RELEASE = re.compile(r"\d+\.\d+[.+~\w-]*")
_SUITE = re.compile(r"[a-z]+(-[a-z]+)*")
_SPECIAL = re.compile(r"-(cloud|rt|unsigned|dbg|virt)\b")
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MIRROR = "http://deb.debian.org/debian"

HINT = (
    f"a package ({META}), a release (6.1.0-56-{ARCHITECTURE}), a version (6.12), "
    "a suite (trixie), or a file (/boot/vmlinuz-...)"
)


def fetch(wanted: str, scratch: Path, emit: Emit) -> Path:
    """Download and unpack the package that ``wanted`` names; return the unpacked tree.

    Raises HostError if it is not found, UsageError for a malformed name.
    """
    if not any(p.fullmatch(wanted.removeprefix(_PREFIX)) for p in (_RELEASE, _SUITE)):
        raise UsageError(f"{wanted!r} is not the name of a kernel", hint=f"use {HINT}")
    if tool := packages.missing_tool():
        raise HostError(
            f"{tool} is missing: lvsctl cannot download the kernel {wanted}",
            hint="use a kernel file of this host: --kernel /boot/vmlinuz-...",
        )
    complaints = []
    for where, apt in _places(wanted, scratch, emit):
        package = _package(apt, wanted if where != f"suite {wanted}" else META)
        if package is None:
            continue
        emit(f"downloading {package} ({where})")
        done = apt.download(package)
        found = [path for path in apt.place.glob("*.deb") if path.name.startswith(package)]
        if done.returncode == 0 and found:
            tree = scratch / "tree"
            packages.unpack(found[0], tree, f"it needs 600 MB below {scratch.parent}")
            found[0].unlink()
            return tree
        complaints.append(f"{where}: {packages.last_error(done.stderr)}")
    raise HostError(
        "\n".join([f"no package found for the kernel {wanted}", *complaints]),
        hint=f"--kernel takes {HINT}; check that this host can reach the package archive",
    )


def _places(wanted: str, scratch: Path, emit: Emit) -> Iterator[tuple[str, Apt]]:
    """Yield the sources to search, the nearest first, with their names."""
    if wanted in SUITES or (_SUITE.fullmatch(wanted) and not wanted.startswith(_PREFIX)):
        suites: Sequence[str] = (wanted,)
    else:
        suites = SUITES
        yield "the system's package lists", Apt(scratch)
        emit(f"{wanted} is not in the system's package lists: downloading new ones")
        apt = packages.private(scratch / "system")
        apt.run("apt-get", "update")
        yield "the system's package sources", apt
    mirror = _mirror(scratch)
    for suite in suites:
        emit(f"downloading the package lists of Debian {suite}")
        keys = f"[signed-by={_KEYS}] " if Path(_KEYS).exists() else ""
        source = f"deb {keys}{mirror} {suite} main\n"
        apt = packages.private(scratch / suite, source)
        apt.run("apt-get", "update")
        yield f"suite {suite}", apt


def _mirror(scratch: Path) -> str:
    """Return the Debian mirror that this system uses, else the default one."""
    shown = Apt(scratch).run("apt-get", "indextargets", "--format", "$(REPO_URI)")
    found = [uri for uri in shown.stdout.split() if uri.rstrip("/").endswith("/debian")]
    return found[0].rstrip("/") if found else _MIRROR


def _package(apt: Apt, wanted: str) -> str | None:
    """Return the package that contains the kernel, from these package lists."""
    known = apt.run("apt-cache", "pkgnames", _PREFIX).stdout.split()
    name = named(wanted, known)
    if name is None:
        return None
    # The package of the current kernel is empty, but for its dependency on the real one.
    shown = apt.run("apt-cache", "depends", name).stdout
    further = re.search(rf"Depends: ({_PREFIX}\S+)", shown)
    return further[1] if further else name


def named(wanted: str, known: Sequence[str]) -> str | None:
    """Return which of the ``known`` packages is meant: by name, release, or newest of a version."""
    for name in (wanted, _PREFIX + wanted):
        if name in known:
            return name
    if not _VERSION.fullmatch(wanted):
        return None
    pattern = re.compile(re.escape(_PREFIX + wanted) + r"[.+-].*" + re.escape(ARCHITECTURE))
    found = [name for name in known if pattern.fullmatch(name) and not _SPECIAL.search(name)]
    return max(found, key=_natural, default=None)


def _natural(name: str) -> list[int]:
    """Return a key that sorts 6.1.0-9 before 6.1.0-56."""
    return [int(number) for number in re.findall(r"\d+", name)]
