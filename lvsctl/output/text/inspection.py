"""Each node's state in the kernel as text, with its deviations from the topology."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lvsctl.engine.findings import Inspection, NodeInspection
from lvsctl.model.addresses import IPInterface
from lvsctl.model.ipvs_sysctls import IPVS_SYSCTLS, PREFIX, IpvsSysctl, normal
from lvsctl.model.lab import Lab, Node, Role
from lvsctl.model.service import IpvsTimeouts, Protocol, TunnelKind
from lvsctl.model.state import NeighbourState, RouteState
from lvsctl.output.folding import FOLDED_FROM, name_ranges
from lvsctl.output.phrases import ROLE, counted, host_port, impaired, injected_faults, vips
from lvsctl.output.text.ipvs_table import ipvs_table
from lvsctl.output.text.style import Cell, Style, printable
from lvsctl.resources.base import Deviation

ARP = ("arp_ignore", "arp_announce", "rp_filter")
"""Sysctls that matter on an interface of a real server that holds the VIP (DR, TUN)."""

TUNNELS = frozenset(map(str, TunnelKind))
"""rtnetlink's kinds of tunnel device."""

FORWARDING = ("rp_filter", "send_redirects")
"""Sysctls that matter on an interface of a router or director."""

_CONF = "net.ipv4.conf"
_TOLD = frozenset({"deprecated", "tentative", "dadfailed"})
"""What decides how IPv6 uses an address (ip-address(8))."""

Rows = Iterator[list[str | Cell]]


def format_inspection(inspection: Inspection, *, style: Style, verbose: bool = False) -> str:
    """Format the nodes: devices, routes, neighbours, sysctls, listeners, IPVS; deviations red.

    Unless ``verbose``, of many nodes of a group that are as the topology says the first stands
    for all, and of many real servers in an IPVS table, or neighbours, one row for those alike.
    """
    owners = _owners(inspection)
    lines: list[str] = []
    alike = {} if verbose else _alike(inspection)
    for name, found in inspection.nodes.items():
        node = inspection.lab.node(name)
        if name in alike.get(node.group, ())[1:]:
            continue
        lines += [_heading(inspection, node, style)]
        one = _Node(inspection.lab, node, found, owners, style, folds=not verbose)
        lines += [*one.sections(), ""]
        if name in alike.get(node.group, ()):
            others = name_ranges(alike[node.group][1:])
            lines += [style.heading(others, f"like {name}: as the topology says (-v shows each)")]
            lines.append("")
    for name, switch in inspection.switches.items():
        if switch.deviations:
            lines += [style.heading(name, "the switch of the network")]
            lines += [*_deviations(switch.deviations, style), ""]
    total = len(inspection.deviations)
    if total:
        differences = counted(total, "difference")
        lines.append(style.red(f"{differences} from the topology, marked with !"))
    if inspection.faults:
        lines.append(injected_faults(inspection.lab.name, inspection.faults, style))
    return style.finished("\n".join(lines))


def _alike(inspection: Inspection) -> dict[str, list[str]]:
    """By group, the nodes without deviations, where they are many."""
    groups: dict[str, list[str]] = {}
    for name, found in inspection.nodes.items():
        if not found.deviations:
            groups.setdefault(inspection.lab.node(name).group, []).append(name)
    return {group: names for group, names in groups.items() if len(names) >= FOLDED_FROM}


def _heading(inspection: Inspection, node: Node, style: Style) -> str:
    lab = inspection.lab
    serves = [
        f"{service.name} by {server.forward}"
        for service in lab.services
        for server in service.real_servers
        if server.node == node.name
    ]
    role = ROLE[node.role] + (f" of {', '.join(serves)}" if serves else "")
    if state := inspection.nodes[node.name].vrrp:
        role += f" ({state})"
    return style.heading(node.name, f"{role}, namespace {lab.netns(node.name)}")


def _owners(inspection: Inspection) -> dict[str, str]:
    """Map MAC addresses to nodes, so that neighbours are shown by name."""
    return {
        link.mac: name
        for name, state in inspection.states.items()
        for link in state.links
        if link.mac
    }


def _deviations(found: Iterable[Deviation], style: Style) -> Iterator[str]:
    for one in found:
        why = f" ({one.why})" if one.why else ""
        yield style.red(style.wrapped(f"! {printable(one.text + why)}", 2, 2))
        if one.left and one.command:
            yield f"      `lvsctl up` leaves it alone; to change it: {style.cyan(one.command)}"


class _Node:
    """Formats one node."""

    def __init__(
        self,
        lab: Lab,
        node: Node,
        inspection: NodeInspection,
        owners: Mapping[str, str],
        style: Style,
        *,
        folds: bool,
    ) -> None:
        self._lab, self._node, self._state = lab, node, inspection.state
        self._folds = folds
        self._deviations, self._owners, self._style = inspection.deviations, owners, style

    def sections(self) -> Iterator[str]:
        """Indented tables under their titles; empty ones are omitted."""
        sections = (
            ("devices", self._devices()),
            ("routes", self._routes()),
            ("neighbours", self._neighbours()),
            ("settings", self._settings()),
            ("rules", self._rules()),
            ("listeners", self._listeners()),
        )
        for title, rows in sections:
            shown = list(rows)
            if shown:
                yield f"  {self._style.dim(title)}"
                yield self._style.table(shown, indent=4)
        yield from self._ipvs()
        yield from _deviations(self._deviations, self._style)

    def _devices(self) -> Rows:
        for link in self._state.links:
            state = "up" if link.up and link.carrier else "no carrier" if link.up else "down"
            good = link.up and (link.carrier or link.kind in TUNNELS)
            flags = {one.address: one.flags for one in link.unusual_addresses}
            words = [", ".join(self._address(one, flags.get(one, ())) for one in link.addresses)]
            if link.impairment:
                words.append(impaired(link.impairment))
            kind = f"tunnel ({link.kind})" if link.kind in TUNNELS else link.mac
            if link.name == "lo":
                kind = ""
            yield [
                Cell(printable(link.name), self._style.bold),
                Cell(state, self._style.green if good else self._style.red),
                kind,
                f"mtu {link.mtu}",
                "; ".join(filter(None, words)),
            ]

    def _address(self, address: IPInterface, flags: Sequence[str]) -> str:
        vip = ("VIP",) if self._is_vip(address) else ()
        words = (*vip, *(flag for flag in flags if flag in _TOLD))
        return f"{address} ({', '.join(words)})" if words else str(address)

    def _is_vip(self, address: IPInterface) -> bool:
        return any(address.ip in service.vips for service in self._lab.services)

    def _routes(self) -> Rows:
        for route in self._state.routes:
            if not _self_evident(route):
                via = f"via {route.via} " if route.via else ""
                device = printable(route.device) if route.device else "nowhere"
                yield [str(route.to or "default"), " ".join((f"{via}dev {device}", *route.details))]

    def _neighbours(self) -> Rows:
        alike: dict[object, list[NeighbourState]] = {}
        for one in self._state.neighbours:
            if one.mac or one.state.lower() in {"failed", "incomplete"}:
                known = self._folds and one.mac in self._owners
                key = (one.device, one.state) if known else one
                alike.setdefault(key, []).append(one)
        rows: dict[NeighbourState, Sequence[NeighbourState]] = {}
        for several in alike.values():
            if len(several) >= FOLDED_FROM:
                rows[several[0]] = several
            else:
                rows |= {one: (one,) for one in several}
        for first in self._state.neighbours:
            if shown := rows.get(first):
                alone = len(shown) == 1
                yield [
                    str(first.address) if alone else f"{len(shown)} addresses",
                    printable(first.device),
                    first.mac if alone else "",
                    name_ranges(self._owners.get(each.mac, "") for each in shown),
                    Cell(first.state.lower(), self._style.dim),
                ]

    def _settings(self) -> Rows:
        """The value in effect on each device: the maximum of its own and that of ``all``."""
        settings = self._decisive()
        for link in self._state.links:
            if settings and link.name != "lo" and not link.master:
                row: list[str | Cell] = [printable(link.name)]
                for setting in settings:
                    row += self._effective(setting, link.name)
                yield row
        keys = {"ip_forward": "net.ipv4.ip_forward"}
        if self._lab.ipv6:
            keys["forwarding (IPv6)"] = "net.ipv6.conf.all.forwarding"
        for name, key in keys.items():
            if self._node.role in {Role.DIRECTOR, Role.ROUTER} and key in self._state.sysctls:
                yield ["", *self._named(name, self._state.sysctls[key], key)]

    def _decisive(self) -> Sequence[str]:
        """The sysctls that matter on this node; none on a client or a NAT real server."""
        if self._node.role in {Role.DIRECTOR, Role.ROUTER}:
            return FORWARDING
        return ARP if vips(self._lab, self._node.name) else ()

    def _effective(self, setting: str, device: str) -> Sequence[str | Cell]:
        keys = [f"{_CONF}.{name}.{setting}" for name in ("all", device.replace(".", "/"))]
        values = [value for key in keys if (value := self._state.sysctls.get(key)) is not None]
        greatest = max(values, key=lambda value: (len(value), value), default="?")
        return self._named(setting, greatest, *keys)

    def _named(self, name: str, value: str, *keys: str) -> Sequence[str | Cell]:
        """A sysctl with its value, red if one of ``keys`` is not as configured."""
        bad = any(one.text.startswith(f"{key} ") for one in self._deviations for key in keys)
        return Cell(name, self._style.dim), Cell(value, self._style.red if bad else str)

    def _rules(self) -> Rows:
        """What the topology has the node change in packets; other rules are deviations."""
        for one in self._state.filters:
            if any(action.startswith("mark ") for action in one.actions):
                match = printable(" ".join(one.match))
                yield [f"tc {printable(one.device)} {one.parent}", match, ", ".join(one.actions)]
        for rule in self._state.packet_filters:
            if (marking := rule.marks) is not None:
                match = rule.text.partition(" meta mark")[0]
                yield [f"nft {rule.hook}", match, f"mark {marking.mark}"]
            if (to := rule.masquerades) is not None:
                where = f"dst_ip {to.address} {to.protocol} dst_port {to.port}"
                yield [rule.chain.lower(), where, "masquerade"]
            if (clamp := rule.clamps) is not None:
                limit = f"segment size at most {clamp.text}"
                yield [rule.chain.lower(), "TCP SYN", limit]

    def _listeners(self) -> Rows:
        for one in self._state.listeners:
            holder = f"{printable(one.process)} ({one.pid})" if one.pid else ""
            if one.protocol is Protocol.UDP and one.port in (
                *self._state.gue_ports,
                *self._state.gue_ports6,
            ):
                holder = "the kernel, which takes GUE off"
            yield [str(one.protocol), host_port(one.address, one.port), holder]

    def _ipvs(self) -> Iterator[str]:
        if not self._state.services:
            return
        names = {
            (str(server.rip), server.port): server.node
            for service in self._lab.services
            for server in service.real_servers
        }
        yield f"  {self._style.dim('IPVS')}"
        yield from ipvs_table(self._state.services, names, self._style, indent=4, folds=self._folds)
        yield from self._ipvs_settings()
        if self._state.connections:
            states = Counter(connection.state for connection in self._state.connections)
            told = ", ".join(f"{count} {printable(name)}" for name, count in sorted(states.items()))
            yield f"    connection table: {told}"

    def _ipvs_settings(self) -> Iterator[str]:
        """Settings of IPVS: in one line what is usual, each of the others with its meaning."""
        asked = {key for key, _ in self._node.sysctls}
        found = dict(self._state.sysctls)
        found |= {one.name: one.value for one in self._state.changed_sysctls or ()}
        usual: list[str] = []
        rows: list[list[str | Cell]] = []
        for key in sorted(key for key in found if key.startswith(PREFIX)):
            name, value = key.removeprefix(PREFIX), normal(found[key])
            known = IPVS_SYSCTLS.get(name, IpvsSysctl(value, ""))
            differs = bool(known.default) and value != known.default
            if not differs and key not in asked:
                usual.append(f"{name} {value}")
                continue
            said = known.meaning(value) + f" (default {known.default})" * differs
            rows.append([*self._named(name, value, key), said])
        if usual:
            yield self._style.wrapped(f"settings: {', '.join(usual)}", 4, 2)
        if self._state.ipvs_timeouts is not None:
            yield self._style.wrapped(f"timeouts: {_timeouts(self._state.ipvs_timeouts)}", 4, 2)
        for one in self._state.sync_daemons:
            place = f"{printable(one.interface)}, syncid {one.sync_id}"
            yield f"    synchronization daemon: {one.state} on {place}"
        if rows:
            yield self._style.table(rows, indent=4)


def _self_evident(route: RouteState) -> bool:
    """Whether it is a route that IPv6 adds to every device."""
    return route.kernel and route.to is not None and route.to.is_link_local


def _timeouts(found: IpvsTimeouts) -> str:
    """What ``ipvsadm -L --timeout`` prints, with the default of each that differs."""
    usual = IpvsTimeouts()
    values = (
        ("tcp", found.tcp, usual.tcp),
        ("tcpfin", found.tcp_fin, usual.tcp_fin),
        ("udp", found.udp, usual.udp),
    )
    return ", ".join(
        f"{name} {value} s" + f" (default {default} s)" * (value != default)
        for name, value, default in values
    )
