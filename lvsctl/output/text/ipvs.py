"""IPVS's table in the format of ``ipvsadm -Ln`` and ``-Ln --stats``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lvsctl.model.service import Encapsulation, ForwardingMethod, FwMark
from lvsctl.model.state import Counters, RealServerState, ServiceState
from lvsctl.output.phrases import host_port
from lvsctl.output.text.style import Cell, Style

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

Names = Mapping[tuple[str, int], str]
Row = list[str | Cell]


def table(
    services: Sequence[ServiceState], names: Names, style: Style, *, indent: int
) -> Iterator[str]:
    """One table if the width allows it, otherwise ipvsadm's two. ``names`` by RIP and port."""
    parts = [_TABLE + _STATS] if style.width >= WIDE else [_TABLE, _STATS]
    for columns in parts:
        rows: list[Row] = []
        for service in services:
            rows.append(_service_row(service, columns))
            rows += [_server_row(server, columns, names) for server in service.real_servers]
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
    if service.persistence:
        words.append(f"persistent {service.persistence}")
    counters = _counters(service.counters)
    return [Cell(" ".join(words), whole=True), *(_number(counters.get(c, "")) for c in columns)]


def _server_row(server: RealServerState, columns: Sequence[str], names: Names) -> Row:
    name = names.get((str(server.rip), server.port), "")
    where = f"  -> {host_port(server.rip, server.port)}" + (f"  {name}" if name else "")
    forward = server.forward
    method = FORWARD[forward] if isinstance(forward, ForwardingMethod) else forward.capitalize()
    if forward is ForwardingMethod.TUN and server.encapsulation is not Encapsulation.IPIP:
        method += f" {server.encapsulation}"
    values = {
        "Forward": method,
        "Weight": str(server.weight),
        "ActiveConn": str(server.active),
        "InActConn": str(server.inactive),
        **_counters(server.counters),
    }
    return [Cell(where, whole=True), *(_number(values[column]) for column in columns)]


def _number(text: str) -> Cell:
    return Cell(text, right=True)


def _counters(counters: Counters) -> dict[str, str]:
    return {
        "Conns": str(counters.connections),
        "InPkts": str(counters.packets_in),
        "OutPkts": str(counters.packets_out),
        "InBytes": str(counters.bytes_in),
        "OutBytes": str(counters.bytes_out),
    }
