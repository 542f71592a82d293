"""Debian packages without root: downloaded with apt-get, unpacked with dpkg-deb."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from lvsctl.errors import HostError

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
