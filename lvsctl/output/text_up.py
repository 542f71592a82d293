"""What ``up`` did: the new lab in a few lines, or what changed in a running one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from lvsctl.errors import legible
from lvsctl.model.lab import Lab, Network, Node, Role
from lvsctl.model.service import Protocol, RealServer, VirtualService
from lvsctl.output.style import Cell, Style
from lvsctl.output.words import ROLE, host_port, impaired, service_line, url, vips

if TYPE_CHECKING:
    from lvsctl.engine.results import Up

_T = TypeVar("_T")

ENOUGH = 6
"""More nodes of one group than this are told as the first … the last."""


def up(result: Up, *, style: Style) -> str:
    """What there is now, in a few lines, and what to type next."""
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
    """The lab's networks with who is on them, and its virtual services."""
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
    """Each node on ``network``: name, role, addresses, VIPs (in brackets: held silently)."""
    on_it = (node for node in lab.nodes if network.name in node.networks)
    for (_, role), group in groupby(on_it, key=lambda node: (node.group, node.role)):
        for nodes in _told(list(group)):
            addresses = (_addresses(node, network) for node in nodes)
            yield [_span(node.name for node in nodes), ROLE[role], _span(addresses),
                   _held(lab, network, nodes[0])]  # fmt: skip


def _addresses(node: Node, network: Network) -> str:
    return " ".join(str(address.ip) for address in node.addresses_on(network.name))


def _held(lab: Lab, network: Network, node: Node) -> str:
    """The VIPs of ``node``: a director's on this network, a real server's (silent) in brackets."""
    held = vips(lab, node.name)
    if node.role is Role.DIRECTOR:
        here = [vip for vip in held if lab.network_of(vip) == network]
        return " ".join(f"VIP {vip}" for vip in here)
    return " ".join(f"(VIP {vip})" for vip in held)


def _real_servers(service: VirtualService) -> Iterator[list[str | Cell]]:
    def alike(server: RealServer) -> tuple[int, int, int, int]:
        return server.port, server.weight, server.upper, server.lower

    for _, group in groupby(service.real_servers, key=alike):
        for servers in _told(list(group)):
            one = servers[0]
            words = [f"weight {one.weight}" if one.weight else "weight 0: drained"]
            if one.upper or one.lower:
                words.append(f"thresholds {one.lower} to {one.upper}")
            yield [
                Cell(f"→ {_span(server.node for server in servers)}", whole=True),
                _span(host_port(server.rip, server.port) for server in servers),
                ", ".join(words),
            ]


def _told(things: Sequence[_T]) -> list[Sequence[_T]]:
    """Each on its own where they are few, else all of them in one."""
    return [things] if len(things) > ENOUGH else [[thing] for thing in things]


def _span(names: Iterable[str]) -> str:
    several = list(names)
    return several[0] if len(several) == 1 else f"{several[0]} … {several[-1]}"


def _try(lab: Lab, style: Style) -> Iterator[str]:
    """Commands that name the lab, so that they work however many are running."""
    yield "Try:"
    commands = [
        [f"lvsctl verify {lab.name}", "check what LVS promises"],
        [f"lvsctl inspect {lab.name}", "addresses, routes, ARP settings, the IPVS table"],
        [f"lvsctl plan {lab.name}", "the commands behind it"],
        [f"lvsctl down {lab.name}", "remove it"],
    ]
    clients = lab.having(Role.CLIENT)
    asked = [service for service in lab.services if service.key.protocol is Protocol.TCP]
    if clients and asked:
        ask = f"lvsctl exec {lab.name}/{clients[0].name} -- curl -s {url(asked[0])}"
        commands.insert(0, [ask, "a request"])
    rows = [[Cell(what, style.cyan, whole=True), Cell(why, style.dim)] for what, why in commands]
    yield style.table(rows, indent=2)
