"""What a lab holds in memory beside the kernel's own, on any kernel."""

from __future__ import annotations

import os

from benchmarks import memory

KIB_PER_NODE = 50


def test_memory_for_each_real_server() -> None:
    """The difference between 2 and 102, so that what a lab costs once does not count."""
    held = {
        servers: memory.beside_the_kernel(servers, f"memory{servers}-{os.getpid()}")
        for servers in (memory.FEW, memory.MANY)
    }
    each = memory.per_node(held)
    assert 0 < each <= KIB_PER_NODE, f"{each:.1f} KiB for each real server: {held}"
