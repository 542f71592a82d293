"""nftables of the calling thread's namespace: its rules, and deleting its tables.

Rules of iptables-nft and its siblings are among them. What a rule matches is given as nft(8)
writes it where it is about interfaces, addresses, ports, protocols, marks and connection states;
anything else by the name of its expression.

Sources: linux/netfilter/nf_tables.h, nft(8); the messages are pyroute2's.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, NamedTuple

from lvsctl.errors import KernelError
from lvsctl.model.packet_filter import (
    FilterProgram,
    FilterRule,
)
from lvsctl.netlink import own_tables, sockets
from lvsctl.netlink.messages import Kind, body, decode

from pyroute2.netlink.nfnetlink.nftsocket import (  # isort: skip (after the shim)
    nft_chain_msg,
    nft_rule_msg,
    nft_table_msg,
)

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GETTABLE, _DELTABLE, _GETCHAIN, _GETRULE = 1, 2, 4, 7  # NFT_MSG_*
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11  # NFNL_MSG_BATCH_*
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
"""Where packets meet a chain, in the order of NF_INET_*, which NF_BR_* has too."""
_OTHER_HOOKS = {"arp": ("input", "output", "forward"), "netdev": ("ingress", "egress")}
_POLICIES = {0: "DROP", 1: "ACCEPT"}
_NO_NFTABLES = frozenset({errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL, errno.ENOENT})


def read() -> Iterator[FilterRule]:
    """Yield every rule, and the policy of every base chain. Raises OSError, KernelError."""
    try:
        sock = sockets.open_socket(sockets.NETFILTER)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            return
        raise
    with sock:
        try:
            tables = _dump(sock, _GETTABLE, nft_table_msg)
        except KernelError as error:
            if error.errno in _NO_NFTABLES:
                return
            raise
        if not tables:
            return
        hooks: dict[tuple[str, str], str] = {}
        for chain in _dump(sock, _GETCHAIN, nft_chain_msg):
            if hook := _hook(chain):
                hooks[_table(chain, "NFTA_CHAIN_TABLE"), _name(chain)] = hook
                yield _policy(chain, hook)
        numbers: dict[tuple[str, str], int] = {}
        for rule in _dump(sock, _GETRULE, nft_rule_msg):
            where = _table(rule, "NFTA_RULE_TABLE"), str(rule.get_attr("NFTA_RULE_CHAIN"))
            numbers[where] = numbers.get(where, 0) + 1
            yield replace(_rule(rule, *where, numbers[where]), hook=hooks.get(where, ""))


def delete_table(table: str) -> None:
    """Delete a table (``inet filter``) with all that it contains. Raises OSError."""
    family, _, name = table.partition(" ")
    number = next(number for number, word in _FAMILIES.items() if word == family)
    deleted = body(nft_table_msg, [("NFTA_TABLE_NAME", name)], nfgen_family=number)
    begin = body(nft_table_msg, res_id=socket.htons(10))
    messages = [
        sockets.message(_BATCH_BEGIN, 0, begin),
        sockets.message(_SUBSYSTEM | _DELTABLE, sockets.ACK, deleted),
        sockets.message(_BATCH_END, 0, begin),
    ]
    for sequence, one in enumerate(messages, 1):
        struct.pack_into("=I", one, 8, sequence)
    with sockets.open_socket(sockets.NETFILTER) as sock:
        sock.send(b"".join(messages))
        for error in sockets.read_errors(sock, 2):
            raise error


def _dump(sock: socket.socket, number: int, kind: Kind) -> list[Any]:
    asked = sockets.message(_SUBSYSTEM | number, sockets.DUMP, body(kind))
    return [decode(kind, whole) for whole in sockets.request(sock, asked)]


def _table(message: Any, name: str) -> str:
    family = _FAMILIES.get(message["nfgen_family"], str(message["nfgen_family"]))
    return f"{family} {message.get_attr(name)}"


def _name(chain: Any) -> str:
    return str(chain.get_attr("NFTA_CHAIN_NAME"))


def _hook(chain: Any) -> str:
    """Where packets meet a chain; empty: only other chains lead to it."""
    found = chain.get_attr("NFTA_CHAIN_HOOK")
    if found is None:
        return ""
    family = _FAMILIES.get(chain["nfgen_family"], "")
    number = int(found.get_attr("NFTA_HOOK_HOOKNUM"))
    names = _OTHER_HOOKS.get(family, _HOOKS)
    return names[number] if number < len(names) else str(number)


def _policy(chain: Any, hook: str) -> FilterRule:
    action = _POLICIES.get(chain.get_attr("NFTA_CHAIN_POLICY"), "ACCEPT")
    counters = chain.get_attr("NFTA_CHAIN_COUNTERS")
    packets = counters.get_attr("NFTA_COUNTER_PACKETS") if counters is not None else None
    table, text = _table(chain, "NFTA_CHAIN_TABLE"), f"policy {action.lower()}"
    return FilterRule(FilterProgram.NFT, table, _name(chain), 0, text, action, packets, hook=hook)


class _Part(NamedTuple):
    """An expression, as pyroute2 decodes it."""

    name: str
    data: Any

    def get(self, attribute: str) -> Any:
        return self.data.get_attr(attribute) if self.data is not None else None


def _rule(rule: Any, table: str, chain: str, number: int) -> FilterRule:
    reading = _Reading()
    for part in _parts(rule):
        reading.take(part)
    return FilterRule(
        program=FilterProgram.NFT,
        table=table,
        chain=chain,
        number=number,
        text=" ".join((*reading.matches, reading.statement)),
        action=reading.action,
        packets=reading.packets,
        complete=reading.complete,
        handle=int(rule.get_attr("NFTA_RULE_HANDLE")),
    )


class _Reading:
    """What the expressions of a rule say, one after the other."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.action = "CONTINUE"
        self.packets: int | None = None
        self.complete = True
        self._field = ""
        """What an expression loaded into a register, for the comparison that follows."""
        self._mask = b""
        self._protocol = "th"
        self._told = False
        """Whether the protocol was said together with a port or flags."""
        self._loaded = ""
        """What a statement that follows writes somewhere, as a number or in nft's words."""
        self._raw = b""
        """The same as bytes, where it is a number."""
        self._marked = ""

    @property
    def statement(self) -> str:
        """The action in nft's words."""
        if self.action == "TCPMSS":
            return f"tcp option maxseg size set {self._loaded}"
        if self.action == "MARK" and self._marked:
            return f"meta mark set {self._marked}"
        if self.action.isupper():
            return self.action.lower()
        return f"jump {self.action}"

    @property
    def matches(self) -> list[str]:
        """What the rule matches, in nft's words."""
        if self._protocol == "th" or self._told:
            return self.words
        return [*self.words, f"meta l4proto {self._protocol}"]

    def take(self, part: _Part) -> None:
        """Take one expression."""
        readers = {
            "payload": self._load, "meta": self._load, "ct": self._load,
            "bitwise": self._bitwise, "cmp": self._compare, "counter": self._count,
            "immediate": self._decide, "rt": self._route, "exthdr": self._option,
            "byteorder": self._reorder, "lookup": self._look_up,
        }  # fmt: skip
        if reader := readers.get(part.name):
            reader(part)
        elif part.name in _STATEMENTS:
            self.action = _STATEMENTS[part.name]
        elif part.name == "nat":
            self.action = "SNAT" if "SNAT" in str(part.get("NFTA_NAT_TYPE")) else "DNAT"
        elif part.name == "target":
            self.action = str(part.get("NFTA_TARGET_NAME"))
        else:
            self._leave_out(str(part.get("NFTA_MATCH_NAME") or part.name))

    def _leave_out(self, name: str) -> None:
        self.words.append(f"({name})")
        self.complete = False

    def _load(self, part: _Part) -> None:
        self._mask = b""
        if part.name == "payload":
            self._field = _payload(part)
        elif part.name == "meta" and "MARK" in str(part.get("NFTA_META_KEY")) and _sets(part):
            self._mark()
        elif part.name == "meta" and part.get("NFTA_META_DREG") is not None:
            self._field = _meta(part)
        elif part.get("NFTA_CT_KEY") == "NFT_CT_STATE":
            self._field = "ct state"
        else:
            self._field = ""
            self._leave_out(part.name)

    def _mark(self) -> None:
        """The mark is set to what was loaded: a number, or something computed."""
        self.action = "MARK"
        self._marked = str(int.from_bytes(self._raw, sys.byteorder)) if self._raw else "(computed)"
        self.complete = self.complete and bool(self._raw)

    def _bitwise(self, part: _Part) -> None:
        self._raw = b""
        self._mask = _value(part, "NFTA_BITWISE_MASK")

    def _compare(self, part: _Part) -> None:
        if not self._field:
            return
        raw = _value(part, "NFTA_CMP_DATA")
        operator = _OPERATORS.get(str(part.get("NFTA_CMP_OP")), "")
        if self._field == "meta nfproto":
            return  # implied by the address, or the table's family
        if self._field == "meta l4proto" and raw and raw[0] in _WITH_PORTS and not operator:
            self._protocol = _WITH_PORTS[raw[0]]  # and is said with the port
            return
        if self._field == "ct state" and self._mask:
            no = "!= " if not operator else ""  # state & mask == 0
            self.words.append(f"ct state {no}{_states(self._mask)}")
            return
        if self._field == "tcp flags" and raw and self._mask:
            flags, of = _flag_names(raw[0]), _flag_names(self._mask[0])
            self.words.append(f"tcp flags {operator}{flags} / {of}")
            self._told = True
            return
        field = self._field.replace("th ", f"{self._protocol} ")
        self._told = self._told or field != self._field
        text = _text(raw, self._field, self._mask)
        lower = f"{field} >= "
        if operator == "<= " and self.words and self.words[-1].startswith(lower):
            self.words[-1] = f"{field} {self.words[-1].removeprefix(lower)}-{text}"
        else:
            self.words.append(f"{field} {operator}{text}")

    def _look_up(self, part: _Part) -> None:
        """A comparison with a set: one of the rule's own has a name of the kernel's."""
        name = str(part.get("NFTA_LOOKUP_SET"))
        field = self._field.replace("th ", f"{self._protocol} ")
        self._told = self._told or field != self._field
        self.words.append(f"{field} {'{…}' if name.startswith('__set') else f'@{name}'}".strip())
        self.complete = False

    def _count(self, part: _Part) -> None:
        self.packets = int(part.get("NFTA_COUNTER_PACKETS"))

    def _decide(self, part: _Part) -> None:
        verdict = _verdict(part)
        if verdict and self.action == "MARK":
            self.words.append(self.statement)
        self.action = verdict or self.action
        self._raw = _value(part, "NFTA_IMMEDIATE_DATA")
        self._loaded = str(int.from_bytes(self._raw or b"\0"))

    def _route(self, part: _Part) -> None:
        if "TCPMSS" not in str(part.get("NFTA_RT_KEY")):
            self._leave_out("rt")
        self._loaded = "rt mtu"

    def _reorder(self, part: _Part) -> None:
        """Between the processor's and the network's order of bytes: nothing that nft shows."""

    def _option(self, part: _Part) -> None:
        """A TCP option that is written; what is only read is left out."""
        if (
            part.get("NFTA_EXTHDR_TYPE") == own_tables.MAXSEG
            and part.get("NFTA_EXTHDR_SREG") is not None
        ):
            self.action = "TCPMSS"
        else:
            self._leave_out("exthdr")


def _parts(rule: Any) -> Iterator[_Part]:
    for expression in rule.get_attr("NFTA_RULE_EXPRESSIONS") or ():
        name = expression.get_attr("NFTA_EXPR_NAME")
        yield _Part(str(name), expression.get_attr("NFTA_EXPR_DATA"))


def _verdict(part: _Part) -> str:
    data = part.get("NFTA_IMMEDIATE_DATA")
    verdict = data.get_attr("NFTA_DATA_VERDICT") if data is not None else None
    if verdict is None:
        return ""
    code = str(verdict.get_attr("NFTA_VERDICT_CODE"))
    if code in ("NFT_JUMP", "NFT_GOTO"):
        return str(verdict.get_attr("NFTA_VERDICT_CHAIN"))
    return code.partition("_")[2]


_STATEMENTS = {"reject": "REJECT", "masq": "MASQUERADE", "redir": "REDIRECT"}
_FIELDS = {
    ("NFT_PAYLOAD_NETWORK_HEADER", 9, 1): "ip protocol",
    ("NFT_PAYLOAD_NETWORK_HEADER", 8, 1): "ip ttl",
    ("NFT_PAYLOAD_NETWORK_HEADER", 8, 16): "ip6 saddr",
    ("NFT_PAYLOAD_NETWORK_HEADER", 24, 16): "ip6 daddr",
    ("NFT_PAYLOAD_TRANSPORT_HEADER", 13, 1): "tcp flags",
    ("NFT_PAYLOAD_TRANSPORT_HEADER", 0, 2): "th sport",
    ("NFT_PAYLOAD_TRANSPORT_HEADER", 2, 2): "th dport",
    **{("NFT_PAYLOAD_NETWORK_HEADER", 12, size): "ip saddr" for size in range(1, 5)},
    **{("NFT_PAYLOAD_NETWORK_HEADER", 16, size): "ip daddr" for size in range(1, 5)},
}
"""Of an address, nft compares only the bytes that a prefix covers."""
_META = {
    "NFT_META_L4PROTO": "meta l4proto", "NFT_META_NFPROTO": "meta nfproto",
    "NFT_META_IIFNAME": "iifname", "NFT_META_OIFNAME": "oifname", "NFT_META_MARK": "meta mark",
    "NFT_META_IIF": "iif", "NFT_META_OIF": "oif",
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


def _payload(part: _Part) -> str:
    base, offset, length = (part.get(f"NFTA_PAYLOAD_{name}") for name in ("BASE", "OFFSET", "LEN"))
    header = {"LL": "ll", "NETWORK": "nh", "TRANSPORT": "th"}.get(str(base).split("_")[2], "?")
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


def _text(raw: bytes, field: str, mask: bytes) -> str:
    if field.endswith("addr"):
        bits = int.from_bytes(mask).bit_count() if mask else 8 * len(raw)
        size = 16 if field.startswith("ip6") else 4
        prefix = f"/{bits}" if bits < 8 * size else ""
        address = ip_address(raw.ljust(size, b"\0"))
        return f"{address}{prefix}"
    if field in ("iifname", "oifname"):
        return raw.rstrip(b"\0").decode(errors="replace")
    if field in ("ip protocol", "meta l4proto") and raw:
        return _PROTOCOLS.get(raw[0], str(raw[0]))
    if field.startswith(("th", "ip ")):
        return str(int.from_bytes(raw))
    return hex(int.from_bytes(raw, sys.byteorder if field.startswith("meta") else "big"))
