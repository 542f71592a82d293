"""What nodes have learnt by earlier traffic: neighbour entries, and IPVS's connections.

Asking begins with empty caches, so that a capture shows how they are filled. What was there is
read first: an entry that leads to a wrong MAC address is why earlier requests failed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from lvsctl.kernel import netns
from lvsctl.kernel.state import read_connections
from lvsctl.model.state import NeighbourState, NodeState
from lvsctl.netlink import rtnl, sockets


def read_learnt(namespaces: Iterable[str], directors: Collection[str]) -> dict[str, NodeState]:
    """Read the neighbours of ``namespaces``, and the connections of ``directors``, by name.

    Raises LabError if one does not exist, HostError without root.
    """

    def visits() -> dict[str, NodeState]:
        found = {}
        for name in namespaces:
            with netns.enter(name):
                with sockets.open_socket() as sock:
                    names = {link.index: link.name for link in rtnl.dump_links(sock)}
                    neighbours = rtnl.dump_neighbours(sock, names)
                connections = read_connections() if name in directors else ()
            found[name] = NodeState(name, neighbours=neighbours, connections=connections)
        return found

    return netns.in_thread(visits)


def put_back(entries: Mapping[str, Iterable[NeighbourState]]) -> None:
    """Set neighbour entries by namespace, in the state that they were in.

    Raises LabError if a namespace does not exist.
    """

    def visits() -> None:
        for name, wanted in entries.items():
            with netns.enter(name), sockets.open_socket() as sock:
                indexes = {link.name: link.index for link in rtnl.dump_links(sock)}
                messages = [
                    rtnl.set_neighbour(
                        entry.address, entry.mac, indexes[entry.device], state=entry.state
                    )
                    for entry in wanted
                    if entry.device in indexes
                ]
                sockets.send_all(sock, messages)

    if entries:
        netns.in_thread(visits)
