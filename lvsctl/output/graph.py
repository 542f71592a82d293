"""A topology as a drawing that others render: Mermaid, and Graphviz's DOT.

Nodes and networks, an edge for each cable. Many real servers of one group are one node.
Names in a topology are letters, digits and hyphens, so nothing has to be escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from lvsctl.model.lab import Lab, Network, Node, Role
from lvsctl.output.phrases import ROLE, impaired, vips

MOST_ALIKE = 8
"""Nodes of one group that are drawn individually."""

_SHAPES = {
    Role.CLIENT: ("([", "])"),
    Role.ROUTER: ("{{", "}}"),
    Role.DIRECTOR: ("[[", "]]"),
    Role.REAL_SERVER: ("[", "]"),
}
"""Mermaid's brackets for each role's shape."""
_DOT_SHAPES = {
    Role.CLIENT: "ellipse",
    Role.ROUTER: "hexagon",
    Role.DIRECTOR: "doubleoctagon",
    Role.REAL_SERVER: "box",
}


class _Drawn(NamedTuple):
    """One node, or several alike, as one shape."""

    nodes: tuple[Node, ...]

    @property
    def first(self) -> Node:
        return self.nodes[0]

    @property
    def key(self) -> str:
        return f"node_{self.first.name}".replace("-", "_")

    def lines(self, lab: Lab) -> Iterator[str]:
        """The text in the shape."""
        first, last = self.first, self.nodes[-1]
        name = first.name if first is last else f"{first.name} to {last.name}"
        yield name if name == first.role else f"{name} ({ROLE[first.role]})"
        held = ", ".join(map(str, vips(lab, first.name)))
        if held:
            yield f"VIP {held}" if first.role is Role.DIRECTOR else f"(VIP {held})"

    def addresses(self, network: str) -> str:
        """The addresses at a cable: of several nodes the first and the last one's."""
        ends = dict.fromkeys((self.nodes[0], self.nodes[-1]))
        return " to ".join(
            ", ".join(str(address.ip) for address in node.addresses_on(network)) for node in ends
        )


def mermaid(lab: Lab) -> str:
    """Return a flowchart in Mermaid's language, which GitHub and others draw in Markdown."""
    return "".join(f"{line}\n" for line in _mermaid_lines(lab))


def _mermaid_lines(lab: Lab) -> Iterator[str]:
    yield "flowchart LR"
    for network in lab.networks:
        yield f'    {_key(network)}(("{"<br>".join(_network_lines(network))}"))'
    for one in _drawn(lab):
        opening, closing = _SHAPES[one.first.role]
        yield f'    {one.key}{opening}"{"<br>".join(one.lines(lab))}"{closing}'
        for name in one.first.networks:
            yield f'    {one.key} ---|"{one.addresses(name)}"| {_key(lab.network(name))}'


def dot(lab: Lab) -> str:
    """Return a graph in DOT, which Graphviz's programs lay out (`dot -Tsvg`)."""
    lines = [f'graph "{lab.name}" {{', '    rankdir=LR; node [fontname="sans-serif"];']
    for network in lab.networks:
        label = "\\n".join(_network_lines(network))
        lines.append(f'    {_key(network)} [label="{label}", shape=cylinder];')
    for one in _drawn(lab):
        label, shape = "\\n".join(one.lines(lab)), _DOT_SHAPES[one.first.role]
        lines.append(f'    {one.key} [label="{label}", shape={shape}];')
        for name in one.first.networks:
            addresses = one.addresses(name)
            end = _key(lab.network(name))
            lines.append(f'    {one.key} -- {end} [label="{addresses}", fontsize=10];')
    return "\n".join([*lines, "}"]) + "\n"


def _drawn(lab: Lab) -> Iterator[_Drawn]:
    """The shapes in the topology's order: of a large group one for all."""
    for _, members in groupby(lab.nodes, key=lambda node: node.group):
        nodes = tuple(members)
        if len(nodes) > MOST_ALIKE:
            yield _Drawn(nodes)
        else:
            yield from (_Drawn((node,)) for node in nodes)


def _key(network: Network) -> str:
    return f"network_{network.name}".replace("-", "_")


def _network_lines(network: Network) -> Iterator[str]:
    yield network.name
    yield from map(str, network.subnets)
    if network.impairment:
        yield impaired(network.impairment)
