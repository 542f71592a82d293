"""Debian packages without root: found and downloaded with apt, unpacked with dpkg-deb.

A kernel's package is searched in this order: the system's package lists, new lists of the same
sources, then Debian's suites one by one, each with temporary lists of its own.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lvsctl.errors import HostError, UsageError

Emit = Callable[[str], None]

TOOLS = ("apt-get", "dpkg-deb")


def missing_tool() -> str:
    """Return a program that downloading needs and this host lacks; empty if it has all."""
    return next((tool for tool in TOOLS if shutil.which(tool) is None), "")


class Apt(NamedTuple):
    """apt, with its files in the directory ``place``.

    ``options`` are added to the command lines of apt-get and apt-cache; without any, they use
    the system's package lists.
    """

    place: Path
    options: tuple[str, ...] = ()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run apt-get or apt-cache and capture its output."""
        program, *rest = words
        return run([program, *self.options, *rest], self.place)

    def download(self, package: str) -> subprocess.CompletedProcess[str]:
        """Download a package into ``place``."""
        return self.run("apt-get", "download", package)


def private(place: Path, sources: str = "") -> Apt:
    """Return apt with package lists of its own below ``place``, which needs no root.

    ``sources`` is the text of a sources.list that replaces the system's.
    """
    state, cached = place / "state", place / "cache"
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (cached / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    # apt reads its status file even to download.
    (state / "status").touch()
    options = [
        f"Dir::State={state}",
        f"Dir::State::lists={state}/lists",
        f"Dir::State::status={state}/status",
        f"Dir::Cache={cached}",
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
    ]
    if sources:
        (place / "sources.list").write_text(sources, encoding="utf-8")
        options += [f"Dir::Etc::SourceList={place}/sources.list", "Dir::Etc::SourceParts=-"]
    return Apt(place, tuple(word for option in options for word in ("-o", option)))


def download(package: str, scratch: Path, emit: Emit, hint: str) -> Path:
    """Download a package into ``scratch``, with the system's package lists or new ones.

    Raises HostError.
    """
    first = Apt(scratch).download(package)
    if first.returncode != 0:
        emit("the system's package lists are missing or out of date: downloading new ones")
        apt = private(scratch)
        update = apt.run("apt-get", "update")
        second = apt.download(package)
        if second.returncode != 0:
            reason = last_error(second.stderr) or last_error(first.stderr)
            cause = last_error(update.stderr)
            raise HostError(
                f"cannot download {package}: {reason}" + (f"\n{cause}" if cause else ""),
                hint=f"check the network and /etc/apt/sources.list, or {hint}",
            )
    return downloaded(scratch, package, hint)


def downloaded(scratch: Path, package: str, hint: str) -> Path:
    """Return the package file that apt has just downloaded. Raises HostError."""
    packages = list(scratch.glob("*.deb"))
    if not packages:
        raise HostError(f"apt-get did not download {package}", hint=hint)
    return packages[0]


def unpack(package: Path, tree: Path, hint: str) -> None:
    """Unpack a package file into the new directory ``tree``. Raises HostError."""
    result = run(["dpkg-deb", "-x", str(package), str(tree)], tree.parent)
    if result.returncode != 0:
        name = package.name.partition("_")[0]
        raise HostError(f"cannot unpack {name}: {last_error(result.stderr)}", hint=hint)
    # dpkg-deb gives the directory the archive's mode, with which it could not be removed.
    tree.chmod(0o755)


def run(command: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool and capture its output."""
    return subprocess.run(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        check=False,
    )


def last_error(output: str) -> str:
    """Return the most relevant line of apt's or dpkg's error messages."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    relevant = [line for line in lines if line.startswith(("E:", "dpkg-deb: error", "tar:"))]
    return (relevant or lines or [""])[0]


SUITES = ("bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid")
"""Suites to search for kernels of other releases."""

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
DEFAULT_KERNEL = f"linux-image-{ARCHITECTURE}"

_PREFIX = "linux-image-"
_VERSION = re.compile(r"\d+(\.\d+)+")
_RELEASE = re.compile(r"\d+\.\d+[.+~\w-]*")
_SUITE = re.compile(r"[a-z]+(-[a-z]+)*")
_SPECIAL = re.compile(r"-(cloud|rt|unsigned|dbg|virt)\b")
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MIRROR = "http://deb.debian.org/debian"

KERNEL_NAMES = (
    f"a package ({DEFAULT_KERNEL}), a release (6.1.0-56-{ARCHITECTURE}), a version (6.12), "
    "a suite (trixie), or a file (/boot/vmlinuz-...)"
)


def fetch_kernel(wanted: str, scratch: Path, emit: Emit) -> Path:
    """Download and unpack the package that ``wanted`` names; return the unpacked tree.

    Raises HostError if it is not found, UsageError for a malformed name.
    """
    if not any(p.fullmatch(wanted.removeprefix(_PREFIX)) for p in (_RELEASE, _SUITE)):
        raise UsageError(f"{wanted!r} is not the name of a kernel", hint=f"use {KERNEL_NAMES}")
    if tool := missing_tool():
        raise HostError(
            f"{tool} is missing: lvsctl cannot download the kernel {wanted}",
            hint="use a kernel file of this host: --kernel /boot/vmlinuz-...",
        )
    complaints = []
    for where, apt in _places(wanted, scratch, emit):
        package = _package(apt, wanted if where != f"suite {wanted}" else DEFAULT_KERNEL)
        if package is None:
            continue
        emit(f"downloading {package} ({where})")
        done = apt.download(package)
        found = [path for path in apt.place.glob("*.deb") if path.name.startswith(package)]
        if done.returncode == 0 and found:
            tree = scratch / "tree"
            unpack(found[0], tree, f"it needs 600 MB below {scratch.parent}")
            found[0].unlink()
            return tree
        complaints.append(f"{where}: {last_error(done.stderr)}")
    raise HostError(
        "\n".join([f"no package found for the kernel {wanted}", *complaints]),
        hint=f"--kernel takes {KERNEL_NAMES}; check that this host can reach the package archive",
    )


def _places(wanted: str, scratch: Path, emit: Emit) -> Iterator[tuple[str, Apt]]:
    """Yield the sources to search, the nearest first, with their names."""
    if wanted in SUITES or (_SUITE.fullmatch(wanted) and not wanted.startswith(_PREFIX)):
        suites: Sequence[str] = (wanted,)
    else:
        suites = SUITES
        yield "the system's package lists", Apt(scratch)
        emit(f"{wanted} is not in the system's package lists: downloading new ones")
        apt = private(scratch / "system")
        apt.run("apt-get", "update")
        yield "the system's package sources", apt
    mirror = _mirror(scratch)
    for suite in suites:
        emit(f"downloading the package lists of Debian {suite}")
        keys = f"[signed-by={_KEYS}] " if Path(_KEYS).exists() else ""
        source = f"deb {keys}{mirror} {suite} main\n"
        apt = private(scratch / suite, source)
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
    name = kernel_package(wanted, known)
    if name is None:
        return None
    # The package of the current kernel is empty, but for its dependency on the real one.
    shown = apt.run("apt-cache", "depends", name).stdout
    further = re.search(rf"Depends: ({_PREFIX}\S+)", shown)
    return further[1] if further else name


def kernel_package(wanted: str, known: Sequence[str]) -> str | None:
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
