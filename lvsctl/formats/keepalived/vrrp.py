"""What keepalived.conf says beside virtual servers: VRRP, addresses, routes, timeouts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from lvsctl.errors import choice_hint, quoted
from lvsctl.formats.configuration import Instance, Notes
from lvsctl.formats.keepalived.keywords import ROOT
from lvsctl.formats.keepalived.numbers import interface, number
from lvsctl.formats.keepalived.tree import Block
from lvsctl.model.addresses import IPInterface
from lvsctl.model.service import IpvsTimeouts
from lvsctl.model.state import SyncDaemonState

Addresses = tuple[tuple[IPInterface, str], ...]

_ELSEWHERE = {
    "vrrp_script": "a script is never run for a lab",
    "vrrp_track_process": "VRRP is not part of a topology yet",
    "vrrp_track_file": "VRRP is not part of a topology yet",
    "track_file": "health checks are not part of a topology",
    "vrrp_sync_group": "VRRP is not part of a topology yet",
    "bfd_instance": "BFD is not part of a topology",
    "static_rules": "policy rules are not part of a topology",
    "static_routes": "write them as routes: of the director",
    "net_namespace": "a lab's director has a namespace of its own",
    "net_namespace_ipvs": "a lab's director has a namespace of its own",
    "SSL": "lvsctl does not check real servers",
}


def read_instances(root: Block, notes: Notes) -> Iterator[Instance]:
    """Yield the VRRP instances."""
    for block in root.each("vrrp_instance"):
        name = block.arguments[0] if block.arguments else ""
        if block.children is None:
            notes.wrong(block.place, "vrrp_instance has no block", "vrrp_instance NAME { … }")
            continue
        settings = {
            child.keyword: " ".join(child.arguments)
            for child in block.children
            if child.children is None
        }
        device = settings.get("interface", "")
        addresses = (
            *_addresses(block, "virtual_ipaddress", device, notes),
            *_addresses(block, "virtual_ipaddress_excluded", device, notes),
        )
        for routes in block.each("virtual_routes", "virtual_rules"):
            notes.remark(routes.place, f"{routes.keyword}: the topology derives its own routes")
        notes.remark(
            block.place,
            f"vrrp_instance {name}: one director holds its addresses; VRRP is not part of a "
            "topology yet",
        )
        yield Instance(name, block.place, device, addresses, settings)


def read_addresses(root: Block, notes: Notes) -> Addresses:
    """Return the addresses of ``static_ipaddress``."""
    default = ""
    for block in root.each("global_defs"):
        for line in block.each("default_interface"):
            default = line.arguments[0] if line.arguments else ""
    return _addresses(root, "static_ipaddress", default or "eth0", notes)


def _addresses(block: Block, keyword: str, device: str, notes: Notes) -> Addresses:
    found: list[tuple[IPInterface, str]] = []
    for one in block.each(keyword):
        for line in one.children or ():
            word, *options = line.words
            address = interface(word)
            if address is None:
                hint = "an address, perhaps with /PREFIX and dev INTERFACE"
                notes.wrong(line.place, f"{quoted(word)} is not an IP address", hint)
                continue
            named = dict(pairwise(options))
            found.append((address, named.get("dev", device)))
    return tuple(found)


def read_timeouts(root: Block, notes: Notes) -> IpvsTimeouts | None:
    """Return ``lvs_timeouts``; None if the file has none."""
    found = None
    for block in root.each("global_defs"):
        for line in block.each("lvs_timeouts"):
            words = list(line.arguments)
            given = dict(zip(words[::2], words[1::2], strict=False))
            unknown = sorted(given.keys() - {"tcp", "tcpfin", "udp"})
            values = {key: number(value, 1, 31 * 86400) for key, value in given.items()}
            if unknown or not given or len(words) % 2 or None in values.values():
                hint = "lvs_timeouts tcp SECONDS tcpfin SECONDS udp SECONDS"
                notes.wrong(line.place, "lvs_timeouts cannot be read", hint)
                continue
            usual = IpvsTimeouts()
            found = IpvsTimeouts(
                values.get("tcp") or usual.tcp,
                values.get("tcpfin") or usual.tcp_fin,
                values.get("udp") or usual.udp,
            )
    return found


def read_daemons(root: Block, notes: Notes) -> tuple[SyncDaemonState, ...]:
    """Return the synchronization daemons of ``lvs_sync_daemon``: of a master, and of a backup."""
    for block in root.each("global_defs"):
        for line in block.each("lvs_sync_daemon"):
            notes.remark(line.place, "lvs_sync_daemon: it is not part of a topology yet")
    return ()


def remark_others(root: Block, notes: Notes) -> None:
    """Note what else the file has at its top level."""
    for block in root.children or ():
        if block.keyword in _ELSEWHERE:
            named = " ".join(block.words[:2])
            notes.remark(block.place, f"{named}: {_ELSEWHERE[block.keyword]}")
        elif block.keyword not in ROOT:
            hint = choice_hint(block.keyword, sorted(ROOT), "blocks")
            notes.wrong(block.place, f"{quoted(block.keyword)} is not a block", hint)
