"""Frames that were captured on a real host, and what its director counted meanwhile.

From what ``capture.sh`` prints: tcpdump's own files, ``ipvsadm --stats``, entries of the connection
table. It is another host's, and may say anything: what is malformed raises ``Damaged``.

Sources: pcap-savefile(5); ipvsadm(8).
"""

from __future__ import annotations

import re
import shlex
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lvsctl.formats.hosts.document import Damaged, script_from, sections
from lvsctl.formats.hosts.ipvs import typed_endpoint
from lvsctl.formats.hosts.values import Unreadable, number
from lvsctl.model.addresses import IPAddress
from lvsctl.model.frame import Direction, LinkType, RawFrame, Tap
from lvsctl.model.service import FwMark, Protocol, ServiceMatch, VipPort
from lvsctl.model.state import Counters, ServiceState

READY = b"ready\n"
"""What the script prints when it captures on every device."""

MOST_FRAMES = 20_000
"""tcpdump ends after so many, of each device and direction (``-c`` in the script)."""

Places = Mapping[tuple[ServiceMatch, IPAddress, int], Counters]
"""Counters of real servers: by their service, address and port."""


@dataclass(frozen=True, slots=True)
class HostFrames:
    """What was captured on a host. ``connections`` are lines of /proc/net/ip_vs_conn.

    The frames' directions are those of the kernel; whether one was for another host is not known.
    """

    taps: Mapping[Tap, LinkType]
    frames: tuple[RawFrame, ...]
    dropped: int
    before: Places
    after: Places
    connections: tuple[str, ...]


def capture_script(devices: Iterable[str], expression: str, clients: Iterable[IPAddress]) -> str:
    """Return the script that captures on a host's ``devices`` what ``expression`` selects."""
    pattern = "|".join(f" {_in_table(one)} " for one in clients)
    variables = (
        ("devices", " ".join(devices)), ("filter", expression), ("clients", pattern)
    )  # fmt: skip
    head = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables)
    return head + script_from("capture.sh")


def _in_table(address: IPAddress) -> str:
    """An address as /proc/net/ip_vs_conn has it (ip_vs_conn_seq_show)."""
    return f"{int(address):08X}" if address.version == 4 else address.exploded


def expression_for(
    clients: Sequence[IPAddress],
    vips: Sequence[IPAddress],
    *,
    tunnels: Iterable[str] = (),
    translated: Iterable[IPAddress] = (),
    without: int = 22,
) -> str:
    """Return the filter for the requests of ``clients`` (pcap-filter(7)).

    Their own packets but for those of TCP port ``without`` (this ssh connection's), ARP, neighbour
    discovery, ICMP errors, encapsulated packets (``tunnels`` are expressions), the first packet of
    every connection to ``vips``, which shows who else uses the service, and all packets of
    ``translated`` addresses, real servers that a director sends to with an address of its own.
    """
    hosts = " or ".join(f"host {one}" for one in clients)
    own = f"(({hosts}) and not tcp port {without})"
    syn = (
        f"(dst host {one} and {'tcp[13]' if one.version == 4 else 'ip6[53]'} & 2 != 0)"
        for one in vips
    )
    more = (f"(host {one} and not tcp port {without})" for one in translated)
    parts = ("arp", "icmp", "icmp6", own, *syn, *tunnels, *more)
    return " or ".join(parts)


def read_frames(data: bytes, source: str, node: str, devices: Sequence[str]) -> HostFrames:
    """Read what the script printed. Raises Damaged.

    The taps are called after ``node`` and the host's ``devices``, in the script's order.
    """
    found = sections(data, source)
    taps: dict[Tap, LinkType] = {}
    frames: list[RawFrame] = []
    dropped = 0
    try:
        for position, device in enumerate(devices):
            tap = Tap(node, device)
            for way, direction in (("in", Direction.IN), ("out", Direction.OUT)):
                section = found.get(f"frames-{position}-{way}")
                if section is None:
                    raise Unreadable(f"no frames of {device}")
                link, read = _read_pcap(bytes.fromhex(section.text), tap, direction)
                taps[tap] = link
                frames += read
                if len(read) >= MOST_FRAMES:
                    dropped += 1
                lost = found.get(f"lost-{position}-{way}")
                dropped += _lost(lost.text if lost is not None else "")
        texts = {name: section.text for name, section in found.items()}
        before = dict(_counters(texts.get("counters-before", "")))
        after = dict(_counters(texts.get("counters-after", "")))
    except (Unreadable, ValueError, struct.error) as error:
        raise Damaged(
            f"{source}: the capture cannot be read: {error}",
            hint="does tcpdump there write as tcpdump.org's does (tcpdump --version)?",
        ) from None
    lines = tuple(filter(None, texts.get("connections", "").split("\n")))
    return HostFrames(taps, tuple(frames), dropped, before, after, lines)


def _lost(text: str) -> int:
    found = re.search(r"([0-9]{1,12}) packets? dropped by kernel", text)
    return int(found[1]) if found else 0


_NANO = {0xA1B23C4D: 1, 0xA1B2C3D4: 1000}
"""The magic numbers of files with nanoseconds and with microseconds."""

_LARGEST_FRAME = 1 << 18


def _read_pcap(data: bytes, tap: Tap, direction: Direction) -> tuple[LinkType, list[RawFrame]]:
    order = next(
        (o for o in "<>" if len(data) >= 24 and struct.unpack_from(f"{o}I", data)[0] in _NANO), ""
    )
    if not order:
        raise Unreadable(f"{tap}: not a file of tcpdump")
    scale = _NANO[struct.unpack_from(f"{order}I", data)[0]]
    kind = struct.unpack_from(f"{order}I", data, 20)[0] & 0xFFFF
    if kind not in (LinkType.ETHERNET, LinkType.RAW):
        raise Unreadable(f"{tap}: frames of link type {kind}")
    link, at = LinkType(kind), 24
    frames: list[RawFrame] = []
    record = struct.Struct(f"{order}IIII")
    while len(data) - at >= record.size:
        seconds, fraction, kept, length = record.unpack_from(data, at)
        at += record.size
        if kept > _LARGEST_FRAME or len(data) - at < kept:
            break  # tcpdump was ended while it wrote
        # Of what leaves, the device may compute the checksum.
        frames.append(
            RawFrame(
                seconds * 1_000_000_000 + fraction * scale,
                tap,
                direction,
                link,
                length,
                data[at : at + kept],
                checksum_pending=True,
            )
        )
        at += kept
    return link, frames


_PROTOCOLS = {str(protocol).upper(): protocol for protocol in Protocol}


def _counters(text: str) -> Iterator[tuple[tuple[ServiceMatch, IPAddress, int], Counters]]:
    """Read ``ipvsadm -L -n --stats --exact``."""
    match: ServiceMatch | None = None
    for line in text.split("\n"):
        words = line.split()
        if len(words) < 7 and words[:1] != ["FWM"]:
            continue
        if words[0] in _PROTOCOLS and words[1] != "LocalAddress:Port":
            match = VipPort(_PROTOCOLS[words[0]], *typed_endpoint(words[1]))
        elif words[0] == "FWM":
            match = FwMark(number(words[1]), 6 if "IPv6" in words else 4)
        elif words[0] == "->" and words[1] != "RemoteAddress:Port" and match is not None:
            rip, port = typed_endpoint(words[1])
            yield (match, rip, port), Counters(*map(number, words[2:7]))


def with_counters(service: ServiceState, counted: Places) -> ServiceState:
    """Add counters to a virtual service of IPVS's table."""
    return service._replace(
        real_servers=tuple(
            one._replace(counters=counted.get((service.match, one.rip, one.port), one.counters))
            for one in service.real_servers
        ),
    )
