"""A rule of nftables in nft(8)'s words, from its expressions.

Matches of iptables-nft are given as iptables(8) writes them. What is not known here is given by the
name of its expression.

Sources: linux/netfilter/nf_tables.h, nft(8); the attributes are pyroute2's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

from lvsctl.netlink import own_tables
from lvsctl.netlink.xtables_text import Extension, match_text, target_text

LONGEST_SET = 12
"""Elements of a set that are written; of a longer one none is."""


class Element(NamedTuple):
    """An element of a set: its key, whether an interval ends before it, the verdict of a map."""

    key: bytes
    ends: bool = False
    verdict: str = ""


class _Part(NamedTuple):
    """An expression, as pyroute2 decodes it."""

    name: str
    data: Any

    def get(self, attribute: str) -> Any:
        return self.data.get_attr(attribute) if self.data is not None else None


class RuleText:
    """What the expressions of a rule say, one after the other."""

    def __init__(self, family: str, elements: Callable[[str], Sequence[Element]]) -> None:
        """Begin a rule of a table's family; ``elements`` are those of a set of the table."""
        self._family, self._elements = family, elements
        self.words: list[str] = []
        self.action = "CONTINUE"
        self.packets: int | None = None
        self.complete = True
        self._fields: list[str] = []
        """What expressions loaded into registers, for the comparison that follows."""
        self._is_number = False
        """Whether that was converted to the network's order of bytes, to be compared by size."""
        self._mask = b""
        self._protocol = "th"
        self._told = False
        """Whether the protocol was said together with a port or flags."""
        self._loaded = ""
        """What a statement that follows writes somewhere, as a number or in nft's words."""
        self._raw = b""
        """The same as bytes, where it is a number."""
        self._marked = ""
        self._leads = ""
        """``jump`` or ``goto``, where the action is a chain."""
        self._map = ""
        """The map of verdicts that decides."""
        self._options = ""
        """What iptables(8) gives to a target."""
        self._versions: list[str] = []
        """The IP version that was asked for, and not implied by an address that follows."""

    @property
    def statement(self) -> str:
        """The action in nft's words."""
        if self.action == "TCPMSS":
            return f"tcp option maxseg size set {self._loaded}"
        if self.action == "MARK" and self._marked:
            return f"meta mark set {self._marked}"
        if self._map:
            return self._map
        if self.action == "CONTINUE":
            return ""
        if self._leads:
            return f"{self._leads} {self.action}"
        return " ".join(filter(None, (self.action.lower(), self._options)))

    @property
    def matches(self) -> list[str]:
        """What the rule matches, in nft's words."""
        found = list(self.words)
        if not any(one.startswith(("ip ", "ip6 ")) for one in found):
            found = [*self._versions, *found]
        if self._protocol != "th" and not self._told:
            found.append(f"meta l4proto {self._protocol}")
        return found

    def take(self, part: _Part) -> None:
        """Take one expression."""
        readers = {
            "payload": self._load, "meta": self._load, "ct": self._load,
            "bitwise": self._bitwise, "cmp": self._compare, "counter": self._count,
            "immediate": self._decide, "rt": self._route, "exthdr": self._option,
            "byteorder": self._reorder, "lookup": self._look_up, "limit": self._limit,
            "connlimit": self._count_connections, "match": self._match, "target": self._target,
        }  # fmt: skip
        if reader := readers.get(part.name):
            reader(part)
        elif part.name in _STATEMENTS:
            self.action = _STATEMENTS[part.name]
        elif part.name == "nat":
            self.action = "SNAT" if "SNAT" in str(part.get("NFTA_NAT_TYPE")) else "DNAT"
        else:
            self._leave_out(part.name)

    def _leave_out(self, name: str) -> None:
        self.words.append(f"({name})")
        self.complete = False

    def _match(self, part: _Part) -> None:
        text = match_text(_extension(part, "MATCH"), 6 if self._family == "ip6" else 4)
        self.words.append(text.words)
        self.complete = self.complete and text.complete

    def _target(self, part: _Part) -> None:
        target = _extension(part, "TARGET")
        text = target_text(target, 6 if self._family == "ip6" else 4)
        self.action, self._options = target.name, text.words
        self.complete = self.complete and text.complete

    def _limit(self, part: _Part) -> None:
        """A rate, as nft-limit writes it; in bytes where the type says so."""
        over = "over " if int(part.get("NFTA_LIMIT_FLAGS") or 0) & 1 else ""
        per = _UNITS.get(int(part.get("NFTA_LIMIT_UNIT")), "second")
        what = " bytes" if "BYTES" in str(part.get("NFTA_LIMIT_TYPE")) else ""
        self.words.append(f"limit rate {over}{part.get('NFTA_LIMIT_RATE')}{what}/{per}")

    def _count_connections(self, part: _Part) -> None:
        over = "over " if part.get("NFTA_CONNLIMIT_FLAGS") else ""
        self.words.append(f"ct count {over}{part.get('NFTA_CONNLIMIT_COUNT')}")

    @property
    def _field(self) -> str:
        return self._fields[-1] if self._fields else ""

    def _load(self, part: _Part) -> None:
        self._mask, self._is_number = b"", False
        if part.name == "payload":
            in_arp = self._family == "arp" or any(one.endswith(" arp") for one in self._versions)
            self._fields.append(_payload(part, in_arp=in_arp))
        elif part.name == "meta" and "MARK" in str(part.get("NFTA_META_KEY")) and _sets(part):
            self._mark()
        elif part.name == "meta" and part.get("NFTA_META_DREG") is not None:
            self._fields.append(_meta(part))
        elif part.get("NFTA_CT_KEY") == "NFT_CT_STATE":
            self._fields.append("ct state")
        else:
            self._fields.clear()
            self._leave_out(part.name)

    def _mark(self) -> None:
        """The mark is set to what was loaded: a number, or something computed."""
        self._fields.clear()
        self.action = "MARK"
        self._marked = str(int.from_bytes(self._raw, sys.byteorder)) if self._raw else "(computed)"
        self.complete = self.complete and bool(self._raw)

    def _bitwise(self, part: _Part) -> None:
        self._raw = b""
        self._mask = _value(part, "NFTA_BITWISE_MASK")

    def _name(self, field: str) -> str:
        """A field as nft names it, which has the protocol in front of a port."""
        self._told = self._told or field.startswith("th ")
        return field.replace("th ", f"{self._protocol} ") if field.startswith("th ") else field

    def _compare(self, part: _Part) -> None:
        field = self._field
        self._fields.clear()
        raw = _value(part, "NFTA_CMP_DATA")
        operator = _OPERATORS.get(str(part.get("NFTA_CMP_OP")), "")
        if field and not self._is_implied(field, raw, operator):
            self._say(field, raw, operator)
        if operator == ">= ":
            self._fields.append(field)  # the other end of a range follows

    def _is_implied(self, field: str, raw: bytes, operator: str) -> bool:
        """Whether what follows, or the table's family, says it."""
        if field in ("meta nfproto", "meta protocol", "ether type") and not operator and raw:
            number = int.from_bytes(raw, sys.byteorder if field == "meta nfproto" else "big")
            if name := _VERSIONS.get(number):
                self._versions.append(f"{field} {name}")
                return True
        if field == "meta l4proto" and raw and raw[0] in _WITH_PORTS and not operator:
            self._protocol = _WITH_PORTS[raw[0]]  # and is said with the port
            return True
        return field in _OF_ARPTABLES and not operator

    def _say(self, field: str, raw: bytes, operator: str) -> None:
        if field == "ct state" and self._mask:
            no = "!= " if not operator else ""  # state & mask == 0
            self.words.append(f"ct state {no}{_states(self._mask)}")
            return
        if field == "tcp flags" and raw and self._mask:
            flags, of = _flag_names(raw[0]), _flag_names(self._mask[0])
            some = operator == "!= " and not any(raw)
            self.words.append(f"tcp flags {of}" if some else f"tcp flags {operator}{flags} / {of}")
            self._told = True
            return
        name = self._name(field)
        text = _text(raw, field, self._mask, big=self._is_number)
        lower = f"{name} >= "
        if operator == "<= " and self.words and self.words[-1].startswith(lower):
            self.words[-1] = f"{name} {self.words[-1].removeprefix(lower)}-{text}"
        else:
            self.words.append(f"{name} {operator}{text}")

    def _look_up(self, part: _Part) -> None:
        """A comparison with a set, or a map; one of the rule's own has a name of the kernel's."""
        name, fields = str(part.get("NFTA_LOOKUP_SET")), tuple(self._fields)
        self._fields.clear()
        found = self._elements(name) if name.startswith(("__set", "__map")) else ()
        shown = _set_text(found, fields[0], self._mask) if len(fields) == 1 else ""
        named = shown or ("{ … }" if name.startswith("__") else f"@{name}")
        self.complete = self.complete and (bool(shown) or not name.startswith("__"))
        what = " . ".join(map(self._name, fields)) or "(lookup)"
        if "VERDICT" in str(part.get("NFTA_LOOKUP_DREG")):
            verdicts = {one.verdict for one in found or self._elements(name)}
            self.action = "DROP" if "DROP" in verdicts else "CONTINUE"
            self._map = f"{what} vmap {named}"
            return
        no = "!= " if part.get("NFTA_LOOKUP_FLAGS") else ""
        self.words.append(f"{what} {no}{named}")

    def _count(self, part: _Part) -> None:
        self.packets = int(part.get("NFTA_COUNTER_PACKETS"))

    def _decide(self, part: _Part) -> None:
        verdict, self._leads = _verdict(part)
        if verdict and self.action == "MARK":
            self.words.append(self.statement)
        self.action = verdict or self.action
        self._raw = _value(part, "NFTA_IMMEDIATE_DATA")
        self._loaded = str(int.from_bytes(self._raw or b"\0"))

    def _route(self, part: _Part) -> None:
        if "TCPMSS" not in str(part.get("NFTA_RT_KEY")):
            self._leave_out("rt")
        self._loaded = "rt mtu"

    def _reorder(self, _: _Part) -> None:
        """Between the processor's and the network's order of bytes: nothing that nft shows."""
        self._is_number = True

    def _option(self, part: _Part) -> None:
        """A TCP option that is written; what is only read is left out."""
        if (
            part.get("NFTA_EXTHDR_TYPE") == own_tables.MAXSEG
            and part.get("NFTA_EXTHDR_SREG") is not None
        ):
            self.action = "TCPMSS"
        else:
            self._leave_out("exthdr")


def parts_of(rule: Any) -> Iterator[_Part]:
    """Yield the expressions of a rule."""
    for expression in rule.get_attr("NFTA_RULE_EXPRESSIONS") or ():
        name = expression.get_attr("NFTA_EXPR_NAME")
        yield _Part(str(name), expression.get_attr("NFTA_EXPR_DATA"))


def _extension(part: _Part, kind: str) -> Extension:
    name, revision, info = (part.get(f"NFTA_{kind}_{one}") for one in ("NAME", "REV", "INFO"))
    return Extension(str(name), int(revision or 0), bytes.fromhex(str(info or "").replace(":", "")))


def _verdict(part: _Part) -> tuple[str, str]:
    """The verdict or the chain, and for a chain how it is reached; empty: a number is loaded."""
    data = part.get("NFTA_IMMEDIATE_DATA")
    verdict = data.get_attr("NFTA_DATA_VERDICT") if data is not None else None
    return verdict_of(verdict) if verdict is not None else ("", "")


def verdict_of(verdict: Any) -> tuple[str, str]:
    """Return a verdict (DROP, ACCEPT …) or a chain, and for a chain ``jump`` or ``goto``."""
    code = str(verdict.get_attr("NFTA_VERDICT_CODE"))
    if code in ("NFT_JUMP", "NFT_GOTO"):
        return str(verdict.get_attr("NFTA_VERDICT_CHAIN")), code.partition("_")[2].lower()
    return code.partition("_")[2], ""


_STATEMENTS = {"reject": "REJECT", "masq": "MASQUERADE", "redir": "REDIRECT"}
_UNITS = {1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}
_VERSIONS = {2: "ipv4", 10: "ipv6", 0x0800: "ip", 0x86DD: "ip6", 0x0806: "arp"}
_OF_ARPTABLES = frozenset({"arp htype", "arp hlen", "arp plen"})
"""What arptables-nft asks of every packet: Ethernet and IPv4."""
_OF_ARP = {
    (0, 2): "arp htype", (4, 1): "arp hlen", (5, 1): "arp plen", (6, 2): "arp operation",
    (8, 6): "arp saddr ether", (14, 4): "arp saddr ip", (18, 6): "arp daddr ether",
    (24, 4): "arp daddr ip",
}  # fmt: skip
"""Offset and length in an ARP packet of Ethernet and IPv4 (RFC 826)."""
_FIELDS = {
    ("NFT_PAYLOAD_LL_HEADER", 0, 6): "ether daddr",
    ("NFT_PAYLOAD_LL_HEADER", 6, 6): "ether saddr",
    ("NFT_PAYLOAD_LL_HEADER", 12, 2): "ether type",
    ("NFT_PAYLOAD_NETWORK_HEADER", 9, 1): "ip protocol",
    ("NFT_PAYLOAD_NETWORK_HEADER", 8, 1): "ip ttl",
    ("NFT_PAYLOAD_NETWORK_HEADER", 8, 16): "ip6 saddr",
    ("NFT_PAYLOAD_NETWORK_HEADER", 24, 16): "ip6 daddr",
    ("NFT_PAYLOAD_TRANSPORT_HEADER", 13, 1): "tcp flags",
    ("NFT_PAYLOAD_TRANSPORT_HEADER", 0, 1): "icmp type",
    ("NFT_PAYLOAD_TRANSPORT_HEADER", 0, 2): "th sport",
    ("NFT_PAYLOAD_TRANSPORT_HEADER", 2, 2): "th dport",
    **{("NFT_PAYLOAD_NETWORK_HEADER", 12, size): "ip saddr" for size in range(1, 5)},
    **{("NFT_PAYLOAD_NETWORK_HEADER", 16, size): "ip daddr" for size in range(1, 5)},
}
"""Of an address, nft compares only the bytes that a prefix covers."""
_META = {
    "NFT_META_L4PROTO": "meta l4proto", "NFT_META_NFPROTO": "meta nfproto",
    "NFT_META_IIFNAME": "iifname", "NFT_META_OIFNAME": "oifname", "NFT_META_MARK": "meta mark",
    "NFT_META_IIF": "iif", "NFT_META_OIF": "oif", "NFT_META_PROTOCOL": "meta protocol",
    "NFT_META_LEN": "meta length", "NFT_META_PKTTYPE": "meta pkttype",
}  # fmt: skip
_OPERATORS = {
    "NFT_CMP_NEQ": "!= ", "NFT_CMP_LT": "< ", "NFT_CMP_LTE": "<= ", "NFT_CMP_GT": "> ",
    "NFT_CMP_GTE": ">= ",
}  # fmt: skip
_WITH_PORTS = {6: "tcp", 17: "udp", 132: "sctp"}
_PROTOCOLS = {1: "icmp", 4: "ipencap", 58: "ipv6-icmp", **_WITH_PORTS}
_STATES = {0x1: "invalid", 0x2: "established", 0x4: "related", 0x8: "new", 0x40: "untracked"}


def _sets(part: _Part) -> bool:
    return part.get("NFTA_META_SREG") is not None


def _payload(part: _Part, *, in_arp: bool) -> str:
    base, offset, length = (part.get(f"NFTA_PAYLOAD_{name}") for name in ("BASE", "OFFSET", "LEN"))
    header = {"LL": "ll", "NETWORK": "nh", "TRANSPORT": "th"}.get(str(base).split("_")[2], "?")
    if in_arp and header == "nh" and (offset, length) in _OF_ARP:
        return _OF_ARP[offset, length]
    return _FIELDS.get((base, offset, length)) or f"@{header},{8 * offset},{8 * length}"


def _meta(part: _Part) -> str:
    key = str(part.get("NFTA_META_KEY"))
    return _META.get(key, key.removeprefix("NFT_").lower().replace("_", " "))


def _flag_names(bits: int) -> str:
    names = ("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr")
    return ",".join(name for bit, name in enumerate(names) if bits >> bit & 1) or "0x0"


def _states(mask: bytes) -> str:
    bits = int.from_bytes(mask, sys.byteorder)
    return ",".join(name for bit, name in _STATES.items() if bits & bit)


def _value(part: _Part, attribute: str) -> bytes:
    """Return the bytes that an expression compares with, masks with or the like."""
    data = part.get(attribute)
    value = data.get_attr("NFTA_DATA_VALUE") if data is not None else None
    return bytes.fromhex(value.replace(":", "")) if isinstance(value, str) else bytes(value or b"")


def _text(raw: bytes, field: str, mask: bytes, *, big: bool = False) -> str:
    if field.startswith("ether ") and len(raw) == 6:
        return raw.hex(":")
    if field.endswith("addr") or field in ("arp saddr ip", "arp daddr ip"):
        bits = int.from_bytes(mask).bit_count() if mask else 8 * len(raw)
        size = 16 if field.startswith("ip6") else 4
        prefix = f"/{bits}" if bits < 8 * size else ""
        return f"{ip_address(raw[:size].ljust(size, bytes(1)))}{prefix}"
    if field in ("iifname", "oifname"):
        return raw.rstrip(b"\0").decode(errors="replace")
    if field in ("ip protocol", "meta l4proto") and raw:
        return _PROTOCOLS.get(raw[0], str(raw[0]))
    if field in ("ether type", "meta protocol"):
        number = int.from_bytes(raw)
        return _VERSIONS.get(number, hex(number))
    of_host = field.startswith(("meta", "iif", "oif")) and not big
    number = int.from_bytes(raw, sys.byteorder if of_host else "big")
    return str(number) if field.startswith(_DECIMAL) else hex(number)


_DECIMAL = ("th", "ip ", "icmp ", "iif", "oif", "meta length", "arp operation", "meta pkttype")


def _set_text(elements: Sequence[Element], field: str, mask: bytes) -> str:
    """A set's elements in braces; empty: too many, or not known."""
    if not 0 < len(elements) <= LONGEST_SET:
        return ""
    shown: list[str] = []
    begun: Element | None = None
    for one in sorted(elements, key=lambda each: (each.key, not each.ends)):
        if one.ends:
            if begun is not None:
                last = int.from_bytes(one.key) - 1
                if last > int.from_bytes(begun.key):
                    shown[-1] += f"-{_text(last.to_bytes(len(one.key)), field, mask)}"
            begun = None
            continue
        verdict = f" : {one.verdict.lower()}" if one.verdict else ""
        shown.append(f"{_text(one.key, field, mask)}{verdict}")
        begun = one
    return f"{{ {', '.join(shown)} }}"
