"""Compare real hosts with a topology, by the rules of ``diagnose`` that need no requests.

A host is one of the topology's nodes: by its name, or by its addresses. Its interface on a network
is the one with the node's address there, whatever it is called. What a host has besides, further
interfaces, addresses, routes, services, is no cause.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lvsctl.diagnosis import by_state
from lvsctl.diagnosis.network import Network
from lvsctl.engine.ask_hosts import Asked
from lvsctl.engine.findings import Check, CheckedHost
from lvsctl.engine.matching import adapt, likely_node, matches, needed
from lvsctl.errors import UsageError
from lvsctl.formats.hosts.reader import HostState
from lvsctl.model.addresses import IPAddress, IPNetwork
from lvsctl.model.claim import Cause
from lvsctl.model.evidence import Evidence, Run
from lvsctl.model.lab import Lab, Node
from lvsctl.model.service import FwMark
from lvsctl.model.state import NodeState, ServiceState
from lvsctl.plan import planner
from lvsctl.plan.assumed import assumed_state, holding
from lvsctl.plan.routing import clients_of
from lvsctl.resources.address import Address
from lvsctl.resources.base import Command, Resource
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.keepalived import PROCESS
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel

UNKNOWN_DEVICE = "INTERFACE"
"""In commands: an interface that is not known, because the host has no address on the network."""


class Judged(NamedTuple):
    """What was found, and on what: the hosts of the topology's nodes, by node."""

    check: Check
    deployment: Deployment
    matched: Mapping[str, Asked]


def check(lab: Lab, asked: Iterable[Asked]) -> Check:
    """Judge hosts against the topology of ``lab``.

    Raises UsageError if none of them is one of its nodes.
    """
    return judged(lab, asked).check


def judged(lab: Lab, asked: Iterable[Asked]) -> Judged:
    """The same, with which host is which node. Raises UsageError."""
    every = tuple(asked)
    matched = matches(lab, every)
    if not matched and any(one.state is not None for one in every):
        names = ", ".join(node.name for node in needed(lab))
        raise UsageError(
            f"no host is a node of {lab.name}: none has the name or an address of one",
            hint=f"name the files, or the hosts of the inventory, after the nodes: {names}",
        )
    hosts_read = {node: one.state for node, one in matched.items() if one.state}
    adapted = adapt(lab, {node: host.state for node, host in hosts_read.items()})
    deployment = Deployment(adapted.lab, hosts_read)
    found = deployment.judge()
    nodes = {one.name: node for node, one in matched.items()}
    hosts = [_host(one, nodes.get(one.name, ""), deployment) for one in every]
    hosts += [
        CheckedHost("", node.name, "it was not collected")
        for node in needed(lab)
        if node.name not in matched and not _unanswered(node, every)
    ]
    complete = all(not host.problem and not host.unread for host in hosts)
    result = Check(
        lab,
        found.causes,
        (*adapted.remarks, *found.remarks, *deployment.remarks()),
        found.rules if complete else (),
        tuple(hosts),
    )
    return Judged(result, deployment, matched)


def _unanswered(node: Node, every: Iterable[Asked]) -> bool:
    return any(one.name == node.name and one.state is None for one in every)


def _host(one: Asked, node: str, deployment: Deployment) -> CheckedHost:
    if one.state is None:
        return CheckedHost(one.name, node, one.problem)
    if not node:
        found = deployment.node_of(one.state)
        what = (
            f"it is {found}, and so is another host"
            if found
            else "no node of the topology has its name or an address of it"
        )
        return CheckedHost(one.name, "", what, ignored=not found)
    return CheckedHost(
        one.name,
        node,
        kernel=one.state.kernel,
        interfaces=deployment.interfaces(node),
        unread=one.state.unread_texts,
    )


# ── the deployment as evidence ───────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Deployment:
    """The hosts of a topology, and nodes that stand for those that were not read."""

    lab: Lab
    hosts: Mapping[str, HostState]
    resources: tuple[Resource, ...] = field(init=False)
    devices: dict[tuple[str, str], str] = field(init=False)

    def __post_init__(self) -> None:
        self.resources = planner.plan_for(self.lab).resources
        self.devices = {}
        for name, host in self.hosts.items():
            self.devices |= _devices(self.lab, self.lab.node(name), host.state)

    @property
    def unknown(self) -> dict[str, str]:
        """Addresses that lvsctl chose for nodes that were not read, with their nodes."""
        return {
            str(address.ip): node.name
            for node in self.lab.nodes
            if node.name not in self.hosts
            for interface in node.interfaces
            for address in interface.chosen
        }

    def node_of(self, host: HostState) -> str:
        """The node that a host would be."""
        return likely_node(self.lab, Asked(host.source, host))

    def interfaces(self, node: str) -> dict[str, str]:
        """A host's interface on each network; empty where it has none."""
        return {
            network: "" if device == UNKNOWN_DEVICE else device
            for (name, network), device in self.devices.items()
            if name == node
        }

    def judge(self) -> by_state.Judgement:
        """Apply the rules."""
        lab = self.lab
        read = {name: self._completed(name, host) for name, host in self.hosts.items()}
        states = {**self._assumed(read), **read}
        evidence = Evidence(
            lab,
            tuple(
                Run(service, client.name, (), None, None, ())
                for service in lab.services
                for client in clients_of(lab, service)
            ),
            states=states,
            counters={name: host.counters for name, host in self.hosts.items()},
            before=read,
        )
        rulesets = {
            name: host.ruleset for name, host in self.hosts.items() if host.ruleset is not None
        }
        network = Network(lab, states, self.devices, rulesets)
        judged = by_state.judge(evidence, network, read.keys(), _HostConsole(self, read))
        return replace(judged, causes=tuple(map(self.annotated, judged.causes)))

    def _assumed(self, read: Mapping[str, NodeState]) -> dict[str, NodeState]:
        """The nodes that were not read, as the topology says. One director is the master."""
        lab = self.lab
        found = {
            node.name: assumed_state(lab, node, self.resources)
            for node in lab.nodes
            if node.name not in read
        }
        held = {a.ip for d in lab.directors if d.name in read for link in read[d.name].links
                for a in link.addresses}  # fmt: skip
        missing = [one for one in lab.floating if one not in held]
        standby = next((node for node in lab.directors if node.name in found), None)
        if missing and standby is not None:
            for address in missing:
                network = lab.network_of(address)
                device = network.name if network is not None else standby.networks[0]
                found[standby.name] = holding(found[standby.name], [address], device)
        return found

    def _completed(self, name: str, host: HostState) -> NodeState:
        """A host's state, with what could not be read as the topology says."""
        state, planned = host.state, assumed_state(self.lab, self.lab.node(name), self.resources)
        if "listeners" in host.unread:
            state = replace(state, listeners=planned.listeners)
        if "fou" in host.unread:
            state = replace(state, gue_ports=planned.gue_ports)
        if "ipvs-rules" in host.unread:
            state = replace(state, services=tuple(map(self._table, state.services)))
        return state

    def _table(self, found: ServiceState) -> ServiceState:
        """A virtual service with what /proc does not show as the topology says."""
        service = next((one for one in self.lab.services if one.match == found.match), None)
        if service is None:
            return found
        known = {(one.rip, one.port): one for one in service.real_servers}
        servers = (
            one._replace(
                upper=server.upper,
                lower=server.lower,
                encapsulation=server.encapsulation,
                tunnel_port=server.tunnel_port,
            )
            if (server := known.get((one.rip, one.port))) is not None
            else one
            for one in found.real_servers
        )
        flags = IpvsService.of(service, "").flags
        return found._replace(flags=flags, real_servers=tuple(servers))

    def remarks(self) -> Iterator[str]:
        """What the topology asks for and is not judged, because it was not read."""
        for service in self.lab.services:
            for director in self.lab.directors:
                host = self.hosts.get(director.name)
                if host is None or host.ruleset is not None:
                    continue
                if isinstance(service.match, FwMark):
                    yield (
                        f"{director.name}: what gives requests for {service.name} the mark "
                        f"{service.match.mark} was not read (nft list ruleset, iptables-save, tc)"
                    )
                if service.snat:
                    yield (
                        f"{director.name}: what masquerades requests for {service.name} was not "
                        "read (nft list ruleset, iptables-save)"
                    )

    def annotated(self, cause: Cause) -> Cause:
        """Say it where keepalived owns the table: what is typed there lasts until it writes."""
        host = self.hosts.get(cause.node)
        if host is None or not host.state.processes or not cause.remedy.startswith("ipvsadm "):
            return cause
        name = host.state.processes[0].process
        file = "keepalived.conf" if name == PROCESS else "its file"
        owner = (
            f"{cause.node}: {name} runs there and writes this table: a failed health check "
            f"removes a real server (journalctl -u {name}), and a reload restores what "
            f"{file} says"
        )
        return replace(cause, evidence=(*cause.evidence, owner))


@dataclass(frozen=True, slots=True)
class _HostConsole:
    """A shell on each host itself."""

    deployment: Deployment
    states: Mapping[str, NodeState]

    def type(self, node: str, words: tuple[str, ...]) -> str:  # noqa: ARG002 (each host's own)
        """Type them; an address that only a lab would have is not that of a host of the site."""
        unknown = self.deployment.unknown
        named = [unknown[word] for word in words if word in unknown]
        typed = shlex.join("ADDRESS" if word in unknown else word for word in words)
        return f"{typed}  # of {named[0]}: the topology does not give it" if named else typed

    def restore(self, node: str) -> str:
        """Apply the parts of the plan that a host lacks, with the names of its interfaces."""
        state = self.states.get(node)
        commands = [
            str(_here(command))
            for one in self.deployment.resources
            if state is not None
            and one.netns == self.deployment.lab.netns(node)
            and not (isinstance(one, StaticRoute) and str(one.via) in self.deployment.unknown)
            and not _holds(own := self._renamed(one, node), state)
            for command in own.commands()
        ]
        return " && ".join(commands) or "ip -d address show && ip route show table all"

    def _renamed(self, one: Resource, node: str) -> Resource:
        devices = self.deployment.devices
        if isinstance(one, Address | Tunnel):
            device = devices.get((node, one.device), one.device)
            return replace(one, device=device)
        if isinstance(one, Sysctl):
            words = one.name.split(".")
            named = (devices.get((node, word), word).replace(".", "/") for word in words)
            return replace(one, name=".".join(named))
        return one


def _holds(one: Resource, state: NodeState) -> bool:
    """Whether a host needs no command for a part of the plan."""
    if isinstance(one, Address):
        return any(a.ip == one.address.ip for link in state.links for a in link.addresses)
    if isinstance(one, Sysctl):
        return one.base or state.sysctls.get(one.name, one.value) == one.value
    if isinstance(one, StaticRoute):
        return any((route.to, route.via) == (one.to, one.via) for route in state.routes)
    return not isinstance(one, Tunnel | GuePort) or one.holds(state)


def _here(command: Command) -> Command:
    """A command as it is typed on the host itself: no namespace, no index of a lab's link."""

    def plain(words: tuple[str, ...]) -> tuple[str, ...]:
        if "index" not in words:
            return words
        at = words.index("index")
        return (*words[:at], *words[at + 2 :])

    others = tuple(map(plain, command.otherwise))
    return command._replace(netns="", argv=plain(command.argv), otherwise=others)


# ── interfaces ───────────────────────────────────────────────────────────────────────────────


def _devices(lab: Lab, node: Node, state: NodeState) -> dict[tuple[str, str], str]:
    """The host's interface on each of the node's networks."""
    vips = {vip for service in lab.services for vip in service.vips} | set(lab.floating)
    found: dict[str, str] = {}
    for network in node.networks:
        own = {address.ip for address in node.addresses_on(network)}
        subnets = lab.network(network).subnets
        wider = [
            link.name
            for link in state.links
            if any(a.ip not in vips and _within(a.ip, subnets) for a in link.addresses)
        ]
        exact = [link.name for link in state.links if any(a.ip in own for a in link.addresses)]
        named = [link.name for link in state.links if link.name == network]
        found[network] = next(iter((*exact, *wider, *named)), "")
    free = [
        link.name
        for link in state.links
        if link.mac and link.name != "lo" and link.name not in found.values()
        and link.kind not in ("dummy", "bridge") and not link.addresses
    ]  # fmt: skip
    unknown = [network for network, device in found.items() if not device]
    if len(unknown) == len(free) == 1:
        found[unknown[0]] = free[0]  # it lost its address
    return {(node.name, network): device or UNKNOWN_DEVICE for network, device in found.items()}


def _within(address: IPAddress, subnets: Iterable[IPNetwork]) -> bool:
    return any(address in subnet for subnet in subnets)
