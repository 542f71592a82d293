"""The legacy packet filters of the calling thread's namespace: iptables, ip6tables, arptables.

Read, emptied and filled by the interface of the kernel (getsockopt and setsockopt), so
that no program has to be installed, and what another version of iptables made is read too.

Sources: linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h,
linux/netfilter_arp/arp_tables.h, net/ipv4/netfilter/ip_tables.c.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from lvsctl import linux
from lvsctl.model.packet_filter import (
    OWN,
    TO_PATH_MTU,
    Clamp,
    FilterProgram,
    FilterRule,
    MasqueradeTarget,
)
from lvsctl.netlink.xtables_text import Extension, Text, match_text, target_text

_IPV6 = 41  # SOL_IPV6


class _Layout(NamedTuple):
    """What differs between the three: numbers of options and offsets in an entry."""

    program: FilterProgram
    family: int
    level: int
    get: int
    """*_SO_GET_INFO and *_SO_SET_REPLACE; *_SO_GET_ENTRIES follows."""
    names: str
    """The file in /proc/net that lists the namespace's tables."""
    hooks: tuple[str, ...]
    """The chains that packets enter, by the hook's number."""
    offsets: int
    """Where target_offset and next_offset lie in an entry."""
    counters: int
    header: int
    """Length of an entry without its matches and target."""


_IP_HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
LAYOUTS = (
    _Layout(FilterProgram.IPTABLES, socket.AF_INET, 0, 64, "ip_tables_names", _IP_HOOKS,
            88, 96, 112),
    _Layout(FilterProgram.IP6TABLES, socket.AF_INET6, _IPV6, 64, "ip6_tables_names", _IP_HOOKS,
            140, 152, 168),
    _Layout(FilterProgram.ARPTABLES, socket.AF_INET, 0, 96, "arp_tables_names",
            ("INPUT", "OUTPUT", "FORWARD"), 164, 176, 192),
)  # fmt: skip

_NAME = 32
_TARGET = 32
"""Length of a match's or target's header: its size, name and revision."""
_ACCEPT, _DROP, _RETURN = -2, -1, -5
_VERDICTS = {_ACCEPT: "ACCEPT", _DROP: "DROP", -4: "QUEUE", _RETURN: "RETURN"}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A rule as it lies in a table."""

    offset: int
    data: bytes
    matches: tuple[Extension, ...]
    target: Extension
    packets: int

    @property
    def verdict(self) -> int | None:
        """What the standard target decides, or where it jumps to; None: another target."""
        if self.target.name:
            return None
        return int(struct.unpack_from("=i", self.target.data)[0])


class _Table(NamedTuple):
    hooks: Mapping[int, tuple[int, int]]
    """First entry and policy of each hook, by offsets."""
    entries: tuple[_Entry, ...]
    valid: int
    size: int


def read() -> Iterator[FilterRule]:
    """Yield every rule and policy of the tables that the namespace has. Raises OSError."""
    for layout in LAYOUTS:
        names = _names(layout)
        if not names:
            continue
        with socket.socket(layout.family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            for name in names:
                yield from _rules(layout, name, _read_table(sock, layout, name))


def is_in_use(program: FilterProgram, table: str) -> bool:
    """Return whether the namespace has a table."""
    return table in _names(next(one for one in LAYOUTS if one.program is program))


def empty(program: FilterProgram, table: str) -> None:
    """Delete all rules and chains of a table, and set its policies to ACCEPT. Raises OSError."""
    fill(program, table, {})


NewRule = str | MasqueradeTarget | Clamp
"""The action (DROP, REJECT) of a rule that matches every packet; what to masquerade; a limit of
the segment size."""

Rules = Mapping[str, tuple[NewRule, ...]]
"""By chain."""


def fill(program: FilterProgram, table: str, rules: Rules) -> None:
    """Replace all rules and chains of a table by ``rules``; its policies are ACCEPT.

    A table that the namespace does not have is created. Raises OSError.
    """
    layout = next(one for one in LAYOUTS if one.program is program)
    with socket.socket(layout.family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for _ in range(3):
            old = _read_table(sock, layout, table)
            counters = ctypes.create_string_buffer(16 * old.size)  # the kernel fills it
            try:
                sock.setsockopt(
                    layout.level, layout.get, _replacement(layout, table, old, counters, rules)
                )
            except OSError as error:
                if error.errno != errno.EAGAIN:  # another process changed it meanwhile
                    raise
            else:
                return
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), f"{program} -t {table}")


def _names(layout: _Layout) -> list[str]:
    """Return the tables in use. Asking for one that does not exist would create it."""
    try:
        fd = os.open(f"/proc/thread-self/net/{layout.names}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        return sorted(os.read(fd, 65536).decode("ascii").split())
    finally:
        os.close(fd)


def get_option(sock: socket.socket, level: int, option: int, given: bytes, size: int) -> bytes:
    """getsockopt(2) with something given in the buffer, which socket.getsockopt cannot."""
    buffer = ctypes.create_string_buffer(given, size)
    length = ctypes.c_uint(size)
    arguments = (sock.fileno(), level, option, buffer, ctypes.byref(length))
    linux.check(linux.libc.getsockopt(*arguments), "getsockopt")
    return buffer.raw[: length.value]


def _read_table(sock: socket.socket, layout: _Layout, name: str) -> _Table:
    hooks = len(layout.hooks)
    wanted = name.encode().ljust(_NAME, b"\0")
    form = f"=I{hooks}I{hooks}III"
    size = _NAME + struct.calcsize(form)
    for _ in range(3):
        info = get_option(sock, layout.level, layout.get, wanted, size)
        valid, *numbers, count, length = struct.unpack_from(form, info, _NAME)
        head = (wanted + struct.pack("=I", length)).ljust(_NAME + 8, b"\0")
        try:
            raw = get_option(sock, layout.level, layout.get + 1, head, len(head) + length)
        except OSError as error:
            if error.errno != errno.EAGAIN:  # it was changed between the two questions
                raise
            continue
        chains = {
            hook: (numbers[hook], numbers[hooks + hook])
            for hook in range(hooks)
            if valid >> hook & 1
        }
        return _Table(chains, tuple(_entries(layout, raw[len(head) :])), valid, count)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), f"{layout.program} -t {name}")


def _entries(layout: _Layout, data: bytes) -> Iterator[_Entry]:
    offset = 0
    while offset < len(data):
        target, following = struct.unpack_from("=HH", data, offset + layout.offsets)
        (packets,) = struct.unpack_from("=Q", data, offset + layout.counters)
        matches = []
        at = offset + layout.header
        while at < offset + target:
            match = _extension(data, at)
            matches.append(match[1])
            at += match[0]
        yield _Entry(
            offset,
            data[offset : offset + layout.header],
            tuple(matches),
            _extension(data, offset + target)[1],
            packets,
        )
        offset += following


def _extension(data: bytes, at: int) -> tuple[int, Extension]:
    size, name, revision = struct.unpack_from("=H29sB", data, at)
    text = name.partition(b"\0")[0].decode(errors="replace")
    return size, Extension(text, revision, data[at + _TARGET : at + size])


def _rules(layout: _Layout, table: str, found: _Table) -> Iterator[FilterRule]:
    """Yield the rules, chain by chain: those of hooks in the kernel's order, then the others."""
    starts = {start: layout.hooks[hook] for hook, (start, _) in found.hooks.items()}
    policies = {policy for _, policy in found.hooks.values()}
    chains = dict(starts)
    for number, entry in enumerate(found.entries):
        if entry.target.name == "ERROR" and number + 1 < len(found.entries):
            own = entry.target.data.partition(b"\0")[0].decode(errors="replace")
            chains[found.entries[number + 1].offset] = own
    chain, number = "", 0
    for position, entry in enumerate(found.entries):
        if entry.offset in chains:
            chain, number = chains[entry.offset], 0
        if entry.target.name == "ERROR":
            continue
        if entry.offset in policies:
            action = _VERDICTS.get(entry.verdict or 0, "ACCEPT")
            text = f"-P {chain} {action}"
            yield FilterRule(layout.program, table, chain, 0, text, action, entry.packets)
            continue
        last = position + 1 >= len(found.entries) or (
            found.entries[position + 1].target.name == "ERROR"
        )
        if last and chain not in layout.hooks:
            continue  # the end of a chain of the user's
        number += 1
        yield _rule(layout, table, chain, number, entry, chains)


def _rule(
    layout: _Layout, table: str, chain: str, number: int, entry: _Entry, chains: Mapping[int, str]
) -> FilterRule:
    version = 6 if layout.program is FilterProgram.IP6TABLES else 4
    texts = [
        _SUBJECTS[layout.program](entry.data),
        *(match_text(match, version) for match in entry.matches),
    ]
    verdict = entry.verdict
    if verdict is None:
        action = entry.target.name
        options = target_text(entry.target, version)
        texts.append(Text(f"-j {action} {options.words}".rstrip(), options.complete))
    else:
        action = _VERDICTS.get(verdict) or chains.get(verdict, "?")
        texts.append(Text(f"-j {action}"))
    words = " ".join(text.words for text in texts if text.words)
    return FilterRule(
        program=layout.program,
        table=table,
        chain=chain,
        number=number,
        text=f"-A {chain} {words}",
        action=action,
        packets=entry.packets,
        complete=all(text.complete for text in texts),
    )


# ── what a rule is about ─────────────────────────────────────────────────────────────────────

_PROTOCOLS = {
    1: "icmp", 4: "ipencap", 6: "tcp", 17: "udp", 41: "ipv6", 47: "gre", 58: "ipv6-icmp",
    132: "sctp",
}  # fmt: skip
_SRC, _DST, _IN, _OUT, _PROTO, _FRAG = 0x08, 0x10, 0x01, 0x02, 0x40, 0x20  # IPT_INV_*


def _network(address: bytes, mask: bytes) -> str:
    if not any(mask):
        return ""
    bits = int.from_bytes(mask).bit_count()
    return f"{ip_address(address)}/{bits}"


def _no(inverted: int) -> str:
    return "! " if inverted else ""


def _interface(name: bytes, mask: bytes) -> str:
    text = name.partition(b"\0")[0].decode(errors="replace")
    whole = len(text) < 16 and mask[len(text) : len(text) + 1] == b"\xff"
    return text if whole or not text or text.endswith("+") else f"{text}+"


def _ip_words(
    addresses: tuple[str, str], interfaces: tuple[str, str], protocol: int, inverted: int
) -> str:
    parts = []
    for option, value, bit in (
        ("-s", addresses[0], _SRC),
        ("-d", addresses[1], _DST),
        ("-i", interfaces[0], _IN),
        ("-o", interfaces[1], _OUT),
        ("-p", _PROTOCOLS.get(protocol, str(protocol)) if protocol else "", _PROTO),
    ):
        if value:
            parts.append(f"{_no(inverted & bit)}{option} {value}")
    return " ".join(parts)


def _ipv4_subject(data: bytes) -> Text:
    interfaces = _interface(data[16:32], data[48:64]), _interface(data[32:48], data[64:80])
    protocol, flags, inverted = struct.unpack_from("=HBB", data, 80)
    addresses = _network(data[0:4], data[8:12]), _network(data[4:8], data[12:16])
    words = _ip_words(addresses, interfaces, protocol, inverted)
    if flags & 1:  # IPT_F_FRAG
        words = f"{words} {_no(inverted & _FRAG)}-f".strip()
    return Text(words)


def _ipv6_subject(data: bytes) -> Text:
    interfaces = _interface(data[64:80], data[96:112]), _interface(data[80:96], data[112:128])
    protocol, _, _, inverted = struct.unpack_from("=HBBB", data, 128)
    addresses = _network(data[0:16], data[32:48]), _network(data[16:32], data[48:64])
    return Text(_ip_words(addresses, interfaces, protocol, inverted))


def _arp_subject(data: bytes) -> Text:
    """The addresses, operation and interfaces; MAC addresses and the rest make it incomplete."""
    source, target = _network(data[0:4], data[8:12]), _network(data[4:8], data[12:16])
    (operation, mask) = struct.unpack_from("!HH", data, 82)
    inverted = struct.unpack_from("=H", data, 160)[0]
    came, goes = _interface(data[94:110], data[126:142]), _interface(data[110:126], data[142:158])
    # ARPT_INV_*: VIA_IN 1, VIA_OUT 2, SRCIP 4, TGTIP 8, ARPOP 0x40
    parts = [
        f"{_no(inverted & bit)}{option} {value}"
        for option, value, bit in (
            ("-s", source, 0x04), ("-d", target, 0x08),
            ("-i", came, 0x01), ("-o", goes, 0x02),
            ("--opcode", str(operation) if mask else "", 0x40),
        )
        if value
    ]  # fmt: skip
    masks = data[34:50] + data[66:82] + data[88:90] + data[92:94]  # MAC addresses, types
    return Text(" ".join(parts), complete=not any(masks))


_SUBJECTS = {
    FilterProgram.IPTABLES: _ipv4_subject,
    FilterProgram.IP6TABLES: _ipv6_subject,
    FilterProgram.ARPTABLES: _arp_subject,
}


# ── a new table ───────────────────────────────────────────────────────────────────────────


def _replacement(
    layout: _Layout,
    name: str,
    old: _Table,
    counters: ctypes.Array[ctypes.c_char],
    rules: Rules,
) -> bytes:
    """Return *t_replace: each hook's chain holds its ``rules``, and its policy ACCEPT.

    ``counters`` is where the kernel stores those of the old rules.
    """
    entries, starts, policies = b"", [0] * len(layout.hooks), [0] * len(layout.hooks)
    count = len(old.hooks) + 1
    for hook in old.hooks:
        starts[hook] = len(entries)
        for action in rules.get(layout.hooks[hook], ()):
            entries += _new_rule(layout, action)
            count += 1
        policies[hook] = len(entries)
        entries += _new_entry(layout, "", struct.pack("=i4x", _ACCEPT))
    entries += _new_entry(layout, "ERROR", b"ERROR".ljust(32, b"\0"))
    head = name.encode().ljust(_NAME, b"\0")
    head += struct.pack("=3I", old.valid, count, len(entries))
    head += struct.pack(f"={2 * len(starts)}I", *starts, *policies) + struct.pack("=I", old.size)
    head = head.ljust(-(-len(head) // 8) * 8, b"\0") + struct.pack("=Q", ctypes.addressof(counters))
    return head + entries


def _new_rule(layout: _Layout, rule: NewRule) -> bytes:
    if isinstance(rule, str):
        return _new_entry(layout, *_action(layout, rule))
    if isinstance(rule, Clamp):
        return _clamp(layout, rule)
    return _masquerade(layout, rule)


_PORT_UNREACHABLE = {socket.AF_INET: 3, socket.AF_INET6: 4}
"""IPT_ICMP_PORT_UNREACHABLE and IP6T_ICMP6_PORT_UNREACH, the programs' default."""


def _action(layout: _Layout, action: str) -> tuple[str, bytes]:
    """Return the target of an action, and its data."""
    if action == "DROP":
        return "", struct.pack("=i4x", _DROP)
    return "REJECT", struct.pack("=i4x", _PORT_UNREACHABLE[socket.AddressFamily(layout.family)])


def _new_entry(layout: _Layout, target: str, data: bytes) -> bytes:
    size = layout.header + _TARGET + len(data)
    entry = bytearray(layout.header)
    struct.pack_into("=HH", entry, layout.offsets, layout.header, size)
    return bytes(entry) + struct.pack("=H29sB", _TARGET + len(data), target.encode(), 0) + data


def _masquerade(layout: _Layout, to: MasqueradeTarget) -> bytes:
    """Return ``-d ADDRESS -p PROTOCOL -m multiport --dports PORT … -j MASQUERADE`` as an entry.

    Sources: linux/netfilter/xt_multiport.h, xt_comment.h, nf_nat.h.
    """
    packed = to.address.packed
    subject = _of_protocol(layout, to.protocol.number)
    if layout.program is FilterProgram.IPTABLES:
        subject[4:8], subject[12:16] = packed, b"\xff" * 4
        data = struct.pack("=I20x", 1)  # one range, without addresses and ports
    else:
        subject[16:32], subject[48:64] = packed, b"\xff" * 16
        data = bytes(40)  # struct nf_nat_range
    ports = struct.pack("=BBH44x", _DESTINATION_PORTS, 1, to.port)
    matches = _new_extension("multiport", 1, ports)
    matches += _new_extension("comment", 0, OWN.encode().ljust(256, b"\0"))
    return _entry_of(layout, subject, matches, _new_extension("MASQUERADE", 0, data))


def _clamp(layout: _Layout, to: Clamp) -> bytes:
    """Return ``-p tcp -m tcp --tcp-flags SYN,RST SYN … -j TCPMSS --set-mss SIZE`` as an entry.

    Sources: linux/netfilter/xt_tcpudp.h, xt_comment.h, xt_TCPMSS.h.
    """
    flags = struct.pack("=4H4B4x", 0, 0xFFFF, 0, 0xFFFF, 0, _SYN | _RST, _SYN, 0)
    matches = _new_extension("tcp", 0, flags)
    matches += _new_extension("comment", 0, OWN.encode().ljust(256, b"\0"))
    size = _CLAMP_PMTU if to.size == TO_PATH_MTU else to.size
    target = _new_extension("TCPMSS", 0, struct.pack("=H6x", size))
    return _entry_of(layout, _of_protocol(layout, socket.IPPROTO_TCP), matches, target)


_SYN, _RST = 0x02, 0x04
_CLAMP_PMTU = 0xFFFF  # XT_TCPMSS_CLAMP_PMTU


def _of_protocol(layout: _Layout, number: int) -> bytearray:
    """Return an entry's beginning, which matches a transport protocol."""
    subject = bytearray(layout.header)
    if layout.program is FilterProgram.IPTABLES:
        struct.pack_into("=H", subject, 80, number)
    else:
        struct.pack_into("=HBB", subject, 128, number, 0, _F_PROTO)
    return subject


def _entry_of(layout: _Layout, subject: bytearray, matches: bytes, target: bytes) -> bytes:
    target_at = layout.header + len(matches)
    struct.pack_into("=HH", subject, layout.offsets, target_at, target_at + len(target))
    return bytes(subject) + matches + target


_DESTINATION_PORTS = 1  # XT_MULTIPORT_DESTINATION
_F_PROTO = 1  # IP6T_F_PROTO


def _new_extension(name: str, revision: int, data: bytes) -> bytes:
    return struct.pack("=H29sB", _TARGET + len(data), name.encode(), revision) + data
