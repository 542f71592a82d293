"""Which of several directors is master now, and waiting until one is (VRRP)."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

from lvsctl.kernel import netns
from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab, Node
from lvsctl.model.masters import Holders, has_one_master, holders_in, master_by
from lvsctl.model.state import LinkState
from lvsctl.netlink import sockets
from lvsctl.netlink.addresses import GROUPS_ADDRESS
from lvsctl.netlink.links import dump_links


def holders(lab: Lab) -> dict[IPAddress, tuple[str, ...]]:
    """Return the directors that hold each address that moves; empty with one director.

    Raises LabError if a director's namespace does not exist, HostError without root.
    """
    if not lab.floating:
        return {}

    def visit() -> dict[str, tuple[LinkState, ...]]:
        found = {}
        for node in lab.directors:
            with netns.enter(lab.netns(node.name)), sockets.open_socket() as sock:
                found[node.name] = dump_links(sock)
        return found

    return holders_in(lab, netns.in_thread(visit))


def active_director(lab: Lab) -> Node:
    """Return the director that is master; the first one if it is alone, or if none is.

    Raises as ``holders``.
    """
    if len(lab.directors) == 1:
        return lab.directors[0]
    return lab.node(master_by(lab, holders(lab)))


def active_directors(lab: Lab) -> tuple[Node, ...]:
    """Return the directors that handle requests: all of them (``ha: ecmp``), or the master.

    Raises as ``holders``.
    """
    return lab.directors if lab.ecmp else (active_director(lab),)


def takeover_seconds(lab: Lab) -> float:
    """Return how long it may take until a director has taken over, on a slow machine.

    It waits for three intervals of the master's advertisements and up to one more, the skew
    (RFC 5798, section 6.1).
    """
    return _SLOW + 4 * max((node.ha.advert_int for node in lab.directors if node.ha), default=0)


_SLOW = 10.0
"""Seconds that keepalived may need to start, or to be scheduled, on a busy machine."""


def wait_for_master(lab: Lab, seconds: float) -> dict[IPAddress, tuple[str, ...]]:
    """Wait until one director holds every address that moves and no other holds any.

    Until the one with the highest priority does, where it takes over from others. The kernel's
    events wake it. Returns what ``holders`` returns at the end; after ``seconds`` it may still
    be otherwise.
    """
    wanted = _preferred(lab)
    return _wait(
        lab, seconds, lambda found: has_one_master(found) and master_by(lab, found) in wanted
    )


def wait_for_change(lab: Lab, before: Holders) -> dict[IPAddress, tuple[str, ...]]:
    """Wait until other directors than ``before`` hold the addresses, every one of them.

    As long as a director may take to become master; returns what ``holders`` returns at the end.
    """
    return _wait(
        lab,
        takeover_seconds(lab),
        lambda found: all(names and names != before.get(one) for one, names in found.items()),
    )


def _preferred(lab: Lab) -> tuple[str, ...]:
    """Return the directors that may be master in the end."""
    settings = {node.name: node.ha for node in lab.directors if node.ha is not None}
    if not all(ha.preempt for ha in settings.values()):
        return tuple(settings)
    highest = max((ha.priority for ha in settings.values()), default=0)
    return tuple(name for name, ha in settings.items() if ha.priority == highest)


def _wait(
    lab: Lab, seconds: float, enough: Callable[[Holders], bool]
) -> dict[IPAddress, tuple[str, ...]]:
    if not lab.floating:
        return {}
    deadline = time.monotonic() + seconds
    with ExitStack() as held:
        poll = select.poll()
        subscribed = netns.in_thread(lambda: _subscribed(lab))
        for sock in subscribed:
            held.enter_context(sock)
            poll.register(sock, select.POLLIN)
        while True:
            found = holders(lab)
            left = deadline - time.monotonic()
            if enough(found) or left <= 0:
                return found
            poll.poll(left * 1000)
            for sock in subscribed:
                _take(sock)


def _subscribed(lab: Lab) -> list[socket.socket]:
    """Open a socket at each director that receives every change of its addresses."""
    found = []
    for node in lab.directors:
        with netns.enter(lab.netns(node.name)):
            sock = sockets.open_socket()
            sock.setblocking(False)
            sockets.subscribe(sock, *GROUPS_ADDRESS)
            found.append(sock)
    return found


def _take(sock: socket.socket) -> None:
    """Read all events that wait."""
    try:
        while sock.recv(1 << 16):
            pass
    except OSError:  # none is left, or some were lost: the addresses are read again anyway
        return
