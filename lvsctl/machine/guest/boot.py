"""From the kernel's start to a guest in which commands can run."""

from __future__ import annotations

import os
import resource
import select
import termios
import time
import tty

from lvsctl.machine import frames
from lvsctl.machine.guest import host_tree, modprobe, modules, mounts

LINK_TIMEOUT = 10.0
"""Seconds for the kernel to find the line's device and its other end."""

MAX_OPEN_FILES = 262_144
"""A lab holds a file descriptor or two per node."""


def open_link(device: str) -> int:
    """Open the line to the broker: a serial line or a port of virtio's, closed on exec.

    Raises OSError where it is not there in time.
    """
    deadline = time.monotonic() + LINK_TIMEOUT
    while not os.path.exists(device) and time.monotonic() < deadline:
        select.select([], [], [], 0.01)  # the kernel tells nobody when it makes the device
    line = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if os.isatty(line):
        tty.setraw(line)
        attributes = termios.tcgetattr(line)
        attributes[2] |= termios.CLOCAL
        termios.tcsetattr(line, termios.TCSANOW, attributes)
    # A port whose other end the kernel does not know of yet looks as if it had ended.
    while _hung_up(line) and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
    return line


def _hung_up(line: int) -> bool:
    poll = select.poll()
    poll.register(line, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _want_no_hotplug() -> None:
    """Let the kernel start no process for each module and device: there is no /sbin/hotplug."""
    helper = "/sys/kernel/uevent_helper"
    if os.path.exists(helper):
        _write(helper, "\n")


def _bring_up_loopback() -> None:
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0x1)  # IFF_UP
        fcntl.ioctl(sock, 0x8914, request)  # SIOCSIFFLAGS


def _load_modules(directory: str) -> dict[str, str]:
    """Those that a lab could need, now or on demand; what failed: name → why. Raises OSError."""
    if host_tree.modules_stay():
        modprobe.install(directory)
        return modules.load(directory, modules.wanted_at_boot)
    return modules.load(directory, modules.wanted)


def set_up(config: dict[str, object]) -> dict[str, object]:
    """Everything between CONFIG and HELLO; returns what HELLO says."""
    visible = strings(config["visible"])
    writable = strings(config["writable"])
    complaints = mounts.set_up(visible)
    host_tree.use_stable(strings(config["stable"]))
    _write("/proc/sys/kernel/hostname", "lvsctl")
    _want_no_hotplug()
    # Before any module that would make its fallback device in every namespace.
    _write("/proc/sys/net/core/fb_tunnels_only_for_init_net", "1")
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))
    failed = _load_modules(host_tree.modules_in(str(config["modules"])))
    host_tree.drop_modules()
    complaints += mounts.open_for_writing(writable)
    _bring_up_loopback()
    return {
        "protocol": frames.PROTOCOL,
        "release": os.uname().release,
        "failed_modules": failed,
        "complaints": complaints,
    }


def strings(value: object) -> list[str]:
    """A list of strings out of JSON. Raises ValueError for anything else."""
    if not isinstance(value, list):
        raise ValueError(f"not a list: {value!r}")
    return [str(item) for item in value]
