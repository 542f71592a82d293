"""Turn a topology file into a lab: the steps in their order."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

from lvsctl.errors import TopologyError
from lvsctl.model.addresses import IPAddress
from lvsctl.model.drill import Drill
from lvsctl.model.lab import Interface, Lab, Node, Role, Violation
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    RealServer,
    Scheduler,
    ServiceMatch,
    VirtualService,
)
from lvsctl.topology.addresses import (
    Interfaces,
    assign_addresses,
    build_routes,
    check_routes,
    place_given_addresses,
)
from lvsctl.topology.config import (
    EncapsulationConfig,
    LinkConfig,
    NodeConfig,
    PersistenceConfig,
    SchedulerConfig,
    ServiceConfig,
    TopologyConfig,
)
from lvsctl.topology.drill import DRILL, check_drill, check_names, drill_of
from lvsctl.topology.groups import resolve_names
from lvsctl.topology.ha import check_gateways, check_ha, gateways_of, ha_of, is_ecmp
from lvsctl.topology.keepalived import check_keepalived, keepalived_command
from lvsctl.topology.layout import Layout, build_layout
from lvsctl.topology.overrides import Overrides, apply_overrides
from lvsctl.topology.problems import ProblemCollector
from lvsctl.topology.repair import repaired
from lvsctl.topology.schema import TOPOLOGY
from lvsctl.topology.services import (
    RealServerEntries,
    RealServerEntry,
    build_real_server,
    check_services,
    chosen_marks,
    resolve_real_servers,
    resolve_sorry_servers,
)
from lvsctl.topology.tree import Mapping, Path, Tree
from lvsctl.topology.yaml_reader import parse_yaml

Rules = Callable[[Lab], Iterable[Violation]]


def no_rules(_lab: Lab) -> Iterable[Violation]:
    """No rules beyond the topology's own."""
    return ()


def parse_topology(
    text: str | bytes,
    source: str,
    *,
    overrides: Overrides = Overrides(),  # noqa: B008  (frozen)
    rules: Rules = no_rules,
    directory: pathlib.Path | None = None,
) -> Lab:
    """Parse a topology file and return the lab that it describes.

    ``source`` names the file in messages. ``rules`` are the forwarding methods' own:
    they are asked once the lab is otherwise valid. ``directory`` is the file's own, for the
    files that it names (None: it is not a file).

    Raises TopologyError with all problems of the file, and UsageError where ``overrides``
    do not fit a valid file.
    """
    problems = ProblemCollector(source)
    problems.root = parse_yaml(text, problems)
    config = TOPOLOGY.read(problems.root, (), problems)
    if config is None:
        raise problems.error()
    if not problems.touches():
        config = apply_overrides(config, overrides)
    try:
        return _build_lab(config, problems, rules, directory)
    except TopologyError:
        _find_more(problems, rules, directory)
        raise problems.error() from None


ROUNDS = 3
"""How often mistakes are corrected to find those that they hide."""


def parse_drill(text: str | bytes, source: str) -> tuple[Drill, ProblemCollector]:
    """Parse a drill's file, or the drill in a topology; return what places problems in it, too.

    Raises TopologyError with all mistakes of a drill's file. Those of a topology beyond its
    drill are reported when it is parsed.
    """
    problems = ProblemCollector(source)
    problems.root = parse_yaml(text, problems)
    if has_topology(problems.root):
        whole = TOPOLOGY.read(problems.root, (), problems)
        found = whole.drill if whole is not None else None
        if found is not None and found.timeline is None and not problems.touches():
            hint = "for example: timeline: {at 2s: weight rs1 0}; or play a drill's file in its lab"
            problems.add((), "the topology has no timeline", hint)
    else:
        found = DRILL.read(problems.root, (), problems)
    problems.raise_any()
    if found is None:
        raise problems.error()
    drill = drill_of(found, problems)
    return replace(drill, inside=has_topology(problems.root)), problems


def has_timeline(text: str | bytes) -> bool:
    """Return whether a topology's text, which is valid, has a drill in it."""
    root = parse_yaml(text, ProblemCollector(""))
    return isinstance(root, Mapping) and "timeline" in root.entries


def has_topology(root: Tree | None) -> bool:
    """Return whether a file is a topology, which may have a drill in it, and no drill's own."""
    return isinstance(root, Mapping) and not root.entries.keys().isdisjoint(("networks", "nodes"))


def _find_more(problems: ProblemCollector, rules: Rules, directory: pathlib.Path | None) -> None:
    """Add the mistakes that show once the others are corrected as their hints propose."""
    now = problems
    for _ in range(ROUNDS):
        found = repaired(now.root, now.mistakes) if now.root is not None else None
        if found is None:
            return
        now = ProblemCollector(problems.source)
        now.root, services = found
        config = TOPOLOGY.read(now.root, (), now)
        if config is not None:
            with suppress(TopologyError):
                _build_lab(config, now, rules, directory)
        if not problems.adopt(now, services):
            return


def _build_lab(
    config: TopologyConfig, problems: ProblemCollector, rules: Rules, directory: pathlib.Path | None
) -> Lab:
    layout = build_layout(config, problems)
    place_given_addresses(layout, problems)
    check_routes(layout, problems)
    check_keepalived(layout, directory, problems)
    check_ha(layout, problems)
    check_gateways(layout, problems)
    check_services(config, layout, problems)
    check_drill(config, problems)
    node_names = resolve_names(config, layout, problems)
    entries = resolve_real_servers(config, layout, node_names, problems) if layout.members else ()
    sorry = resolve_sorry_servers(config, layout, node_names, problems) if layout.members else ()
    interfaces: Interfaces = {}
    if not (problems.touches("networks") or problems.touches("nodes")):
        vips = {vip for service in config.services or () if service for vip in service.addresses}
        interfaces = assign_addresses(layout, vips, problems)
    problems.raise_any()

    services = config.services or ()
    every = tuple((*own, one) if one else own for own, one in zip(entries, sorry, strict=True))
    gateways = gateways_of(services, _methods(services, every), layout, interfaces)
    lab = Lab(
        config.name or "",
        config.description or "",
        tuple(layout.networks.values()),
        tuple(
            _build_node(name, layout, interfaces, directory, config.name or "", gateways)
            for name in layout.members
        ),
        tuple(
            _build_service(
                service, match, forward, entries[index], sorry[index], layout, interfaces
            )
            for index, (service, mark) in enumerate(
                zip(config.services or (), chosen_marks(config), strict=True)
            )
            if service and (match := service.match(mark)) and (forward := service.forward)
        ),
    )
    prepared = replace(lab, services=tuple(service.prepared for service in lab.services))
    for path, message, hint in _once_for_each_group(rules(prepared), layout, entries):
        problems.add(path, message, hint)
    problems.raise_any()
    if config.timeline is not None:
        check_names(drill_of(config.drill, problems), lab, (), problems)
    return lab


def _once_for_each_group(
    violations: Iterable[Violation], layout: Layout, entries: tuple[RealServerEntries, ...]
) -> Iterator[tuple[Path, str, str]]:
    """Yield violations with their paths in the file; one for all nodes of a group.

    They are the same but for the nodes' names: the first is quoted, the others are counted.
    """
    found: dict[tuple[Path, str], list[tuple[str, str, str]]] = {}
    for one in violations:
        path = _file_path(one.path, layout, entries)
        node = ""
        match one.path:
            case ("services", int(index), "real_servers", int(position), *_):
                servers = entries[index]
                node = servers[position].node if position < len(servers) else ""
        generic = re.compile(rf"(?<![\w-]){re.escape(node)}(?![\w-])") if node else None
        key = generic.sub("*", one.message) if generic else one.message
        found.setdefault((path, key), []).append((one.message, one.hint, node))
    for (path, _), several in found.items():
        message, hint, _ = several[0]
        others = [node for _, _, node in several[1:]]
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        yield path, f"{message}; the same for {shown}" if others else message, hint


def _build_node(
    name: str,
    layout: Layout,
    interfaces: Interfaces,
    directory: pathlib.Path | None,
    lab: str,
    gateways: tuple[IPAddress, ...],
) -> Node:
    config = layout.config_of(name)
    file = str((directory or pathlib.Path("/")) / config.keepalived) if config.keepalived else ""
    return Node(
        name,
        config.role or Role.CLIENT,
        layout.members[name],
        tuple(_impaired(interface, config, layout) for interface in interfaces[name]),
        build_routes(config),
        tuple((key, value or "") for key, value in (config.sysctls or {}).items()),
        keepalived_command(file, lab, name) if file else config.run or (),
        config.timeouts and config.timeouts.wanted,
        file,
        ha_of(name, layout, gateways),
        config.mss_clamp,
        is_ecmp(name, layout),
    )


def _methods(
    services: tuple[ServiceConfig | None, ...], entries: tuple[RealServerEntries, ...]
) -> tuple[tuple[tuple[str, ForwardingMethod], ...], ...]:
    """Return each service's real servers, with their forwarding methods."""
    return tuple(
        tuple(
            (one.node, method)
            for one in servers
            if service and (method := one.config.forward or service.forward)
        )
        for service, servers in zip(services, entries, strict=True)
    )


def _impaired(interface: Interface, config: NodeConfig, layout: Layout) -> Interface:
    """Return the interface with the impairment and MTU of the node's own link, if it has any."""
    link = (config.links or {}).get(interface.network)
    if link is None:
        return interface
    impaired = None
    if link._replace(mtu=None) != LinkConfig():
        impaired = link.impairment(layout.networks[interface.network].impairment)
    return replace(interface, impairment=impaired, mtu=link.mtu or 0)


def _build_service(
    config: ServiceConfig,
    match: ServiceMatch,
    forward: ForwardingMethod,
    entries: RealServerEntries,
    sorry: RealServerEntry | None,
    layout: Layout,
    interfaces: Interfaces,
) -> VirtualService:
    directors = layout.with_role(Role.DIRECTOR)
    director = interfaces[directors[0]]
    encapsulation = config.encapsulation or EncapsulationConfig()
    scheduler = config.scheduler or SchedulerConfig()
    persistence = config.persistence or PersistenceConfig(0)

    def real_server(entry: RealServerEntry) -> RealServer:
        local = entry.node in directors
        return build_real_server(
            entry, match, director, interfaces, forward, encapsulation, local=local
        )

    return VirtualService(
        config.name or "",
        match,
        forward,
        scheduler.name or Scheduler.WLC,
        tuple(map(real_server, entries)),
        encapsulation.type or Encapsulation.IPIP,
        persistence.timeout or 0,
        tuple(sorted(flag for flag in scheduler.flags or () if flag is not None)),
        _significant(persistence.netmask, match),
        persistence.engine,
        one_packet=bool(config.one_packet),
        snat=bool(config.snat),
        sorry=real_server(sorry) if sorry is not None else None,
    )


def _significant(netmask: int | None, match: ServiceMatch) -> int:
    """Return how many bits of a client's address count; 0 where all of them do."""
    return 0 if netmask in (None, 32 if match.version == 4 else 128) else netmask or 0


def _file_path(path: Path, layout: Layout, entries: tuple[RealServerEntries, ...]) -> Path:
    """Translate a path in the lab to one in the file, where a group is one entry."""
    match path:
        case ("nodes", str(name), *rest) if name in layout.members:
            return ("nodes", layout.members[name], *rest)
        case ("services", int(index), "real_servers", int(position), *rest) if index < len(
            entries
        ) and position < len(entries[index]):
            return ("services", index, "real_servers", entries[index][position].item, *rest)
        case ("services", int(index), "real_servers", int(), *rest):
            return ("services", index, "sorry_server", *rest)
    return path
