"""Wait until the kernel has destroyed namespaces.

The last reference to a namespace puts it on a list, which one kernel worker empties, batch after
batch (``cleanup_net``, net/core/net_namespace.c). Other namespaces that have given it an id
(ip-netns(8), nsid) receive RTM_DELNSID when its batch begins. A batch that begins shows that the
one before it has ended; so once the event of every namespace of a lab has arrived, one more
namespace is created and released, and its event shows that all others are gone.

Sources: cleanup_net and rtnl_net_newid there, linux/net_namespace.h.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from threading import Event, Thread

from lvsctl.errors import HostError, LabError
from lvsctl.kernel import netns, paths
from lvsctl.kernel.worker import block_signals
from lvsctl.netlink import sockets
from lvsctl.netlink.namespace_ids import GROUP_NSID, deleted_namespace_id, set_namespace_id

SECONDS = 60.0
"""How long namespaces may take to go. A batch of 1000 takes one to two."""

_SENTINELS = 2
"""Namespaces released after those of the lab: since Linux 6.13 a namespace's own structure, all
that is left of it, is freed in the batch after its own (net_complete_free)."""


@contextmanager
def wait_for_cleanup(lab: str, seconds: float = SECONDS) -> Iterator[None]:
    """Wait at the end of the block until the namespaces of ``lab``, released in it, are gone.

    Raises LabError where some still exist after ``seconds``, with how to find their users.
    """
    begun: SimpleQueue[None] = SimpleQueue()  # an Event is not safe from signals
    errors: list[BaseException] = []
    go_on = Event()

    def work() -> None:
        try:
            _watch(_namespaces(lab), begun, go_on, seconds)
        except BaseException as error:  # noqa: BLE001 (raised by the caller's thread)
            errors.append(error)
        finally:
            begun.put(None)

    thread = Thread(target=work, name="lvsctl-netns-cleanup", daemon=True)
    try:
        with block_signals():
            thread.start()
        begun.get()
        yield
    finally:
        go_on.set()
        if thread.is_alive():
            thread.join()
    if errors:
        raise errors[0]


def _namespaces(lab: str) -> dict[str, int]:
    """Open the namespaces of ``lab``; return their descriptors by name."""
    found: dict[str, int] = {}
    with suppress(OSError):  # a damaged lab has fewer
        for file in sorted(paths.of(lab).namespaces.iterdir()):
            if os.path.ismount(file):
                found[file.name] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    return found


def _watch(fds: dict[str, int], begun: SimpleQueue[None], go_on: Event, seconds: float) -> None:
    """Wait, in a thread that has moved into a namespace of its own."""
    try:
        netns.unshare()
        with sockets.open_socket() as sock:
            sockets.subscribe(sock, GROUP_NSID)
            names = dict(enumerate(fds))
            _set_ids(sock, fds.values())
            _close(fds)
            begun.put(None)
            go_on.wait()
            deadline = time.monotonic() + seconds
            _wait_for_events(sock, set(names), deadline, lambda left: _some_names(names, left))
            for number in range(len(names), len(names) + _SENTINELS):
                sentinel = {"": netns.in_thread(_create_and_leave)}
                _set_ids(sock, sentinel.values(), first=number)
                _close(sentinel)
                _wait_for_events(sock, {number}, deadline, lambda _: "it is busy with others")
    except OSError as error:
        raise HostError(f"cannot wait for the namespaces: {error.strerror}") from error
    finally:
        _close(fds)


def _create_and_leave() -> int:
    """Return a descriptor of a new namespace: its only reference once this thread has ended."""
    netns.unshare()
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _close(fds: dict[str, int]) -> None:
    while fds:
        os.close(fds.popitem()[1])


def _set_ids(sock: socket.socket, fds: Iterable[int], first: int = 0) -> None:
    """Give each namespace an id in the socket's own, from ``first`` on. Raises OSError."""
    messages = [set_namespace_id(fd, number) for number, fd in enumerate(fds, first)]
    for error in sockets.send_all(sock, messages):
        raise error


def _wait_for_events(
    sock: socket.socket, numbers: set[int], deadline: float, describe: Callable[[set[int]], str]
) -> None:
    """Wait for RTM_DELNSID of each of ``numbers``. Raises LabError after ``deadline``."""
    left = set(numbers)
    if not left:
        return
    for whole in sockets.events(sock, deadline):
        number = deleted_namespace_id(whole)
        if number is not None:
            left.discard(number)
        if not left:
            return
    raise LabError(
        f"the kernel has not released everything: {describe(left)}",
        hint="look for who still uses it: lsns -t net; ls -l /proc/*/fd | grep net:",
    )


def _some_names(names: dict[int, str], left: set[int]) -> str:
    some = [names[number] for number in sorted(left)]
    return ", ".join(some[:3]) + (f" and {len(some) - 3} more" if len(some) > 3 else "")
