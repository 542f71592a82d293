"""Queueing disciplines and filters of a namespace, read without pyroute2's classes for them.

``netlink.tc`` sets netem by those classes, which take long to load; this reads what any device
may have, whenever a lab is compared with its topology.

Sources: tc(8), linux/pkt_sched.h, linux/pkt_cls.h, linux/gen_stats.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from lvsctl.errors import KernelError
from lvsctl.model.lab import Impairment
from lvsctl.model.service import Protocol
from lvsctl.model.state import FilterState, QdiscState
from lvsctl.netlink import sockets
from lvsctl.netlink.messages import attributes, each_attribute, number_of, packed, text_of

DELQDISC, GETQDISC, GETTFILTER = 37, 38, 46
"""Types of messages, RTM_*."""

_HEADER = struct.Struct("=BxxxiIII")  # struct tcmsg: family, index, handle, parent, info
_KIND, _OPTIONS, _STATS2 = 1, 2, 7  # TCA_*
_QUEUE = 3  # TCA_STATS_QUEUE: queue length, backlog, drops, requeues, overlimits
ROOT, CLSACT = 0xFFFFFFFF, 0xFFFFFFF1
_INGRESS_HANDLE = 0xFFFF0000
_PARENTS = {0xFFFFFFF2: "ingress", 0xFFFFFFF3: "egress", _INGRESS_HANDLE: "ingress"}
_WITHOUT = frozenset({"noqueue", "noop"})
"""What a virtual device has by itself."""

_NETEM = struct.Struct("=6I")  # tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter
_CORRELATIONS, _REORDER, _CORRUPT, _LOSS_MODEL, _RATE = 1, 3, 4, 5, 6
_ECN, _RATE64, _LATENCY64, _JITTER64, _SLOT = 7, 8, 10, 11, 12
"""TCA_NETEM_*."""
NETEM_LIMIT = 1000
"""Packets that a netem queue holds: tc-netem(8)'s own default."""
NANOSECONDS_PER_TICK = 64
"""tc's clock tick inside the kernel (PSCHED_SHIFT in net/pkt_sched.h)."""
_ALL = 0xFFFFFFFF  # a loss of 100 %

_ACTIONS = {"u32": 7, "flower": 3, "matchall": 2, "basic": 3, "fw": 4, "bpf": 1, "cgroup": 2}
"""The attribute with the actions, by the kind of filter."""
_ACT_KIND, _ACT_OPTIONS = 1, 2
_SKBEDIT_MARK = 5  # TCA_SKBEDIT_MARK
_GACT = struct.Struct("=IIi")  # struct tc_gact: index, capabilities, action
_VERDICTS = {0: "pass", 1: "reclassify", 2: "drop", 3: "continue", 4: "stolen"}
_PROTOCOLS = {0x0003: "all", 0x0800: "ip", 0x86DD: "ipv6", 0x0806: "arp"}


def dump_qdiscs(
    sock: socket.socket, names: dict[int, str]
) -> tuple[tuple[QdiscState, ...], dict[int, Impairment]]:
    """Return the disciplines that devices do not have by themselves, and netem's impairments.

    ``names`` are the devices by index; so are the impairments.
    """
    asked = sockets.message(GETQDISC, sockets.DUMP, _HEADER.pack(0, 0, 0, 0, 0))
    found: list[QdiscState] = []
    impairments: dict[int, Impairment] = {}
    for whole in sockets.request(sock, asked):
        _, index, handle, parent, _ = _HEADER.unpack_from(whole, sockets.HEADER.size)
        parts = attributes(whole, sockets.HEADER.size + _HEADER.size)
        kind = text_of(parts.get(_KIND))
        top = parent in (ROOT, CLSACT)
        # The queues inside a discipline with classes have no handle of their own.
        if kind in _WITHOUT or not (top or handle):
            continue
        options: tuple[str, ...] = ()
        if kind == "netem":
            impairment, options = _netem(parts.get(_OPTIONS, b""))
            if parent == ROOT:
                impairments[index] = impairment
        elif kind == "tbf":
            options = _tbf(parts.get(_OPTIONS, b""))
        queue = attributes(parts.get(_STATS2, b"")).get(_QUEUE, b"")
        found.append(
            QdiscState(
                device=names.get(index, ""),
                kind=kind,
                handle=_handle(handle),
                parent=_parent(kind, parent),
                options=options,
                drops=number_of(queue[8:12]),
            )
        )
    return tuple(found), impairments


def _handle(handle: int) -> str:
    return f"{handle >> 16:x}:" + (f"{handle & 0xFFFF:x}" if handle & 0xFFFF else "")


def _parent(kind: str, parent: int) -> str:
    if parent == ROOT:
        return "root"
    return kind if parent == CLSACT else _handle(parent)


def _netem(options: bytes) -> tuple[Impairment, tuple[str, ...]]:
    """Decode netem: what a topology can say of it, and the rest in tc-netem(8)'s words."""
    latency, limit, loss, gap, duplicate, jitter = _NETEM.unpack_from(options)
    more = attributes(options, _NETEM.size)
    delay = number_of(more[_LATENCY64]) if _LATENCY64 in more else latency * NANOSECONDS_PER_TICK
    rate = number_of(more[_RATE64]) if _RATE64 in more else number_of(more.get(_RATE, b"")[:4])
    nanoseconds = number_of(more.get(_JITTER64)) or jitter * NANOSECONDS_PER_TICK
    reorder, corrupt = (number_of(more.get(one, b"")[:4]) for one in (_REORDER, _CORRUPT))
    words = (
        (jitter, f"jitter {nanoseconds / 1e6:g}ms"),
        (limit != NETEM_LIMIT, f"limit {limit}"),
        (duplicate, f"duplicate {_percent(duplicate)}"),
        (reorder, f"reorder {_percent(reorder)}"),
        (corrupt, f"corrupt {_percent(corrupt)}"),
        (gap, f"gap {gap}"),
        (any(more.get(_CORRELATIONS, b"")), "correlation"),
        (_LOSS_MODEL in more, "loss model"),
        (number_of(more.get(_ECN)), "ecn"),
        (any(more.get(_SLOT, b"")), "slot"),
    )
    lost, again, early, damaged = (
        round(chance * 100 / _ALL, 6) for chance in (loss, duplicate, reorder, corrupt)
    )
    impairment = Impairment(
        delay=round(delay / 1e6, 3),
        loss=lost,
        rate=rate * 8,
        jitter=round(nanoseconds / 1e6, 3),
        reorder=early,
        duplicate=again,
        corrupt=damaged,
    )
    return impairment, tuple(word for there, word in words if there)


def _tbf(options: bytes) -> tuple[str, ...]:
    """Decode a token bucket's rate (struct tc_tbf_qopt begins with struct tc_ratespec)."""
    parts = attributes(options)
    rate = number_of(parts.get(4)) or number_of(parts.get(1, b"")[8:12])  # TCA_TBF_RATE64, PARMS
    return (f"rate {rate * 8}bit",)


def _percent(chance: int) -> str:
    return f"{chance * 100 / _ALL:.3g}%"


def dump_filters(
    sock: socket.socket, names: dict[int, str], qdiscs: Iterable[QdiscState]
) -> tuple[FilterState, ...]:
    """Return the filters of the disciplines that can have some."""
    indexes = {name: index for index, name in names.items()}
    found: list[FilterState] = []
    for one in qdiscs:
        for parent in _filter_parents(one):
            header = _HEADER.pack(0, indexes[one.device], 0, parent, 0)
            asked = sockets.message(GETTFILTER, sockets.DUMP, header)
            try:
                answer = sockets.request(sock, asked)
            except KernelError:
                continue  # a discipline that takes no filters
            for whole in answer:
                state = filter_of(whole, one.device, parent)
                if state not in found:
                    found.append(state)
    # The kernel lists a classifier before its filters, and u32 its hash tables.
    return tuple(one for one in found if one.actions or not _has_action_like(one, found))


def _has_action_like(one: FilterState, found: list[FilterState]) -> bool:
    return any(other._replace(actions=(), match=()) == one and other.actions for other in found)


def _filter_parents(one: QdiscState) -> tuple[int, ...]:
    if one.parent == "clsact":
        return (0xFFFFFFF2, 0xFFFFFFF3)
    if one.parent == "ingress":
        return (_INGRESS_HANDLE,)
    major, _, _ = one.handle.partition(":")
    return (int(major, 16) << 16,) if major and int(major, 16) else ()


def filter_of(whole: bytes, device: str, parent: int) -> FilterState:
    """Decode a message about a filter of a device's ``parent``."""
    info = _HEADER.unpack_from(whole, sockets.HEADER.size)[4]
    parts = attributes(whole, sockets.HEADER.size + _HEADER.size)
    kind = text_of(parts.get(_KIND))
    protocol = socket.ntohs(info & 0xFFFF)
    return FilterState(
        device=device,
        parent=_PARENTS.get(parent, _handle(parent)),
        kind=kind,
        preference=info >> 16,
        protocol=_PROTOCOLS.get(protocol, f"{protocol:#x}"),
        actions=tuple(_actions(kind, parts.get(_OPTIONS, b""))),
        match=tuple(_MATCHES[kind](attributes(parts.get(_OPTIONS, b""))))
        if kind in _MATCHES
        else (),
    )


def _u32(options: dict[int, bytes]) -> Iterator[str]:
    """The keys of a u32 filter as tc(8) lists them: value, mask and offset (struct tc_u32_sel)."""
    selector = options.get(5, b"")  # TCA_U32_SEL
    for mask, value, offset, _ in _U32_KEY.iter_unpack(selector[16:]):
        yield f"{value.hex()}/{mask.hex()} at {offset}"


_U32_KEY = struct.Struct("=4s4sii")  # struct tc_u32_key: mask and value as in the packet


_DESTINATIONS = {12: 13, 16: 17}  # TCA_FLOWER_KEY_IPV4_DST, _IPV6_DST and their masks
_PORTS = {19: 36, 21: 38, 42: 40}  # TCA_FLOWER_KEY_{TCP,UDP,SCTP}_DST and their masks
_RANGE = 89, 90  # TCA_FLOWER_KEY_PORT_DST_MIN, _MAX
_OF_FLOWER = frozenset({3, 8, 9, 22, 71, 86, *_DESTINATIONS, *_PORTS, *_RANGE})
"""What is read or says nothing of a packet: actions, type, protocol, flags, counters."""
_MASKS = frozenset({*_DESTINATIONS.values(), *_PORTS.values()})


def _flower(options: dict[int, bytes]) -> Iterator[str]:
    """What a flower filter matches, in tc-flower(8)'s words; keys that are not known as numbers."""
    protocol = number_of(options.get(9))  # TCA_FLOWER_KEY_IP_PROTO
    if protocol:
        names = {one.number: str(one) for one in Protocol}
        yield f"ip_proto {names.get(protocol, protocol)}"
    for key, mask in _DESTINATIONS.items():
        if key in options:
            address = ip_address(options[key])
            whole = not any(byte != 0xFF for byte in options.get(mask, b"\xff"))
            yield f"dst_ip {address}" if whole else f"dst_ip {address}/{options[mask].hex()}"
    for key in _PORTS:
        if key in options:
            yield f"dst_port {int.from_bytes(options[key], 'big')}"
    if _RANGE[0] in options:
        low, high = (int.from_bytes(options.get(one, b""), "big") for one in _RANGE)
        yield f"dst_port {low}-{high}"
    for key in sorted(set(options) - _OF_FLOWER - _MASKS):
        yield f"key {key}"


_MATCHES = {"u32": _u32, "flower": _flower}
"""How what a filter matches is read, by its kind."""


def _actions(kind: str, options: bytes) -> Iterator[str]:
    if kind not in _ACTIONS:
        return
    for number, content in each_attribute(options):
        if number != _ACTIONS[kind]:
            continue
        for _, action in each_attribute(content):
            parts = attributes(action)
            name = text_of(parts.get(_ACT_KIND))
            if name == "gact":
                parameters = attributes(parts.get(_ACT_OPTIONS, b"")).get(2, b"")
                verdict = _GACT.unpack_from(parameters)[2] if len(parameters) >= 12 else 0
                name = _VERDICTS.get(verdict, str(verdict))
            elif name == "skbedit":
                mark = attributes(parts.get(_ACT_OPTIONS, b"")).get(_SKBEDIT_MARK)
                name = f"mark {number_of(mark)}" if mark is not None else name
            yield name


def delete_qdisc(index: int, kind: str, place: str) -> bytearray:
    """Return the message that deletes a discipline, with the classes and filters in it.

    ``place`` is ``root``, ``ingress`` or ``clsact``.
    """
    parent, handle = (ROOT, 0) if place == "root" else (CLSACT, _INGRESS_HANDLE)
    header = _HEADER.pack(0, index, handle, parent, 0)
    return sockets.message(DELQDISC, 0, header + packed(_KIND, kind.encode() + b"\0"))
