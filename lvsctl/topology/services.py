"""Virtual services and their real servers, checked against the layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import NamedTuple

from lvsctl.errors import choice_hint, quoted
from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Interface, Role
from lvsctl.model.service import (
    FLAGGED,
    Encapsulation,
    ForwardingMethod,
    Protocol,
    RealServer,
    ServiceMatch,
    TunnelChecksum,
    VipPort,
)
from lvsctl.topology.addresses import free_address, unusable_because
from lvsctl.topology.config import (
    EncapsulationConfig,
    RealServerConfig,
    ServiceConfig,
    TopologyConfig,
)
from lvsctl.topology.groups import NodeNames
from lvsctl.topology.layout import Layout, subnet_with
from lvsctl.topology.problems import ProblemCollector
from lvsctl.topology.tree import Path


def check_services(config: TopologyConfig, layout: Layout, problems: ProblemCollector) -> None:
    """Report mistakes in the VIPs, names and keys of services."""
    trusted = _is_trusted(config, problems)
    _check_timeouts(config, problems)
    _check_clamps(config, problems)
    names: dict[str, int] = {}
    keys: dict[VipPort, int] = {}
    for index, service in enumerate(config.services or ()):
        if service is None:
            continue
        path: Path = ("services", index)
        if service.name is not None and names.setdefault(service.name, index) != index:
            first = f"services[{names[service.name]}]"
            message = f"{first} has the name {service.name} already"
            problems.add((*path, "name"), message, "choose another name")
        match = None if service.marked else service.match(0)
        if isinstance(match, VipPort) and keys.setdefault(match, index) != index:
            first = f"services[{keys[match]}]"
            problems.add((*path, "vip"), f"{first} has {match} already", "use another port or VIP")
        if service.vip is not None:
            _check_vip(service.vip, (*path, "vip"), layout, problems, trusted)
        for number, vip in enumerate(service.vips or ()):
            if vip is not None:
                _check_vip(vip, (*path, "vips", number), layout, problems, trusted)
        _check_marked(config, index, problems)
        _check_encapsulation(service.encapsulation, service.forward, path, problems)
        _check_scheduler(service, path, problems)
        _check_persistence(service, path, problems)
        _check_one_packet(service, (*path, "one_packet"), problems)
        _check_snat(service, (*path, "snat"), problems)


def _check_marked(config: TopologyConfig, index: int, problems: ProblemCollector) -> None:
    """Check what only services by firewall mark, or of any port, have."""
    services = config.services or ()
    service, path = services[index], ("services", index)
    if service is None:
        return
    for one, several in (("vip", "vips"), ("port", "ports")):
        if getattr(service, one) is not None and getattr(service, several) is not None:
            message = f"{one} and {several} are both given"
            problems.add((*path, several), message, "remove one of the two", key=True)
    if len({vip.version for vip in service.addresses}) > 1:
        message = "a firewall mark is of one IP version, but the VIPs are of both"
        problems.add((*path, "vips"), message, "write one service for each")
    if service.port == 0 and not service.marked and service.persistence is None:
        # ip_vs_genl_set_cmd takes it, but ip_vs_service_find uses port 0 for persistent ones only.
        message = "a service of any port needs persistence"
        problems.add((*path, "port"), message, "add persistence: 5m, or write ports: any")
    for other in services[:index]:
        if other is not None and service.fwmark and service.fwmark == other.fwmark:
            if not _versions(service) & _versions(other):  # the kernel looks a mark up by both
                continue
            message = f"{other.name} has the mark {service.fwmark} already"
            problems.add((*path, "fwmark"), message, "another number, or leave it out")


def _versions(service: ServiceConfig) -> set[int]:
    return {vip.version for vip in service.addresses}


def chosen_marks(config: TopologyConfig) -> tuple[int, ...]:
    """Return the firewall mark of each service, chosen where the file does not give one.

    0 for services without.
    """
    taken = {service.fwmark for service in config.services or () if service}
    free = (number for number in count(1) if number not in taken)
    return tuple(
        (service.fwmark or next(free)) if service and service.marked else 0
        for service in config.services or ()
    )


def _check_timeouts(config: TopologyConfig, problems: ProblemCollector) -> None:
    for name, node in (config.nodes or {}).items():
        if node and node.timeouts is not None and node.role not in (None, Role.DIRECTOR):
            message = f"{name} is a {node.role.replace('-', ' ')}: only a director has IPVS"
            hint = "move the key to the director"
            problems.add(("nodes", name, "timeouts"), message, hint, key=True)


def _check_clamps(config: TopologyConfig, problems: ProblemCollector) -> None:
    """Check that the SYN+ACKs, which decide how large requests are, cross the node."""
    services = [service for service in config.services or () if service]
    methods = {one.forward for service in services for one in service.real_servers or () if one}
    methods |= {service.forward for service in services}
    for name, node in (config.nodes or {}).items():
        if node is None or node.mss_clamp is None:
            continue
        at = ("nodes", name, "mss_clamp")
        if node.role is Role.CLIENT:
            message = "a client announces its own segment size"
            hint = "write routes: [{to: default, via: …, mss: 1440}], or move the key to a router"
            problems.add(at, message, hint, key=True)
        elif node.role is Role.DIRECTOR and ForwardingMethod.NAT not in methods:
            message = "replies bypass the director in tun and dr, and with them what a real server "
            message += "announces"
            hint = "move the key to a router on the replies' path, or to the real servers"
            problems.add(at, message, hint, key=True)


def _check_scheduler(service: ServiceConfig, path: Path, problems: ProblemCollector) -> None:
    scheduler = service.scheduler
    if scheduler and scheduler.flags and scheduler.name not in (None, *FLAGGED):
        problems.add(
            (*path, "scheduler", "flags"),
            f"{scheduler.name} has no flags",
            f"remove the key, or choose {' or '.join(FLAGGED)}",
            key=True,
        )


def _check_persistence(service: ServiceConfig, path: Path, problems: ProblemCollector) -> None:
    persistence, at = service.persistence, (*path, "persistence")
    if persistence is None:
        return
    if service.key and service.key.version == 4 and (persistence.netmask or 0) > 32:
        message = f"{persistence.netmask} bits are more than an IPv4 address has"
        problems.add((*at, "netmask"), message, "such as 24")
    if persistence.engine and service.protocol not in (None, Protocol.UDP):
        # ip_vs_sip_fill_param (net/netfilter/ipvs/ip_vs_pe_sip.c) reads UDP only.
        message = f"the engine {persistence.engine} reads udp only, not {service.protocol}"
        problems.add((*at, "engine"), message, "write protocol: udp")


def _check_snat(service: ServiceConfig, path: Path, problems: ProblemCollector) -> None:
    if not service.snat:
        return
    wide = service.port == 0 or service.ports == ()
    if wide or any(one.first < one.last for one in service.ports or ()):
        message = "snat is for ports that are named one by one"
        problems.add(path, message, "list the ports, as [80, 443]", key=True)
    if service.forward not in (None, ForwardingMethod.NAT):
        problems.add(
            path,
            f"{service.forward} sends replies directly to the client, whose address must stay",
            "write forward: nat, or remove the key",
            key=True,
        )


def _check_one_packet(service: ServiceConfig, path: Path, problems: ProblemCollector) -> None:
    if not service.one_packet:
        return
    if service.protocol not in (None, Protocol.UDP):
        # ip_vs_schedule (net/netfilter/ipvs/ip_vs_core.c) ignores the flag for the others.
        problems.add(
            path,
            f"{service.protocol} has connections, which one-packet scheduling would tear apart",
            "write protocol: udp, or remove the key",
            key=True,
        )
    elif service.forward is ForwardingMethod.NAT:
        problems.add(
            path,
            "in nat IPVS rewrites a reply by its request's connection, and one-packet scheduling "
            "keeps none: replies would reach the client from the RIP",
            "write forward: dr or forward: tun, or remove the key",
            key=True,
        )


def _is_trusted(config: TopologyConfig, problems: ProblemCollector) -> bool:
    """Whether all networks, and those of every director, are valid."""
    if problems.touches("networks") or config.nodes is None:
        return False
    return not any(
        node is None
        or node.role is None
        or (node.role is Role.DIRECTOR and problems.touches("nodes", name, "networks"))
        for name, node in config.nodes.items()
    )


def _check_vip(
    vip: IPAddress, path: Path, layout: Layout, problems: ProblemCollector, trusted: bool
) -> None:
    if holder := layout.holders.get(vip):
        wrong = f"is the address of {holder}"
    elif trusted:
        wrong = _wrong_with(vip, layout)
    else:
        return
    if wrong:
        problems.add(path, f"{vip} {wrong}", _proposal(vip, layout))


def _wrong_with(vip: IPAddress, layout: Layout) -> str:
    network = layout.network_of(vip)
    if network is None:
        return "is in none of the lab's networks"
    for director in layout.with_role(Role.DIRECTOR):
        if network not in layout.networks_of(director):
            return f"is in the network {network.name}, which {director} is not on"
    subnet = subnet_with(network, vip)
    return unusable_because(subnet, vip) if subnet else ""


def _proposal(vip: IPAddress, layout: Layout) -> str:
    """Propose a free VIP, in the same network if the director is on it."""
    wanted = layout.network_of(vip)
    for director in layout.with_role(Role.DIRECTOR)[:1]:
        networks = sorted(layout.networks_of(director), key=lambda network: network != wanted)
        for subnet in (subnet for network in networks for subnet in network.subnets):
            free = free_address(subnet, layout.holders, "100")
            if subnet.version == vip.version and free is not None:
                return f"a free address in one of {director}'s networks, such as {free}"
    return "a free address in one of the director's networks"


class RealServerEntry(NamedTuple):
    """A real server of a service: its node, its settings, and the index of its list item."""

    node: str
    config: RealServerConfig
    item: int


RealServerEntries = tuple[RealServerEntry, ...]


def resolve_real_servers(
    config: TopologyConfig, layout: Layout, node_names: NodeNames, problems: ProblemCollector
) -> tuple[RealServerEntries, ...]:
    """Return the real servers of each service, in the order of the file.

    A node's own entry takes precedence over its group's: ``[rs, {node: rs1, weight: 3}]`` is
    all of ``rs``, with weight 3 for rs1.
    """
    return tuple(
        _resolve_entries(service, ("services", index, "real_servers"), layout, node_names, problems)
        if service is not None
        else ()
        for index, service in enumerate(config.services or ())
    )


def resolve_sorry_servers(
    config: TopologyConfig, layout: Layout, node_names: NodeNames, problems: ProblemCollector
) -> tuple[RealServerEntry | None, ...]:
    """Return the sorry server of each service, None where it has none."""
    found: list[RealServerEntry | None] = []
    for index, service in enumerate(config.services or ()):
        asked = service.sorry_server if service is not None else None
        if service is None or asked is None:
            found.append(None)
            continue
        at: Path = ("services", index, "sorry_server")
        alone = replace(service, real_servers=(asked,))
        entries = _resolve_entries(alone, at, layout, node_names, problems)
        if len(entries) > 1:
            message = f"{asked.node} is {len(entries)} nodes: a service has one sorry server"
            problems.add(at, message, f"write one of them, such as {entries[0].node}")
        names = {one.node for one in service.real_servers or () if one is not None}
        used = {node for name in names if name and node_names.knows(name)
                for node in node_names.nodes(name)}  # fmt: skip
        for entry in entries[:1]:
            if entry.node in used:
                message = f"{entry.node} is a real server of the service already"
                problems.add(at, message, "name a node that is none of its real_servers")
        found.append(next(iter(entries), None))
    return tuple(found)


def _resolve_entries(
    service: ServiceConfig,
    at: Path,
    layout: Layout,
    node_names: NodeNames,
    problems: ProblemCollector,
) -> RealServerEntries:
    known = _real_servers(layout, node_names)
    configs = service.real_servers or ()
    own_entry = {d.node for d in configs if d is not None and d.node in layout.members}
    found: dict[tuple[str, int | None], RealServerEntry] = {}
    seen: dict[tuple[str, int | None], int] = {}
    for item, config in enumerate(configs):
        if config is None or config.node is None:
            continue
        path = (*at, item, "node")
        name, port = config.node, config.port or service.port
        _check_thresholds(config, (*at, item), problems)
        method = config.forward or service.forward
        _check_encapsulation(config.encapsulation, method, (*at, item), problems)
        if not node_names.knows(name):
            hint = _counted_hint(name, layout) or choice_hint(name, known, "real servers")
            problems.add(path, f"the node or group {quoted(name)} does not exist", hint)
            continue
        if (first := seen.setdefault((name, port), item)) != item:
            message = f"{name} is a duplicate of real_servers[{first}]"
            problems.add(path, message, "remove one of the two, or give it another port")
            continue
        for node in node_names.nodes(name):
            role = layout.config_of(node).role
            if role not in (Role.REAL_SERVER, Role.DIRECTOR, None):
                role_name = role.replace("-", " ")
                hint = choice_hint(name, known, "real servers")
                problems.add(path, f"{node} is a {role_name}, not a real server", hint)
                break
            if _lacks_family(node, service, layout, problems):
                family = f"IPv{service.key.version}" if service.key else "such"
                problems.add(
                    path,
                    f"{node} has no {family} address, but the VIP is {family}",
                    f"give one of its networks a subnet: {family.lower()}: …",
                )
                break
            if _is_elsewhere(config, node, layout, problems, path) or _lacks_address(
                node, config, (*at, item, "family"), layout, problems
            ):
                break
            if name == node or node not in own_entry:
                found.setdefault((node, port), RealServerEntry(node, config, item))
    return tuple(found.values())


def _counted_hint(name: str, layout: Layout) -> str:
    """Return a hint for a number above the count of a group, such as ``rs9``."""
    group = name.rstrip("0123456789")
    nodes = layout.members_of(group) if group != name else ()
    if not nodes or layout.configs[group].count is None:
        return ""
    names = nodes[0] if len(nodes) == 1 else f"{nodes[0]} to {nodes[-1]}"
    return f"the count of {group} is {len(nodes)}: {names}"


def _real_servers(layout: Layout, node_names: NodeNames) -> list[str]:
    return [
        name
        for name, nodes in node_names.names.items()
        if nodes and all(layout.config_of(node).role is Role.REAL_SERVER for node in nodes)
    ]


def _check_thresholds(config: RealServerConfig, path: Path, problems: ProblemCollector) -> None:
    if config.upper is not None and config.lower is not None and config.lower > config.upper:
        # ip_vs_add_dest (net/netfilter/ipvs/ip_vs_ctl.c) refuses it with ERANGE.
        message = f"{config.lower} is above the upper threshold {config.upper}"
        problems.add((*path, "lower"), message, f"at most {config.upper}, or a larger upper")


def _check_encapsulation(
    config: EncapsulationConfig | None,
    method: ForwardingMethod | None,
    path: Path,
    problems: ProblemCollector,
) -> None:
    if config is None:
        return
    at = (*path, "encapsulation")
    if method not in (None, ForwardingMethod.TUN):
        message = f"{method} does not encapsulate"
        problems.add(at, message, "remove the key, or write forward: tun", key=True)
    if config.type is None:
        return
    if config.port is not None and config.type is not Encapsulation.GUE:
        message = f"{config.type} has no UDP port"
        problems.add((*at, "port"), message, "remove the key, or write type: gue", key=True)
    usual = config.checksum in (None, TunnelChecksum.NONE)
    if config.type is Encapsulation.IPIP and not usual:
        message = "ipip has no header of its own that could carry a checksum"
        hint = "remove the key, or write type: gre or type: gue"
        problems.add((*at, "checksum"), message, hint, key=True)
    elif config.type is Encapsulation.GRE and config.checksum is TunnelChecksum.REMOTE:
        message = "gre has no remote checksum"
        problems.add((*at, "checksum"), message, "write checksum: full, or type: gue")


def _is_elsewhere(
    config: RealServerConfig, node: str, layout: Layout, problems: ProblemCollector, path: Path
) -> bool:
    """Report a real server that is not on the network where its address should be."""
    if problems.touches("nodes", layout.members[node], "networks"):
        return False
    names = [network.name for network in layout.networks_of(node)]
    if config.network is None or config.network in names:
        return False
    hint = choice_hint(config.network, names, f"{node}'s networks")
    problems.add((*path[:-1], "network"), f"{node} is not on {quoted(config.network)}", hint)
    return True


def _lacks_family(
    node: str, service: ServiceConfig, layout: Layout, problems: ProblemCollector
) -> bool:
    if service.key is None or problems.touches("networks"):
        return False
    if problems.touches("nodes", layout.members[node], "networks"):
        return False
    versions = {s.version for network in layout.networks_of(node) for s in network.subnets}
    return service.key.version not in versions


def _lacks_address(
    node: str,
    config: RealServerConfig,
    path: Path,
    layout: Layout,
    problems: ProblemCollector,
) -> bool:
    """Report a ``family`` of which the node has no address; return whether it was reported."""
    family = config.family
    if family is None or problems.touches("networks"):
        return False
    networks = layout.networks_of(node)
    if config.network is not None:
        networks = tuple(one for one in networks if one.name == config.network)
    if any(s.version == family.version for network in networks for s in network.subnets):
        return False
    where = f" on {config.network}" if config.network is not None else ""
    problems.add(
        path,
        f"{node} has no {family.name_in_text} address{where}",
        f"give its network a subnet: {family}: …",
    )
    return True


def build_real_server(
    entry: RealServerEntry,
    match: ServiceMatch,
    director: tuple[Interface, ...],
    interfaces: Mapping[str, tuple[Interface, ...]],
    forward: ForwardingMethod,
    encapsulation: EncapsulationConfig,
    *,
    local: bool,
) -> RealServer:
    """Build the real server of a valid entry, by the service's method and encapsulation.

    Its RIP is the node's address on the network that its entry names, otherwise on one shared
    with the director, otherwise its first address, which the director reaches through routers; of
    the VIP's IP version, unless the entry names another one. ``local``: it is the director.
    """
    config = entry.config
    forward = config.forward or forward
    encapsulation = config.encapsulation or encapsulation
    if forward is not ForwardingMethod.TUN:
        encapsulation = EncapsulationConfig()
    shared = {interface.network for interface in director}
    version = config.family.version if config.family is not None else match.version
    own = sorted(
        interfaces[entry.node],
        key=lambda i: (i.network != config.network, i.network not in shared),
    )
    rips: list[IPAddress] = [
        address.ip for i in own for address in i.addresses if address.version == version
    ]
    return RealServer(
        entry.node,
        rips[0],
        config.port or (match.port if isinstance(match, VipPort) else 0),
        1 if config.weight is None else config.weight,
        config.upper or 0,
        config.lower or 0,
        forward=forward,
        encapsulation=encapsulation.type or Encapsulation.IPIP,
        tunnel_port=encapsulation.tunnel_port,
        checksum=encapsulation.checksum or TunnelChecksum.NONE,
        local=local,
    )
