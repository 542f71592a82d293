"""Why the neighbours of several directors would not learn of a new master: both are latent."""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack

from lvsctl.diagnosis.base import Case, Found, Rule
from lvsctl.diagnosis.ha import takes_over
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Cause
from lvsctl.model.state import FilterState
from lvsctl.plan.planner import ANNOUNCEMENTS_DROPPED

_CONSEQUENCE = (
    "at a failover {} goes on sending to the director that failed, until its entry expires"
)


def dropped(case: Case) -> Iterator[Found]:
    """Filters of directors that drop what announces an address to its neighbours."""
    for node in case.lab.directors:
        state = case.state(node.name)
        for address in case.lab.floating:
            network = case.lab.network_of(address)
            device = case.network.device(node.name, network.name) if network is not None else ""
            link = state.link(device)
            if link is None:
                continue
            announcement = _announcement(address, link.mac)
            for one in state.filters:
                if one.device == device and one.parent == "egress" and _drops(one, announcement):
                    kind = "gratuitous ARP" if address.version == 4 else "unsolicited NA"
                    keys = ", ".join(one.match)
                    yield Cause(
                        fault="announcements-dropped",
                        node=node.name,
                        text=f"a filter on {device} drops what announces {address} ({kind})",
                        evidence=(
                            f"{node.name}: an egress filter u32 of {one.protocol} drops {keys}",
                            f"an announcement of {address} matches that",
                        ),
                        consequence=_CONSEQUENCE.format("every neighbour"),
                        remedy=case.type(node.name, "tc", "qdisc", "del", "dev", device, "clsact"),
                    )


def _announcement(address: IPAddress, mac: str) -> tuple[str, bytes]:
    """Return what announces an address: the protocol, and the packet from its own header on."""
    own = bytes.fromhex(mac.replace(":", ""))
    if address.version == 4:  # RFC 826, RFC 5227
        arp = pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + address.packed + bytes(6) + address.packed
        return "arp", arp
    every = bytes.fromhex("ff020000000000000000000000000001")
    header = pack("!IHBB", 6 << 28, 32, 58, 255) + address.packed + every  # RFC 8200, section 3
    message = pack("!BBHI", 136, 0, 0, 0x20000000) + address.packed + b"\x02\x01" + own  # RFC 4861
    return "ipv6", header + message


def _drops(one: FilterState, announcement: tuple[str, bytes]) -> bool:
    protocol, packet = announcement
    if one.kind != "u32" or one.protocol not in (protocol, "all") or "drop" not in one.actions:
        return False
    return bool(one.match) and all(_matches(key, packet) for key in one.match)


def _matches(key: str, packet: bytes) -> bool:
    """Whether a packet matches a key of tc-u32(8), such as ``0a3c0064/ffffffff at 24``."""
    compared, _, offset = key.partition(" at ")
    value, _, mask = compared.partition("/")
    at = int(offset)
    there = int.from_bytes(packet[at : at + 4].ljust(4, b"\0"), "big")
    return there & int(mask, 16) == int(value, 16)


_KINDS = {
    ANNOUNCEMENTS_DROPPED[4]: "gratuitous ARP",
    ANNOUNCEMENTS_DROPPED[6]: "unsolicited neighbour advertisements",
}
"""What each setting takes no notice of."""


def ignored(case: Case) -> Iterator[Found]:
    """Neighbours of the directors that take no notice of announcements."""
    networks = {
        found.name for one in case.lab.floating if (found := case.lab.network_of(one)) is not None
    }
    for node in case.lab.nodes:
        if node in case.lab.directors or not networks.intersection(node.networks):
            continue
        for setting, value in case.state(node.name).sysctls.items():
            name = setting.rpartition(".")[2]
            if name not in _KINDS or value == "0":
                continue
            yield Cause(
                fault="announcements-ignored",
                node=node.name,
                text=f"it ignores announcements of a new master ({_KINDS[name]})",
                evidence=(f"{node.name}: {setting} is {value}",),
                consequence=_CONSEQUENCE.format(node.name),
                remedy=case.type(node.name, "sysctl", "-w", f"{setting}=0"),
            )


RULES = (
    Rule(
        find=dropped,
        applies=takes_over,
        rules_out="no u32 filter of a director drops what announces its addresses",
        latent=True,
        harms_others=True,
    ),
    Rule(
        find=ignored,
        applies=takes_over,
        rules_out="the directors' neighbours accept announcements",
        latent=True,
        harms_others=True,
    ),
)
