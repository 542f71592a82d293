"""DNS messages (RFC 1035), as far as the built-in responder and client speak them.

One question, and answers of three types. This is not dnspython, because a responder that must
start within milliseconds and reports that decode thousands of payloads need no more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress

PORT = 53
"""The port of DNS (IANA, Service Name and Port Number Registry)."""

A, TXT, AAAA = 1, 16, 28
"""Types (IANA, Domain Name System Parameters)."""

_TYPES = {A: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", TXT: "TXT", AAAA: "AAAA",
          33: "SRV", 65: "HTTPS", 255: "ANY"}  # fmt: skip
_CODES = {0: "", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_CLASSES = frozenset((1, 3, 255))  # IN, CH (as in `dig CH TXT id.server`), ANY

_HEADER = struct.Struct(">HHHHHH")
_QUESTION = struct.Struct(">HH")
_RECORD = struct.Struct(">HHHIH")
_FIXED = struct.Struct(">HHIH")  # a record after its name: type, class, time to live, length
_POINTER = 0xC000
_RESPONSE, _AUTHORITATIVE, _RECURSION_DESIRED = 0x8000, 0x0400, 0x0100
_OPCODE, _CODE = 0x7800, 0x000F
_LONGEST_NAME, _LONGEST_LABEL, _LONGEST_STRING = 255, 63, 255


class Query(NamedTuple):
    """A message with one question, for the ``name`` (as encoded), a record type and class.

    ``end`` is where the question ends.
    """

    id: int
    flags: int
    name: bytes
    kind: int
    group: int
    end: int

    @property
    def is_response(self) -> bool:
        """Whether the message answers a query."""
        return bool(self.flags & _RESPONSE)

    @property
    def text(self) -> str:
        """The name as it is written, such as ``example.org``."""
        return ".".join(label.decode("ascii", "replace") for label in _labels(self.name)) or "."


def encode_query(number: int, name: str, kind: int) -> bytes:
    """Encode a query of class IN for ``name`` with the ID ``number``."""
    labels = [label.encode("ascii") for label in name.split(".") if label]
    encoded = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0) + encoded + _QUESTION.pack(kind, 1)


def parse_message(data: bytes) -> Query | None:
    """Parse the header and the question of a query or its response; None if it is neither.

    ``data`` is a query or a response where its header says so: a standard query (opcode 0)
    with one question, whose name is not compressed.
    """
    if len(data) < _HEADER.size:
        return None
    number, flags, questions, *_ = _HEADER.unpack_from(data)
    if flags & _OPCODE or questions != 1:
        return None
    end = _end_of_name(data, _HEADER.size)
    if not end or len(data) < end + _QUESTION.size:
        return None
    kind, group = _QUESTION.unpack_from(data, end)
    if group not in _CLASSES:
        return None
    return Query(number, flags, data[_HEADER.size : end], kind, group, end + _QUESTION.size)


def parse_query(data: bytes) -> Query | None:
    """Parse a query; None if ``data`` is none."""
    query = parse_message(data)
    return None if query is None or query.is_response else query


def encode_response(query: Query, addresses: Iterable[IPAddress], text: str) -> bytes:
    """Answer ``query``: A or AAAA with the ``addresses`` of that family, TXT with ``text``.

    Other types have no record: a response without answers (RFC 2308, section 2.2). The records'
    time to live is 0, so that no cache keeps them.
    """
    content: list[bytes] = []
    if query.kind in (A, AAAA):
        wanted = 4 if query.kind == A else 6
        content = [address.packed for address in addresses if address.version == wanted]
    elif query.kind == TXT:
        data = text.encode()[:_LONGEST_STRING]
        content = [bytes((len(data),)) + data]
    flags = _RESPONSE | _AUTHORITATIVE | (query.flags & _RECURSION_DESIRED)
    parts = [
        _HEADER.pack(query.id, flags, 1, len(content), 0, 0),
        query.name,
        _QUESTION.pack(query.kind, query.group),
    ]
    for data in content:
        # The name is a pointer to the question's (RFC 1035, section 4.1.4).
        parts.append(_RECORD.pack(_POINTER | _HEADER.size, query.kind, query.group, 0, len(data)))
        parts.append(data)
    return b"".join(parts)


def answered_text(data: bytes) -> str | None:
    """Return the text of a response's TXT record, empty without one; None: it is no response."""
    message = parse_message(data)
    if message is None or not message.is_response:
        return None
    return next((text for kind, text in _answers(data, message) if kind == TXT), "")


def summary(data: bytes) -> str:
    """Describe a message in a few words, such as ``DNS query TXT example.org``; empty: not DNS."""
    message = parse_message(data)
    if message is None:
        return ""
    kind = _TYPES.get(message.kind, f"TYPE{message.kind}")
    if not message.is_response:
        return f"DNS query {kind} {message.text}"
    code = message.flags & _CODE
    outcome = _CODES.get(code, f"RCODE{code}")
    found = [text for _, text in _answers(data, message)]
    return f"DNS answer {kind} {outcome or ', '.join(found) or 'no record'}"


def _answers(data: bytes, message: Query) -> Iterator[tuple[int, str]]:
    """Yield the answers' types and texts, until one cannot be read."""
    _, _, _, count, _, _ = _HEADER.unpack_from(data)
    at = message.end
    for _ in range(count):
        at = _end_of_name(data, at)
        if not at or len(data) < at + _FIXED.size:
            return
        kind, _, _, length = _FIXED.unpack_from(data, at)
        at += _FIXED.size
        content = data[at : at + length]
        at += length
        if len(content) < length:
            return
        if kind == TXT and content:
            yield kind, content[1 : 1 + content[0]].decode("utf-8", "replace").strip()
        elif kind == A and length == 4:
            yield kind, str(IPv4Address(content))
        else:
            yield kind, _TYPES.get(kind, f"TYPE{kind}")


def _end_of_name(data: bytes, at: int) -> int:
    """Return where the name at ``at`` ends; 0 if there is none. A pointer ends it."""
    begin = at
    while at < len(data) and at - begin < _LONGEST_NAME:
        length = data[at]
        if length >= 0xC0:
            return at + 2 if begin != _HEADER.size else 0
        if length > _LONGEST_LABEL:
            return 0
        at += 1 + length
        if not length:
            return at if at <= len(data) else 0
    return 0


def _labels(name: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(name) and name[at]:
        yield name[at + 1 : at + 1 + name[at]]
        at += 1 + name[at]
