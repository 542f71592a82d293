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
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

from lvsctl.errors import KernelError
from lvsctl.model.packet_filter import (
    OWN,
    OWN_CLAMP,
    TO_PATH_MTU,
    FilterProgram,
    FilterRule,
    MasqueradeTarget,
)
from lvsctl.netlink import sockets
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
        for chain in _dump(sock, _GETCHAIN, nft_chain_msg):
            yield from _policy(chain)
        numbers: dict[tuple[str, str], int] = {}
        for rule in _dump(sock, _GETRULE, nft_rule_msg):
            where = _table(rule, "NFTA_RULE_TABLE"), str(rule.get_attr("NFTA_RULE_CHAIN"))
            numbers[where] = numbers.get(where, 0) + 1
            yield _rule(rule, *where, numbers[where])


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


def replace_masquerade(version: int, targets: Iterable[MasqueradeTarget]) -> None:
    """Replace lvsctl's own table of an address family by one that masquerades ``targets``.

    All at once; without targets the table is deleted. Raises OSError, KernelError.
    """
    hook = _number(1, _POSTROUTING) + _number(2, _PRIORITY_SRCNAT)
    _replace_own(version, OWN, ("nat", hook), [_expressions(one) for one in targets])


def replace_clamp(version: int, sizes: Iterable[int]) -> None:
    """Replace lvsctl's own table of an address family by one that limits TCP's segment size.

    ``sizes`` is the limit (TO_PATH_MTU: that of the path); without any the table is deleted.
    Raises OSError, KernelError.
    """
    hook = _number(1, _POSTROUTING) + _number(2, _PRIORITY_MANGLE)
    _replace_own(version, OWN_CLAMP, ("filter", hook), [_clamp(size) for size in sizes])


def _replace_own(
    version: int, name: str, chain_of: tuple[str, bytes], rules: Sequence[bytes]
) -> None:
    """Replace a table of one chain, of a type and at a hook, by ``rules``; without any, delete."""
    kind, hook = chain_of
    family = _NFPROTO_IPV4 if version == 4 else _NFPROTO_IPV6
    table = _text_attribute(1, name)
    new_table = sockets.message(_SUBSYSTEM, sockets.CREATE, _family(family) + table)
    messages = [
        sockets.message(_BATCH_BEGIN, 0, _family(0, res_id=10)),
        new_table,
        sockets.message(_SUBSYSTEM | _DELTABLE, 0, _family(family) + table),
    ]
    if rules:
        chain = table + _text_attribute(3, _OWN_CHAIN) + _nested(4, hook)
        chain += _number(5, _ACCEPT) + _text_attribute(7, kind)
        messages.append(bytearray(new_table))
        messages.append(
            sockets.message(_SUBSYSTEM | _NEWCHAIN, sockets.CREATE, _family(family) + chain)
        )
        for one in rules:
            rule = table + _text_attribute(2, _OWN_CHAIN) + _nested(4, one)
            data = _family(family) + rule
            messages.append(sockets.message(_SUBSYSTEM | _NEWRULE, sockets.CREATE | _APPEND, data))
    messages.append(sockets.message(_BATCH_END, 0, _family(0, res_id=10)))
    for sequence, one_message in enumerate(messages, 1):
        struct.pack_into("=I", one_message, 8, sequence)
    struct.pack_into("=H", messages[-2], 6, _flags(messages[-2]) | sockets.ACK)
    with sockets.open_socket(sockets.NETFILTER) as sock:
        sock.send(b"".join(messages))
        for error in sockets.read_errors(sock, len(messages) - 1):
            raise error


_NEWCHAIN, _NEWRULE, _APPEND = 3, 6, 0x800
_NFPROTO_IPV4, _NFPROTO_IPV6 = 2, 10
_POSTROUTING, _PRIORITY_SRCNAT, _ACCEPT = 4, 100, 1
_PRIORITY_MANGLE = -150 & 0xFFFFFFFF
_OWN_CHAIN = "postrouting"
_META_L4PROTO, _NETWORK_HEADER, _TRANSPORT_HEADER = 16, 1, 2


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
    at = 16 if to.address.version == 4 else 24
    parts = (
        ("meta", _number(1, 1) + _number(2, _META_L4PROTO)),
        ("cmp", _compare_equal(bytes((to.protocol.number,)))),
        ("payload", _load_payload(_NETWORK_HEADER, at, len(to.address.packed))),
        ("cmp", _compare_equal(to.address.packed)),
        ("payload", _load_payload(_TRANSPORT_HEADER, 2, 2)),
        ("cmp", _compare_equal(struct.pack(">H", to.port))),
        ("counter", b""),
        ("masq", b""),
    )
    return _encoded(parts)


def _encoded(parts: Iterable[tuple[str, bytes]]) -> bytes:
    return b"".join(_nested(1, _text_attribute(1, name) + _nested(2, data)) for name, data in parts)


_TCP, _FLAGS_AT, _SYN, _SYN_OR_RST = 6, 13, 0x02, 0x06
_MAXSEG = 2  # TCPOPT_MSS (RFC 9293, section 3.2): its value is 2 bytes, after kind and length
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
    option = _attribute(2, bytes((_MAXSEG,))) + _number(3, 2) + _number(4, 2)
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
    return _number(1, 1) + _number(2, 0) + _nested(3, _attribute(1, value))


def _dump(sock: socket.socket, number: int, kind: Kind) -> list[Any]:
    asked = sockets.message(_SUBSYSTEM | number, sockets.DUMP, body(kind))
    return [decode(kind, whole) for whole in sockets.request(sock, asked)]


def _table(message: Any, name: str) -> str:
    family = _FAMILIES.get(message["nfgen_family"], str(message["nfgen_family"]))
    return f"{family} {message.get_attr(name)}"


def _policy(chain: Any) -> Iterator[FilterRule]:
    if chain.get_attr("NFTA_CHAIN_HOOK") is None:
        return
    action = _POLICIES.get(chain.get_attr("NFTA_CHAIN_POLICY"), "ACCEPT")
    counters = chain.get_attr("NFTA_CHAIN_COUNTERS")
    packets = counters.get_attr("NFTA_COUNTER_PACKETS") if counters is not None else None
    table, name = _table(chain, "NFTA_CHAIN_TABLE"), str(chain.get_attr("NFTA_CHAIN_NAME"))
    text = f"policy {action.lower()}"
    yield FilterRule(FilterProgram.NFT, table, name, 0, text, action, packets)


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
        text=" ".join((*reading.words, reading.statement)),
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
        self._loaded = ""
        """What a statement that follows writes somewhere."""

    @property
    def statement(self) -> str:
        """The action in nft's words."""
        if self.action == "TCPMSS":
            return f"tcp option maxseg size set {self._loaded}"
        if self.action.isupper():
            return self.action.lower()
        return f"jump {self.action}"

    def take(self, part: _Part) -> None:
        """Take one expression."""
        readers = {
            "payload": self._load, "meta": self._load, "ct": self._load,
            "bitwise": self._bitwise, "cmp": self._compare, "counter": self._count,
            "immediate": self._decide, "rt": self._route, "exthdr": self._option,
            "byteorder": self._reorder,
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
        elif part.name == "meta" and part.get("NFTA_META_DREG") is not None:
            self._field = _meta(part)
        elif part.get("NFTA_CT_KEY") == "NFT_CT_STATE":
            self._field = "ct state"
        else:
            self._field = ""
            self._leave_out(part.name)

    def _bitwise(self, part: _Part) -> None:
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
            return
        field = self._field.replace("th ", f"{self._protocol} ")
        self.words.append(f"{field} {operator}{_text(raw, self._field, self._mask)}")

    def _count(self, part: _Part) -> None:
        self.packets = int(part.get("NFTA_COUNTER_PACKETS"))

    def _decide(self, part: _Part) -> None:
        self.action = _verdict(part) or self.action
        self._loaded = str(int.from_bytes(_value(part, "NFTA_IMMEDIATE_DATA") or b"\0"))

    def _route(self, part: _Part) -> None:
        if "TCPMSS" not in str(part.get("NFTA_RT_KEY")):
            self._leave_out("rt")
        self._loaded = "rt mtu"

    def _reorder(self, part: _Part) -> None:
        """Between the processor's and the network's order of bytes: nothing that nft shows."""

    def _option(self, part: _Part) -> None:
        """A TCP option that is written; what is only read is left out."""
        if part.get("NFTA_EXTHDR_TYPE") == _MAXSEG and part.get("NFTA_EXTHDR_SREG") is not None:
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
