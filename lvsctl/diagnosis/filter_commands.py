"""Commands that make a host's packet filter do what the topology needs, with what it has."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis.ruleset_walk import Way
from lvsctl.model.packet_filter import (
    OWN,
    OWN_CLAMP,
    TO_PATH_MTU,
    Clamp,
    Marking,
    MasqueradeTarget,
)
from lvsctl.model.ruleset import PacketSeen, Ruleset
from lvsctl.resources.masquerade import Masquerade
from lvsctl.resources.mss_clamp import MssClamp

Words = tuple[str, ...]
_PORTS = frozenset({"tcp", "udp", "sctp"})


def _program(version: int) -> str:
    return "iptables" if version == 4 else "ip6tables"


def _has_iptables(ruleset: Ruleset | None, version: int) -> bool:
    """Whether to use it: also where nothing is known of nft."""
    programs = ruleset.programs if ruleset is not None else frozenset()
    return _program(version) in programs or "nft" not in programs


def _nft_chain(version: int, name: str, kind: str) -> Iterator[Words]:
    """A table of its own with one chain, made where it is missing."""
    family = "ip" if version == 4 else "ip6"
    chain = kind.split()[3]
    yield ("nft", "add", "table", family, name)
    yield ("nft", "add", "chain", family, name, chain, f"{{ {kind}; }}")


def let_through(way: Way, packet: PacketSeen) -> tuple[Words, ...]:
    """Return what lets a packet through the chain that drops it, before all of its rules.

    A filter of traffic control is deleted.
    """
    chain = way.at
    if chain is None:
        return ()
    program, *where = chain.table.split()
    if program == "tc":
        return (way.delete,)
    port, to = (
        (packet.port, packet.destination)
        if packet.port is not None or packet.source_port is None
        else (packet.source_port, packet.source)
    )
    side = "d" if to is packet.destination else "s"
    ports = port is not None and packet.protocol in _PORTS
    if program == "nft":
        address = "ip" if packet.version == 4 else "ip6"
        words: tuple[str, ...] = (address, f"{side}addr", str(to))
        if ports:
            words += (packet.protocol, f"{side}port", str(port))
        elif packet.protocol not in _PORTS:
            words += ("meta", "l4proto", _NFT_NAMES.get(packet.protocol, packet.protocol))
        return (("nft", "insert", "rule", *where, chain.name, *words, "accept"),)
    words = ("-p", packet.protocol, f"-{side}", str(to))
    if ports:
        words += (f"--{side}port", str(port))
    return ((program, *where, "-I", chain.name, *words, "-j", "ACCEPT"),)


_NFT_NAMES = {"ipencap": "ipip"}


def mark(ruleset: Ruleset | None, wanted: Marking) -> tuple[Words, ...]:
    """Return what gives requests a firewall mark before IPVS takes them."""
    version, number = wanted.vip.version, str(wanted.mark)
    if _has_iptables(ruleset, version):
        protocol = str(wanted.protocol)
        words: Words = ("-d", str(wanted.vip), "-p", protocol)
        if wanted.ports is not None:
            words += ("-m", protocol, "--dport", str(wanted.ports).replace("-", ":"))
        start = (_program(version), "-t", "mangle", "-A", "PREROUTING")
        return ((*start, *words, "-j", "MARK", "--set-mark", number),)
    family = "ip" if version == 4 else "ip6"
    rule = (*wanted.conditions(), "meta", "mark", "set", number)
    kind = "type filter hook prerouting priority mangle"
    chain = tuple(_nft_chain(version, f"{OWN}_marks", kind))
    return (*chain, ("nft", "add", "rule", family, f"{OWN}_marks", "prerouting", *rule))


def masquerade(ruleset: Ruleset | None, target: MasqueradeTarget) -> tuple[Words, ...]:
    """Return what replaces the source of what is sent to ``target``."""
    version = target.address.version
    if _has_iptables(ruleset, version):
        return tuple(one.argv for one in Masquerade(netns="", target=target).commands())
    family = "ip" if version == 4 else "ip6"
    chain = tuple(_nft_chain(version, OWN, "type nat hook postrouting priority srcnat"))
    port = (str(target.protocol), "dport", str(target.port))
    rule = (family, "daddr", str(target.address), *port, "masquerade")
    return (*chain, ("nft", "add", "rule", family, OWN, "postrouting", *rule))


def clamp(ruleset: Ruleset | None, limit: Clamp) -> tuple[Words, ...]:
    """Return what limits the segment size of TCP."""
    if _has_iptables(ruleset, limit.version):
        return tuple(one.argv for one in MssClamp(netns="", clamp=limit).commands())
    family = "ip" if limit.version == 4 else "ip6"
    kind = "type filter hook postrouting priority mangle"
    chain = tuple(_nft_chain(limit.version, OWN_CLAMP, kind))
    size = "rt mtu" if limit.size == TO_PATH_MTU else str(limit.size)
    rule = f"tcp flags syn / syn,rst tcp option maxseg size set {size}".split()
    return (*chain, ("nft", "add", "rule", family, OWN_CLAMP, "postrouting", *rule))
