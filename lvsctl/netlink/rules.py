"""Policy routing over rtnetlink: the rules that choose a routing table.

Sources: ip-rule(8), linux/fib_rules.h, net/core/fib_rules.c.
"""

from __future__ import annotations

import errno
import functools
import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network

from lvsctl.errors import KernelError
from lvsctl.model.state import RuleState
from lvsctl.netlink import sockets
from lvsctl.netlink.messages import FAMILIES, attributes, number_of, packed, text_of

NEWRULE, DELRULE, GETRULE = 32, 33, 34
"""Types of messages, RTM_*."""

_HEADER = struct.Struct("=BBBBBxxBI")
"""struct fib_rule_hdr: family, dst_len, src_len, tos, table, two reserved, action, flags."""
_VERSIONS = {number: version for version, number in FAMILIES.items()}
_INVERT = 2
_TO_TABLE, _GOTO, _NOP = 1, 2, 3
_ACTIONS = {6: "blackhole", 7: "unreachable", 8: "prohibit"}
TABLES = {255: "local", 254: "main", 253: "default"}
_NUMBERS = {name: number for number, name in TABLES.items()}
_DST, _SRC, _IIF, _GOTO_TO, _PRIORITY, _MARK = 1, 2, 3, 4, 6, 10
_SUPPRESS_GROUP, _SUPPRESS, _TABLE, _MASK, _OIF, _L3MDEV = 13, 14, 15, 16, 17, 19
_UIDS, _IP_PROTO, _SPORTS, _DPORTS = 20, 22, 23, 24
"""FRA_*."""
_NONE = 0xFFFFFFFF


def dump_rules(sock: socket.socket) -> tuple[RuleState, ...]:
    """Return all rules of both families in the socket's namespace, in their order."""
    found: list[RuleState] = []
    for family in FAMILIES.values():
        asked = sockets.message(GETRULE, sockets.DUMP, _HEADER.pack(family, 0, 0, 0, 0, 0, 0))
        try:
            answer = sockets.request(sock, asked)
        except KernelError as error:
            if error.errno == errno.EAFNOSUPPORT:  # a kernel without IPv6
                continue
            raise
        for whole in answer:
            raw = bytes(whole[sockets.HEADER.size :])
            if raw[0] == family:
                found.append(_rule(raw))
    return tuple(found)


@functools.lru_cache(maxsize=1024)
def _rule(raw: bytes) -> RuleState:
    family, to_bits, from_bits, tos, table, action, flags = _HEADER.unpack_from(raw)
    found = attributes(raw, _HEADER.size)
    words = ["not"] if flags & _INVERT else []
    words += ["from", _prefix(found.get(_SRC), from_bits)]
    if to_bits:
        words += ["to", _prefix(found.get(_DST), to_bits)]
    if tos:
        words += ["tos", f"{tos:#x}"]
    words += _selectors(found)
    table = number_of(found.get(_TABLE), table)
    if action == _TO_TABLE:
        words += ["lookup", "l3mdev" if _L3MDEV in found and not table else table_name(table)]
        prefix = number_of(found.get(_SUPPRESS), _NONE)
        if prefix != _NONE:
            words += ["suppress_prefixlength", str(prefix)]
        group = number_of(found.get(_SUPPRESS_GROUP), _NONE)
        if group != _NONE:
            words += ["suppress_ifgroup", str(group)]
    elif action == _GOTO:
        words += ["goto", str(number_of(found.get(_GOTO_TO)))]
    else:
        words.append("nop" if action == _NOP else _ACTIONS.get(action, f"type {action}"))
    preference = number_of(found.get(_PRIORITY))
    return RuleState(_VERSIONS[family], preference, " ".join(words), raw.hex())


def _selectors(found: Mapping[int, bytes]) -> Iterator[str]:
    if _MARK in found or number_of(found.get(_MASK)) not in (0, _NONE):
        mask = number_of(found.get(_MASK), _NONE)
        mark = f"{number_of(found.get(_MARK)):#x}"
        yield from ("fwmark", mark if mask == _NONE else f"{mark}/{mask:#x}")
    for word, number in (("iif", _IIF), ("oif", _OIF)):
        if number in found:
            yield from (word, text_of(found[number]))
    if _UIDS in found:
        yield from ("uidrange", "{}-{}".format(*struct.unpack("=II", found[_UIDS][:8])))
    if _IP_PROTO in found:
        number = number_of(found[_IP_PROTO])
        yield from ("ipproto", {6: "tcp", 17: "udp", 1: "icmp"}.get(number, str(number)))
    for word, number in (("sport", _SPORTS), ("dport", _DPORTS)):
        if number in found:
            first, last = struct.unpack("=HH", found[number][:4])
            yield from (word, str(first) if first == last else f"{first}-{last}")


def _prefix(content: bytes | None, bits: int) -> str:
    if content is None or not bits:
        return "all"
    address = ip_address(content)
    return str(address) if bits == address.max_prefixlen else f"{address}/{bits}"


def table_name(number: int) -> str:
    """Return what ip(8) calls a routing table."""
    return TABLES.get(number, str(number))


def add_rule(rule: RuleState) -> bytearray:
    """Return the message that adds a rule."""
    return sockets.message(NEWRULE, sockets.ADD, _body(rule))


def delete_rule(rule: RuleState) -> bytearray:
    """Return the message that deletes a rule."""
    return sockets.message(DELRULE, 0, _body(rule))


def _body(rule: RuleState) -> bytes:
    if rule.raw:
        return bytes.fromhex(rule.raw)
    return _encode(rule)


def _encode(rule: RuleState) -> bytes:
    """Encode a rule of these words: not, from, to, fwmark, iif, oif, lookup, blackhole …

    Raises ValueError for other words.
    """
    words = iter(rule.text.split())
    bits = {"from": 0, "to": 0}
    flags, action, content = 0, _TO_TABLE, packed(_PRIORITY, struct.pack("=I", rule.preference))
    actions = {name: number for number, name in _ACTIONS.items()}
    for word in words:
        if word == "not":
            flags |= _INVERT
        elif word in ("from", "to"):
            value = next(words)
            if value != "all":
                network = ip_network(value)
                bits[word] = network.prefixlen
                number = _SRC if word == "from" else _DST
                content += packed(number, network.network_address.packed)
        elif word == "fwmark":
            mark, _, mask = next(words).partition("/")
            content += packed(_MARK, struct.pack("=I", int(mark, 0)))
            content += packed(_MASK, struct.pack("=I", int(mask or hex(_NONE), 0)))
        elif word in ("iif", "oif"):
            content += packed(_IIF if word == "iif" else _OIF, next(words).encode() + b"\0")
        elif word == "lookup":
            name = next(words)
            content += packed(_TABLE, struct.pack("=I", _NUMBERS.get(name) or int(name)))
        elif word in actions:
            action = actions[word]
        else:
            raise ValueError(f"unknown word of a rule: {word}")
    family = FAMILIES[rule.version]
    return _HEADER.pack(family, bits["to"], bits["from"], 0, 0, action, flags) + content
