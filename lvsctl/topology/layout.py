"""Networks and nodes, and which node is on which network.

Checks everything about them that involves more than one key. Mistakes are reported; what
is valid is kept for later checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

from lvsctl.errors import choice_hint, quoted
from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.lab import USUAL_MTU, Impairment, Network, Role
from lvsctl.topology.config import NetworkConfig, NodeConfig, TopologyConfig
from lvsctl.topology.parsers import MAX_INTERFACE_NAME
from lvsctl.topology.problems import ProblemCollector
from lvsctl.topology.tree import Path

# A Linux bridge takes 1023 ports (BR_MAX_PORTS, net/bridge/br_private.h).
MAX_PORTS = 1023
MAX_NODES = 2000


@dataclass(slots=True)
class Layout:
    """The networks and nodes of the file.

    ``members`` maps each node to the ``nodes`` entry that it comes from. ``given`` holds
    the addresses in the file by node and network, ``holders`` the node of each address.
    """

    networks: dict[str, Network] = field(default_factory=dict)
    configs: dict[str, NodeConfig] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)
    given: dict[tuple[str, str], list[IPInterface]] = field(default_factory=dict)
    holders: dict[IPAddress, str] = field(default_factory=dict)

    def members_of(self, group: str) -> tuple[str, ...]:
        """Return the nodes of one entry of ``nodes``."""
        return tuple(name for name, own in self.members.items() if own == group)

    def config_of(self, node: str) -> NodeConfig:
        """Return the entry that a node comes from. Raises KeyError if there is none."""
        return self.configs[self.members[node]]

    def with_role(self, role: Role) -> tuple[str, ...]:
        """Return the nodes that have a role."""
        return tuple(name for name in self.members if self.config_of(name).role is role)

    def nodes_on(self, network: str) -> tuple[str, ...]:
        """Return the nodes on a network."""
        return tuple(n for n in self.members if network in (self.config_of(n).networks or ()))

    def networks_of(self, node: str) -> tuple[Network, ...]:
        """Return the valid networks of a node, in the order of its entry."""
        names = self.config_of(node).networks or ()
        return tuple(self.networks[name] for name in names if name in self.networks)

    def network_of(self, address: IPAddress) -> Network | None:
        """Return the network whose subnet contains ``address``."""
        return next((n for n in self.networks.values() if subnet_with(n, address)), None)


def subnet_with(network: Network, address: IPAddress) -> IPNetwork | None:
    """Return the network's subnet that contains ``address``."""
    return next((subnet for subnet in network.subnets if address in subnet), None)


IPV6_MTU = 1280
"""Bytes that every link must carry in IPv6."""


def build_layout(config: TopologyConfig, problems: ProblemCollector) -> Layout:
    """Build the networks and nodes, without addresses yet."""
    networks = {name: n for name, n in (config.networks or {}).items() if n is not None}
    nodes = {name: n for name, n in (config.nodes or {}).items() if n is not None}
    layout = Layout({name: _network(name, network) for name, network in networks.items()})
    _check_overlaps(layout.networks, problems)
    if (total := sum(node.count or 1 for node in nodes.values())) > MAX_NODES:
        problems.add(("nodes",), f"{total} nodes are too many", f"a lab has at most {MAX_NODES}")
        return layout
    layout.configs = nodes
    layout.members = _members(nodes, config.networks or {}, problems)
    _check_roles(config, problems)
    _check_networks(config, problems)
    _check_links(layout, problems)
    for name, network in layout.networks.items():
        _check_mtu(network.mtu, network, ("networks", name), problems)
        if (ports := len(layout.nodes_on(name))) > MAX_PORTS:
            problems.add(
                ("networks", name),
                f"{ports} nodes are too many for one network",
                f"a Linux bridge has at most {MAX_PORTS} ports: use several networks",
                key=True,
            )
    return layout


def _network(name: str, config: NetworkConfig) -> Network:
    return Network(name, config.subnets, config.impairment, config.mtu or USUAL_MTU)


def _check_links(layout: Layout, problems: ProblemCollector) -> None:
    """Check links: of networks the node is on, a jitter of some delay, an MTU for IPv6."""
    for name, network in layout.networks.items():
        _check_delayed(network.impairment, ("networks", name), problems)
    for group, node in layout.configs.items():
        for name, link in (node.links or {}).items():
            path = ("nodes", group, "links", name)
            if node.networks is not None and name not in node.networks:
                hint = choice_hint(name, list(node.networks), f"{group}'s networks")
                problems.add(path, f"{group} is not on {quoted(name)}", hint, key=True)
            elif link is not None and name in layout.networks:
                wanted = link.impairment(layout.networks[name].impairment)
                _check_delayed(wanted, path, problems)
                if link.mtu:
                    _check_mtu(link.mtu, layout.networks[name], path, problems)


def _check_mtu(mtu: int, network: Network, path: Path, problems: ProblemCollector) -> None:
    if mtu < IPV6_MTU and any(subnet.version == 6 for subnet in network.subnets):
        message = f"IPv6 needs links that carry packets of {IPV6_MTU} bytes (RFC 8200, section 5)"
        problems.add((*path, "mtu"), message, f"at least {IPV6_MTU}")


def _check_delayed(impairment: Impairment, path: Path, problems: ProblemCollector) -> None:
    """Netem varies, and leaves out, a delay: without one there is nothing to vary (tc-netem(8))."""
    for key in ("jitter", "reorder"):
        if getattr(impairment, key) and not impairment.delay:
            message = f"{key} varies the delay, and there is none"
            problems.add((*path, key), message, "add a delay, such as delay: 20ms", key=True)
    if impairment.jitter > impairment.delay > 0:
        message = f"{impairment.jitter:g} ms is more than the delay of {impairment.delay:g} ms"
        problems.add((*path, "jitter"), message, f"at most {impairment.delay:g}ms")


def _check_overlaps(networks: Mapping[str, Network], problems: ProblemCollector) -> None:
    subnets = [(name, subnet) for name, n in networks.items() for subnet in n.subnets]
    for (first, earlier), (second, later) in combinations(subnets, 2):
        if earlier.version == later.version and earlier.overlaps(later):
            problems.add(
                ("networks", second, f"ipv{later.version}"),
                f"{later} overlaps the network {first} ({earlier})",
                "each network needs addresses of its own",
            )


def _members(
    nodes: Mapping[str, NodeConfig], networks: Mapping[str, object], problems: ProblemCollector
) -> dict[str, str]:
    members: dict[str, str] = {}
    for group, config in nodes.items():
        if group in networks:
            problems.add(
                ("nodes", group),
                f"{group} is a network as well",
                "nodes and networks share their namespaces' names: rename one of them",
                key=True,
            )
        names = [group]
        if config.count is not None:
            names = [f"{group}{number}" for number in range(1, config.count + 1)]
            _check_numbered(group, names[-1], problems)
        for name in names:
            if name in members or (name != group and (name in nodes or name in networks)):
                problems.add(
                    ("nodes", group),
                    f"the name {name} is taken twice: count numbers its nodes {names[0]}, …",
                    f"rename {group} or {name}",
                    key=True,
                )
                break
            members[name] = group
    return members


def _check_numbered(group: str, longest: str, problems: ProblemCollector) -> None:
    if len(longest) > MAX_INTERFACE_NAME >= len(group):
        problems.add(
            ("nodes", group),
            f"the name {quoted(longest)} is too long: {len(longest)} characters",
            f"at most {MAX_INTERFACE_NAME} characters with the number",
            key=True,
        )


def _check_roles(config: TopologyConfig, problems: ProblemCollector) -> None:
    if config.nodes is None or any(n is None or n.role is None for n in config.nodes.values()):
        return  # an invalid role may be the one that seems to be missing
    roles = {node.role for node in config.nodes.values() if node is not None}
    for role, name, why in (
        (Role.DIRECTOR, "director", "a lab needs one that forwards requests"),
        (Role.CLIENT, "client", "a lab needs one that sends requests"),
        (Role.REAL_SERVER, "rs", "a lab needs one that answers requests"),
    ):
        if role not in roles:
            example = f"add a node such as {name}: {{role: {role}, networks: [lan]}}"
            problems.add(("nodes",), f"there is no {role.replace('-', ' ')}: {why}", example)


def _check_networks(config: TopologyConfig, problems: ProblemCollector) -> None:
    for name, node in (config.nodes or {}).items():
        for network in (node.networks if node else None) or ():
            if config.networks is not None and network not in config.networks:
                problems.add(
                    ("nodes", name, "networks", network),
                    f"the network {quoted(network)} does not exist",
                    choice_hint(network, config.networks, "networks"),
                    key=True,
                )
