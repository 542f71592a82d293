"""A plan as text: stage by stage, each command below the reason for it.

Condensed: what is the same on several nodes is printed once, for all of them. The complete
commands are in the script (``lvsctl.output.shell_script``) and in the JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import TypeVar

from lvsctl.errors import legible
from lvsctl.kernel import probe
from lvsctl.model.lab import NAMESPACE_PREFIX, USUAL_MTU, Lab, Network, Node, Role
from lvsctl.model.service import Protocol, RealServer, VirtualService
from lvsctl.output.phrases import (
    ROLE,
    counted,
    host_port,
    impaired,
    listed,
    service_line,
    url,
    vips,
)
from lvsctl.output.text.style import Cell, Style
from lvsctl.plan.stages import Plan, Stage, Up
from lvsctl.resources.base import Resource
from lvsctl.resources.bridge import Bridge
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.typed import typeable
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink

NODE = "NODE"
"""Placeholder for the name of each node that a block is about: no name has capitals."""

FEW = 6
"""Up to so many nodes are named one by one."""

Block = tuple[list[str], list[Resource]]
"""The names that replace ``NODE``, and resources. One name is written out; none means no node."""


def format_plan(plan: Plan, *, style: Style) -> str:
    """Format everything that ``up`` does, in order, condensed."""
    condensed = _Condensed(plan)
    counts = (
        f"{counted(len(plan.resources), 'operation')}, {counted(len(plan.namespaces), 'namespace')}"
    )
    lines = [style.heading(f"plan of lab {plan.lab}", counts)]
    for number, stage in enumerate(plan.stages, 1):
        lines += ["", style.bold(f"{number}. {stage.title}")]
        for names, ops in condensed.blocks(stage):
            lines.append("")
            if names:
                lines.append(style.wrapped(f"on {condensed.told(names)}:", 3, 2))
            lines += _block(ops, style)
    return style.finished("\n".join(lines))


def _block(ops: Iterable[Resource], style: Style) -> Iterator[str]:
    for paragraph in paragraphs(ops):
        for line in style.wrapped(paragraph.why, 5).splitlines() if paragraph.why else ():
            yield style.dim(f"   # {line.strip()}")
        for command in paragraph.commands:
            lines = wrap_command(command, style.width - 3)
            yield from (f"   {legible(line)}" for line in lines)


class _Condensed:
    """A plan's stages, each as blocks of what is the same on some nodes."""

    def __init__(self, plan: Plan) -> None:
        self._prefix = f"{NAMESPACE_PREFIX}-{plan.lab}-"
        self._switches = {op.netns for op in plan.resources if isinstance(op, Bridge)}
        self._hosts = [netns for netns in plan.namespaces if netns not in self._switches]

    def told(self, names: Sequence[str]) -> str:
        """The nodes that a block is about."""
        if len(names) == len(self._hosts) > 1:
            return f"every node ({', '.join(names)})" if len(names) <= FEW else "every node"
        return listed(names)

    def blocks(self, stage: Stage) -> Iterator[Block]:
        """The prerequisites first, then the nodes, then the usual settings."""
        switches: dict[str, list[Resource]] = {}
        hosts: dict[str, list[Resource]] = {}
        made: list[Resource] = []
        offloads: list[OffloadsOff] = []
        for op in stage.resources:
            if isinstance(op, OffloadsOff):
                offloads.append(op)
            elif isinstance(op, VethLink) or op.netns in self._switches:
                switches.setdefault(op.netns, []).append(op)
            elif isinstance(op, Namespace):
                made.append(op)
            else:
                hosts.setdefault(op.netns, []).append(op)
        for ops in (*switches.values(), made):
            if ops:
                yield [], ops
        yield from self._condensed(hosts)
        if offloads:
            yield from self._offloads(offloads)

    def _offloads(self, ops: Iterable[OffloadsOff]) -> Iterator[Block]:
        """Both ends of every link: a switch's port is called like the node at its other end."""
        names: dict[OffloadsOff, list[str]] = {}
        for op in ops:
            if op.netns in self._switches:
                names.setdefault(replace(op, device=NODE), []).append(op.device)
            else:
                general = replace(op, netns=self._prefix + NODE)
                names.setdefault(general, []).append(op.netns.removeprefix(self._prefix))
        alike: dict[tuple[str, ...], list[Resource]] = {}
        for general, several in names.items():
            alike.setdefault(tuple(several), []).append(general)
        yield from ((list(several), generals) for several, generals in alike.items())

    def _condensed(self, by_host: dict[str, list[Resource]]) -> Iterator[Block]:
        general = {netns: [self._general(op) for op in ops] for netns, ops in by_host.items()}
        shared: set[tuple[str, Resource]] = set()
        if len(general) == len(self._hosts) > 1:
            shared = set.intersection(*map(set, general.values()))
        alike: dict[tuple[tuple[str, Resource], ...], list[str]] = {}
        for netns, ops in general.items():
            alike.setdefault(tuple(op for op in ops if op not in shared), []).append(netns)
        for own, members in alike.items():
            if own:
                yield self._block(members, [op for _, op in own], by_host)
        if shared:
            first = next(iter(general.values()))
            yield self._block(list(by_host), [op for _, op in first if (_, op) in shared], by_host)

    def _block(
        self, members: list[str], general: list[Resource], by_host: dict[str, list[Resource]]
    ) -> Block:
        names = [netns.removeprefix(self._prefix) for netns in members]
        if len(members) > 1:
            return names, general
        return names, [op for op in by_host[members[0]] if self._general(op)[1] in general]

    def _general(self, op: Resource) -> tuple[str, Resource]:
        """``op`` as it is for any node, with its reason, which does not count when ops compare."""
        name = op.netns.removeprefix(self._prefix)
        why = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", NODE, op.why)
        general = replace(op, netns=self._prefix + NODE, why=why)
        if isinstance(general, (ResponderPort, UserCommand, Keepalived)):
            general = replace(general, node=NODE)
        return why, general


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Commands that have the same reason."""

    why: str
    commands: tuple[str, ...]


def paragraphs(ops: Iterable[Resource]) -> tuple[Paragraph, ...]:
    """Group ``ops``, in order, by their reason.

    Sysctls of one namespace that follow each other become one command: sysctl(8) takes several.
    """
    return tuple(
        Paragraph(why, tuple(_merged_commands(list(group))))
        for why, group in groupby(ops, key=attrgetter("why"))
    )


_WORD = re.compile(
    r"""(?: [^ '"\\] | '[^']*' | "(?:[^"\\]|\\.)*" | \\. )+""", re.DOTALL | re.VERBOSE
)
"""A word of a command, with its quotes, as POSIX sh splits it
 (XCU 2.2, 2.3): ``'a'"'"'b'``, shlex.quote's way to write ``a'b``, is one
word of three quoted pieces. Operators (``||``, ``2>/dev/null``) are words here as well.
"""


def wrap_command(command: str, width: int) -> list[str]:
    """Break ``command`` into lines of at most ``width``, continued with a backslash.

    The words stay the same: it is broken at unquoted blanks only, and quotes are not changed. What
    is run in place of a command that fails begins a line.
    """
    if len(command) <= width:
        return [command]
    lines, line = [], ""
    for word in _WORD.findall(command):
        if line and (word == "||" or len(line) + 1 + len(word) > width - 2):
            lines.append(line + " \\")
            line = "    " + word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _merged_commands(resources: Sequence[Resource]) -> Iterable[str]:
    for _, group in groupby(resources, key=_mergeable):
        first, *more = group
        if isinstance(first, Sysctl):
            (command,) = first.commands()
            settings = [one.setting for one in more if isinstance(one, Sysctl)]
            yield str(command._replace(argv=(*command.argv, *settings)))
        else:
            for resource in (first, *more):
                yield from resource.describe()


def _mergeable(resource: Resource) -> tuple[str, bool] | None:
    """Return the key that sysctls of one command share; None for other resources."""
    return (resource.netns, resource.optional) if isinstance(resource, Sysctl) else None


_T = TypeVar("_T")

MAX_LISTED = 6
"""More nodes of one group than this are shown as the first … the last."""


def format_up(result: Up, *, style: Style) -> str:
    """Format a new lab with commands to try, or the changes to a running one."""
    lab = result.lab
    if result.created:
        heading = style.heading(f"lab {lab.name} is up", lab.description)
        return style.finished("\n".join([heading, *_drawing(lab, style), "", *_try(lab, style)]))
    changed = result.added or result.removed or result.restored
    if not changed and not result.left:
        return style.finished(f"lab {style.bold(lab.name)}: unchanged")
    what = "changed" if changed else "unchanged, but not all of it is from the topology"
    lines = [f"lab {style.bold(lab.name)}: {what}"]
    return style.finished("\n".join([*lines, *_changes(result, style, probe.inside_machine())]))


def format_preview(result: Up, *, style: Style) -> str:
    """Format what ``up`` would do."""
    name = style.bold(result.lab.name)
    if result.created:
        return style.finished(
            f"lab {name} is not running: up would create it, with all of its {len(result.added)} "
            "settings (lvsctl plan prints them)"
        )
    if not result.changed and not result.left:
        return style.finished(f"lab {name}: up would change nothing")
    what = "up would change it" if result.changed else "up would change nothing"
    lines = [f"lab {name}: {what}", *_collapsed(result, style, probe.inside_machine())]
    return style.finished("\n".join(lines))


def format_difference(result: Up, before: str, after: str, *, style: Style) -> str:
    """Format what changes from one file to another, as commands for a lab of the second."""
    if not result.changed:
        return style.finished(f"{legible(before)} and {legible(after)} are the same lab")
    heading = f"from {legible(before)} to {legible(after)}:"
    return style.finished("\n".join([heading, *_collapsed(result, style, inside=True)]))


def _collapsed(result: Up, style: Style, inside: bool) -> list[str]:
    """Format changes, with one line for a node that comes or goes with everything in it."""
    coming = {one.netns: one for one in result.added if isinstance(one, Namespace)}
    going = {one.netns: one for one in result.removed if isinstance(one, Namespace)}
    lines = [style.red(f"- {_member(netns, result)}") for netns in going]
    for netns in coming:
        count = sum(netns in one.namespaces for one in result.added) - 1
        more = f" with {count} settings (lvsctl plan prints them)"
        lines.append(style.green(f"+ {_member(netns, result)}{more}"))
    rest = replace(
        result,
        added=tuple(one for one in result.added if coming.keys().isdisjoint(one.namespaces)),
        removed=tuple(one for one in result.removed if going.keys().isdisjoint(one.namespaces)),
    )
    return [*lines, *_changes(rest, style, inside)]


def _member(netns: str, result: Up) -> str:
    name = netns.removeprefix(result.lab.netns(""))
    is_network = any(network.name == name for network in result.lab.networks)
    return f"{'network' if is_network else 'node'} {legible(name)}"


def _changes(result: Up, style: Style, inside: bool) -> list[str]:
    """Format changes as commands; ``inside``: those of a lab in the machine."""
    lab = result.lab
    lines = [style.green(f"restored: {fault}") for fault in result.restored]

    def typed(command: object) -> str:
        return legible(typeable(str(command), lab, in_machine=inside))

    changed = ("~", style.yellow)
    for op in sorted(result.removed, key=result.is_change):  # what goes, then what is set back
        sign, paint = changed if result.is_change(op) else ("-", style.red)
        lines += [paint(f"{sign} {typed(one)}") for one in op.undo_commands() or op.commands()]
    for op in result.added:
        sign, paint = changed if result.is_change(op) else ("+", style.green)
        if isinstance(op, Keepalived):
            lines.append(paint(f"{sign} {op.node}: start keepalived"))
            continue
        lines += [paint(f"{sign} {typed(command)}") for command in result.commands(op)]
    for one in result.left:
        lines.append(style.yellow(f"left alone: {legible(one.text)}"))
        if one.command:
            lines.append(f"    to change it: {style.cyan(typed(one.command))}")
    return lines


def networks_and_services(lab: Lab, style: Style) -> str:
    """Format the lab's networks with their nodes, and its virtual services."""
    return "\n".join(_drawing(lab, style)).strip("\n")


def _drawing(lab: Lab, style: Style) -> Iterator[str]:
    for network in lab.networks:
        yield ""
        words = [style.bold(network.name), *map(str, network.subnets)]
        if network.mtu != USUAL_MTU:
            words.append(f"MTU {network.mtu}")
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
            own = next(i for i in nodes[0].interfaces if i.network == network.name).impairment
            held = (_held(lab, network, nodes[0]), impaired(own) if own is not None else "")
            yield [_span(node.name for node in nodes), ROLE[role], _span(addresses),
                   "  ".join(filter(None, held))]  # fmt: skip


def _addresses(node: Node, network: Network) -> str:
    return " ".join(str(address.ip) for address in node.addresses_on(network.name))


def _held(lab: Lab, network: Network, node: Node) -> str:
    """The VIPs of a node: a director's on this network, a real server's in brackets."""
    held = vips(lab, node.name)
    if node.role is Role.DIRECTOR:
        here = [vip for vip in held if lab.network_of(vip) == network]
        gateways = [one for one in lab.gateways if lab.network_of(one) == network]
        words = [f"VIP {', '.join(map(str, here))}"] if here else []
        words += [f"gateway {', '.join(map(str, gateways))}"] if gateways else []
        words += ["as master"] if words and node.ha is not None else []
        return " ".join(words)
    return f"(VIP {', '.join(map(str, held))})" if held else ""


def _real_servers(service: VirtualService) -> Iterator[list[str | Cell]]:
    def alike(server: RealServer) -> tuple[int, int, int, int, bool]:
        return server.port, server.weight, server.upper, server.lower, server.local

    for _, group in groupby(service.real_servers, key=alike):
        for servers in _grouped(list(group)):
            one = servers[0]
            words = [f"weight {one.weight}" if one.weight else "weight 0: drained"]
            if one.upper or one.lower:
                words.append(f"thresholds {one.lower} to {one.upper}")
            if one.local:
                words.append("the director itself")
            yield [
                Cell(f"→ {_span(server.node for server in servers)}", whole=True),
                _span(host_port(server.rip, server.port) for server in servers),
                ", ".join(words),
            ]
    if (sorry := service.sorry) is not None:
        yield [
            Cell(f"→ {sorry.node}", whole=True),
            host_port(sorry.rip, sorry.port),
            "sorry server: only keepalived uses it, while no other is usable",
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
