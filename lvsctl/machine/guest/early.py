"""The first program in QEMU's guest, from its initramfs: mounts the host's tree, runs the agent.

A distribution's kernel needs modules to access the host's files. They are loaded here, the host's
tree becomes the root, and the agent continues as process 1. User-Mode Linux's kernel does all this
by itself. ``lvsctl.machine.initramfs`` creates the initramfs.
"""

from __future__ import annotations

import importlib
import os

from lvsctl import linux
from lvsctl.machine.guest import agent, mounts

ROOT = "/root"

MODULES = "/modules"
"""The kernel's modules in the initramfs, with their modules.dep."""

FIRST = "/modules/first"
"""The modules to load here, as paths below MODULES, one a line, dependencies first."""

OPTIONS = "trans=virtio,version=9p2000.L,msize=262144,cache="


def main() -> None:
    """Run the first program. Never returns: on an error the kernel panics, with a traceback."""
    with open(FIRST, encoding="utf-8") as file:
        for path in file.read().splitlines():
            linux.load_module(f"{MODULES}/{path}")
    # cache=mmap caches mapped programs only, so that changes on the host are seen at once.
    linux.mount("tree", ROOT, "9p", linux.MS_RDONLY, f"{OPTIONS}mmap")
    linux.mount("devtmpfs", f"{ROOT}/dev", "devtmpfs")
    for place, tag, flags, cache in (
        (mounts.EXPORT, "export", 0, "mmap"),
        (mounts.STABLE, "stable", linux.MS_RDONLY, "loose"),
    ):
        os.mkdir(ROOT + place)
        linux.mount(tag, ROOT + place, "9p", flags, OPTIONS + cache)
    os.mkdir(ROOT + mounts.MODULES_DIR)
    linux.mount(MODULES, ROOT + mounts.MODULES_DIR, flags=linux.MS_BIND)
    os.chdir(ROOT)
    linux.mount(".", "/", flags=linux.MS_MOVE)
    os.chroot(".")
    # Not a new Python process, which takes long to start if emulated.
    importlib.invalidate_caches()
    os.environ.clear()
    agent.main()
