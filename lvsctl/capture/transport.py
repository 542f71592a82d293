"""TCP, UDP and SCTP headers out of bytes.

Each function returns the header, where its payload begins, and what is wrong with it
although it could be read. Each raises Malformed where there is no header.
"""

from __future__ import annotations

from struct import Struct

from lvsctl.capture.reading import PORTS, U16, U32, need
from lvsctl.model.packet import Sctp, Tcp, TcpFlag, Udp

_TCP = Struct(">HHIIHH").unpack_from
_FLAGS = tuple(TcpFlag(bits) for bits in range(256))
_OPTION_END, _OPTION_NOTHING, _OPTION_MSS = 0, 1, 2


def tcp(data: bytes, at: int, end: int) -> tuple[Tcp, int, str]:
    """The TCP header at ``at`` (RFC 9293).

    Of one that is cut off after eight bytes, as in an old router's ICMP quotation
    (RFC 792), the ports and the sequence number are told.
    """
    available = end - at
    if available < 20:
        need("tcp", available, 8)
        sport, dport = PORTS(data, at)
        header = Tcp(sport, dport, U32(data, at + 4)[0], 0, TcpFlag.NONE, 0, 0)
        return header, end, f"tcp: {available} of 20 bytes"
    sport, dport, seq, ack, bits, window = _TCP(data, at)
    length = bits >> 12 << 2
    wrong = ""
    mss = 0
    if length < 20:
        wrong = f"tcp: header length {length}"
        length = 20
    elif length > available:
        wrong = f"tcp options: {available} of {length} bytes"
        length = available
    elif bits & TcpFlag.SYN.value and length > 20:
        mss, wrong = _mss(data[at + 20 : at + length])
    return Tcp(sport, dport, seq, ack, _FLAGS[bits & 0xFF], window, mss), at + length, wrong


def _mss(options: bytes) -> tuple[int, str]:
    """The maximum segment size among a SYN's options (0: none), and what is wrong with them."""
    at = mss = 0
    while at < len(options) and options[at] != _OPTION_END:
        if options[at] == _OPTION_NOTHING:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            return mss, f"tcp: option {options[at]} with length {length}"
        if options[at] == _OPTION_MSS and length == 4:
            mss = U16(options, at + 2)[0]
        at += length
    return mss, ""


def udp(data: bytes, at: int, end: int, whole: bool) -> tuple[Udp, int, str]:
    """The UDP header at ``at`` (RFC 768), where its payload ends, and what is wrong with it.

    ``whole`` says that the datagram was neither fragmented nor cut when captured.
    """
    need("udp", end - at, 8)
    sport, dport = PORTS(data, at)
    length = U16(data, at + 4)[0]
    wrong = ""
    if 0 < length < 8:  # 0: a jumbogram (RFC 2675, section 4)
        wrong = f"udp: length {length}"
    elif length > end - at:
        wrong = f"udp: length {length}, {end - at} bytes there" if whole else ""
    elif length:
        end = at + length
    return Udp(sport, dport), end, wrong


def sctp(data: bytes, at: int, end: int) -> tuple[Sctp, int, str]:
    """The SCTP header at ``at`` (RFC 9260); the payload is all its chunks."""
    available = end - at
    need("sctp", available, 8)
    sport, dport = PORTS(data, at)
    wrong = f"sctp: {available} of 12 bytes" if available < 12 else ""
    chunk = data[at + 12] if available > 12 else -1
    return Sctp(sport, dport, U32(data, at + 4)[0], chunk), min(at + 12, end), wrong
