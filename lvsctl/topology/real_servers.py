"""Which real servers each service has, and where the director sends their requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Interface, Role
from lvsctl.model.service import RealServer, ServiceKey
from lvsctl.topology.drafts import RealServerDraft, ServiceDraft, TopologyDraft
from lvsctl.topology.groups import Directory
from lvsctl.topology.layout import Layout
from lvsctl.topology.report import Report, choice_hint
from lvsctl.topology.tree import Path, quoted


@dataclass(frozen=True, slots=True)
class Mention:
    """A real server of a service: its node, its settings, and the item that mentions it."""

    node: str
    draft: RealServerDraft
    item: int


Mentions = tuple[Mention, ...]


def mentions_of(
    draft: TopologyDraft, layout: Layout, directory: Directory, report: Report
) -> tuple[Mentions, ...]:
    """The real servers of each service, in the order in which the file mentions them.

    An entry for a node of its own goes before its group's: ``[rs, {node: rs1, weight: 3}]``
    is all of ``rs``, rs1 with weight 3.
    """
    return tuple(
        _mentions(service, ("services", index, "real_servers"), layout, directory, report)
        if service is not None
        else ()
        for index, service in enumerate(draft.services or ())
    )


def _mentions(
    service: ServiceDraft, at: Path, layout: Layout, directory: Directory, report: Report
) -> Mentions:
    known = _real_servers(layout, directory)
    drafts = service.real_servers or ()
    own_entry = {d.node for d in drafts if d is not None and d.node in layout.members}
    found: dict[tuple[str, int | None], Mention] = {}
    seen: dict[tuple[str, int | None], int] = {}
    for item, draft in enumerate(drafts):
        if draft is None or draft.node is None:
            continue
        path = (*at, item, "node")
        name, port = draft.node, draft.port or service.port
        _check_thresholds(draft, (*at, item), report)
        if not directory.knows(name):
            hint = _counted_hint(name, layout) or choice_hint(name, known, "real servers")
            report.add(path, f"there is no node or group {quoted(name)}", hint)
            continue
        if (first := seen.setdefault((name, port), item)) != item:
            message = f"{name} is here twice (first as real_servers[{first}])"
            report.add(path, message, "remove one of the two, or give it another port")
            continue
        for node in directory.nodes(name):
            role = layout.draft_of(node).role
            if role not in (Role.REAL_SERVER, None):
                role_name = role.replace("-", " ")
                hint = choice_hint(name, known, "real servers")
                report.add(path, f"{node} is a {role_name}, not a real server", hint)
                break
            if _lacks_family(node, service, layout, report):
                family = f"IPv{service.vip.version}" if service.vip else "such"
                report.add(
                    path,
                    f"{node} has no {family} address, but the VIP is {family}",
                    f"give one of its networks a subnet: {family.lower()}: …",
                )
                break
            if name == node or node not in own_entry:
                found.setdefault((node, port), Mention(node, draft, item))
    return tuple(found.values())


def _counted_hint(name: str, layout: Layout) -> str:
    """What there is where ``rs9`` is one too many of ``rs``; count may come from --servers."""
    group = name.rstrip("0123456789")
    nodes = layout.of_group(group) if group != name else ()
    if not nodes or layout.drafts[group].count is None:
        return ""
    names = nodes[0] if len(nodes) == 1 else f"{nodes[0]} to {nodes[-1]}"
    return f"the count of {group} is {len(nodes)}: {names}"


def _real_servers(layout: Layout, directory: Directory) -> list[str]:
    return [
        name
        for name, nodes in directory.names.items()
        if nodes and all(layout.draft_of(node).role is Role.REAL_SERVER for node in nodes)
    ]


def _check_thresholds(draft: RealServerDraft, path: Path, report: Report) -> None:
    if draft.upper is not None and draft.lower is not None and draft.lower > draft.upper:
        # ip_vs_add_dest (net/netfilter/ipvs/ip_vs_ctl.c) refuses it with ERANGE.
        message = f"{draft.lower} is above the upper threshold {draft.upper}"
        report.add((*path, "lower"), message, f"at most {draft.upper}, or a larger upper")


def _lacks_family(node: str, service: ServiceDraft, layout: Layout, report: Report) -> bool:
    if service.vip is None or report.touches("networks"):
        return False
    if report.touches("nodes", layout.members[node], "networks"):
        return False
    versions = {s.version for network in layout.networks_of(node) for s in network.subnets}
    return service.vip.version not in versions


def real_server_of(
    mention: Mention,
    key: ServiceKey,
    director: tuple[Interface, ...],
    interfaces: Mapping[str, tuple[Interface, ...]],
) -> RealServer:
    """The real server of a valid mention.

    Its RIP is the node's address on a network shared with the director, else its first
    one: the director reaches it through routers.
    """
    draft = mention.draft
    shared = {interface.network for interface in director}
    own = sorted(interfaces[mention.node], key=lambda i: i.network not in shared)
    rips: list[IPAddress] = [
        address.ip for i in own for address in i.addresses if address.version == key.vip.version
    ]
    return RealServer(
        mention.node,
        rips[0],
        draft.port or key.port,
        1 if draft.weight is None else draft.weight,
        draft.upper or 0,
        draft.lower or 0,
    )
