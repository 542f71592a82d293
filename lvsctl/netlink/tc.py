"""Traffic control over rtnetlink: netem, and a filter that drops a protocol.

Apart from ``links`` because pyroute2 loads the classes of all disciplines together, which takes
as long as everything else that a lab without them imports.

Sources: tc-netem(8), tc-u32(8), linux/pkt_sched.h, linux/pkt_cls.h.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from lvsctl.model.lab import Impairment
from lvsctl.model.packet_filter import Marking
from lvsctl.netlink import sockets
from lvsctl.netlink.messages import body, decode
from lvsctl.resources.announcement_filter import AnnouncementFilter

from pyroute2.netlink import nla  # isort: skip (after the shim)
from pyroute2.netlink.rtnl.tcmsg import sched_netem, tcmsg  # isort: skip (after the shim)
from pyroute2.netlink.rtnl.tcmsg.common_act import get_tca_action, tca_act_prio  # isort: skip
from pyroute2.netlink.rtnl.tcmsg.cls_u32 import get_parameters as u32_parameters  # isort: skip

NEWQDISC, DELQDISC, GETQDISC = 36, 37, 38
NEWTFILTER = 44
"""Types of messages, RTM_*."""

NETEM_LIMIT = 1000
"""Packets that a netem queue holds: tc-netem(8)'s own default."""
NANOSECONDS_PER_TICK = 64
"""tc's clock tick inside the kernel (PSCHED_SHIFT in net/pkt_sched.h)."""

_ROOT, _CLSACT, _INGRESS, _EGRESS = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFFFFF2, 0xFFFFFFF3
_CLSACT_HANDLE = 0xFFFF0000
_ALL = 0xFFFFFFFF  # a loss of 100 %
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_ARP = 0x0806
_PORT_KEYS = {"TCP": 19, "UDP": 21, "SCTP": 42}  # TCA_FLOWER_KEY_*_DST
_PROTOCOL_AT = {4: 9, 6: 6}
"""Where the protocol is: bytes into the IP header."""
_MESSAGE_AT = 40
"""Where what an IPv6 header without extension headers carries begins."""


class _NetemOptions(sched_netem.options):  # type: ignore[misc]  # pyroute2 has no types
    """TCA_NETEM_*, with the attributes that pyroute2 0.9.7 does not know."""

    _nlmsg_base__compiled_nla = False  # else the map that pyroute2 compiled for the parent is used
    nla_map = (
        *sched_netem.options.nla_map,
        ("TCA_NETEM_ECN", "uint32"),
        ("TCA_NETEM_RATE64", "uint64"),
        ("TCA_NETEM_PAD", "hex"),
        ("TCA_NETEM_LATENCY64", "int64"),
        ("TCA_NETEM_JITTER64", "int64"),
    )


class _Discipline(tcmsg):  # type: ignore[misc]
    """A queueing discipline; netem's options are decoded by ``_NetemOptions``."""

    _nlmsg_base__compiled_nla = False

    @staticmethod
    def get_options(message: Any, *args: Any, **more: Any) -> Any:
        if message.get_attr("TCA_KIND") == "netem":
            return _NetemOptions
        return tcmsg.get_options(message, *args, **more)


def set_netem(index: int, impairment: Impairment) -> bytearray:
    """Impair what leaves the link, in place of any other root discipline (tc-netem(8))."""
    rate = {"rate": impairment.rate // 8, "packet_overhead": 0, "cell_size": 0, "cell_overhead": 0}
    reorder = {"prob_reorder": round(impairment.reorder / 100 * _ALL), "corr_reorder": 0}
    corrupt = {"prob_corrupt": round(impairment.corrupt / 100 * _ALL), "corr_corrupt": 0}
    more: list[tuple[str, Any]] = []
    if impairment.rate:
        more.append(("TCA_NETEM_RATE", rate))
    if impairment.reorder:
        more.append(("TCA_NETEM_REORDER", reorder))
    if impairment.corrupt:
        more.append(("TCA_NETEM_CORRUPT", corrupt))
    options = {
        "delay": round(impairment.delay * 1e6 / NANOSECONDS_PER_TICK),
        "limit": NETEM_LIMIT,
        "loss": round(impairment.loss / 100 * _ALL),
        "gap": 1 if impairment.reorder else 0,  # as tc(8) does
        "duplicate": round(impairment.duplicate / 100 * _ALL),
        "jitter": round(impairment.jitter * 1e6 / NANOSECONDS_PER_TICK),
        "attrs": more,
    }
    attributes = [("TCA_KIND", "netem"), ("TCA_OPTIONS", options)]
    return sockets.message(
        NEWQDISC, sockets.SET, body(tcmsg, attributes, index=index, parent=_ROOT)
    )


def delete_netem(index: int) -> bytearray:
    """Remove the impairment of a link."""
    attributes = [("TCA_KIND", "netem")]
    return sockets.message(DELQDISC, 0, body(tcmsg, attributes, index=index, parent=_ROOT))


def dump_impairments(sock: socket.socket) -> dict[int, Impairment]:
    """Return the impairments of the links of the socket's namespace, by index."""
    found = {}
    for whole in sockets.request(sock, sockets.message(GETQDISC, sockets.DUMP, body(tcmsg))):
        discipline = decode(_Discipline, whole)
        if discipline["parent"] == _ROOT and discipline.get_attr("TCA_KIND") == "netem":
            found[discipline["index"]] = _impairment(discipline.get_attr("TCA_OPTIONS"))
    return found


def _impairment(options: Any) -> Impairment:
    """Convert netem's options: loss in 2³²nds, rate in bytes per second.

    Delays are rounded to the microsecond: tc(8) rounds them to 64 ns before it sends them.
    """
    delay = options.get_attr("TCA_NETEM_LATENCY64")
    if delay is None:
        delay = options["delay"] * NANOSECONDS_PER_TICK
    rate = options.get_attr("TCA_NETEM_RATE")
    rate64 = options.get_attr("TCA_NETEM_RATE64")
    if rate64 is None:
        rate64 = rate["rate"] if rate is not None else 0
    jitter = options.get_attr("TCA_NETEM_JITTER64")
    if jitter is None:
        jitter = options["jitter"] * NANOSECONDS_PER_TICK
    reorder = options.get_attr("TCA_NETEM_REORDER")
    corrupt = options.get_attr("TCA_NETEM_CORRUPT")
    return Impairment(
        delay=round(delay / 1e6, 3),
        loss=_percent(options["loss"]),
        rate=rate64 * 8,
        jitter=round(jitter / 1e6, 3),
        reorder=_percent(reorder["prob_reorder"] if reorder is not None else 0),
        duplicate=_percent(options["duplicate"]),
        corrupt=_percent(corrupt["prob_corrupt"] if corrupt is not None else 0),
    )


def _percent(chance: int) -> float:
    """Convert 2³²nds; tc(8) and a topology say no more digits than these."""
    return round(chance * 100 / _ALL, 6)


def add_clsact(index: int) -> bytearray:
    """Add the discipline that holds filters on what a link receives."""
    return sockets.message(NEWQDISC, sockets.ADD, _clsact(index))


def delete_clsact(index: int) -> bytearray:
    """Delete that discipline with the filters in it."""
    return sockets.message(DELQDISC, 0, _clsact(index))


def _clsact(index: int) -> bytes:
    attributes = [("TCA_KIND", "clsact")]
    return body(tcmsg, attributes, index=index, parent=_CLSACT, handle=_CLSACT_HANDLE)


def add_drop_filter(
    index: int, protocol: int, version: int = 4, icmp_type: int | None = None
) -> bytearray:
    """Drop the packets of ``protocol`` and an IP ``version`` that a link receives (tc-u32(8)).

    With ``icmp_type`` only ICMPv6 messages of that type.
    """
    keys = [f"{protocol:#x}/0xff+{_PROTOCOL_AT[version]}"]
    if icmp_type is not None:
        keys.append(f"{icmp_type:#x}/0xff+{_MESSAGE_AT}")
    return _dropping(index, _INGRESS, _ETHERTYPES[version], keys)


def add_announcement_filter(index: int, resource: AnnouncementFilter) -> bytearray:
    """Drop what a link sends to announce an address."""
    keys = [
        f"{value:#0{2 + 2 * size}x}/{(1 << 8 * size) - 1:#x}+{offset}"
        for offset, size, value in resource.keys
    ]
    kind = _ARP if resource.address.version == 4 else _ETHERTYPES[6]
    return _dropping(index, _EGRESS, kind, keys)


def _dropping(index: int, parent: int, ethertype: int, keys: list[str]) -> bytearray:
    options: Any = u32_parameters({"action": "drop", "target": 0, "keys": keys})
    options["attrs"] = [entry for entry in options["attrs"] if entry[0] != "TCA_U32_CLASSID"]
    attributes = [("TCA_KIND", "u32"), ("TCA_OPTIONS", options)]
    fields = body(tcmsg, attributes, index=index, parent=parent, info=socket.htons(ethertype))
    return sockets.message(NEWTFILTER, sockets.ADD, fields)


class _Flower(nla):  # type: ignore[misc]
    """TCA_FLOWER_*: those that a mark needs. pyroute2 0.9.7 has no class for flower."""

    nla_map = (
        (3, "TCA_FLOWER_ACT", "actions"),
        (8, "TCA_FLOWER_KEY_ETH_TYPE", "be16"),
        (9, "TCA_FLOWER_KEY_IP_PROTO", "uint8"),
        (12, "TCA_FLOWER_KEY_IPV4_DST", "cdata"),
        (13, "TCA_FLOWER_KEY_IPV4_DST_MASK", "cdata"),
        (16, "TCA_FLOWER_KEY_IPV6_DST", "cdata"),
        (17, "TCA_FLOWER_KEY_IPV6_DST_MASK", "cdata"),
        (89, "TCA_FLOWER_KEY_PORT_DST_MIN", "be16"),
        (90, "TCA_FLOWER_KEY_PORT_DST_MAX", "be16"),
        *((number, f"TCA_FLOWER_KEY_{name}_DST", "be16") for name, number in _PORT_KEYS.items()),
    )
    actions = tca_act_prio


def add_mark_filter(index: int, number: int, marking: Marking) -> bytearray:
    """Mark packets that a link receives (tc-flower(8), tc-skbedit(8)), as its filter ``number``."""
    version = marking.vip.version
    name = f"TCA_FLOWER_KEY_IPV{version}_DST"
    action = {"kind": "skbedit", "mark": marking.mark}
    keys: list[tuple[str, Any]] = [
        ("TCA_FLOWER_KEY_ETH_TYPE", _ETHERTYPES[version]),
        ("TCA_FLOWER_KEY_IP_PROTO", marking.protocol.number),
        (name, marking.vip.packed),
        (f"{name}_MASK", b"\xff" * len(marking.vip.packed)),
        ("TCA_FLOWER_ACT", get_tca_action({"action": action})),
    ]
    if marking.ports is not None and marking.ports.first == marking.ports.last:
        key = f"TCA_FLOWER_KEY_{marking.protocol.upper()}_DST"
        keys.append((key, marking.ports.first))
    elif marking.ports is not None:
        keys.append(("TCA_FLOWER_KEY_PORT_DST_MIN", marking.ports.first))
        keys.append(("TCA_FLOWER_KEY_PORT_DST_MAX", marking.ports.last))
    content = _attribute(2, body(_Flower, keys))
    info = number << 16 | socket.htons(_ETHERTYPES[version])
    fields = body(tcmsg, [("TCA_KIND", "flower")], index=index, parent=_INGRESS, info=info)
    return sockets.message(NEWTFILTER, sockets.ADD, fields + content)


def _attribute(number: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), number) + content
