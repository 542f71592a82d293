"""The first program in QEMU's guest, from its initramfs: mounts the host's tree, becomes the agent.

A distribution's kernel has what it takes to reach the host's files as modules. They are loaded
here, the host's tree becomes the root, and the agent goes on from there as process 1, as in
User-Mode Linux, whose kernel does all this by itself. The initramfs is made by
``lvsctl.machine.initramfs``.
"""

from __future__ import annotations

import importlib
import os

from lvsctl import linux
from lvsctl.machine.guest import agent, host_tree

ROOT = "/root"

MODULES = "/modules"
"""The kernel's modules in the initramfs, with their modules.dep."""

FIRST = "/modules/first"
"""Paths below MODULES, one a line: what it takes to reach the host, what is needed first first."""

OPTIONS = "trans=virtio,version=9p2000.L,msize=262144,cache="


def main() -> None:
    """Never returns; where anything fails the kernel panics and the console says why."""
    with open(FIRST, encoding="utf-8") as file:
        for path in file.read().splitlines():
            linux.load_module(f"{MODULES}/{path}")
    # mmap: programs are read ahead while they are mapped. Nothing else is cached, so that a
    # change on the host is seen at once.
    linux.mount("tree", ROOT, "9p", linux.MS_RDONLY, f"{OPTIONS}mmap")
    linux.mount("devtmpfs", f"{ROOT}/dev", "devtmpfs")
    for place, tag, flags, cache in (
        (host_tree.EXPORT, "export", 0, "mmap"),
        (host_tree.STABLE, "stable", linux.MS_RDONLY, "loose"),
    ):
        os.mkdir(ROOT + place)
        linux.mount(tag, ROOT + place, "9p", flags, OPTIONS + cache)
    os.mkdir(ROOT + host_tree.MODULES)
    linux.mount(MODULES, ROOT + host_tree.MODULES, flags=linux.MS_BIND)
    os.chdir(ROOT)
    linux.mount(".", "/", flags=linux.MS_MOVE)
    os.chroot(".")
    # Not another Python: emulated, starting one takes longer than all of the above.
    importlib.invalidate_caches()
    os.environ.clear()
    agent.main()
