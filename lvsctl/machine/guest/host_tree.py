"""The guest's access to the host's files, as far as it differs between kinds of machine.

User-Mode Linux's hostfs can mount any directory of the host at any time. QEMU shares what it is
given at its start, with 9p: ``guest.early`` mounts the host's tree three times, because lookups
are slow if emulated and only directories that rarely change can be cached.
"""

from __future__ import annotations

import os
import shutil

from lvsctl import linux

HOST = "/run/host"
"""The host's tree, read-only and complete."""

EXPORT = "/dev/host"
"""The host's tree, writable. Only in QEMU, and not visible to commands."""

STABLE = "/dev/stable"
"""The host's tree, read-only and cached. Only in QEMU."""

MODULES = "/dev/modules"
"""The kernel's modules, from the initramfs. Only in QEMU."""

_DROP_NAMES = "2\n"


def mount_stable(directories: list[str]) -> None:
    """Mount directories that rarely change from the cached tree.

    Raises OSError.
    """
    if os.path.ismount(STABLE):
        for directory in directories:
            if os.path.isdir(directory):
                linux.mount(STABLE + directory, directory, flags=linux.MS_BIND)


def drop_cache() -> None:
    """Drop the cache of the stable tree, because something in it has changed."""
    if os.path.ismount(STABLE):
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write(_DROP_NAMES)


def modules_in(directory: str) -> str:
    """Return where to read the kernel's modules, which are in ``directory`` on the host."""
    return MODULES if os.path.ismount(MODULES) else HOST + directory


def modules_stay() -> bool:
    """Return whether modules can be read as long as the machine lives."""
    return not os.path.ismount(MODULES)


def drop_modules() -> None:
    """Free the memory of the modules' files, once they are loaded."""
    if os.path.ismount(MODULES):
        shutil.rmtree(f"{MODULES}/kernel")
        linux.unmount(MODULES)


def mount_writable(directory: str) -> None:
    """Mount a directory of the host writable, under its own name. Raises OSError."""
    if os.path.ismount(EXPORT):
        linux.mount(EXPORT + directory, directory, flags=linux.MS_BIND)
    else:
        linux.mount("none", directory, "hostfs", 0, directory)


def hide_export() -> None:
    """Unmount the writable tree in the calling process's mount namespace. Raises OSError."""
    if os.path.ismount(EXPORT):
        linux.unmount(EXPORT)
