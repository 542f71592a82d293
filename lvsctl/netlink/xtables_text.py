"""Matches and targets of the legacy packet filters as iptables prints them.

Layouts are those of linux/netfilter/xt_*.h and linux/netfilter_ipv4/ipt_REJECT.h and the like,
as 64-bit kernels have them. A match or target that is not known here is named only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple


class Extension(NamedTuple):
    """A match or target as the kernel stores it: its name, revision and data."""

    name: str
    revision: int
    data: bytes


class Text(NamedTuple):
    """What iptables prints for an extension; ``complete``: nothing of it is left out."""

    words: str
    complete: bool = True


def match_text(match: Extension, version: int) -> Text:
    """Return a match as iptables prints it; ``version`` is that of IP."""
    if match.name == "connlimit":
        return Text(f"-m connlimit {_connlimit(match, version)}")
    known = _MATCHES.get(match.name)
    words = known(match) if known else None
    if words is None:
        return Text(f"-m {match.name}", complete=False)
    return Text(f"-m {match.name} {words}".rstrip())


def target_text(target: Extension, version: int) -> Text:
    """Return a target's options as iptables prints them; ``version`` is that of IP."""
    known = _TARGETS.get(target.name)
    if known is None:
        return Text("", complete=target.name in _PLAIN or not any(target.data))
    words = known(target, version)
    return Text(words or "", complete=words is not None)


_PLAIN = frozenset({"DROP", "ACCEPT", "RETURN", "QUEUE", "NOTRACK", "TRACE"})


def _ports(first: int, last: int, most: int = 65535) -> str:
    if (first, last) == (0, most):
        return ""
    return str(first) if first == last else f"{first}:{last}"


def _sides(option: str, inverted: int, ports: tuple[int, int]) -> str:
    text = _ports(*ports)
    return f"{'! ' if inverted else ''}{option} {text}" if text else ""


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


_TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")


def _tcp_flags(mask: int, value: int) -> str:
    def names(bits: int) -> str:
        found = [name for bit, name in enumerate(_TCP_FLAGS) if bits >> bit & 1]
        return ",".join(found) or "NONE"

    return f"--tcp-flags {names(mask)} {names(value)}"


def _tcp(match: Extension) -> str | None:
    *ports, option, mask, value, inverted = struct.unpack_from("=4H4B", match.data)
    if option:
        return None
    flags = f"{'! ' if inverted & 4 else ''}{_tcp_flags(mask, value)}" if mask else ""
    return _joined(
        _sides("--sport", inverted & 1, (ports[0], ports[1])),
        _sides("--dport", inverted & 2, (ports[2], ports[3])),
        flags,
    )


def _udp(match: Extension) -> str:
    *ports, inverted = struct.unpack_from("=4HB", match.data)
    return _joined(
        _sides("--sport", inverted & 1, (ports[0], ports[1])),
        _sides("--dport", inverted & 2, (ports[2], ports[3])),
    )


def _icmp(option: str) -> Callable[[Extension], str]:
    def text(match: Extension) -> str:
        kind, first, last, inverted = struct.unpack_from("=4B", match.data)
        if kind == 255:
            return f"{option} any"
        code = "" if (first, last) == (0, 255) else f"/{first}"
        return f"{'! ' if inverted else ''}{option} {kind}{code}"

    return text


_STATES = ("INVALID", "ESTABLISHED", "RELATED", "NEW")
_UNTRACKED = {"state": 1 << 6, "conntrack": 1 << 8}  # xt_state.h, xt_conntrack.h (SNAT is 1 << 6)


def _states(bits: int, match: str) -> str:
    names = [name for bit, name in enumerate(_STATES) if bits >> bit & 1]
    if bits & _UNTRACKED[match]:
        names.append("UNTRACKED")
    return ",".join(names)


def _state(match: Extension) -> str:
    (bits,) = struct.unpack_from("=I", match.data)
    return f"--state {_states(bits, 'state')}"


def _conntrack(match: Extension) -> str | None:
    if match.revision < 2:
        return None
    flags, inverted, states = struct.unpack_from("=3H", match.data, 146)
    if flags != 1:  # XT_CONNTRACK_STATE alone
        return None
    return f"{'! ' if inverted & 1 else ''}--ctstate {_states(states, 'conntrack')}"


def _statistic(match: Extension) -> str:
    mode, inverted, first = struct.unpack_from("=HHI", match.data)
    no = "! " if inverted else ""
    if mode == 0:
        return f"--mode random {no}--probability {first / 0x80000000:.11f}"
    packet = struct.unpack_from("=I", match.data, 8)[0]
    return f"--mode nth {no}--every {first + 1} --packet {packet}"


def _limit(match: Extension) -> str | None:
    average, burst = struct.unpack_from("=II", match.data)
    for unit, seconds in (("sec", 1), ("min", 60), ("hour", 3600), ("day", 86400)):
        rate = seconds * 10000 / average if average else 0  # XT_LIMIT_SCALE
        if rate >= 1:
            more = "" if burst == 5 else f" --limit-burst {burst}"
            return f"--limit {round(rate)}/{unit}{more}"
    return None


def _connlimit(match: Extension, version: int) -> str:
    limit, flags = struct.unpack_from("=II", match.data, 16)
    # XT_CONNLIMIT_INVERT 1, XT_CONNLIMIT_DADDR 2
    upto = "--connlimit-upto" if flags & 1 else "--connlimit-above"
    length = int.from_bytes(match.data[: 4 if version == 4 else 16]).bit_count()
    side = "--connlimit-daddr" if flags & 2 else "--connlimit-saddr"
    return f"{upto} {limit} --connlimit-mask {length} {side}"


def _mark(match: Extension) -> str:
    mark, mask, inverted = struct.unpack_from("=IIB", match.data)
    width = "" if mask == 0xFFFFFFFF else f"/{mask:#x}"
    return f"{'! ' if inverted else ''}--mark {mark:#x}{width}"


def _multiport(match: Extension) -> str | None:
    which, count = match.data[0], match.data[1]
    if match.revision != 1 or count > 15:
        return None
    ports = struct.unpack_from("=15H", match.data, 2)
    ranges = match.data[32:47]
    text, rest = "", list(zip(ports, ranges, strict=True))[:count]
    for number, (port, begins) in enumerate(rest):
        before = "" if not number else ":" if rest[number - 1][1] else ","
        text += f"{before}{port}"
        del begins
    option = ("--sports", "--dports", "--ports")[which] if which < 3 else None
    return f"{'! ' if match.data[47] else ''}{option} {text}" if option else None


def _length(match: Extension) -> str:
    low, high, inverted = struct.unpack_from("=HHB", match.data)
    return f"{'! ' if inverted else ''}--length {_ports(low, high) or '0:65535'}"


def _ttl(match: Extension) -> str | None:
    mode, ttl = match.data[0], match.data[1]
    options = ("--ttl-eq", "! --ttl-eq", "--ttl-lt", "--ttl-gt")
    return f"{options[mode]} {ttl}" if mode < len(options) else None


def _comment(match: Extension) -> str:
    text = match.data.partition(b"\0")[0].decode(errors="replace")
    return f'--comment "{text}"'


_MATCHES: Mapping[str, Callable[[Extension], str | None]] = {
    "tcp": _tcp,
    "udp": _udp,
    "icmp": _icmp("--icmp-type"),
    "icmp6": _icmp("--icmpv6-type"),
    "state": _state,
    "conntrack": _conntrack,
    "statistic": _statistic,
    "limit": _limit,
    "mark": _mark,
    "multiport": _multiport,
    "length": _length,
    "ttl": _ttl,
    "comment": _comment,
}


# ── targets ──────────────────────────────────────────────────────────────────────────────────

_REJECT_WITH = {
    4: ("icmp-net-unreachable", "icmp-host-unreachable", "icmp-proto-unreachable",
        "icmp-port-unreachable", "echo-reply", "icmp-net-prohibited", "icmp-host-prohibited",
        "tcp-reset", "icmp-admin-prohibited"),
    6: ("icmp6-no-route", "icmp6-adm-prohibited", "icmp6-not-neighbour", "icmp6-addr-unreachable",
        "icmp6-port-unreachable", "echo-reply", "tcp-reset"),
}  # fmt: skip


def _reject(target: Extension, version: int) -> str | None:
    (code,) = struct.unpack_from("=I", target.data)
    names = _REJECT_WITH[version]
    return f"--reject-with {names[code]}" if code < len(names) else None


def _set_mark(target: Extension, _: int) -> str | None:
    if target.revision < 2:
        return None
    mark, mask = struct.unpack_from("=II", target.data)
    return f"--set-xmark {mark:#x}/{mask:#x}"


def _tcpmss(target: Extension, _: int) -> str:
    (mss,) = struct.unpack_from("=H", target.data)
    return "--clamp-mss-to-pmtu" if mss == 0xFFFF else f"--set-mss {mss}"


_MAP_IPS, _PROTO_SPECIFIED = 1, 2  # NF_NAT_RANGE_*


def _nat(option: str) -> Callable[[Extension, int], str | None]:
    def text(target: Extension, version: int) -> str | None:
        if target.revision == 0 and version == 4:  # nf_nat_ipv4_multi_range_compat
            flags = struct.unpack_from("=I", target.data, 4)[0]
            first: IPv4Address | IPv6Address = IPv4Address(target.data[8:12])
            last: IPv4Address | IPv6Address = IPv4Address(target.data[12:16])
            low, high = struct.unpack_from("!HH", target.data, 16)
        elif len(target.data) >= 40:  # nf_nat_range2
            flags = struct.unpack_from("=I", target.data)[0]
            size = 4 if version == 4 else 16
            first = ip_address(target.data[4 : 4 + size])
            last = ip_address(target.data[20 : 20 + size])
            low, high = struct.unpack_from("!HH", target.data, 36)
        else:
            return None
        address = (f"{first}" if first == last else f"{first}-{last}") if flags & _MAP_IPS else ""
        ports = (f"{low}" if low == high else f"{low}-{high}") if flags & _PROTO_SPECIFIED else ""
        if option == "--to-ports":
            return f"{option} {ports}" if ports else ""
        if version == 6 and address and ports:
            address = f"[{address}]"
        return f"{option} {address}{':' if ports else ''}{ports}" if address or ports else ""

    return text


_TARGETS: Mapping[str, Callable[[Extension, int], str | None]] = {
    "REJECT": _reject,
    "MARK": _set_mark,
    "TCPMSS": _tcpmss,
    "DNAT": _nat("--to-destination"),
    "SNAT": _nat("--to-source"),
    "REDIRECT": _nat("--to-ports"),
    "MASQUERADE": _nat("--to-ports"),
}
