"""The topology drawn as SVG: nodes in a row, networks as bars below, a line for each cable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lvsctl.model.lab import Lab, Node, Role
from lvsctl.output.html.markup import Html, joined, number, tag
from lvsctl.output.phrases import ROLE, impaired, vips

COLUMN, BOX, HEIGHT = 158, 138, 84
TOP, LANE = 8, 62
MOST_SERVERS = 8
"""Real servers that are drawn individually; further ones share a box."""

_ORDER = (Role.CLIENT, Role.ROUTER, Role.DIRECTOR, Role.REAL_SERVER)


class _Box(NamedTuple):
    """A node where it is drawn; ``more`` nodes like it share the box."""

    node: Node
    x: int
    more: int = 0

    @property
    def middle(self) -> float:
        return self.x + BOX / 2


def topology(lab: Lab) -> Html:
    """Return the drawing."""
    boxes = tuple(_boxes(lab))
    lanes = {
        network.name: TOP + HEIGHT + 56 + index * LANE for index, network in enumerate(lab.networks)
    }
    width = len(boxes) * COLUMN + 52  # room for the last address, right of its cable
    height = max(lanes.values(), default=TOP + HEIGHT) + 40
    said = ", ".join(f"{box.node.name} on {' and '.join(box.node.networks)}" for box in boxes)
    return tag(
        "svg",
        tag("title", f"Topology of {lab.name}: {said}"),
        joined(*_bars(lab, boxes, lanes)),
        joined(*(part for box in boxes for part in _cables(box, lanes))),
        joined(*_names(lab, boxes, lanes)),
        joined(*(_drawn(lab, box) for box in boxes)),
        class_="topology",
        role="img",
        viewBox=f"0 0 {width} {height}",
        style=f"max-width:{width}px;--least:{width * 3 // 4}px",
    )


def _boxes(lab: Lab) -> Iterator[_Box]:
    ordered = sorted(lab.nodes, key=lambda node: _ORDER.index(node.role))
    servers = [node for node in ordered if node.role is Role.REAL_SERVER]
    hidden = servers[MOST_SERVERS - 1 :] if len(servers) > MOST_SERVERS else []
    shown = [node for node in ordered if node not in hidden[1:]]
    for index, node in enumerate(shown):
        more = len(hidden) - 1 if hidden and node is hidden[0] else 0
        yield _Box(node, 4 + index * COLUMN, more)


def _bars(lab: Lab, boxes: Sequence[_Box], lanes: dict[str, int]) -> Iterator[Html]:
    for network in lab.networks:
        on = [box.middle for box in boxes if network.name in box.node.networks]
        if not on:
            continue
        left, right, y = min(on) - 52, max(on) + 52, lanes[network.name]
        yield tag("rect", x=number(left), y=y - 3, width=number(right - left), height=6, rx=3,
                  class_="bar")  # fmt: skip


def _names(lab: Lab, boxes: Sequence[_Box], lanes: dict[str, int]) -> Iterator[Html]:
    for network in lab.networks:
        on = [box.middle for box in boxes if network.name in box.node.networks]
        if not on:
            continue
        words = [network.name, *map(str, network.subnets)]
        words += [impaired(network.impairment)] if network.impairment else []
        x, y = min(on) - 52, lanes[network.name] + 19
        yield tag("text", "  ".join(words), x=number(x), y=y, class_="network")


def _cables(box: _Box, lanes: dict[str, int]) -> Iterator[Html]:
    count = len(box.node.interfaces)
    for index, interface in enumerate(box.node.interfaces):
        y = lanes.get(interface.network)
        if y is None:
            continue
        # Side by side, the shortest rightmost: no cable crosses another one's address.
        x = box.middle + ((count - 1) / 2 - index) * 14
        top = TOP + HEIGHT
        yield tag("line", x1=number(x), y1=top, x2=number(x), y2=y, class_="cable")
        yield tag("circle", cx=number(x), cy=y, r=5, class_="plug")
        if not box.more:
            text = " ".join(str(address.ip) for address in interface.addresses)
            yield tag("text", text, x=number(x + 7), y=y - 9, class_="address")


def _drawn(lab: Lab, box: _Box) -> Html:
    node = box.node
    name = f"{node.name} and {box.more} more" if box.more else node.name
    held = vips(lab, node.name)
    silent = node.role is not Role.DIRECTOR
    parts = [
        tag("rect", x=box.x, y=TOP, width=BOX, height=HEIGHT, rx=10, class_="box"),
        tag("text", ROLE[node.role], x=number(box.middle), y=TOP + 20, class_="role"),
        tag("text", name, x=number(box.middle), y=TOP + 42, class_="name"),
    ]
    if held:
        text = f"VIP {held[0]}" + (f" +{len(held) - 1}" if len(held) > 1 else "")
        text = f"({text})" if silent else text
        parts += [
            tag("rect", x=box.x + 7, y=TOP + 54, width=BOX - 14, height=22, rx=11,
                class_="vip silent" if silent else "vip"),
            tag("text", text, x=number(box.middle), y=TOP + 69, class_="vip-text"),
        ]  # fmt: skip
    return tag("g", *parts, class_=f"node {node.role}")
