"""Which of several directors is master: the one that holds the addresses that move. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab
from lvsctl.model.state import LinkState

Holders = Mapping[IPAddress, tuple[str, ...]]
"""The directors that hold each address that moves; empty with one director."""


def holders_in(
    lab: Lab, links: Mapping[str, Iterable[LinkState]]
) -> dict[IPAddress, tuple[str, ...]]:
    """Return the directors that hold each address that moves, by the links of each director."""
    held = {
        node.name: {address.ip for link in links.get(node.name, ()) for address in link.addresses}
        for node in lab.directors
    }
    return {
        one: tuple(name for name, addresses in held.items() if one in addresses)
        for one in lab.floating
    }


def has_one_master(found: Holders) -> bool:
    """Return whether the same single director holds all the addresses."""
    return len(set(found.values())) <= 1 and all(len(names) == 1 for names in found.values())


def master_by(lab: Lab, found: Holders) -> str:
    """Return the director that holds most of the addresses; the first if none holds any."""
    counts = dict.fromkeys((node.name for node in lab.directors), 0)
    for names in found.values():
        for name in names:
            counts[name] += 1
    return max(counts, key=lambda name: counts[name])


def master_in(lab: Lab, links: Mapping[str, Iterable[LinkState]]) -> str:
    """Return the name of the director that is master, by the links of each; see ``master_by``."""
    return master_by(lab, holders_in(lab, links))


def vrrp_state(lab: Lab, name: str, links: Iterable[LinkState]) -> str:
    """Return whether a node is master or backup, by the addresses that it holds.

    Empty for a node that shares no addresses with others.
    """
    if not lab.floating or lab.node(name).ha is None:
        return ""
    held = {address.ip for link in links for address in link.addresses}
    return "master" if held.intersection(lab.floating) else "backup"
