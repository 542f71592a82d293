"""Every moment at which a command can be ended: just before each thing that it does.

A command runs in a child process of its own, which counts what it is about to do to the
kernel and to the file system, and sends itself a signal before the n-th of these. What it
does is seen by Python's audit events (files, directories, forks, ioctls) and by the few
functions beneath which lvsctl speaks to the kernel. Netlink messages, which otherwise go
out by the dozen, are sent one by one, so that the moments lie between them too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lvsctl import linux
from lvsctl.cli.failure import Signalled, raise_on_signals
from lvsctl.netlink import sockets
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.bridge import Bridge
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.netem import Netem
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = frozenset({
    "os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.symlink", "os.truncate", "os.fork",
    "os.kill", "fcntl.ioctl", "fcntl.flock", "fcntl.lockf",
})  # fmt: skip
MINE = ("/run/", "/proc/sys/", "sys/net/")
"""Where files are written that matter; the others are Python's own.

Sysctls are opened relative to a procfs of lvsctl's own, where the kernel has one to give.
"""

SYSCTL = ("open /proc/sys/net/", "open sys/net/")
LINK, ADDRESS, ROUTE, DISCIPLINE = (f"netlink route {kind}" for kind in (16, 20, 24, 36))
GENERIC = "netlink generic"
SHOWN: dict[type[Resource], str | tuple[str, ...]] = {
    Sysctl: SYSCTL,
    Namespace: "unshare",
    Bridge: LINK,
    VethLink: LINK,
    LinkUp: LINK,
    Tunnel: LINK,
    Address: ADDRESS,
    StaticRoute: ROUTE,
    Netem: DISCIPLINE,
    OffloadsOff: "fcntl.ioctl",
    GuePort: GENERIC,
    IpvsService: GENERIC,
    IpvsRealServer: GENERIC,
    ResponderPort: "os.fork",
    UserCommand: "os.fork",
}
"""What the moment of an operation begins with: a new kind of operation is a new row."""

TOGETHER = (Sysctl, ResponderPort, UserCommand)
"""Of these there may be fewer moments: what a new namespace has already is not set again, and
one process answers for all."""

NEVER = 10**9


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: its exit status, negative for a signal, and the moments it went through.

    ``said`` is the traceback where it ended with an exception of its own.
    """

    status: int
    moments: tuple[str, ...]
    said: str = ""


class Counter:
    """In the child: counts moments, and sends ``sign`` before the one numbered ``at``."""

    def __init__(self, at: int, sign: signal.Signals) -> None:
        self.at = at
        self.sign = sign
        self.pid = os.getpid()
        self.seen: list[str] = []
        self.counting = threading.Lock()

    def moment(self, what: str) -> None:
        """Something is about to be done."""
        if os.getpid() != self.pid:  # a process that the command has started
            return
        with self.counting:
            self.seen.append(what)
            if len(self.seen) - 1 == self.at:
                os.kill(self.pid, self.sign)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """What Python itself reports."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and str(path).startswith(MINE):
                self.moment(f"open {path}")
        elif event in EVENTS and event != "os.kill":
            what = str(arguments[0]) if arguments else ""
            if "__pycache__" not in what:  # Python's own, where what it compiles is not kept
                self.moment(f"{event} {what}")


def _watch(counter: Counter) -> None:
    """From now on every effect of this process is a moment."""
    send = sockets.send_all

    def one_by_one(sock: Any, messages: Sequence[bytearray]) -> list[sockets.NetlinkError]:
        found: list[sockets.NetlinkError] = []
        protocol = "generic" if sock.proto == sockets.GENERIC else "route"
        for number, message in enumerate(messages):
            kind = int.from_bytes(message[4:6], sys.byteorder)
            counter.moment(f"netlink {protocol} {kind}")
            errors = send(sock, [message])
            found += [sockets.NetlinkError(number, e.errno or 0, e.text) for e in errors]
        return found

    def before(name: str) -> Callable[..., Any]:
        done = getattr(linux, name)

        def announced(*words: Any, **more: Any) -> Any:
            counter.moment(f"{name} {words[:2]}")
            return done(*words, **more)

        return announced

    sockets.send_all = one_by_one
    for name in ("mount", "unmount", "unshare"):
        setattr(linux, name, before(name))
    sys.addaudithook(counter.audit)


def ended(
    work: Callable[[], object],
    at: int = NEVER,
    sign: signal.Signals = signal.SIGKILL,
) -> Ended:
    """Run ``work`` in a child that gets ``sign`` before its moment number ``at``.

    As in the command line's main, SIGINT and SIGTERM become the exception Signalled, and the
    exit status says so.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status, said = 1, ""
        try:
            counter = Counter(at, sign)
            _watch(counter)
            with raise_on_signals():
                work()
            status = 0
        except Signalled as signalled:
            status = signalled.status
        except BaseException:  # noqa: BLE001 (told to the parent)
            said = traceback.format_exc()
        finally:
            counter.at = NEVER
            with os.fdopen(writing, "w") as pipe:
                json.dump([counter.seen, said], pipe)
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, raw = os.waitpid(child, 0)
    seen, said = json.loads(text) if text else ([], "")
    return Ended(os.waitstatus_to_exitcode(raw), tuple(seen), said)


def unseen(ops: Iterable[Resource], moments: Sequence[str]) -> list[str]:
    """The kinds of ``ops``, all of them done, that left fewer ``moments`` than there must be."""
    least: dict[str | tuple[str, ...], int] = {}
    for op in ops:
        shown = SHOWN[type(op)]
        least[shown] = 1 if isinstance(op, TOGETHER) else least.get(shown, 0) + 1
    counts = {shown: sum(m.startswith(shown) for m in moments) for shown in least}
    return [f"{s}: {counts[s]} of {least[s]}" for s in least if counts[s] < least[s]]


def tried(moments: Sequence[str], wanted: int) -> list[int]:
    """The numbers of ``wanted`` of the ``moments``, evenly.

    And of the last message of those kinds that come late and rarely, IPVS's and netem's, so
    that what only they leave behind is met even by a few.
    """
    late = {s: n for s in (GENERIC, DISCIPLINE) for n, m in enumerate(moments) if m.startswith(s)}
    return sorted({*spread(len(moments), wanted), *late.values()})


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` of the numbers below ``count``, evenly, the first and the last included."""
    if wanted >= count:
        return list(range(count))
    return sorted({round(i * (count - 1) / (wanted - 1)) for i in range(wanted)})
