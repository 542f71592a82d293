"""Knowing when the kernel has taken namespaces apart.

Nothing waits for that by itself: the last reference to a namespace puts it on a list,
which one kernel worker empties, batch after batch (``cleanup_net``, net/core/net_namespace.c).
Other namespaces that have given it a number (ip-netns(8), nsid) hear RTM_DELNSID when its
batch begins. A batch that begins shows that the one before it has ended; so once all of a lab
have been heard of, another namespace is sent after them, and when it is heard of, all is done.

Sources: cleanup_net and rtnl_net_newid there, linux/net_namespace.h.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from threading import Event, Thread

from lvsctl.errors import HostError, LabError
from lvsctl.kernel import netns, nldump, paths, wire
from lvsctl.kernel.undisturbed import undisturbed

SECONDS = 60.0
"""How long namespaces may take to go. A batch of 1000 takes one to two."""

_SENTINELS = 2
"""Namespaces sent after those of the lab: since Linux 6.13 a namespace's own structure, all that
is left of it, is freed in the batch after its own (net_complete_free)."""

_NEWNSID, _DELNSID = 88, 89
_RTNLGRP_NSID = 28
_ID, _FD = 1, 3  # NETNSA_NSID, NETNSA_FD
_FAMILY = bytes(4)  # struct rtgenmsg, padded


@contextmanager
def watched(lab: str, seconds: float = SECONDS) -> Iterator[None]:
    """What is inside lets go of the namespaces of ``lab``; leaving waits until they are gone.

    Raises LabError where some are still there after ``seconds``, with who may hold them.
    """
    begun: SimpleQueue[None] = SimpleQueue()  # an Event does not bear a signal: ``undisturbed``
    outcome = list[BaseException]()
    go_on = Event()

    def work() -> None:
        try:
            _watch(_namespaces(lab), begun, go_on, seconds)
        except BaseException as error:  # noqa: BLE001 (handed over)
            outcome.append(error)
        finally:
            begun.put(None)

    thread = Thread(target=work, name="lvsctl-letting-go", daemon=True)
    try:
        with undisturbed():
            thread.start()
        begun.get()
        yield
    finally:
        go_on.set()
        if thread.is_alive():
            thread.join()
    if outcome:
        raise outcome[0]


def _namespaces(lab: str) -> dict[str, int]:
    """Descriptors of the namespaces of ``lab``, by name. Where it is damaged: those there are."""
    found: dict[str, int] = {}
    with suppress(OSError):
        for file in sorted(paths.namespaces(lab).iterdir()):
            if os.path.ismount(file):
                found[file.name] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    return found


def _watch(fds: dict[str, int], begun: SimpleQueue[None], go_on: Event, seconds: float) -> None:
    """In a thread of its own, which moves into a namespace that lives as long as this runs."""
    try:
        netns.unshare()
        with wire.open_socket() as sock:
            wire.subscribe(sock, _RTNLGRP_NSID)
            names = dict(enumerate(fds))
            _number(sock, fds.values())
            _close(fds)
            begun.put(None)
            go_on.wait()
            deadline = time.monotonic() + seconds
            _hear_of_all(sock, set(names), deadline, lambda left: _holders(names, left))
            for number in range(len(names), len(names) + _SENTINELS):
                sentinel = {"": netns.in_thread(_made_and_left)}
                _number(sock, sentinel.values(), first=number)
                _close(sentinel)
                _hear_of_all(sock, {number}, deadline, lambda _: "it is still busy with others")
    except OSError as error:
        raise HostError(f"cannot wait for the namespaces: {error.strerror}") from error
    finally:
        _close(fds)


def _made_and_left() -> int:
    """A descriptor of a new namespace, which nothing else refers to once this thread has ended."""
    netns.unshare()
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _close(fds: dict[str, int]) -> None:
    while fds:
        os.close(fds.popitem()[1])


def _number(sock: socket.socket, fds: Iterable[int], first: int = 0) -> None:
    """Give each namespace a number in the socket's own: 0, 1, …. Raises OSError."""
    messages = [
        nldump.packed(
            _NEWNSID,
            _FAMILY
            + nldump.attribute(_ID, struct.pack("=i", number))
            + nldump.attribute(_FD, struct.pack("=I", fd)),
            flags=0,
        )
        for number, fd in enumerate(fds, first)
    ]
    for refusal in wire.send_all(sock, messages):
        raise OSError(refusal.errno, str(refusal))


def _hear_of_all(
    sock: socket.socket, numbers: set[int], deadline: float, said: Callable[[set[int]], str]
) -> None:
    """Wait until the kernel has said that each of ``numbers`` goes. Raises LabError."""
    left = set(numbers)
    if not left:
        return
    for kind, body in wire.events(sock, deadline):
        value = wire.attribute(body, len(_FAMILY), _ID)
        if kind == _DELNSID and value is not None:
            left.discard(struct.unpack("=i", value)[0])
        if not left:
            return
    raise LabError(f"the kernel has not let go of everything: {said(left)}",
                   hint="look for who still uses it: lsns -t net; ls -l /proc/*/fd | grep net:"
                   )  # fmt: skip


def _holders(names: dict[int, str], left: set[int]) -> str:
    some = [names[number] for number in sorted(left)]
    return ", ".join(some[:3]) + (f" and {len(some) - 3} more" if len(some) > 3 else "")
