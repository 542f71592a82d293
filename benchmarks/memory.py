"""Memory that a running lab takes beside the kernel's own, for each node.

    sudo .venv/bin/python benchmarks/memory.py [--into FOLDER]

The dr shape with 2 and with 102 real servers, each of which has answered once; the difference
is that of a hundred nodes. It counts the responder (PSS: what is shared with other processes
is shared out), and all that lies in the lab's directory and under /run/netns: blocks, and an
inode of tmpfs for each file, directory, symlink and mount point. What is left out is what the
kernel itself needs for a namespace, its devices and sockets, whoever makes it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import building, report  # noqa: E402
from benchmarks.competitors.dr_shape import write_topology  # noqa: E402

FEW, MANY = 2, 102
INODE = 1024
"""Bytes of memory for an inode of tmpfs and its name, rounded up (shmem_inode_cache, dentry)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, help="a folder for memory.md")
    chosen = parser.parse_args()
    if building.INSIDE not in os.environ:
        building.go_inside()
    held = {servers: beside_the_kernel(servers, f"memory{servers}") for servers in (FEW, MANY)}
    lines = [report.heading(), "", "| N | responder, KiB | files, KiB |", "|---|---|---|"]
    lines += [f"| {n} | {one / 1024:,.0f} | {two / 1024:,.0f} |" for n, (one, two) in held.items()]
    text = "\n".join([*lines, "", f"{per_node(held):.1f} KiB for each node more."]) + "\n"
    print(text, end="")
    if chosen.into:
        (chosen.into / "memory.md").write_text(text)


def per_node(held: dict[int, tuple[int, int]]) -> float:
    """KiB for each real server more."""
    return (sum(held[MANY]) - sum(held[FEW])) / (MANY - FEW) / 1024


def beside_the_kernel(servers: int, lab: str) -> tuple[int, int]:
    """Bytes of the responder, and of files, while ``lab`` runs with so many real servers."""
    from lvsctl.kernel import processes

    def lvsctl(*words: str) -> None:
        command = [*building.COMPETITORS["lvsctl"], *words]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)

    with tempfile.TemporaryDirectory() as folder:
        lvsctl("up", str(write_topology(lab, servers, Path(folder))))
    try:
        ask_all(lab, servers)
        (pid,) = processes.daemons(lab).values()
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss = re.search(r"^Pss: +(\d+) kB$", rollup, re.MULTILINE)
        assert pss
        return int(pss[1]) * 1024, files_of(lab)
    finally:
        lvsctl("down", lab)


def files_of(lab: str) -> int:
    """Bytes in memory where /run is a tmpfs."""
    from lvsctl.kernel import paths

    ours = [paths.of(lab).directory, paths.of(lab).lock, *paths.of(lab).directory.rglob("*")]
    ours += paths.NETNS.glob(f"lvs-{lab}-*")
    held = [file.lstat() for file in ours if file.is_symlink() or file.exists()]
    return sum(status.st_blocks * 512 + INODE for status in held)


def ask_all(lab: str, servers: int) -> None:
    """One request to each real server, from within it."""
    import socket

    from lvsctl.kernel import netns, paths

    def ask() -> None:
        for number in range(1, servers + 1):
            with (
                netns.enter(paths.of(lab).namespaces / f"lvs-{lab}-rs{number}"),
                socket.create_connection(("127.0.0.1", 80), timeout=60) as sock,
            ):
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")

    netns.in_thread(ask)


if __name__ == "__main__":
    main()
