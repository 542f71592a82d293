"""Networks and nodes: from what the file says to who is where.

Checks everything about them that concerns more than one key. What is wrong is
reported; what is right is kept, so that later checks still have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.lab import Impairment, Network, Role
from lvsctl.topology.drafts import NetworkDraft, NodeDraft, TopologyDraft
from lvsctl.topology.report import Report, choice_hint
from lvsctl.topology.tree import quoted
from lvsctl.topology.values import MAX_INTERFACE_NAME

# A Linux bridge takes 1023 ports (BR_MAX_PORTS, net/bridge/br_private.h).
MAX_PORTS = 1023
MAX_NODES = 2000


@dataclass(slots=True)
class Layout:
    """Who is where, as far as the file says so.

    ``members`` maps each node to the ``nodes`` entry that it comes from. ``given``
    holds the addresses written in the file by node and network, ``holders`` says
    whose an address is.
    """

    networks: dict[str, Network] = field(default_factory=dict)
    drafts: dict[str, NodeDraft] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)
    given: dict[tuple[str, str], list[IPInterface]] = field(default_factory=dict)
    holders: dict[IPAddress, str] = field(default_factory=dict)

    def of_group(self, group: str) -> tuple[str, ...]:
        """The nodes that one entry of ``nodes`` stands for."""
        return tuple(name for name, own in self.members.items() if own == group)

    def draft_of(self, node: str) -> NodeDraft:
        """The draft of a node. Raises KeyError where there is none."""
        return self.drafts[self.members[node]]

    def having(self, role: Role) -> tuple[str, ...]:
        """The nodes of one role."""
        return tuple(name for name in self.members if self.draft_of(name).role is role)

    def nodes_on(self, network: str) -> tuple[str, ...]:
        """The nodes that are on a network."""
        return tuple(n for n in self.members if network in (self.draft_of(n).networks or ()))

    def networks_of(self, node: str) -> tuple[Network, ...]:
        """The known networks that a node is on, in its order."""
        names = self.draft_of(node).networks or ()
        return tuple(self.networks[name] for name in names if name in self.networks)

    def network_of(self, address: IPAddress) -> Network | None:
        """The network whose subnet contains ``address``."""
        return next((n for n in self.networks.values() if subnet_with(n, address)), None)


def subnet_with(network: Network, address: IPAddress) -> IPNetwork | None:
    """The network's subnet that contains ``address``."""
    return next((subnet for subnet in network.subnets if address in subnet), None)


def layout_of(draft: TopologyDraft, report: Report) -> Layout:
    """Networks and nodes of a draft, without addresses yet."""
    networks = {name: n for name, n in (draft.networks or {}).items() if n is not None}
    nodes = {name: n for name, n in (draft.nodes or {}).items() if n is not None}
    layout = Layout({name: _network(name, network) for name, network in networks.items()})
    _check_overlaps(layout.networks, report)
    if (total := sum(node.count or 1 for node in nodes.values())) > MAX_NODES:
        report.add(("nodes",), f"{total} nodes are too many", f"a lab has at most {MAX_NODES}")
        return layout
    layout.drafts = nodes
    layout.members = _members(nodes, draft.networks or {}, report)
    _check_roles(draft, report)
    _check_networks(draft, report)
    for name in layout.networks:
        if (ports := len(layout.nodes_on(name))) > MAX_PORTS:
            report.add(
                ("networks", name),
                f"{ports} nodes are too many for one network",
                f"a Linux bridge has at most {MAX_PORTS} ports: use several networks",
                key=True,
            )
    return layout


def _network(name: str, draft: NetworkDraft) -> Network:
    impairment = Impairment(draft.delay or 0.0, draft.loss or 0.0, draft.rate or 0)
    return Network(name, draft.subnets, impairment)


def _check_overlaps(networks: Mapping[str, Network], report: Report) -> None:
    subnets = [(name, subnet) for name, n in networks.items() for subnet in n.subnets]
    for (first, earlier), (second, later) in combinations(subnets, 2):
        if earlier.version == later.version and earlier.overlaps(later):
            report.add(
                ("networks", second, f"ipv{later.version}"),
                f"{later} overlaps the network {first} ({earlier})",
                "each network needs addresses of its own",
            )


def _members(
    nodes: Mapping[str, NodeDraft], networks: Mapping[str, object], report: Report
) -> dict[str, str]:
    members: dict[str, str] = {}
    for group, draft in nodes.items():
        if group in networks:
            report.add(
                ("nodes", group),
                f"{group} is a network as well",
                "nodes and networks share their namespaces' names: rename one of them",
                key=True,
            )
        names = [group]
        if draft.count is not None:
            names = [f"{group}{number}" for number in range(1, draft.count + 1)]
            _check_numbered(group, names[-1], report)
        for name in names:
            if name in members or (name != group and (name in nodes or name in networks)):
                report.add(
                    ("nodes", group),
                    f"the name {name} is taken twice: count numbers its nodes {names[0]}, …",
                    f"rename {group} or {name}",
                    key=True,
                )
                break
            members[name] = group
    return members


def _check_numbered(group: str, longest: str, report: Report) -> None:
    if len(longest) > MAX_INTERFACE_NAME >= len(group):
        report.add(
            ("nodes", group),
            f"the name {quoted(longest)} is too long: {len(longest)} characters",
            f"at most {MAX_INTERFACE_NAME} characters with the number",
            key=True,
        )


def _check_roles(draft: TopologyDraft, report: Report) -> None:
    if draft.nodes is None or any(n is None or n.role is None for n in draft.nodes.values()):
        return  # a role that is wrong may be the one that is missed here
    roles = {node.role for node in draft.nodes.values() if node is not None}
    for role, name, why in (
        (Role.DIRECTOR, "director", "a lab needs a node that balances"),
        (Role.CLIENT, "client", "a lab needs a node that asks"),
        (Role.REAL_SERVER, "rs", "a lab needs a node that answers"),
    ):
        if role not in roles:
            example = f"add a node such as {name}: {{role: {role}, networks: [lan]}}"
            report.add(("nodes",), f"there is no {role.replace('-', ' ')}: {why}", example)


def _check_networks(draft: TopologyDraft, report: Report) -> None:
    for name, node in (draft.nodes or {}).items():
        for network in (node.networks if node else None) or ():
            if draft.networks is not None and network not in draft.networks:
                report.add(
                    ("nodes", name, "networks", network),
                    f"there is no network {quoted(network)}",
                    choice_hint(network, draft.networks, "networks"),
                    key=True,
                )
