"""The path of a request as a sequence diagram: a row for each hop, its arrow and explanation.

Each row has a piece of every node's life line, as tall as its words make it: SVG without a
view box takes percentages, so that the diagram fits any width without a script.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lvsctl.model.walk import Hop, Step, Walk
from lvsctl.output.html.markup import Html, joined, number, tag
from lvsctl.walk.walk import packets

_FIT_A_PHONE = 5
"""How many names of nodes can stand beside each other on a phone's screen."""

_EDGE = 0.3
"""The part of a row's width in which a long label could leave a phone's screen."""

_ROW = 30
"""Where in a row its arrow is, in pixels from the top."""


def walk(walk: Walk) -> Html:
    """The diagram as a table: number, arrow, explanation."""
    nodes = _drawn_nodes(walk)
    return tag(
        "table",
        tag("thead", tag("tr", tag("th", "", class_="n"),
                         tag("th", _heads(walk, nodes), class_="lanes"),
                         tag("th", "what happens, and why", class_="why"))),
        tag("tbody", *_rows(walk, nodes)),
        class_="walk",
        style=f"--nodes:{len(nodes)}",
    )  # fmt: skip


def _drawn_nodes(walk: Walk) -> tuple[str, ...]:
    """Return the nodes with a life line: not those that only received broadcasts."""
    acting = {hop.sender for hop in walk.hops} | {walk.client}
    acting |= {
        n for hop in walk.hops if hop.step is not Step.NEIGHBOUR_REQUEST for n in hop.receivers
    }
    return tuple(node for node in walk.nodes if node in acting)


def _heads(walk: Walk, nodes: Sequence[str]) -> Html:
    roles = {node.name: str(node.role) for node in walk.lab.nodes}
    spans = [tag("span", node, class_=f"head {roles.get(node, '')}") for node in nodes]
    return tag("div", *spans, class_="heads many" if len(nodes) > _FIT_A_PHONE else "heads")


def _rows(walk: Walk, nodes: Sequence[str]) -> Iterator[Html]:
    start = walk.hops[0].frame.time if walk.hops else 0
    count = 0
    repeated: list[Hop] = []
    for hop in walk.hops:
        if hop.again:
            repeated.append(hop)
            continue
        yield from _repeated(repeated, nodes)
        repeated = []
        count += 1
        yield _row(hop, count, start, nodes)
    yield from _repeated(repeated, nodes)


def _row(hop: Hop, count: int, start: int, nodes: Sequence[str]) -> Html:
    return tag(
        "tr",
        tag("td", str(count), class_="n"),
        tag("td", _lanes(nodes, [*_hop_arrows(hop, nodes)]), class_="lanes"),
        tag("td", *_words(hop, start), class_="why"),
        class_=" ".join(_kinds(hop)),
    )


def _kinds(hop: Hop) -> Iterator[str]:
    yield from ("hop", str(hop.step))
    if hop.lost:
        yield "lost"
    if len(hop.frame.ips) > 1:
        yield "tunnelled"


def _words(hop: Hop, start: int) -> Iterator[Html]:
    way = f"{hop.sender or '?'} → {', '.join(hop.receivers) or 'not received'}"
    if hop.step is Step.DECAPSULATED:
        way = hop.sender
    since = f"+{(hop.frame.time - start) / 1e6:.2f} ms"
    yield tag("p", tag("b", way), " on " + hop.network, tag("span", since, class_="since"),
              class_="way")  # fmt: skip
    yield tag("p", hop.why)
    changed = {change.what: change for change in hop.changes}
    fields = []
    for what, value in hop.headers.items():
        change = changed.get(what)
        was = [" ", tag("s", change.before)] if change is not None else []
        fields.append(
            tag("div", tag("dt", what), tag("dd", value, *was),
                class_="changed" if change is not None else None)
        )  # fmt: skip
    yield tag("dl", *fields, class_="fields")
    numbers = ", ".join(f"#{frame.number} at {frame.tap}" for frame in hop.frames)
    yield tag("p", f"frame {numbers}", class_="frames")


def _repeated(hops: Sequence[Hop], nodes: Sequence[str]) -> Iterator[Html]:
    """A packet on a path already explained: one row with all its hops."""
    for packet in packets(hops):
        arrows: list[Html] = []
        moving = [hop for hop in packet if hop.step is not Step.DECAPSULATED]
        for index, hop in enumerate(moving):
            arrows += _arrows(hop, nodes, 9 + index * 9)
        label = f"{packet[0].label}: the same way"
        lanes = _lanes(nodes, arrows, height=len(moving) * 9 + 10)
        kind = f"again {packet[0].step}"
        yield tag("tr", tag("td", "", class_="n"), tag("td", lanes, class_="lanes"),
                  tag("td", tag("p", label), class_="why"), class_=kind)  # fmt: skip


def _lanes(nodes: Sequence[str], arrows: Sequence[Html], *, height: int = 58) -> Html:
    lines = [
        tag("line", x1=_at(index, nodes), y1=0, x2=_at(index, nodes), y2="100%", class_="life")
        for index in range(len(nodes))
    ]
    return tag("svg", *lines, *arrows, aria_hidden="true", style=f"min-height:{height}px")


def _at(index: float, nodes: Sequence[str]) -> str:
    return number((index + 0.5) * 100 / max(len(nodes), 1)) + "%"


def _hop_arrows(hop: Hop, nodes: Sequence[str]) -> Iterator[Html]:
    yield from _arrows(hop, nodes, _ROW)
    places = [nodes.index(n) for n in (hop.sender, *hop.receivers[:1]) if n in nodes]
    if not places:
        return
    far = [nodes.index(n) for n in hop.receivers if n in nodes] or places
    middle = (places[0] + max(far, key=lambda place: abs(place - places[0]))) / 2
    if hop.step is Step.DECAPSULATED or len({*places, *far}) == 1:
        middle = places[0]
    kind = hop.frame.packet.encapsulation
    label = f"{hop.label} in {kind}" if kind is not None else hop.label
    place = (middle + 0.5) / len(nodes)
    side = "first" if place < _EDGE else "last" if place > 1 - _EDGE else ""
    yield tag("text", label, x=_at(middle, nodes), y=_ROW - 10, class_=f"label {side}".strip())


def _arrows(hop: Hop, nodes: Sequence[str], y: int) -> Iterator[Html]:
    if hop.step is Step.DECAPSULATED:
        if hop.sender in nodes:
            yield tag("circle", cx=_at(nodes.index(hop.sender), nodes), cy=y, r=7, class_="unpack")
        return
    if hop.sender not in nodes:
        return
    start = nodes.index(hop.sender)
    yield tag("circle", cx=_at(start, nodes), cy=y, r=3, class_="from")
    for receiver in hop.receivers:
        if receiver in nodes:
            end = _at(nodes.index(receiver), nodes)
            yield tag("line", x1=_at(start, nodes), y1=y, x2=end, y2=y,
                      class_="arrow", marker_end="url(#tip)")  # fmt: skip
    if hop.lost:
        way = 0.45 if start + 1 < len(nodes) else -0.45
        yield tag("line", x1=_at(start, nodes), y1=y, x2=_at(start + way, nodes), y2=y,
                  class_="arrow", marker_end="url(#cross)")  # fmt: skip


def markers() -> Html:
    """The arrow heads that every row of a page points to."""
    tip = tag("marker", tag("path", d="M0,0 L9,4.5 L0,9 z", class_="tip"), id="tip",
              markerWidth=9, markerHeight=9, refX=10, refY=4.5, orient="auto",
              markerUnits="userSpaceOnUse")  # fmt: skip
    cross = tag("marker", tag("path", d="M1,1 L9,9 M9,1 L1,9", class_="cross"), id="cross",
                markerWidth=10, markerHeight=10, refX=5, refY=5, orient="0",
                markerUnits="userSpaceOnUse")  # fmt: skip
    return tag("svg", tag("defs", joined(tip, cross)), width=0, height=0, class_="defs",
               aria_hidden="true")  # fmt: skip
