"""A packet before and after a node: the fields that it changed, and what the packet carries."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.model.frame import Frame
from lvsctl.model.packet import Ip
from lvsctl.model.walk import Change

SOURCE_MAC, DESTINATION_MAC = "source MAC", "destination MAC"
SOURCE, DESTINATION = "source", "destination"
OUTER, TTL, INNER_TTL = "outer IP header", "TTL", "TTL inside"
MACS = frozenset({SOURCE_MAC, DESTINATION_MAC})


def label_of(frame: Frame) -> str:
    """What a frame carries, in a few words."""
    if frame.arp is not None:
        arp = frame.arp
        return f"who has {arp.target_ip}?" if arp.is_request else f"{arp.sender_ip} is at …"
    if frame.icmp is not None:
        nd = frame.icmp.nd
        if nd is not None:
            return f"who has {nd.target}?" if nd.is_solicit else f"{nd.target} is at …"
        return f"ICMP {frame.icmp.name}"
    size = len(frame.payload)
    if frame.tcp is not None:
        return f"{_first_line(frame.payload)}{size} bytes" if size else str(frame.tcp.flags)
    return f"{size} bytes"


def _first_line(payload: bytes) -> str:
    """``GET /, `` of an HTTP request, ``200 OK, `` of an answer; else nothing."""
    words = payload[:120].split(b"\r\n", 1)[0].decode("ascii", "replace").split()
    if len(words) == 3 and words[2].startswith("HTTP/"):
        path = words[1] if len(words[1]) <= 16 else words[1][:15] + "…"
        return f"{words[0]} {path}, "
    if len(words) > 1 and words[0].startswith("HTTP/"):
        return f"{' '.join(words[1:3])}, "
    return ""


def changes_of(came: Frame, went: Frame) -> tuple[Change, ...]:
    """The fields in which a packet left differently from how it came, outermost first."""
    return tuple(_changes(came, went))


def _changes(came: Frame, went: Frame) -> Iterator[Change]:
    if came.ethernet is not None and went.ethernet is not None:
        yield from _differing(SOURCE_MAC, came.ethernet.src, went.ethernet.src)
        yield from _differing(DESTINATION_MAC, came.ethernet.dst, went.ethernet.dst)
    wrapped, unwrapped = len(went.ips) > len(came.ips), len(went.ips) < len(came.ips)
    if wrapped or unwrapped:
        yield Change(
            OUTER, _outer(came) if unwrapped else "none", _outer(went) if wrapped else "none"
        )
    before, after = came.inner, went.inner
    if before is None or after is None:
        return
    yield from _differing(SOURCE, _end(came, before, 0), _end(went, after, 0))
    yield from _differing(DESTINATION, _end(came, before, 1), _end(went, after, 1))
    outer_before, outer_after = came.ips[0], went.ips[0]
    if len(came.ips) == len(went.ips) > 1:
        yield from _differing(TTL, str(outer_before.ttl), str(outer_after.ttl))
        yield from _differing(INNER_TTL, str(before.ttl), str(after.ttl))
    else:
        yield from _differing(TTL, str(before.ttl), str(after.ttl))


def _differing(what: str, before: str, after: str) -> Iterator[Change]:
    if before != after:
        yield Change(what, before, after)


def _outer(frame: Frame) -> str:
    outer = frame.ips[0]
    kind = frame.packet.encapsulation
    return f"{outer.src} → {outer.dst}, {kind}" if kind else f"{outer.src} → {outer.dst}"


def _end(frame: Frame, ip: Ip, side: int) -> str:
    flow = frame.flow
    if flow is None:
        return str((ip.src, ip.dst)[side])
    return str((flow.src, flow.dst)[side])
