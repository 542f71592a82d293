"""Martians: packets whose source or destination cannot be, as the receiver sees it.

Linux counts them for all namespaces together (/proc/net/stat/rt_cache), and writes each to
the kernel's log where the receiving interface has log_martians set, a few a second at most
(kernels with CONFIG_IP_ROUTE_VERBOSE: those of distributions, Debian's User-Mode Linux not).
Neither needs tracing. Who may not read the log is told nothing.

Sources: ip_handle_martian_source in net/ipv4/route.c; Documentation/ABI/testing/dev-kmsg;
Documentation/networking/ip-sysctl.rst (log_martians).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from lvsctl.model.state import MARTIANS, Dropped

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
        self._before = counts()
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
        now = counts()
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
            if line := martian(record.decode(errors="replace")):
                yield line


def martian(record: str) -> str:
    """Return the text of a log record about a martian; empty for other records."""
    found = _MARTIAN.match(record)
    return found[1].rstrip() if found else ""


def counts() -> dict[str, int]:
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
