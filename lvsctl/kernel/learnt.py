"""What nodes have learnt by earlier traffic: neighbour entries, and IPVS's connections.

Asking begins with empty caches, so that a capture shows how they are filled. What was there is
read first: an entry that leads to a wrong MAC address is why earlier requests failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from lvsctl.kernel import netns, paths
from lvsctl.model.state import NeighbourState
from lvsctl.netlink import sockets
from lvsctl.netlink.links import dump_links
from lvsctl.netlink.neighbours import set_neighbour


def put_back(entries: Mapping[str, Iterable[NeighbourState]]) -> None:
    """Set neighbour entries by namespace, in the state that they were in.

    Raises LabError if a namespace does not exist.
    """

    def visits() -> None:
        for name, wanted in entries.items():
            with netns.enter(name), sockets.open_socket() as sock:
                indexes = {link.name: link.index for link in dump_links(sock)}
                messages = [
                    set_neighbour(
                        entry.address, entry.mac, indexes[entry.device], state=entry.state
                    )
                    for entry in wanted
                    if entry.device in indexes
                ]
                sockets.send_all(sock, messages)

    if entries:
        netns.in_thread(visits)


Entry = tuple[str, str]
"""An address, and a MAC address that some node has for it."""


def taught(lab: str) -> frozenset[Entry]:
    """Return what lvsctl's own last requests may have taught wrong in ``lab``.

    Their packets may still be answered after the caches are flushed, so that an entry comes back.
    """
    try:
        said = json.loads(paths.of(lab).taught.read_text(encoding="utf-8"))
        return frozenset((str(address), str(mac)) for address, mac in said)
    except (OSError, ValueError, TypeError, RecursionError):
        return frozenset()


def note_taught(lab: str, entries: Iterable[Entry]) -> None:
    """Note what the requests just sent may have taught wrong; without any, no file is left.

    Raises HostError.
    """
    file, noted = paths.of(lab).taught, sorted(set(entries))
    with paths.wrap_os_errors(f"note the neighbours of lab {lab}", file):
        if not noted:
            file.unlink(missing_ok=True)
            return
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(noted) + "\n", encoding="utf-8")
        fresh.replace(file)
