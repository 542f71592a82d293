"""Directors that share VIPs: by taking over from each other, or all at once (``ha:``)."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import HighAvailability, Network, Redundancy, Role
from lvsctl.model.service import ForwardingMethod
from lvsctl.topology.addresses import Interfaces, free_address
from lvsctl.topology.config import HaConfig, ServiceConfig
from lvsctl.topology.layout import Layout, subnet_with
from lvsctl.topology.problems import ProblemCollector

HIGHEST_PRIORITY = 150
"""Of the first director; each further one has less (RFC 5798, section 5.2.4: up to 254)."""


def check_ha(layout: Layout, problems: ProblemCollector) -> None:
    """Report ``ha`` where it cannot be, and directors that hold the same VIPs without it."""
    directors = layout.with_role(Role.DIRECTOR)
    for group, config in layout.configs.items():
        path = ("nodes", group, "ha")
        if config.ha is None:
            continue
        ecmp = config.ha.by is Redundancy.ECMP
        if config.role not in (Role.DIRECTOR, None):
            problems.add(path, "only directors take over from each other", "remove it", key=True)
        elif config.run or config.keepalived:
            which = "keepalived" if config.keepalived else "run"
            message = f"{group} has {which}: lvsctl writes keepalived's file where there is ha"
            if ecmp:
                message = f"{group} has {which}: lvsctl sets up every director the same with ecmp"
            problems.add(path, message, f"remove ha or {which}", key=True)
        elif len(directors) < 2:
            message = f"{group} is the only director: nothing takes over from it"
            if ecmp:
                message = f"{group} is the only director: flows cannot be spread over others"
            problems.add(path, message, "`count: 2` beside it, or remove ha", key=True)
        elif others := [n for n in directors if _redundancy(n, layout) is not config.ha.by]:
            message = f"{group} has ha: {config.ha.by}, and {others[0]} has not"
            problems.add(path, message, f"`ha: {config.ha.by}` at every director")
        _check_password(config.ha, layout, (*path, "password"), problems)
        threshold = config.ha.sync_threshold or ()
        if len(threshold) == 2 and None not in threshold and threshold[0] > (threshold[1] or 0):  # type: ignore[operator]
            message = f"{threshold[0]} is not below the period, {threshold[1]}"
            problems.add((*path, "sync_threshold"), message, "such as [3, 50]")


def _redundancy(name: str, layout: Layout) -> Redundancy | None:
    config = layout.config_of(name).ha
    return config.by if config is not None else None


def is_ecmp(name: str, layout: Layout) -> bool:
    """Return whether a director has the VIPs together with the others."""
    return _redundancy(name, layout) is Redundancy.ECMP


def _check_password(
    ha: HaConfig, layout: Layout, path: tuple[str, ...], problems: ProblemCollector
) -> None:
    """Report a password that no advertisement would carry: VRRP version 3 has none."""
    if not ha.password:
        return
    if ha.advert_int is not None and ha.advert_int != round(ha.advert_int):
        message = "VRRP version 3, which has fractions of a second, has no password"
        problems.add(path, message, "advert_int in whole seconds, such as 1s")
    directors = layout.with_role(Role.DIRECTOR)
    networks = [one for name in directors for one in layout.networks_of(name)]
    if all(subnet.version == 6 for one in networks for subnet in one.subnets):
        problems.add(path, "VRRP of IPv6 has no password (RFC 5798)", "remove it", key=True)


def ha_of(name: str, layout: Layout, gateways: tuple[IPAddress, ...]) -> HighAvailability | None:
    """Return how a valid director takes over from the others; None: it does not."""
    config = layout.config_of(name).ha
    if config is None or is_ecmp(name, layout):
        return None
    position = layout.with_role(Role.DIRECTOR).index(name)
    given = config.priority
    if given is not None:
        given = max(1, given - 50 * layout.members_of(layout.members[name]).index(name))
    first, period = config.sync_threshold or (3, 50)
    usual = HaConfig()
    return HighAvailability(
        config.virtual_router_id or usual.virtual_router_id or 0,
        given if given is not None else max(1, HIGHEST_PRIORITY - 50 * min(position, 2)),
        config.advert_int or 1.0,
        config.preempt is not False,
        bool(config.unicast),
        bool(config.sync),
        (first or 0, period or 0),
        gateways,
        config.password or "",
    )


def gateways_of(
    services: tuple[ServiceConfig | None, ...],
    entries: tuple[tuple[tuple[str, ForwardingMethod], ...], ...],
    layout: Layout,
    interfaces: Interfaces,
) -> tuple[IPAddress, ...]:
    """Return the virtual gateways that the real servers of NAT need, one on each network.

    Those that a director's ``ha`` gives, and one of each other subnet that is free.
    """
    directors = layout.with_role(Role.DIRECTOR)
    given = _given(layout, directors)
    if given is None:
        return ()
    found = dict.fromkeys(given)
    taken = {
        address.ip for several in interfaces.values() for i in several for address in i.addresses
    }
    taken |= {vip for service in services if service for vip in service.addresses}
    for network, version in dict.fromkeys(_behind(services, entries, layout)):
        for subnet in network.subnets:
            if subnet.version != version or any(one in subnet for one in found):
                continue
            free = free_address(subnet, taken | set(found), "1")
            if free is not None:
                found[free] = None
    return tuple(found)


def _given(layout: Layout, directors: tuple[str, ...]) -> tuple[IPAddress, ...] | None:
    configs = [
        ha
        for name in directors
        if (ha := layout.config_of(name).ha) is not None and not is_ecmp(name, layout)
    ]
    if not configs:
        return None
    every = (one for ha in configs for one in ha.gateways or () if one is not None)
    return tuple(dict.fromkeys(every))


def _behind(
    services: tuple[ServiceConfig | None, ...],
    entries: tuple[tuple[tuple[str, ForwardingMethod], ...], ...],
    layout: Layout,
) -> Iterator[tuple[Network, int]]:
    """Yield the networks on which real servers of NAT have a director as their gateway."""
    director = layout.with_role(Role.DIRECTOR)[0]
    shared = {network.name for network in layout.networks_of(director)}
    for service, servers in zip(services, entries, strict=True):
        if service is None or service.snat or not service.addresses:
            continue
        for node, method in servers:
            if method is ForwardingMethod.NAT:
                for network in layout.networks_of(node):
                    if network.name in shared:
                        yield network, service.addresses[0].version


def check_gateways(layout: Layout, problems: ProblemCollector) -> None:
    """Report virtual gateways that are on none of the directors' networks, or are taken."""
    for group, config in layout.configs.items():
        networks = layout.networks_of(layout.members_of(group)[0]) if config.ha else ()
        for index, address in enumerate((config.ha.gateways or ()) if config.ha else ()):
            path = ("nodes", group, "ha", "gateways", index)
            if address is None:
                continue
            if not any(subnet_with(network, address) for network in networks):
                subnets = " or ".join(str(s) for network in networks for s in network.subnets)
                problems.add(
                    path, f"{address} is on none of {group}'s networks", f"one in {subnets}"
                )
            elif holder := layout.holders.get(address):
                problems.add(path, f"{address} is the address of {holder}", "one that is free")
