"""Find the User-Mode Linux kernel, or unpack it into the user's cache. Needs no root."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lvsctl.errors import HostError
from lvsctl.machine import cache, packages
from lvsctl.machine.config import Kernel
from lvsctl.machine.packages import Emit

PACKAGE = "user-mode-linux"
HINT = f"install it by hand: sudo apt-get install {PACKAGE}"


def cache_directory() -> Path:
    """Where the package is unpacked."""
    return cache.directory() / "uml"


def find() -> Kernel | None:
    """The installed kernel, the distribution's before the cache's; None where there is none."""
    program = shutil.which("linux.uml")
    installed = _kernel_in(Path("/"), Path(program)) if program else None
    return installed or _kernel_in(cache_directory() / "current", None)


def _kernel_in(root: Path, program: Path | None) -> Kernel | None:
    program = program or root / "usr/bin/linux.uml"
    modules = sorted(root.glob("usr/lib/uml/modules/*/modules.dep"))
    if not modules or not os.access(program, os.X_OK):
        return None
    return Kernel(program.resolve(), modules[-1].parent.resolve())


def obstacle() -> str:
    """Why there is no such kernel here and none can be fetched; empty where there is or can."""
    if os.uname().machine not in ("x86_64", "i686"):
        return f"it does not exist for {os.uname().machine}"
    tool = packages.missing_tool()
    if tool and find() is None:
        return (
            f"the package {PACKAGE} is not installed, and without {tool} it cannot be fetched: "
            "put linux.uml on PATH and its modules below /usr/lib/uml/modules"
        )
    return ""


def ensure_installed(emit: Emit) -> Kernel:
    """Find the kernel, fetching it where there is none. Raises HostError."""
    kernel = find()
    if kernel is not None:
        return kernel
    if reason := obstacle():
        raise HostError(f"this host cannot run User-Mode Linux: {reason}", hint=HINT)
    place = cache_directory()
    emit(f"unpacking the throwaway kernel (Debian package {PACKAGE}, 41 MB) into {place}")
    try:
        place.mkdir(parents=True, exist_ok=True)
        with cache.scratch(place) as scratch:
            package = packages.download(PACKAGE, scratch, emit, HINT)
            tree = scratch / "tree"
            packages.unpack(package, tree, f"it needs 300 MB below {place}; or {HINT}")
            _publish(tree, place)
    except OSError as error:
        raise HostError(
            f"cannot unpack the throwaway kernel into {place}: {error.strerror or error}",
            hint=f"point XDG_CACHE_HOME at a directory with 300 MB of room, or {HINT}",
        ) from error
    kernel = find()
    if kernel is None:
        raise HostError(f"the package {PACKAGE} does not contain what it should", hint=HINT)
    return kernel


def _publish(tree: Path, place: Path) -> None:
    """Put the unpacked tree in its final place, once, whoever else is doing the same."""
    target = place / "current"
    if _kernel_in(target, None) is not None:
        return  # somebody was faster
    if target.exists():  # left by something else than lvsctl: never half-used, so replace it
        target.rename(tree.parent / "broken")
    try:
        tree.rename(target)
    except OSError:
        if _kernel_in(target, None) is None:
            raise
