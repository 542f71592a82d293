"""Describe what changed between two samples of a lab. Pure functions.

Changes that occur by themselves (a neighbour going stale, counters) are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableSequence
from dataclasses import dataclass, replace
from typing import TypeVar

from lvsctl.model.addresses import Endpoint, IPAddress
from lvsctl.model.service import ServiceMatch
from lvsctl.model.state import (
    LinkState,
    NodeState,
    RealServerState,
    RouteState,
    Sample,
    ServiceState,
)

T = TypeVar("T")

LOOK_BACK = 12
"""Latest changes among which a repeated one is looked for: more is older news."""

NamesOf = Mapping[str, str]
"""Nodes by MAC address."""


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """A change at ``node``, at ``when`` (seconds since the epoch), the ``times``-th time."""

    when: float
    node: str
    text: str
    times: int = 1


def add_change(happened: MutableSequence[ChangeEvent], change: ChangeEvent) -> None:
    """Add a change to a list; one that is there again, as of a VIP that flaps, is only counted."""
    for index in range(len(happened) - 1, max(-1, len(happened) - 1 - LOOK_BACK), -1):
        known = happened[index]
        if (known.node, known.text) == (change.node, change.text):
            del happened[index]
            change = replace(change, times=known.times + 1)
            break
    happened.append(change)


def changes(before: Sample, after: Sample, director: str) -> Iterator[ChangeEvent]:
    """List what changed from one sample to the next."""
    names = names_of(after)
    for node in before.states.keys() | after.states.keys():
        old, new = before.states.get(node), after.states.get(node)
        if old is None or new is None:
            found = ["its namespace is gone" if new is None else "its namespace exists again"]
        else:
            found = list(_of_node(old, new, names))
        for text in found:
            yield ChangeEvent(after.when, node, text)
    for text in _of_table(before.table, after.table):
        yield ChangeEvent(after.when, director, text)


def names_of(sample: Sample) -> dict[str, str]:
    """Map MAC addresses to nodes."""
    return {
        link.mac: node for node, state in sample.states.items() for link in state.links if link.mac
    }


def _of_node(old: NodeState, new: NodeState, names: NamesOf) -> Iterator[str]:
    if old.links is not new.links:  # the same object: no netlink event meanwhile
        yield from _of_links(old, new)
        yield from _of_routes(old, new)
        yield from _of_neighbours(old, new, names)
    if old.sysctls != new.sysctls:
        for key, value in new.sysctls.items():
            if old.sysctls.get(key, value) != value and ".default." not in key:
                yield f"{key} {old.sysctls[key]} → {value}"


def _of_links(old: NodeState, new: NodeState) -> Iterator[str]:
    before = {link.name: link for link in old.links}
    for link in new.links:
        was = before.pop(link.name, None)
        if was is None:
            yield f"{link.name} is new"
            was = LinkState(link.name, 0, "", "", link.mtu, up=link.up, carrier=link.carrier)
        if was.up != link.up:
            yield f"{link.name} is {'up' if link.up else 'down'}"
        elif link.up and was.carrier != link.carrier:
            yield f"{link.name} has {'a carrier' if link.carrier else 'no carrier'}"
        if was.mtu != link.mtu:
            yield f"{link.name}: mtu {was.mtu} → {link.mtu}"
        yield from (f"{a} added on {link.name}" for a in _more(link.addresses, was.addresses))
        yield from (f"{a} removed from {link.name}" for a in _more(was.addresses, link.addresses))
    yield from (f"{name} is gone" for name in before)


def _of_routes(old: NodeState, new: NodeState) -> Iterator[str]:
    for word, some, others in (
        ("added", new.routes, old.routes),
        ("removed", old.routes, new.routes),
    ):
        for route in _more(some, others):
            if not route.kernel:  # those come and go with addresses and devices
                yield f"route {_route(route)} {word}"


def _route(route: RouteState) -> str:
    via = f" via {route.via}" if route.via is not None else ""
    return f"{route.to or 'default'}{via} dev {route.device or 'none'}"


def _of_neighbours(old: NodeState, new: NodeState, names: NamesOf) -> Iterator[str]:
    """Neighbours that have another MAC address now: for a VIP, another node replies for it."""
    before = {(entry.device, entry.address): entry for entry in old.neighbours}
    for entry in new.neighbours:
        was = before.get((entry.device, entry.address))
        moved = was is not None and was.mac not in ("", entry.mac) and bool(entry.mac)
        before_that = f", was at {_whose(was.mac, names)}" if was is not None and moved else ""
        whose = _whose(entry.mac, names)
        if entry.state == "permanent" and (was is None or was.state != "permanent" or moved):
            yield f"{entry.address} is at {whose} (nud permanent){before_that}"
        elif moved:
            yield f"{entry.address} is at {whose} now{before_that}"
        elif entry.state == "failed" and (was is None or was.state != "failed"):
            yield f"no neighbour reply for {entry.address} on {entry.device}"


def _whose(mac: str, names: NamesOf) -> str:
    return names.get(mac, mac or "no address")


def _of_table(old: Iterable[ServiceState], new: Iterable[ServiceState]) -> Iterator[str]:
    before = {service.match: service for service in old}
    for service in new:
        was = before.pop(service.match, None)
        if was is None:
            yield f"service {service.match} added"
            continue
        if was.scheduler != service.scheduler:
            yield f"service {service.match}: scheduler {was.scheduler} → {service.scheduler}"
        if was.persistence != service.persistence:
            change = f"{was.persistence} s → {service.persistence} s"
            yield f"service {service.match}: persistent {change}"
        if was.flags != service.flags:
            change = f"{','.join(was.flags) or 'none'} → {','.join(service.flags) or 'none'}"
            yield f"service {service.match}: flags {change}"
        yield from _of_servers(service.match, was.real_servers, service.real_servers)
    yield from (f"service {key} removed" for key in before)


def _of_servers(
    key: ServiceMatch, old: Iterable[RealServerState], new: Iterable[RealServerState]
) -> Iterator[str]:
    before: dict[tuple[IPAddress, int], RealServerState] = {(s.rip, s.port): s for s in old}
    for server in new:
        name = f"{key} → {Endpoint(server.rip, server.port)}"
        was = before.pop((server.rip, server.port), None)
        if was is None:
            yield f"{name} added"
            continue
        if was.weight != server.weight:
            yield f"{name}: weight {was.weight} → {server.weight}"
        if was.forward != server.forward:
            yield f"{name}: {was.forward} → {server.forward}"
    yield from (f"{key} → {Endpoint(rip, port)} removed" for rip, port in before)


def _more(some: Iterable[T], others: Iterable[T]) -> Iterator[T]:
    known = set(others)
    return (one for one in some if one not in known)
