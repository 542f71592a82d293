"""SIP messages over UDP (RFC 3261), as far as the built-in responder and client speak them.

OPTIONS, which asks a server what it can do and opens no dialog, and its response 200. The field
that IPVS's persistence engine reads is Call-ID (net/netfilter/ipvs/ip_vs_pe_sip.c).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lvsctl.model.addresses import Endpoint

_REQUEST = re.compile(rb"([A-Z]{1,20}) \S{1,200} SIP/2\.0\r?\n")
_STATUS = re.compile(rb"SIP/2\.0 ([1-6][0-9][0-9]) ([^\r\n]*)\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_COMPACT = {b"v": b"via", b"f": b"from", b"t": b"to", b"i": b"call-id"}
"""Short names of header fields (RFC 3261, section 7.3.3)."""

_COPIED = {b"via": b"Via", b"from": b"From", b"to": b"To", b"call-id": b"Call-ID", b"cseq": b"CSeq"}
"""Fields that a response has from its request, Via as often and in its order (8.2.6.2)."""

_TAG = b";tag="


class _Message(NamedTuple):
    """A message's header fields in order, and its body."""

    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def first(self, name: bytes) -> bytes:
        """The first field of that name; empty without one."""
        return next((value for key, value in self.fields if key == name), b"")


def encode_options(server: Endpoint, client: Endpoint, call: str, number: int) -> bytes:
    """Encode a request OPTIONS of the call ``call``, the ``number``-th of its client.

    ``branch`` begins with the cookie of RFC 3261 and differs in each request (8.1.1.7).
    """
    fields = (
        f"OPTIONS sip:{server} SIP/2.0",
        f"Via: SIP/2.0/UDP {client};branch=z9hG4bK{call}.{number};rport",
        "Max-Forwards: 70",
        f"From: <sip:lvsctl@{client}>;tag={call[:8]}",
        f"To: <sip:{server}>",
        f"Call-ID: {call}",
        f"CSeq: {number} OPTIONS",
        "Content-Length: 0",
    )
    return ("\r\n".join(fields) + "\r\n\r\n").encode()


def encode_response(request: bytes, text: bytes, tag: str) -> bytes:
    """Answer a request by 200 OK with ``text`` as its body; empty if ``request`` is none.

    A request without Call-ID, Via, From, To or CSeq is none: it cannot be answered (8.1.1).
    """
    found = _REQUEST.match(request)
    message = _parse(request, found.end()) if found else None
    if message is None or not all(map(message.first, _COPIED)):
        return b""
    lines = [b"SIP/2.0 200 OK"]
    for name, value in message.fields:
        if name in _COPIED:
            tagged = value + _TAG + tag.encode() if name == b"to" and _TAG not in value else value
            lines.append(_COPIED[name] + b": " + tagged)
    lines += [b"Content-Type: text/plain", b"Content-Length: %d" % len(text)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + text


def answered_text(data: bytes) -> bytes | None:
    """Return the body of a response; None if ``data`` is none."""
    found = _STATUS.match(data)
    message = _parse(data, found.end()) if found else None
    return None if message is None else message.body


def call_of(data: bytes) -> str:
    """Return a message's Call-ID; empty: it is no SIP message, or has none."""
    found = _REQUEST.match(data) or _STATUS.match(data)
    message = _parse(data, found.end()) if found else None
    return "" if message is None else message.first(b"call-id").decode("ascii", "replace")


def summary(data: bytes) -> str:
    """Describe a message in a few words, such as ``SIP OPTIONS, Call-ID 1f3a``; empty: not SIP."""
    request, status = _REQUEST.match(data), _STATUS.match(data)
    if request:
        what = request[1].decode("ascii")
    elif status:
        what = b" ".join(status.groups()).decode("ascii", "replace")
    else:
        return ""
    return f"SIP {what}, Call-ID {call_of(data) or 'missing'}"


def _parse(data: bytes, at: int) -> _Message | None:
    """Parse what follows the first line; None where the header does not end."""
    end = _HEAD_END.search(data, at - 2)
    if end is None:
        return None
    fields: list[tuple[bytes, bytes]] = []
    for line in data[at : end.start()].splitlines():
        name, colon, value = line.partition(b":")
        key = name.strip().lower()
        if line[:1] in b" \t" and fields:  # a folded line goes on (7.3.1)
            last, before = fields[-1]
            fields[-1] = last, before + b" " + line.strip()
        elif colon:
            fields.append((_COMPACT.get(key, key), value.strip()))
    return _Message(tuple(fields), data[end.end() :])
