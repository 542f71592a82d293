"""What the command line changes: ``--name``, ``--servers``, ``--scheduler``, ``--forward``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lvsctl.errors import UsageError
from lvsctl.model.lab import Role
from lvsctl.model.service import ForwardingMethod, Scheduler
from lvsctl.topology.config import (
    NodeConfig,
    SchedulerConfig,
    ServiceConfig,
    TopologyConfig,
)
from lvsctl.topology.parsers import MAX_COUNT, InvalidValue, parse_label


@dataclass(frozen=True, slots=True)
class Overrides:
    """Settings that take precedence over the file's. ``servers`` counts all real servers."""

    name: str | None = None
    servers: int | None = None
    scheduler: Scheduler | None = None
    forward: ForwardingMethod | None = None


def apply_overrides(config: TopologyConfig, overrides: Overrides) -> TopologyConfig:
    """Apply the overrides. Raises UsageError if the topology does not allow them."""
    if overrides.name is not None:
        config = replace(config, name=valid_name(overrides.name))
    if overrides.servers is not None:
        config = replace(config, nodes=_resized(config.nodes or {}, overrides.servers))
    if overrides.scheduler is not None:
        services = tuple(
            service and replace(service, scheduler=SchedulerConfig(overrides.scheduler))
            for service in config.services or ()
        )
        config = replace(config, services=services)
    if overrides.forward is not None:
        method = overrides.forward
        services = tuple(one and _forwarded(one, method) for one in config.services or ())
        config = replace(config, services=services)
    return config


def _forwarded(service: ServiceConfig, method: ForwardingMethod) -> ServiceConfig:
    """Forward to all real servers by ``method``; what another method alone has is left out."""
    tunnelled = method is ForwardingMethod.TUN
    servers = service.real_servers
    if servers is not None:
        servers = tuple(
            one
            and one._replace(forward=None, encapsulation=one.encapsulation if tunnelled else None)
            for one in servers
        )
    return replace(
        service,
        forward=method,
        real_servers=servers,
        sorry_server=service.sorry_server
        and service.sorry_server._replace(
            forward=None,
            encapsulation=service.sorry_server.encapsulation if tunnelled else None,
        ),
        encapsulation=service.encapsulation if tunnelled else None,
        snat=service.snat if method is ForwardingMethod.NAT else False,
    )


def valid_name(name: str | None) -> str | None:
    """Return a lab's name from the command line. Raises UsageError if it cannot be one."""
    try:
        return None if name is None else parse_label(name)
    except InvalidValue as wrong:
        raise UsageError(f"--name: {wrong.message}", hint=wrong.hint) from None


def _resized(nodes: dict[str, NodeConfig | None], servers: int) -> dict[str, NodeConfig | None]:
    """Change the counts so that there are ``servers`` real servers in all.

    Entries without a count stay as they are; those with a count share the rest evenly,
    and the first of them take the remainder.
    """
    real = {n: d for n, d in nodes.items() if d is not None and d.role is Role.REAL_SERVER}
    counted = [name for name, config in real.items() if config.count is not None]
    fixed = len(real) - len(counted)
    if not counted:
        if servers == fixed:
            return nodes
        raise UsageError(
            f"--servers {servers}: the topology names each of its real servers: {', '.join(real)}",
            hint="in the file, write one entry with a count, such as "
            "rs: {role: real-server, networks: [lan], count: 2}",
        )
    least, most = fixed + len(counted), fixed + len(counted) * MAX_COUNT
    if not least <= servers <= most:
        raise UsageError(
            f"--servers {servers}: this topology can have {least} to {most} real servers"
        )
    share, rest = divmod(servers - fixed, len(counted))
    counts = {name: share + (index < rest) for index, name in enumerate(counted)}
    return {
        name: replace(config, count=counts[name]) if config and name in counts else config
        for name, config in nodes.items()
    }
