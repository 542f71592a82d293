"""The legacy packet filter of bridges in the calling thread's namespace: ebtables.

Sources: linux/netfilter_bridge/ebtables.h, net/bridge/netfilter/ebtables.c.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lvsctl.model.packet_filter import FilterProgram, FilterRule
from lvsctl.netlink.xtables import get_option

TABLES = {"filter": "ebtable_filter", "nat": "ebtable_nat", "broute": "ebtable_broute"}
"""The tables, with the module that has each."""

_HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING", "BROUTING")
_GET_INFO, _GET_ENTRIES, _SET_ENTRIES = 128, 129, 128
_HEAD = struct.Struct("=32s3I4x6QI4xQQ")  # ebt_replace
_CHAIN = struct.Struct("=I32sIiI")  # ebt_entries
_ENTRY = struct.Struct("=IIH16s16s16s16s6s6s6s6s2x3I")  # ebt_entry
_VERDICTS = {-1: "ACCEPT", -2: "DROP", -3: "CONTINUE", -4: "RETURN"}
_PROTOCOLS = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6", 0x8100: "802_1Q"}
_NO_PROTOCOL, _LENGTH_FIELD, _SOURCE_MAC, _DEST_MAC = 2, 4, 8, 16  # EBT_*
_INV_PROTOCOL, _INV_IN, _INV_OUT = 0x01, 0x02, 0x04  # EBT_I*
_EXTENSION = 40
"""Length of the header of a match, watcher or target."""


class _Table(NamedTuple):
    valid: int
    rules: int
    size: int


def read() -> Iterator[FilterRule]:
    """Yield every rule and policy of the tables that the kernel has loaded. Raises OSError."""
    loaded = [table for table, module in TABLES.items() if Path("/sys/module", module).is_dir()]
    if not loaded:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for table in loaded:
            yield from _rules(table, _read_entries(sock, table))


def empty(table: str) -> None:
    """Delete all rules and chains of a table, and set its policies to ACCEPT. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        info = _info(sock, table)
        hooks = [hook for hook in range(len(_HOOKS)) if info.valid >> hook & 1]
        chains = b"".join(_CHAIN.pack(0, _HOOKS[hook].encode(), 0, -1, 0) for hook in hooks)
        entries = ctypes.create_string_buffer(chains, len(chains))
        start = ctypes.addressof(entries)
        places = [0] * len(_HOOKS)
        for position, hook in enumerate(hooks):
            places[hook] = start + position * _CHAIN.size
        head = _HEAD.pack(table.encode(), info.valid, 0, len(chains), *places, 0, 0, start)
        # The kernel wants the length of both, wherever they lie.
        sock.setsockopt(socket.IPPROTO_IP, _SET_ENTRIES, head + bytes(len(chains)))


def _info(sock: socket.socket, table: str) -> _Table:
    asked = table.encode().ljust(_HEAD.size, b"\0")
    raw = get_option(sock, socket.IPPROTO_IP, _GET_INFO, asked, _HEAD.size)
    _, valid, count, size, *_ = _HEAD.unpack(raw)
    return _Table(valid, count, size)


def _read_entries(sock: socket.socket, table: str) -> tuple[bytes, tuple[int, ...]]:
    """Return the table's chains and rules as they lie there, and how often each rule matched."""
    for _ in range(3):
        info = _info(sock, table)
        entries = ctypes.create_string_buffer(max(info.size, 1))
        counters = ctypes.create_string_buffer(max(16 * info.rules, 1))
        head = _HEAD.pack(
            table.encode(), info.valid, info.rules, info.size, *[0] * 6,
            info.rules, ctypes.addressof(counters) if info.rules else 0, ctypes.addressof(entries),
        )  # fmt: skip
        try:
            # The kernel wants the length of all three, wherever they lie.
            length = len(head) + info.size + 16 * info.rules
            get_option(sock, socket.IPPROTO_IP, _GET_ENTRIES, head, length)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EAGAIN):  # changed between the questions
                raise
            continue
        packets = struct.unpack(f"={2 * info.rules}Q", counters.raw[: 16 * info.rules])[::2]
        return entries.raw[: info.size], packets
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), f"ebtables -t {table}")


def _rules(table: str, found: tuple[bytes, tuple[int, ...]]) -> Iterator[FilterRule]:
    data, packets = found
    offset, chain, number, counted = 0, "", 0, 0
    chains = _chain_names(data)
    while offset < len(data):
        if not struct.unpack_from("=I", data, offset)[0] & 1:  # EBT_ENTRY_OR_ENTRIES: a chain
            chain, number = chains[offset], 0
            policy = _VERDICTS.get(_CHAIN.unpack_from(data, offset)[3], "?")
            if chain in _HOOKS:
                text = f"-P {chain} {policy}"
                # Not counted by the kernel.
                yield FilterRule(FilterProgram.EBTABLES, table, chain, 0, text, policy, None)
            offset += _CHAIN.size
            continue
        number += 1
        yield _rule(table, chain, number, data, offset, packets[counted], chains)
        counted += 1
        offset += _ENTRY.unpack_from(data, offset)[-1]


def _chain_names(data: bytes) -> dict[int, str]:
    found, offset = {}, 0
    while offset < len(data):
        if struct.unpack_from("=I", data, offset)[0] & 1:
            offset += _ENTRY.unpack_from(data, offset)[-1]
        else:
            name = _CHAIN.unpack_from(data, offset)[1]
            found[offset] = name.partition(b"\0")[0].decode(errors="replace")
            offset += _CHAIN.size
    return found


def _rule(
    table: str, chain: str, number: int, data: bytes, offset: int, packets: int,
    chains: dict[int, str],
) -> FilterRule:  # fmt: skip
    fields = _ENTRY.unpack_from(data, offset)
    bits, inverted, protocol, came, logical_in, goes, logical_out = fields[:7]
    source, source_mask, destination, destination_mask = fields[7:11]
    watchers, target, _ = fields[11:]
    words = ["-A", chain]
    if not bits & _NO_PROTOCOL:
        kind = socket.ntohs(protocol)
        name = "LENGTH" if bits & _LENGTH_FIELD else _PROTOCOLS.get(kind, f"{kind:#06x}")
        words += [*(["!"] if inverted & _INV_PROTOCOL else []), "-p", name]
    for option, device, inversion in (
        ("-i", came, _INV_IN), ("-o", goes, _INV_OUT),
        ("--logical-in", logical_in, 0x08), ("--logical-out", logical_out, 0x10),
    ):  # fmt: skip
        text = device.partition(b"\0")[0].decode(errors="replace").replace("\1", "+")
        if text:
            words += [*(["!"] if inverted & inversion else []), option, text]
    for option, mac, mask, bit in (
        ("-s", source, source_mask, _SOURCE_MAC), ("-d", destination, destination_mask, _DEST_MAC),
    ):  # fmt: skip
        if bits & bit:
            words += [option, mac.hex(":") + ("" if mask == b"\xff" * 6 else f"/{mask.hex(':')}")]
    complete = watchers == _ENTRY.size
    for name in _names(data, offset + _ENTRY.size, offset + watchers):
        words.append(f"--{name} …")
    action = data[offset + target : offset + target + 31].partition(b"\0")[0].decode()
    if action == "standard":
        (verdict,) = struct.unpack_from("=i", data, offset + target + _EXTENSION)
        action = _VERDICTS.get(verdict) or chains.get(verdict, "?")
    else:
        complete = False
    words += ["-j", action]
    return FilterRule(
        FilterProgram.EBTABLES, table, chain, number, " ".join(words), action, packets, complete
    )


def _names(data: bytes, start: int, end: int) -> Iterator[str]:
    """Yield the names of the matches between two offsets."""
    at = start
    while at < end:
        name, size = struct.unpack_from("=32sI", data, at)
        yield name[:31].partition(b"\0")[0].decode(errors="replace")
        at += _EXTENSION + size
