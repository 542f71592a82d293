"""Find the User-Mode Linux kernel, or download and unpack it. Needs no root."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lvsctl.errors import HostError
from lvsctl.machine import cache, packages
from lvsctl.machine.config import Kernel
from lvsctl.machine.packages import Emit

PACKAGE = "user-mode-linux"
HINT = f"install it: sudo apt-get install {PACKAGE}"


def cache_directory() -> Path:
    """Return the directory in which the package is unpacked."""
    return cache.directory() / "uml"


def find() -> Kernel | None:
    """Return the kernel installed on the host, else the one in the cache, else None."""
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
    """Return why this host has no such kernel and cannot download it; empty if it has or can."""
    if os.uname().machine not in ("x86_64", "i686"):
        return f"it does not exist for {os.uname().machine}"
    tool = packages.missing_tool()
    if tool and find() is None:
        return (
            f"the package {PACKAGE} is not installed, and {tool} is missing to download it: "
            "put linux.uml on PATH and its modules below /usr/lib/uml/modules"
        )
    return ""


def ensure_installed(emit: Emit) -> Kernel:
    """Return the kernel, downloaded if it is missing. Raises HostError."""
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
            hint=f"set XDG_CACHE_HOME to a directory with 300 MB of free space, or {HINT}",
        ) from error
    kernel = find()
    if kernel is None:
        raise HostError(
            f"the package {PACKAGE} does not contain the kernel and its modules", hint=HINT
        )
    return kernel


def _publish(tree: Path, place: Path) -> None:
    """Rename the unpacked tree to its final place, unless another process has done so."""
    target = place / "current"
    if _kernel_in(target, None) is not None:
        return  # another process has done it
    if target.exists():  # not a kernel: replace it
        target.rename(tree.parent / "broken")
    try:
        tree.rename(target)
    except OSError:
        if _kernel_in(target, None) is None:
            raise
