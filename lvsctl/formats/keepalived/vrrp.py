"""What keepalived.conf says beside virtual servers: VRRP, addresses, routes, timeouts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from lvsctl.errors import choice_hint, quoted
from lvsctl.formats.configuration import Instance, Notes, Setting, SyncDaemon, SyncGroup
from lvsctl.formats.keepalived.keywords import ROOT
from lvsctl.formats.keepalived.numbers import interface, number
from lvsctl.formats.keepalived.tree import Block
from lvsctl.model.addresses import IPInterface
from lvsctl.model.service import IpvsTimeouts

Addresses = tuple[tuple[IPInterface, str], ...]

_TRACKING = "a topology's directors check nothing but each other"
_SCRIPT = "a script is never run for a lab"
_REPORT = "it is about reports"

_SETTINGS = frozenset(
    ("state", "interface", "virtual_router_id", "priority", "advert_int", "nopreempt", "preempt")
)
"""Single lines of an instance that a topology has a key for, or whose default they are."""

_BLOCKS = frozenset(
    (
        *("virtual_ipaddress", "virtual_ipaddress_excluded", "virtual_routes"),
        *("unicast_peer", "unicast_src_ip"),
    )
)

_NOT_CARRIED = {
    "authentication": "a password is not copied: set one with `ha: {password: …}`",
    "virtual_rules": "policy rules are not part of a topology",
    "preempt_delay": "a topology's director takes over at once",
    **dict.fromkeys(("use_vmac", "vmac_xmit_base", "use_ipvlan"), "VIPs are on the interface"),
    **dict.fromkeys(
        ("track_interface", "track_script", "track_process", "track_file", "track_bfd"), _TRACKING
    ),
    **dict.fromkeys(
        ("notify", "notify_master", "notify_backup", "notify_fault", "notify_stop"), _SCRIPT
    ),
    "smtp_alert": _REPORT,
    "debug": _REPORT,
}
"""Other lines and blocks of an instance or sync group, and why."""

_ELSEWHERE = {
    "vrrp_script": _SCRIPT,
    "vrrp_track_process": _TRACKING,
    "vrrp_track_file": _TRACKING,
    "track_file": "health checks are not part of a topology",
    "bfd_instance": "BFD is not part of a topology",
    "static_rules": "policy rules are not part of a topology",
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
            child.keyword: Setting(" ".join(child.arguments), child.place)
            for child in block.children
            if child.children is None
        }
        device = settings["interface"].text if "interface" in settings else ""
        addresses = (
            *_addresses(block, "virtual_ipaddress", device, notes),
            *_addresses(block, "virtual_ipaddress_excluded", device, notes),
        )
        _remark_rest(block, f"vrrp_instance {name}", _SETTINGS | _BLOCKS, notes)
        peers = tuple(one.ip for one, _ in _addresses(block, "unicast_peer", "", notes))
        source = settings.get("unicast_src_ip")
        own = interface(source.text) if source is not None else None
        if source is not None and own is None:
            notes.wrong(source.place, f"{quoted(source.text)} is not an IP address", "10.0.0.2")
        yield Instance(
            name,
            block.place,
            device,
            addresses,
            settings,
            peers,
            own.ip if own is not None else None,
        )


def _remark_rest(block: Block, where: str, known: frozenset[str], notes: Notes) -> None:
    """Note each line and block inside that is not carried over. No value: it may be a secret."""
    for child in block.children or ():
        if child.keyword not in known:
            reason = _NOT_CARRIED.get(child.keyword, "a topology has no key for it")
            notes.remark(child.place, f"{child.keyword} of {where}: {reason}")


def read_sync_groups(root: Block, notes: Notes) -> Iterator[SyncGroup]:
    """Yield the groups of instances that move together."""
    for block in root.each("vrrp_sync_group"):
        name = block.arguments[0] if block.arguments else ""
        _remark_rest(block, f"vrrp_sync_group {name}", frozenset({"group"}), notes)
        members = tuple(
            word
            for one in block.each("group")
            for line in one.children or ()
            for word in line.words
        )
        yield SyncGroup(name, members, block.place)


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


def read_daemon(root: Block, notes: Notes) -> SyncDaemon | None:
    """Return the synchronization daemon of ``lvs_sync_daemon``."""
    found = None
    for block in root.each("global_defs"):
        for line in block.each("lvs_sync_daemon"):
            device, instance, *options = (*line.arguments, "", "")
            if options := [word for word in options if word]:
                named = " ".join(options)
                notes.remark(line.place, f"lvs_sync_daemon: {named}: the topology has the defaults")
            if not instance:
                hint = "lvs_sync_daemon INTERFACE VRRP_INSTANCE"
                notes.wrong(line.place, "lvs_sync_daemon names no vrrp_instance", hint)
                continue
            found = SyncDaemon(device, instance, line.place)
    return found


def remark_others(root: Block, notes: Notes) -> None:
    """Note what else the file has at its top level."""
    for block in root.children or ():
        if block.keyword in _ELSEWHERE:
            named = " ".join(block.words[:2])
            notes.remark(block.place, f"{named}: {_ELSEWHERE[block.keyword]}")
        elif block.keyword not in ROOT:
            hint = choice_hint(block.keyword, sorted(ROOT), "blocks")
            notes.wrong(block.place, f"{quoted(block.keyword)} is not a block", hint)
