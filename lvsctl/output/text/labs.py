"""What ``up`` did, and the list of labs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TypeVar

from lvsctl.engine.results import Listed, Up
from lvsctl.errors import legible
from lvsctl.model.lab import Lab, Network, Node, Role
from lvsctl.model.service import Protocol, RealServer, VirtualService
from lvsctl.output.phrases import (
    ROLE,
    host_port,
    impaired,
    injected_faults,
    method,
    service_line,
    url,
    vips,
)
from lvsctl.output.text.style import Cell, Style, printable

Row = list[str | Cell]

UP, CHANGING, BROKEN = "up", "changing", "broken"
"""Values of ``kernel.registry.State``."""


def format_labs(listed: Sequence[Listed], *, style: Style) -> str:
    """Format the list of labs; problems follow the table."""
    if not listed:
        return style.finished("no lab is running; start one: " + style.cyan("lvsctl up dr"))
    rows = [_listed_row(one, style) for one in listed]
    lines = [style.table(rows, headings=("lab", "state", "nodes", "services", "started"))]
    lines += [
        style.wrapped(f"{one.entry.lab}: {trouble}", hanging=2)
        for one in listed
        if (trouble := _trouble(one))
    ]
    lines += [injected_faults(one.entry.lab, one.faults, style) for one in listed if one.faults]
    return style.finished("\n".join(lines))


def _listed_row(one: Listed, style: Style) -> Row:
    state = str(one.entry.state)
    if state == UP and not one.answering:
        state = "not answering"
    started = ""
    if one.entry.started:
        from datetime import UTC, datetime

        moment = datetime.fromtimestamp(one.entry.started, UTC)
        started = moment.strftime("%Y-%m-%d %H:%M UTC")
    return [
        Cell(one.entry.lab, style.bold),
        Cell(state, style.red if _trouble(one) else style.green, whole=True),
        Cell(str(len(one.lab.nodes)) if one.lab else "", right=True),
        _services(one.lab) if one.lab else "",
        started,
    ]


def _services(lab: Lab) -> str:
    return ", ".join(
        f"{service.name} {host_port(service.endpoint.vip, service.endpoint.port)} {method(service)}"
        for service in lab.services
    )


def _trouble(one: Listed) -> str:
    """Return what is wrong with a lab, with a remedy; empty if it is fine."""
    name = one.entry.lab
    if one.entry.state == UP:
        if one.answering:
            return ""
        return (
            "the process that answers for its real servers is not running: "
            f"lvsctl down {name}, then lvsctl up"
        )
    if one.entry.state == BROKEN:
        return f"{printable(one.entry.problem)}; remove it: lvsctl down {name}"
    if one.entry.state == CHANGING:
        return (
            "a command is changing it, or was interrupted: it may match neither its old nor its "
            f"new topology; lvsctl up changes it again, lvsctl down {name} removes it"
        )
    return f"a command is creating or removing it, or was killed: lvsctl down {name} removes it"


_T = TypeVar("_T")

MAX_LISTED = 6
"""More nodes of one group than this are shown as the first … the last."""


def format_up(result: Up, *, style: Style) -> str:
    """Format a new lab with commands to try, or the changes to a running one."""
    lab = result.lab
    if result.created:
        heading = style.heading(f"lab {lab.name} is up", lab.description)
        return style.finished("\n".join([heading, *_drawing(lab, style), "", *_try(lab, style)]))
    if not (result.added or result.removed or result.restored):
        return style.finished(f"lab {style.bold(lab.name)}: unchanged")
    lines = [f"lab {style.bold(lab.name)}: changed"]
    lines += [style.green(f"restored: {fault}") for fault in result.restored]
    for op in result.removed:
        lines += [style.red(f"- {legible(command)}") for command in op.describe()]
    for op in result.added:
        sign, paint = ("~", style.yellow) if op in result.edited else ("+", style.green)
        lines += [paint(f"{sign} {legible(command)}") for command in result.commands(op)]
    return style.finished("\n".join(lines))


def networks_and_services(lab: Lab, style: Style) -> str:
    """Format the lab's networks with their nodes, and its virtual services."""
    return "\n".join(_drawing(lab, style)).strip("\n")


def _drawing(lab: Lab, style: Style) -> Iterator[str]:
    for network in lab.networks:
        yield ""
        words = [style.bold(network.name), *map(str, network.subnets)]
        if network.impairment:
            words.append(style.yellow(impaired(network.impairment)))
        yield "  " + "  ".join(words)
        yield style.table(list(_members(lab, network)), indent=4)
    for service in lab.services:
        yield ""
        yield f"  {style.bold(service.name)}  {service_line(service)}"
        yield style.table(list(_real_servers(service)), indent=4)


def _members(lab: Lab, network: Network) -> Iterator[list[str]]:
    """Rows of the nodes on ``network``: name, role, addresses, VIPs (in brackets: no ARP)."""
    on_it = (node for node in lab.nodes if network.name in node.networks)
    for (_, role), group in groupby(on_it, key=lambda node: (node.group, node.role)):
        for nodes in _grouped(list(group)):
            addresses = (_addresses(node, network) for node in nodes)
            yield [_span(node.name for node in nodes), ROLE[role], _span(addresses),
                   _held(lab, network, nodes[0])]  # fmt: skip


def _addresses(node: Node, network: Network) -> str:
    return " ".join(str(address.ip) for address in node.addresses_on(network.name))


def _held(lab: Lab, network: Network, node: Node) -> str:
    """The VIPs of a node: a director's on this network, a real server's in brackets."""
    held = vips(lab, node.name)
    if node.role is Role.DIRECTOR:
        here = [vip for vip in held if lab.network_of(vip) == network]
        return " ".join(f"VIP {vip}" for vip in here)
    return " ".join(f"(VIP {vip})" for vip in held)


def _real_servers(service: VirtualService) -> Iterator[list[str | Cell]]:
    def alike(server: RealServer) -> tuple[int, int, int, int]:
        return server.port, server.weight, server.upper, server.lower

    for _, group in groupby(service.real_servers, key=alike):
        for servers in _grouped(list(group)):
            one = servers[0]
            words = [f"weight {one.weight}" if one.weight else "weight 0: drained"]
            if one.upper or one.lower:
                words.append(f"thresholds {one.lower} to {one.upper}")
            yield [
                Cell(f"→ {_span(server.node for server in servers)}", whole=True),
                _span(host_port(server.rip, server.port) for server in servers),
                ", ".join(words),
            ]


def _grouped(things: Sequence[_T]) -> list[Sequence[_T]]:
    """Each on its own if they are few, otherwise all together."""
    return [things] if len(things) > MAX_LISTED else [[thing] for thing in things]


def _span(names: Iterable[str]) -> str:
    several = list(names)
    return several[0] if len(several) == 1 else f"{several[0]} … {several[-1]}"


def _try(lab: Lab, style: Style) -> Iterator[str]:
    """Rows of commands to try; they name the lab, because several can run."""
    yield "Try:"
    commands = [
        [f"lvsctl verify {lab.name}", "check what LVS promises"],
        [f"lvsctl inspect {lab.name}", "addresses, routes, ARP settings, the IPVS table"],
        [f"lvsctl plan {lab.name}", "the commands behind it"],
        [f"lvsctl down {lab.name}", "remove it"],
    ]
    clients = lab.having(Role.CLIENT)
    asked = [service for service in lab.services if service.endpoint.protocol is Protocol.TCP]
    if clients and asked:
        ask = f"lvsctl exec {lab.name}/{clients[0].name} -- curl -s {url(asked[0])}"
        commands.insert(0, [ask, "a request"])
    rows = [[Cell(what, style.cyan, whole=True), Cell(why, style.dim)] for what, why in commands]
    yield style.table(rows, indent=2)
