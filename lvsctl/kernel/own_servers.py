"""Real servers that are the users' own commands (``run:``): where they must listen, and whether.

Which program listened after the command had started is noted with the lab: another one in its
place later is not what the topology says.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from lvsctl.kernel import paths, processes
from lvsctl.kernel.listeners import listening_in
from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab, Node
from lvsctl.model.service import ForwardingMethod, Protocol
from lvsctl.model.state import ListenerState, NodeState


class Place(NamedTuple):
    """Where a server must accept requests: ``address`` is what they are sent to."""

    protocol: Protocol
    address: IPAddress
    port: int

    def is_covered_by(self, one: ListenerState) -> bool:
        """Return whether requests to the place reach a listener."""
        if (one.protocol, one.port) != (self.protocol, self.port):
            return False
        if one.address == ip_address("::"):  # IPv4 too, unless its socket says otherwise
            return True
        return one.address == self.address or (
            one.address.is_unspecified and one.address.version == self.address.version
        )


class OwnServer(NamedTuple):
    """A real server with the user's own command, and the places on which it is to be found."""

    node: Node
    netns: str
    places: frozenset[Place]

    def holders(self, listeners: Collection[ListenerState]) -> frozenset[str] | None:
        """Return the programs that listen in its places; None where one place has none."""
        found: set[str] = set()
        for place in self.places:
            there = [one for one in listeners if place.is_covered_by(one)]
            if not there:
                return None
            found.update(one.process for one in there)
        return frozenset(found)

    def listens(self) -> bool:
        """Return whether it listens right now, in all its places."""
        return self.holders(listening_in(self.netns)) is not None

    def lives(self, lab: str) -> bool:
        """Return whether any process runs in its namespace."""
        return bool(processes.pids_in([paths.of(lab).namespaces / self.netns]))

    @property
    def ports(self) -> str:
        """Its ports as a phrase."""
        ports = sorted({(place.protocol, place.port) for place in self.places})
        return ", ".join(f"{protocol} port {port}" for protocol, port in ports)


def own_servers(lab: Lab) -> Iterator[OwnServer]:
    """Yield the real servers whose node has a command of the user's own."""
    for node in lab.nodes:
        places = frozenset(
            Place(
                endpoint.protocol,
                server.rip if nat else endpoint.vip,
                server.answers_at(endpoint),
            )
            for service in lab.services
            for endpoint in service.endpoints
            for server in service.real_servers
            if server.node == node.name
            for nat in (server.forward is ForwardingMethod.NAT,)
        )
        if node.run and places:
            yield OwnServer(node, lab.netns(node.name), places)


def to_restart(lab: Lab, states: Mapping[str, NodeState]) -> frozenset[str]:
    """Return the namespaces whose real server, the user's own command, has to be started again.

    It has ended; or it listened once, and does not any more or another program does. Only for
    real servers: another command may have ended because it was done.
    """
    noted = _noted(lab.name)
    found = set()
    for server in own_servers(lab):
        if server.netns not in states:
            continue
        holders = server.holders(states[server.netns].listeners)
        before = noted.get(server.netns)
        if holders is None:
            if before or not server.lives(lab.name):
                found.add(server.netns)
        elif before and not holders & before:
            found.add(server.netns)
    return frozenset(found)


def end_replaced(lab: Lab, namespaces: Collection[str]) -> None:
    """End what runs in the namespaces of servers that are to be started again."""
    files = [
        paths.of(lab.name).namespaces / server.netns
        for server in own_servers(lab)
        if server.netns in namespaces
    ]
    processes.terminate(lambda: processes.pids_in(files) - processes.ancestors())


def note(lab: str, servers: Collection[OwnServer]) -> None:
    """Note which programs listen for ``servers``."""
    noted = {netns: sorted(names) for netns, names in _noted(lab).items()}
    for server in servers:
        holders = server.holders(listening_in(server.netns))
        if holders:
            noted[server.netns] = sorted(holders)
    with paths.wrap_os_errors(f"note the servers of lab {lab}"):
        paths.of(lab).servers.write_text(json.dumps(noted))


def _noted(lab: str) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        for netns, names in json.loads(paths.of(lab).servers.read_text()).items():
            found[str(netns)] = frozenset(map(str, names))
    return found
