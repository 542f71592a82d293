"""The topology drawn as SVG: nodes in a row, networks as bars below, a line for each cable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lvsctl.model.lab import Lab, Node, Role
from lvsctl.output.html.markup import STYLE, Html, joined, number, tag
from lvsctl.output.phrases import ROLE, impaired, vips

BOX, GAP, HEIGHT = 138, 20, 84
TOP, LANE = 8, 62
CHARACTER = 7.4
"""Room for one character of an address or VIP."""
MOST_SERVERS = 8
"""Real servers that are drawn individually; further ones share a box."""

_ORDER = (Role.CLIENT, Role.ROUTER, Role.DIRECTOR, Role.REAL_SERVER)


class _Box(NamedTuple):
    """A node where it is drawn; ``more`` nodes like it share the box."""

    node: Node
    x: int
    width: int
    more: int = 0

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def image(lab: Lab) -> str:
    """Return the drawing as an SVG file of its own."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{topology(lab, alone=True)}\n'


def topology(lab: Lab, *, alone: bool = False) -> Html:
    """Return the drawing; ``alone``: not as a part of a page, whose style sheet it uses."""
    boxes = tuple(_boxes(lab))
    lanes = {
        network.name: TOP + HEIGHT + 56 + index * LANE for index, network in enumerate(lab.networks)
    }
    # Room for the last address, right of its cable.
    last = max((len(_addresses(boxes[-1], n.name)) for n in lab.networks), default=0)
    width = round(max(box.x + box.width for box in boxes) + max(52, last * CHARACTER))
    height = max(lanes.values(), default=TOP + HEIGHT) + 40
    said = ", ".join(f"{box.node.name} on {' and '.join(box.node.networks)}" for box in boxes)
    return tag(
        "svg",
        tag("title", f"Topology of {lab.name}: {said}"),
        tag("style", Html(STYLE)) if alone else None,
        joined(*_bars(lab, boxes, lanes)),
        joined(*(part for box in boxes for part in _cables(box, lanes))),
        joined(*_names(lab, boxes, lanes)),
        joined(*(_drawn(lab, box) for box in boxes)),
        class_="topology",
        role="img",
        xmlns="http://www.w3.org/2000/svg" if alone else None,
        viewBox=f"0 0 {width} {height}",
        style=f"max-width:{width}px;--least:{width * 3 // 4}px",
    )


def _boxes(lab: Lab) -> Iterator[_Box]:
    ordered = sorted(lab.nodes, key=lambda node: _ORDER.index(node.role))
    servers = [node for node in ordered if node.role is Role.REAL_SERVER]
    hidden = servers[MOST_SERVERS - 1 :] if len(servers) > MOST_SERVERS else []
    shown = [node for node in ordered if node not in hidden[1:]]
    x = 4
    for node in shown:
        more = len(hidden) - 1 if hidden and node is hidden[0] else 0
        held = round(len(_vip_text(lab, node)) * CHARACTER) + 24
        box = _Box(node, x, max(BOX, held), more)
        yield box
        longest = max((len(_addresses(box, name)) for name in node.networks), default=0)
        # An address stands right of its cable, which comes from the middle of the box.
        x += max(box.width + GAP, round(longest * CHARACTER) + GAP + BOX // 8)


def _addresses(box: _Box, network: str) -> str:
    if box.more:
        return ""
    return "  ".join(str(address.ip) for address in box.node.addresses_on(network))


def _vip_text(lab: Lab, node: Node) -> str:
    held = vips(lab, node.name)
    if not held:
        return ""
    text = f"VIP {held[0]}" + (f" +{len(held) - 1}" if len(held) > 1 else "")
    return text if node.role is Role.DIRECTOR else f"({text})"


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
        text = _addresses(box, interface.network)
        if text:
            yield tag("text", text, x=number(x + 7), y=y - 9, class_="address")


def _drawn(lab: Lab, box: _Box) -> Html:
    node = box.node
    name = f"{node.name} and {box.more} more" if box.more else node.name
    held = _vip_text(lab, node)
    silent = node.role is not Role.DIRECTOR
    parts = [
        tag("rect", x=box.x, y=TOP, width=box.width, height=HEIGHT, rx=10, class_="box"),
        tag("text", ROLE[node.role], x=number(box.middle), y=TOP + 20, class_="role"),
        tag("text", name, x=number(box.middle), y=TOP + 42, class_="name"),
    ]
    if held:
        parts += [
            tag("rect", x=box.x + 7, y=TOP + 54, width=box.width - 14, height=22, rx=11,
                class_="vip silent" if silent else "vip"),
            tag("text", held, x=number(box.middle), y=TOP + 69, class_="vip-text"),
        ]  # fmt: skip
    return tag("g", *parts, class_=f"node {node.role}")
