"""Set the guest up, until commands can run in it."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import socket
import struct
import termios
import time
import tty

from lvsctl.machine import frames
from lvsctl.machine.guest import modules, mounts

LINK_TIMEOUT = 10.0
"""Seconds for the kernel to create the link's device and to connect it."""

MAX_OPEN_FILES = 262_144
"""A lab needs one or two file descriptors a node."""

NEIGHBOURS = 65_536
"""Entries in the kernel's neighbour table, at most; see neigh/default/gc_thresh3 in arp(7)."""


def open_link(device: str) -> int:
    """Open the link to the broker: a serial line or a virtio port, closed on exec.

    Raises OSError if it does not appear in time.
    """
    deadline = time.monotonic() + LINK_TIMEOUT
    while not os.path.exists(device) and time.monotonic() < deadline:
        select.select([], [], [], 0.01)  # no event announces the device
    link = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if os.isatty(link):
        tty.setraw(link)
        attributes = termios.tcgetattr(link)
        attributes[2] |= termios.CLOCAL
        termios.tcsetattr(link, termios.TCSANOW, attributes)
    # A virtio port looks closed until the kernel knows its other end.
    while _hung_up(link) and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
    return link


def _hung_up(link: int) -> bool:
    poll = select.poll()
    poll.register(link, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _disable_hotplug_helper() -> None:
    """Stop the kernel from starting a process for each module and device."""
    helper = "/sys/kernel/uevent_helper"
    if os.path.exists(helper):
        _write(helper, "\n")


def _bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0x1)  # IFF_UP
        fcntl.ioctl(sock, 0x8914, request)  # SIOCSIFFLAGS


def _enlarge_neighbour_tables() -> None:
    """Make room for the neighbours of a lab with some thousand nodes.

    The kernel has one table for all namespaces, of 1024 entries; a full one drops packets
    (net/core/neighbour.c, "neighbor table overflow!").
    """
    for family in ("ipv4", "ipv6"):
        directory = f"/proc/sys/net/{family}/neigh/default"
        if os.path.isdir(directory):  # a kernel may have no IPv6
            _write(f"{directory}/gc_thresh3", str(NEIGHBOURS))
            _write(f"{directory}/gc_thresh2", str(NEIGHBOURS))


def _load_modules(directory: str) -> dict[str, str]:
    """Load modules, now or on demand; return failures: name → reason. Raises OSError."""
    if mounts.modules_stay():
        modules.install_modprobe(directory)
        return modules.load(directory, modules.wanted_at_boot)
    return modules.load(directory, modules.wanted)


def set_up(config: dict[str, object]) -> dict[str, object]:
    """Set the guest up as the CONFIG frame says; return the content of HELLO."""
    visible = strings(config["visible"])
    writable = strings(config["writable"])
    complaints = mounts.set_up(visible)
    mounts.mount_stable(strings(config["stable"]))
    _write("/proc/sys/kernel/hostname", "lvsctl")
    _disable_hotplug_helper()
    # Before any module is loaded that would create a fallback device in every namespace.
    _write("/proc/sys/net/core/fb_tunnels_only_for_init_net", "1")
    _enlarge_neighbour_tables()
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))
    failed = _load_modules(mounts.modules_in(str(config["modules"])))
    mounts.drop_modules()
    complaints += mounts.open_for_writing(writable)
    _bring_up_loopback()
    return {
        "protocol": frames.PROTOCOL,
        "release": os.uname().release,
        "failed_modules": failed,
        "complaints": complaints,
    }


def strings(value: object) -> list[str]:
    """Return a list of strings from JSON. Raises ValueError for anything else."""
    if not isinstance(value, list):
        raise ValueError(f"not a list: {value!r}")
    return [str(item) for item in value]
