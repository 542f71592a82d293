"""How the guest reaches the host's files, as far as that differs between kinds of machine.

User-Mode Linux's hostfs can mount any directory of the host at any time, and costs little. QEMU
shares what it was told at its start, by 9p: ``guest.early`` has mounted the host's whole tree
three times, and what a lookup costs there makes up most of a command's time when it is emulated.
"""

from __future__ import annotations

import os
import shutil

from lvsctl import linux

HOST = "/run/host"
"""The host's whole tree, read-only, nothing hidden."""

EXPORT = "/dev/host"
"""The host's tree, writable. Only in QEMU, and in no command's view."""

STABLE = "/dev/stable"
"""The host's tree, read-only and cached for good. Only in QEMU."""

MODULES = "/dev/modules"
"""The kernel's modules, out of the initramfs. Only in QEMU."""

_DROP_NAMES = "2\n"


def use_stable(directories: list[str]) -> None:
    """Show directories in which next to nothing ever changes from the cached tree.

    Raises OSError.
    """
    if os.path.ismount(STABLE):
        for directory in directories:
            if os.path.isdir(directory):
                linux.mount(STABLE + directory, directory, flags=linux.MS_BIND)


def refresh() -> None:
    """Something did change there: look again."""
    if os.path.ismount(STABLE):
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write(_DROP_NAMES)


def modules_in(directory: str) -> str:
    """Where the kernel's modules, in that directory of the host, are to be read."""
    return MODULES if os.path.ismount(MODULES) else HOST + directory


def modules_stay() -> bool:
    """Whether they can be read as long as the machine lives."""
    return not os.path.ismount(MODULES)


def drop_modules() -> None:
    """They are loaded: give their memory back."""
    if os.path.ismount(MODULES):
        shutil.rmtree(f"{MODULES}/kernel")
        linux.unmount(MODULES)


def mount_writable(directory: str) -> None:
    """Mount a directory of the host over its own name, writable. Raises OSError."""
    if os.path.ismount(EXPORT):
        linux.mount(EXPORT + directory, directory, flags=linux.MS_BIND)
    else:
        linux.mount("none", directory, "hostfs", 0, directory)


def hide_export() -> None:
    """Take the writable tree away from the calling process's mount namespace. Raises OSError."""
    if os.path.ismount(EXPORT):
        linux.unmount(EXPORT)
