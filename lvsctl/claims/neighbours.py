"""Neighbour entries that lead to another node than the one that has the address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress
from lvsctl.model.evidence import Evidence
from lvsctl.model.masters import holders_in
from lvsctl.model.state import NeighbourState

WITHOUT_MAC = frozenset({"incomplete", "failed"})
"""States of entries that lead nowhere: the kernel asks again."""

CONFIGURED = frozenset({"permanent", "noarp"})
"""States of entries that were set by a command, and that do not expire."""


class WrongNeighbour(NamedTuple):
    """An entry of ``node`` for an address of ``owners``, of which none has its MAC address.

    ``leads_to`` is the node that has it; empty if none does.
    """

    node: str
    entry: NeighbourState
    owners: tuple[str, ...]
    leads_to: str

    def __str__(self) -> str:
        where = f"which is {self.leads_to}" if self.leads_to else "which no node has"
        return (
            f"{self.node}: {self.entry.address} at {self.entry.mac} ({self.entry.state}), {where}"
        )


def wrong_neighbours(
    evidence: Evidence, network_of: Callable[[str, str], str] = lambda _, device: device
) -> Iterator[WrongNeighbour]:
    """Find what nodes had learnt wrong before the first request (``Evidence.before``).

    ``network_of`` names the network of a node's device; by default they are called the same.
    Left out is what a node was captured claiming while requests were sent: that mistake is there
    still, and other claims show it.
    """
    if not evidence.before:
        return
    owners, macs = _owners(evidence), _macs(evidence)
    claimed = wrongly_claimed(evidence)
    for node, learnt in evidence.before.items():
        networks = evidence.lab.node(node).networks
        for entry in learnt.neighbours:
            if network_of(node, entry.device) not in networks:
                continue  # of a dummy or tunnel device: the kernel gives it the device's own
            holders = owners.get(entry.address, ())
            if not entry.mac or not holders or node in holders or entry.state in WITHOUT_MAC:
                continue
            if (entry.address, entry.mac) in claimed and entry.state not in CONFIGURED:
                continue
            if any(not macs.get(holder) for holder in holders):
                continue  # a state that was not read
            if any(entry.mac in macs[holder].values() for holder in holders):
                continue
            segment = network_of(node, entry.device)
            there = (
                other
                for other, devices in macs.items()
                for device, mac in devices.items()
                if mac == entry.mac and network_of(other, device) == segment
            )
            yield WrongNeighbour(node, entry, holders, next(there, ""))


def wrongly_claimed(evidence: Evidence) -> frozenset[tuple[IPAddress, str]]:
    """Addresses with MAC addresses that a node gave for them and that are not their owner's.

    From the ARP packets (also requests, from whose sender neighbours learn) and the neighbour
    solicitations and advertisements that were captured.
    """
    owners, macs = _owners(evidence), _macs(evidence)
    found = set()
    for address, mac in _claimed(evidence):
        holders = owners.get(address, ())
        known = {m for holder in holders for m in macs.get(holder, {}).values()}
        if known and mac not in known:
            found.add((address, mac))
    return frozenset(found)


def _claimed(evidence: Evidence) -> Iterator[tuple[IPAddress, str]]:
    for frame in evidence.frames:
        if frame.arp is not None:
            yield frame.arp.sender_ip, frame.arp.sender_mac
        elif frame.icmp is not None and frame.icmp.nd is not None and frame.icmp.nd.mac:
            nd = frame.icmp.nd
            if not nd.is_solicit:
                yield nd.target, nd.mac
            elif frame.outer is not None:
                yield frame.outer.src, nd.mac


def _macs(evidence: Evidence) -> dict[str, dict[str, str]]:
    """The MAC addresses of each node's devices."""
    return {
        node: {link.name: link.mac for link in state.links if link.mac}
        for node, state in evidence.states.items()
    }


def _owners(evidence: Evidence) -> dict[IPAddress, tuple[str, ...]]:
    """Each address of the topology with the nodes that answer for it."""
    lab = evidence.lab
    found: dict[IPAddress, tuple[str, ...]] = {
        address.ip: (node.name,)
        for node in lab.nodes
        for interface in node.interfaces
        for address in interface.addresses
    }
    directors = tuple(node.name for node in lab.directors)
    for service in lab.services:
        found.update(dict.fromkeys(service.vips, directors))
    # Of several directors the one that is master; any of them where none is.
    held = holders_in(lab, {name: state.links for name, state in evidence.states.items()})
    found.update({one: names or directors for one, names in held.items()})
    return found
