"""Count dropped packets by the kernel's drop reasons, and martians, where the kernel reports them.

Since Linux 5.17 every dropped packet passes the tracepoint skb:kfree_skb with a reason
(include/net/dropreason-core.h). A perf event for each reason and processor counts them, with a
filter in the kernel: nothing is copied, and everything ends with its descriptor, `kill -9`
included. The tracepoint knows no network namespace, so the counts are of the whole host. Without
tracing (User-Mode Linux), or without the permission to use it, there are no counts, and no error.

Martians are packets with an impossible source or destination from the receiver's point of view.
Linux counts them for all namespaces together (/proc/net/stat/rt_cache), and writes each to
the kernel's log if the receiving interface has log_martians set, a few a second at most
(kernels with CONFIG_IP_ROUTE_VERBOSE: those of distributions, Debian's User-Mode Linux not).
Neither needs tracing. Without permission to read the log there are no lines.

Sources: perf_event_open(2), Documentation/trace/events.rst (filters); ip_handle_martian_source in
net/ipv4/route.c; Documentation/ABI/testing/dev-kmsg; Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import re
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from lvsctl import linux
from lvsctl.kernel import netns
from lvsctl.model.state import MARTIANS, REASONS, Dropped

_TRACEFS = "/sys/kernel/tracing"
_EVENT = f"{_TRACEFS}/events/skb/kfree_skb"
_CALLS = {
    "x86_64": 298, "i686": 336, "aarch64": 241, "riscv64": 241, "loongarch64": 241,
    "armv7l": 364, "ppc64le": 319, "s390x": 331,
}  # fmt: skip
"""perf_event_open's number, by machine: it has no function in the C library."""

_TRACEPOINT = 2
_ATTRIBUTE = struct.Struct("=IIQQQQQIIQ")
"""struct perf_event_attr up to PERF_ATTR_SIZE_VER0: type, size, config, then nothing of note."""
_SET_FILTER = 0x40002406 | ctypes.sizeof(ctypes.c_void_p) << 16
_EVERYBODY, _NO_GROUP, _CLOSE_ON_EXEC = -1, -1, 8
_NAMED = re.compile(r'\{ *(\d+), *"([A-Z0-9_]+)" *\}')


class DropReasons:
    """Counts while entered. ``supported``: whether this kernel has drop reasons."""

    def __init__(self) -> None:
        self._counters: dict[str, list[int]] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError, ValueError, LookupError):
            number, reasons = netns.in_thread(read_tracepoint)
            try:
                for name in REASONS:
                    if name in reasons:
                        self._counters[name] = _open_counters(number, reasons[name])
            except OSError:
                self.__exit__()
        return self

    def __exit__(self, *_: object) -> None:
        for fds in self._counters.values():
            for fd in fds:
                os.close(fd)
        self._counters.clear()

    @property
    def supported(self) -> bool:
        """Whether there is anything to count by."""
        return bool(self._counters)

    def counts(self) -> dict[str, int]:
        """Packets dropped so far, by reason; reasons that had none are left out."""
        found = {
            name: sum(int.from_bytes(os.read(fd, 8), sys.byteorder) for fd in fds)
            for name, fds in self._counters.items()
        }
        return {name: count for name, count in found.items() if count}

    def dropped(self, before: Mapping[str, int] | None = None) -> tuple[Dropped, ...]:
        """The same as a value, less what was counted ``before``."""
        return tuple(
            Dropped(name, count - (before or {}).get(name, 0))
            for name, count in self.counts().items()
            if count > (before or {}).get(name, 0)
        )


def read_tracepoint() -> tuple[int, dict[str, int]]:
    """Return the tracepoint's number, and the reasons' numbers by name. Raises OSError.

    Reads tracefs in a mount namespace of the calling thread's own: the host's mounts stay.
    """
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("", "/", flags=linux.MS_SLAVE | linux.MS_REC)
    if not Path(_EVENT).exists():
        linux.mount("tracefs", _TRACEFS, "tracefs")
    number = int(Path(_EVENT, "id").read_text(encoding="ascii"))
    return number, parse_reasons(Path(_EVENT, "format").read_text(encoding="ascii"))


def parse_reasons(format_: str) -> dict[str, int]:
    """Parse the reasons in a tracepoint's format; their numbers differ between kernels."""
    return {name: int(number) for number, name in _NAMED.findall(format_)}


def _open_counters(tracepoint: int, reason: int) -> list[int]:
    """Open descriptors that count drops for a reason, one per processor. Raises OSError."""
    attribute = _ATTRIBUTE.pack(_TRACEPOINT, _ATTRIBUTE.size, tracepoint, 0, 0, 0, 0, 0, 0, 0)
    found: list[int] = []
    try:
        for cpu in _online_processors():
            number = _CALLS[platform.machine()]
            fd = linux.syscall(
                "perf_event_open", number, attribute, _EVERYBODY, cpu, _NO_GROUP, _CLOSE_ON_EXEC
            )
            found.append(fd)
            fcntl.ioctl(fd, _SET_FILTER, f"reason == {reason}\0".encode())
    except BaseException:
        for fd in found:
            os.close(fd)
        raise
    return found


def _online_processors() -> list[int]:
    """Parse the list of running processors, such as "0-3,8"."""
    text = Path("/sys/devices/system/cpu/online").read_text(encoding="ascii").strip()
    spans = [part.partition("-") for part in text.split(",")]
    return [cpu for a, _, b in spans for cpu in range(int(a), int(b or a) + 1)]


_COUNTS = Path("/proc/net/stat/rt_cache")
_LOG = "/dev/kmsg"
_RECORD = 8192
"""Bytes that hold any record: a read with less room fails (EINVAL)."""
_MARTIAN = re.compile(r"^[\d,]+[^;]*;(?:\S+: )?(martian (?:source|destination) [^\n]+)")


class Martians:
    """Counts and reads the log from when it was entered."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._log: int | None = None

    def __enter__(self) -> Self:
        self._before = martian_counts()
        with contextlib.suppress(OSError):
            self._log = os.open(_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._log, 0, os.SEEK_END)
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def dropped(self) -> tuple[Dropped, ...]:
        """How many were dropped since, in all namespaces of the kernel."""
        now = martian_counts()
        grown = ((name, count - self._before.get(name, 0)) for name, count in now.items())
        return tuple(Dropped(name, count) for name, count in grown if count > 0)

    def logged(self) -> tuple[str, ...]:
        """What the kernel wrote of them since, each line once."""
        return tuple(dict.fromkeys(self._lines()))

    def _lines(self) -> Iterator[str]:
        while self._log is not None:
            try:
                record = os.read(self._log, _RECORD)
            except BlockingIOError:
                return
            except BrokenPipeError:  # records were overwritten before they were read
                continue
            except OSError:
                return
            if line := martian_text(record.decode(errors="replace")):
                yield line


def martian_text(record: str) -> str:
    """Return the text of a log record about a martian; empty for other records."""
    found = _MARTIAN.match(record)
    return found[1].rstrip() if found else ""


def martian_counts() -> dict[str, int]:
    """The kernel's counts of martians; none where it keeps none."""
    try:
        heading, *processors = _COUNTS.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return {}
    names = heading.split()
    found = dict.fromkeys(MARTIANS, 0)
    for line in processors:
        for name, value in zip(names, line.split(), strict=False):
            if name in found:
                found[name] += int(value, 16)
    return found
