"""IPVS's virtual services and real servers as tables, in ipvsadm's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lvsctl.model.service import Encapsulation, ForwardingMethod, FwMark, tunnel_text
from lvsctl.model.state import Counters, RealServerState, ServiceState
from lvsctl.output.folding import FOLDED_FROM, name_ranges, value_range
from lvsctl.output.phrases import host_port
from lvsctl.output.text.style import Cell, Style
from lvsctl.resources.ipvs_service import flag_names, mask_words

FORWARD = {
    ForwardingMethod.NAT: "Masq",
    ForwardingMethod.TUN: "Tunnel",
    ForwardingMethod.DR: "Route",
}
"""ipvsadm's words for the forwarding methods."""

WIDE = 118
"""Columns that both tables need side by side."""

_TABLE = ("Forward", "Weight", "ActiveConn", "InActConn")
_STATS = ("Conns", "InPkts", "OutPkts", "InBytes", "OutBytes")
_THRESHOLDS = ("Uthreshold", "Lthreshold")

Names = Mapping[tuple[str, int], str]
Row = list[str | Cell]


def ipvs_table(
    services: Sequence[ServiceState], names: Names, style: Style, *, indent: int, folds: bool
) -> Iterator[str]:
    """One table if the width allows it, otherwise ipvsadm's two. ``names`` by RIP and port.

    Thresholds have one more, where there are any.
    """
    parts: list[tuple[str, ...]] = [_TABLE + _STATS] if style.width >= WIDE else [_TABLE, _STATS]
    if any(one.upper or one.lower for service in services for one in service.real_servers):
        parts.append(_THRESHOLDS)
    for columns in parts:
        rows: list[Row] = []
        for service in services:
            rows.append(_service_row(service, columns))
            folded = _rows_of(service, names, folds=folds)
            rows += [_server_row(servers, columns, names) for servers in folded]
        first = "Prot LocalAddress:Port Scheduler Flags"
        headings: Row = [Cell("  -> RemoteAddress:Port"), *(Cell(c, right=True) for c in columns)]
        yield " " * indent + style.bold(first)
        yield style.table(rows, headings=headings, indent=indent)


def _service_row(service: ServiceState, columns: Sequence[str]) -> Row:
    match = service.match
    if isinstance(match, FwMark):
        words = ["FWM ", str(match.mark), service.scheduler]
    else:
        where = host_port(match.vip, match.port)
        words = [str(match.protocol).upper().ljust(4), where, service.scheduler]
    flags = flag_names(service.scheduler, service.flags)
    words += [f"({','.join(flags)})"] if flags else []
    words += ["ops"] if "ops" in service.flags else []
    if service.persistence:
        words.append(f"persistent {service.persistence}")
        bits = service.netmask
        words += [f"mask {mask_words(service.match.version, bits)}"] if bits else []
    words += [f"pe {service.engine}"] if service.engine else []
    counters = _counters(service.counters)
    return [
        Cell(" ".join(words), whole=True),
        *(_right_aligned(counters.get(c, "")) for c in columns),
    ]


def _rows_of(
    service: ServiceState, names: Names, *, folds: bool
) -> Iterator[tuple[RealServerState, ...]]:
    """The real servers in a row each, or where many are configured alike, those in one."""
    alike: dict[object, list[RealServerState]] = {}
    for one in service.real_servers:
        known = folds and (str(one.rip), one.port) in names
        way = (one.forward, one.encapsulation, one.tunnel_port, one.tunnel_flags)
        key = (one.port, one.weight, one.upper, one.lower, *way) if known else one
        alike.setdefault(key, []).append(one)
    for several in sorted(alike.values(), key=len):  # what differs first
        if len(several) >= FOLDED_FROM:
            yield tuple(several)
        else:
            yield from ((one,) for one in several)


def _server_row(servers: tuple[RealServerState, ...], columns: Sequence[str], names: Names) -> Row:
    """One real server, or several with the least and the greatest of each number."""
    server = servers[0]
    known = [name for one in servers if (name := names.get((str(one.rip), one.port)))]
    name = name_ranges(known)
    where = f"  -> {host_port(server.rip, server.port)}" + (f"  {name}" if name else "")
    if len(servers) > 1:
        where = f"  -> {len(servers)} real servers, each  {name}"
    forward = server.forward
    method = FORWARD[forward] if isinstance(forward, ForwardingMethod) else forward.capitalize()
    if forward is ForwardingMethod.TUN and server.encapsulation is not Encapsulation.IPIP:
        method += f" {tunnel_text(server.encapsulation, server.tunnel_port, server.tunnel_flags)}"
    values = {
        "Forward": method,
        "Weight": str(server.weight),
        "ActiveConn": value_range(one.active for one in servers),
        "InActConn": value_range(one.inactive for one in servers),
        "Uthreshold": str(server.upper),
        "Lthreshold": str(server.lower),
        **_counters(*(one.counters for one in servers)),
    }
    return [Cell(where, whole=True), *(_right_aligned(values[column]) for column in columns)]


def _right_aligned(text: str) -> Cell:
    return Cell(text, right=True)


def _counters(*counters: Counters) -> dict[str, str]:
    return {
        "Conns": value_range(one.connections for one in counters),
        "InPkts": value_range(one.packets_in for one in counters),
        "OutPkts": value_range(one.packets_out for one in counters),
        "InBytes": value_range(one.bytes_in for one in counters),
        "OutBytes": value_range(one.bytes_out for one in counters),
    }
