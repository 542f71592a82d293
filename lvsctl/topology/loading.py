"""From a topology file to a lab: the steps in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from lvsctl.errors import SpecError
from lvsctl.model.lab import Lab, Node, Role
from lvsctl.model.rule import Violation
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    Scheduler,
    ServiceKey,
    VirtualService,
)
from lvsctl.topology.addresses import Interfaces, interfaces_of
from lvsctl.topology.drafts import ServiceDraft, TopologyDraft
from lvsctl.topology.groups import directory_of
from lvsctl.topology.layout import Layout, layout_of
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.overriding import overridden
from lvsctl.topology.places import check_routes, place_given_addresses, routes_of
from lvsctl.topology.reading import NotATree, tree_of
from lvsctl.topology.real_servers import Mentions, mentions_of, real_server_of
from lvsctl.topology.report import Report
from lvsctl.topology.schema import TOPOLOGY
from lvsctl.topology.services import check_services
from lvsctl.topology.tree import Path, Tree

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
) -> Lab:
    """The lab that a topology file describes.

    ``source`` names the file in messages. ``rules`` are the forwarding methods' own:
    they are asked once the lab is otherwise valid.

    Raises SpecError with all problems of the file, and UsageError where ``overrides``
    do not fit a valid file.
    """
    if (tree := _without_places(text)) is not None:
        # Whatever there is to report needs lines and columns: it is read again for them.
        with suppress(SpecError):
            return _lab(Report(source, tree), tree, overrides, rules)
    try:
        tree, flaws = tree_of(text)
    except NotATree as error:
        report = Report(source)
        report.add_flaw(error.flaw)
        raise report.error() from None
    report = Report(source, tree)
    for flaw in flaws:
        report.add_flaw(flaw)
    return _lab(report, tree, overrides, rules)


def _without_places(text: str | bytes) -> Tree | None:
    """The tree of a file in JSON, which needs no PyYAML; None where it is not JSON."""
    if text.lstrip()[:1] not in ("{", b"{"):
        return None
    from lvsctl.topology import json_tree

    return json_tree.tree_of(text)


def _lab(report: Report, tree: Tree, overrides: Overrides, rules: Rules) -> Lab:
    draft = TOPOLOGY.read(tree, (), report)
    if draft is None:
        raise report.error()
    if not report.touches():
        draft = overridden(draft, overrides)
    return _lab_of(draft, report, rules)


def _lab_of(draft: TopologyDraft, report: Report, rules: Rules) -> Lab:
    layout = layout_of(draft, report)
    place_given_addresses(layout, report)
    check_routes(layout, report)
    check_services(draft, layout, report)
    directory = directory_of(draft, layout, report)
    mentions = mentions_of(draft, layout, directory, report) if layout.members else ()
    interfaces: Interfaces = {}
    if not (report.touches("networks") or report.touches("nodes")):
        vips = {service.vip for service in draft.services or () if service and service.vip}
        interfaces = interfaces_of(layout, vips, report)
    report.raise_any()

    lab = Lab(
        draft.name or "",
        draft.description or "",
        tuple(layout.networks.values()),
        tuple(_node(name, layout, interfaces) for name in layout.members),
        tuple(
            _service(service, key, forward, mentions[index], layout, interfaces)
            for index, service in enumerate(draft.services or ())
            if service and (key := service.key) and (forward := service.forward)
        ),
    )
    for violation in rules(lab):
        path = _file_path(violation.path, layout, mentions)
        report.add(path, violation.message, violation.hint)
    report.raise_any()
    return lab


def _node(name: str, layout: Layout, interfaces: Interfaces) -> Node:
    draft = layout.draft_of(name)
    return Node(
        name,
        draft.role or Role.CLIENT,
        layout.members[name],
        interfaces[name],
        routes_of(draft),
        tuple((key, value or "") for key, value in (draft.sysctls or {}).items()),
        draft.run or (),
    )


def _service(
    draft: ServiceDraft,
    key: ServiceKey,
    forward: ForwardingMethod,
    mentions: Mentions,
    layout: Layout,
    interfaces: Interfaces,
) -> VirtualService:
    director = interfaces[layout.having(Role.DIRECTOR)[0]]
    return VirtualService(
        draft.name or "",
        key,
        forward,
        draft.scheduler or Scheduler.WLC,
        tuple(real_server_of(mention, key, director, interfaces) for mention in mentions),
        draft.encapsulation or Encapsulation.IPIP,
        draft.persistence or 0,
    )


def _file_path(path: Path, layout: Layout, mentions: tuple[Mentions, ...]) -> Path:
    """A path in the lab's terms in those of the file: numbered nodes and groups are one entry."""
    match path:
        case ("nodes", str(name), *rest) if name in layout.members:
            return ("nodes", layout.members[name], *rest)
        case ("services", int(index), "real_servers", int(position), *rest) if index < len(
            mentions
        ) and position < len(mentions[index]):
            return ("services", index, "real_servers", mentions[index][position].item, *rest)
    return path
