"""Tables of nftables that lvsctl writes in the calling thread's namespace, each as a whole.

Sources: linux/netfilter/nf_tables.h, nft(8).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress
from lvsctl.model.packet_filter import (
    MARK_CHAIN,
    MARK_TABLE,
    OWN,
    OWN_CLAMP,
    TO_PATH_MTU,
    Marking,
    MasqueradeTarget,
)
from lvsctl.netlink import sockets

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6  # NFT_MSG_*
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11  # NFNL_MSG_BATCH_*
MAXSEG = 2  # TCPOPT_MSS (RFC 9293, section 3.2): its value is 2 bytes, after kind and length


def replace_masquerade(version: int, targets: Iterable[MasqueradeTarget]) -> None:
    """Replace lvsctl's own table of an address family by one that masquerades ``targets``.

    All at once; without targets the table is deleted. Raises OSError, KernelError.
    """
    hook = _number(1, _POSTROUTING) + _number(2, _PRIORITY_SRCNAT)
    chain = _Chain("postrouting", "nat", hook)
    _replace(_OF_VERSION[version], OWN, {chain: [_expressions(one) for one in targets]})


def replace_clamp(version: int, sizes: Iterable[int]) -> None:
    """Replace lvsctl's own table of an address family by one that limits TCP's segment size.

    ``sizes`` is the limit (TO_PATH_MTU: that of the path); without any the table is deleted.
    Raises OSError, KernelError.
    """
    hook = _number(1, _POSTROUTING) + _number(2, _PRIORITY_MANGLE)
    chain = _Chain("postrouting", "filter", hook)
    _replace(_OF_VERSION[version], OWN_CLAMP, {chain: [_clamp(size) for size in sizes]})


def replace_marks(markings: Iterable[Marking]) -> None:
    """Replace lvsctl's own table of both address families by one that marks packets.

    All at once; without markings the table is deleted. Raises OSError, KernelError.
    """
    hook = _number(1, _PREROUTING) + _number(2, _PRIORITY_MANGLE)
    chain = _Chain(MARK_CHAIN, "filter", hook)
    name = MARK_TABLE.partition(" ")[2]
    _replace(_NFPROTO_INET, name, {chain: [_marking(one) for one in markings]})


def replace_filter(version: int, rules: Mapping[str, Sequence[str]]) -> None:
    """Replace the table ``filter`` of an address family by one that drops or rejects packets.

    ``rules`` are the actions for every packet, DROP or REJECT, by chain: INPUT, FORWARD or OUTPUT.
    The chains are iptables-nft's, which lists them. Raises OSError, KernelError.
    """
    chains = {
        _Chain(name, "filter", _number(1, _FILTER_HOOKS[name]) + _number(2, 0)): [
            _final(action, version) for action in actions
        ]
        for name, actions in rules.items()
    }
    _replace(_OF_VERSION[version], "filter", chains)


class _Chain(NamedTuple):
    """A chain of a type (nft(8)), at a hook: its number and priority as attributes."""

    name: str
    type: str
    hook: bytes


def _replace(family: int, name: str, chains: Mapping[_Chain, Sequence[bytes]]) -> None:
    """Replace a table by one with the rules of its chains; without any rule, delete it."""
    table = _text_attribute(1, name)
    new_table = sockets.message(_SUBSYSTEM | _NEWTABLE, sockets.CREATE, _family(family) + table)
    messages = [
        sockets.message(_BATCH_BEGIN, 0, _family(0, res_id=10)),
        new_table,
        sockets.message(_SUBSYSTEM | _DELTABLE, 0, _family(family) + table),
    ]
    if any(chains.values()):
        messages.append(bytearray(new_table))
    for of, rules in chains.items() if any(chains.values()) else ():
        chain = table + _text_attribute(3, of.name) + _nested(4, of.hook)
        chain += _number(5, _ACCEPT) + _text_attribute(7, of.type)
        data = _family(family) + chain
        messages.append(sockets.message(_SUBSYSTEM | _NEWCHAIN, sockets.CREATE, data))
        for one in rules:
            data = _family(family) + table + _text_attribute(2, of.name) + _nested(4, one)
            messages.append(sockets.message(_SUBSYSTEM | _NEWRULE, sockets.CREATE | _APPEND, data))
    messages.append(sockets.message(_BATCH_END, 0, _family(0, res_id=10)))
    for sequence, one_message in enumerate(messages, 1):
        struct.pack_into("=I", one_message, 8, sequence)
    struct.pack_into("=H", messages[-2], 6, _flags(messages[-2]) | sockets.ACK)
    with sockets.open_socket(sockets.NETFILTER) as sock:
        sock.send(b"".join(messages))
        for error in sockets.read_errors(sock, len(messages) - 1):
            raise error


_APPEND = 0x800  # NLM_F_APPEND
_NFPROTO_INET, _OF_VERSION = 1, {4: 2, 6: 10}  # NFPROTO_*
_PREROUTING, _POSTROUTING, _PRIORITY_SRCNAT, _ACCEPT = 0, 4, 100, 1
_PRIORITY_MANGLE = -150 & 0xFFFFFFFF
_META_MARK, _META_NFPROTO, _META_L4PROTO, _NETWORK_HEADER, _TRANSPORT_HEADER = 3, 15, 16, 1, 2
_EQUAL, _AT_MOST, _AT_LEAST = 0, 3, 5  # NFT_CMP_*


def _flags(message: bytearray) -> int:
    return int(struct.unpack_from("=H", message, 6)[0])


def _family(number: int, res_id: int = 0) -> bytes:
    return struct.pack(">BBH", number, 0, res_id)


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data.ljust(-(-len(data) // 4) * 4, b"\0")


def _text_attribute(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _number(kind: int, number: int) -> bytes:
    return _attribute(kind, struct.pack(">I", number))


def _nested(kind: int, data: bytes) -> bytes:
    return _attribute(kind | 0x8000, data)  # NLA_F_NESTED


def _expressions(to: MasqueradeTarget) -> bytes:
    """Encode ``ip daddr ADDRESS PROTOCOL dport PORT counter masquerade``."""
    parts = (
        ("meta", _number(1, 1) + _number(2, _META_L4PROTO)),
        ("cmp", _compare_equal(bytes((to.protocol.number,)))),
        *_to(to.address),
        ("payload", _load_payload(_TRANSPORT_HEADER, 2, 2)),
        ("cmp", _compare_equal(struct.pack(">H", to.port))),
        ("counter", b""),
        ("masq", b""),
    )
    return _encoded(parts)


_FILTER_HOOKS = {"INPUT": 1, "FORWARD": 2, "OUTPUT": 3}  # NF_INET_LOCAL_IN …
_PORT_UNREACHABLE = {4: 3, 6: 4}  # the code of ICMP's and ICMPv6's destination unreachable


def _final(action: str, version: int) -> bytes:
    """Encode ``counter drop`` or ``counter reject``."""
    if action == "REJECT":
        code = _attribute(2, bytes((_PORT_UNREACHABLE[version],)))  # NFTA_REJECT_ICMP_CODE
        return _encoded([("counter", b""), ("reject", _number(1, 0) + code)])
    verdict = _nested(2, _nested(2, _number(1, 0)))  # NFTA_DATA_VERDICT: NF_DROP
    return _encoded([("counter", b""), ("immediate", _number(1, 0) + verdict)])


def _marking(one: Marking) -> bytes:
    """Encode ``Marking.rule``."""
    parts = [
        ("meta", _number(1, 1) + _number(2, _META_NFPROTO)),
        ("cmp", _compare_equal(bytes((_OF_VERSION[one.vip.version],)))),
        *_to(one.vip),
        ("meta", _number(1, 1) + _number(2, _META_L4PROTO)),
        ("cmp", _compare_equal(bytes((one.protocol.number,)))),
    ]
    if one.ports is not None:
        parts.append(("payload", _load_payload(_TRANSPORT_HEADER, 2, 2)))
        first, last = (struct.pack(">H", port) for port in one.ports)
        if first == last:
            parts.append(("cmp", _compare_equal(first)))
        else:
            parts += [("cmp", _compare(_AT_LEAST, first)), ("cmp", _compare(_AT_MOST, last))]
    number = _nested(2, _attribute(1, struct.pack("=I", one.mark)))
    parts += [
        ("counter", b""),
        ("immediate", _number(1, 1) + number),
        ("meta", _number(2, _META_MARK) + _number(3, 1)),  # from register 1
    ]
    return _encoded(parts)


def _to(address: IPAddress) -> tuple[tuple[str, bytes], ...]:
    """The expressions of ``ip daddr ADDRESS``, within the address family's packets."""
    at = 16 if address.version == 4 else 24
    load = _load_payload(_NETWORK_HEADER, at, len(address.packed))
    return ("payload", load), ("cmp", _compare_equal(address.packed))


def _encoded(parts: Iterable[tuple[str, bytes]]) -> bytes:
    return b"".join(_nested(1, _text_attribute(1, name) + _nested(2, data)) for name, data in parts)


_TCP, _FLAGS_AT, _SYN, _SYN_OR_RST = 6, 13, 0x02, 0x06
_RT_TCPMSS, _HTON = 3, 1


def _clamp(size: int) -> bytes:
    """Encode ``tcp flags syn / syn,rst counter tcp option maxseg size set SIZE``."""
    mask = _number(1, 1) + _number(2, 1) + _number(3, 1)
    mask += _nested(4, _attribute(1, bytes((_SYN_OR_RST,)))) + _nested(5, _attribute(1, b"\0"))
    if size == TO_PATH_MTU:
        order = _number(1, 1) + _number(2, 1) + _number(3, _HTON) + _number(4, 2) + _number(5, 2)
        value = [("rt", _number(1, 1) + _number(2, _RT_TCPMSS)), ("byteorder", order)]
    else:
        number = _nested(2, _attribute(1, struct.pack(">H", size)))
        value = [("immediate", _number(1, 1) + number)]
    option = _attribute(2, bytes((MAXSEG,))) + _number(3, 2) + _number(4, 2)
    option += _number(6, 1) + _number(7, 1)  # of TCP, from register 1
    parts = (
        ("meta", _number(1, 1) + _number(2, _META_L4PROTO)),
        ("cmp", _compare_equal(bytes((_TCP,)))),
        ("payload", _load_payload(_TRANSPORT_HEADER, _FLAGS_AT, 1)),
        ("bitwise", mask),
        ("cmp", _compare_equal(bytes((_SYN,)))),
        ("counter", b""),
        *value,
        ("exthdr", option),
    )
    return _encoded(parts)


def _load_payload(base: int, offset: int, length: int) -> bytes:
    """Into register 1."""
    return _number(1, 1) + _number(2, base) + _number(3, offset) + _number(4, length)


def _compare_equal(value: bytes) -> bytes:
    """Register 1 with ``value``."""
    return _compare(_EQUAL, value)


def _compare(operator: int, value: bytes) -> bytes:
    """Register 1 with ``value``, by one of NFT_CMP_*."""
    return _number(1, 1) + _number(2, operator) + _nested(3, _attribute(1, value))
