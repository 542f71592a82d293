"""Kernels that Debian, or a distribution made of its packages, offers, by what people call them.

Looked for in this order: the system's own package lists, fresh ones of the same sources, then
Debian's suites one by one, each with lists of its own that go when the package is there.
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
"""Where kernels of other releases are looked for; each has the latest of a few versions."""

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
    """Download and unpack the package that ``wanted`` means; returns the unpacked tree.

    Raises HostError where there is none, UsageError for a word that can be none.
    """
    if not any(p.fullmatch(wanted.removeprefix(_PREFIX)) for p in (_RELEASE, _SUITE)):
        raise UsageError(f"{wanted!r} names no kernel", hint=HINT)
    if tool := packages.missing_tool():
        raise HostError(
            f"without {tool} lvsctl cannot fetch the kernel {wanted}",
            hint="name a kernel file that is here: --kernel /boot/vmlinuz-...",
        )
    complaints = []
    for where, apt in _places(wanted, scratch, emit):
        package = _package(apt, wanted if where != f"suite {wanted}" else META)
        if package is None:
            continue
        emit(f"fetching {package} ({where})")
        done = apt.download(package)
        found = [path for path in apt.place.glob("*.deb") if path.name.startswith(package)]
        if done.returncode == 0 and found:
            tree = scratch / "tree"
            packages.unpack(found[0], tree, f"it needs 600 MB below {scratch.parent}")
            found[0].unlink()
            return tree
        complaints.append(f"{where}: {packages.last_error(done.stderr)}")
    raise HostError(
        "\n".join([f"no package is the kernel {wanted}", *complaints]),
        hint=f"--kernel takes {HINT}; is there a way to the package archive from here?",
    )


def _places(wanted: str, scratch: Path, emit: Emit) -> Iterator[tuple[str, Apt]]:
    """Where to look, the nearest first."""
    if wanted in SUITES or (_SUITE.fullmatch(wanted) and not wanted.startswith(_PREFIX)):
        suites: Sequence[str] = (wanted,)
    else:
        suites = SUITES
        yield "the system's package lists", Apt(scratch)
        emit(f"the system's package lists do not have {wanted}: reading fresh ones")
        apt = packages.private(scratch / "system")
        apt.run("apt-get", "update")
        yield "the system's package sources", apt
    mirror = _mirror(scratch)
    for suite in suites:
        emit(f"reading the package lists of Debian {suite}")
        keys = f"[signed-by={_KEYS}] " if Path(_KEYS).exists() else ""
        source = f"deb {keys}{mirror} {suite} main\n"
        apt = packages.private(scratch / suite, source)
        apt.run("apt-get", "update")
        yield f"suite {suite}", apt


def _mirror(scratch: Path) -> str:
    """The Debian archive that this system uses, if it does, else the general one."""
    shown = Apt(scratch).run("apt-get", "indextargets", "--format", "$(REPO_URI)")
    found = [uri for uri in shown.stdout.split() if uri.rstrip("/").endswith("/debian")]
    return found[0].rstrip("/") if found else _MIRROR


def _package(apt: Apt, wanted: str) -> str | None:
    """The package that holds the kernel, of those that these lists know."""
    known = apt.run("apt-cache", "pkgnames", _PREFIX).stdout.split()
    name = named(wanted, known)
    if name is None:
        return None
    # A package that stands for the current kernel holds nothing but a dependency on it.
    shown = apt.run("apt-cache", "depends", name).stdout
    further = re.search(rf"Depends: ({_PREFIX}\S+)", shown)
    return further[1] if further else name


def named(wanted: str, known: Sequence[str]) -> str | None:
    """Which of the ``known`` packages is meant: itself, a release, or a version's newest."""
    for name in (wanted, _PREFIX + wanted):
        if name in known:
            return name
    if not _VERSION.fullmatch(wanted):
        return None
    pattern = re.compile(re.escape(_PREFIX + wanted) + r"[.+-].*" + re.escape(ARCHITECTURE))
    found = [name for name in known if pattern.fullmatch(name) and not _SPECIAL.search(name)]
    return max(found, key=_natural, default=None)


def _natural(name: str) -> list[int]:
    """Sorts 6.1.0-9 before 6.1.0-56."""
    return [int(number) for number in re.findall(r"\d+", name)]
