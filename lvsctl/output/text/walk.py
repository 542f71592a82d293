"""The path of a request as text, and as a Mermaid sequence diagram for GitHub and GitLab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.model.walk import Hop, Step, Walk
from lvsctl.output.phrases import counted, service_line
from lvsctl.output.text.style import Cell, Style, printable
from lvsctl.walk.walk import packets

_INDENT = 9


def format_walk(walk: Walk, *, style: Style, verbose: bool = False, brief: bool = False) -> str:
    """Format every hop in time order; repeated hops take a line per packet, unless verbose.

    ``brief``: a line a hop, without headers and reasons.
    """
    heading = style.bold(f"{walk.lab.name} / {walk.service.name}")
    lines = [f"{heading}  {service_line(walk.service)}", ""]
    start = walk.hops[0].frame.time if walk.hops else 0
    repeated: list[Hop] = []
    for hop in walk.hops:
        if hop.again and not verbose:
            repeated.append(hop)
            continue
        if brief:
            lines += [*_repeated(repeated, style), next(_hop(hop, start, style))]
        else:
            lines += [*_repeated(repeated, style), *_hop(hop, start, style), ""]
        repeated = []
    lines += _repeated(repeated, style)
    if brief and not repeated:
        lines.append("")
    paint = style.green if walk.exchange.answered else style.red
    packets = counted(len(walk.hops), "hop")
    lines.append(f"{paint(printable(walk.outcome))} ({packets}, {_duration(walk)})")
    return style.finished("\n".join(lines))


def _duration(walk: Walk) -> str:
    return f"{walk.exchange.seconds * 1000:.1f} ms"


def _hop(hop: Hop, start: int, style: Style) -> Iterator[str]:
    since = f"{(hop.frame.time - start) / 1e6:7.2f}"
    way = f"{hop.sender or '?'} → {', '.join(hop.receivers) or 'not received'}"
    if hop.step is Step.DECAPSULATED:
        way = f"{hop.sender}, out of {hop.network}"
    place = "" if hop.step is Step.DECAPSULATED else style.dim(f"  on {hop.network}")
    yield f"{style.dim(since)}  {style.bold(printable(way))}{place}  {printable(hop.label)}"
    yield style.wrapped(printable(hop.why), _INDENT)
    changed = {change.what: change for change in hop.changes}
    rows = [
        [
            Cell(what, style.dim),
            Cell(printable(value), whole=True),
            Cell(printable(f"was {changed[what].before}"), style.yellow) if what in changed else "",
        ]
        for what, value in hop.headers.items()
    ]
    for row, (what, _) in zip(rows, hop.headers.items(), strict=True):
        if what in changed and isinstance(row[1], Cell):
            row[1] = replace(row[1], paint=style.yellow)
    yield style.table(rows, indent=_INDENT)
    numbers = ", ".join(f"#{frame.number} {frame.tap}" for frame in hop.frames)
    yield style.dim(style.wrapped(printable(f"frames {numbers}"), _INDENT))


def _repeated(hops: list[Hop], style: Style) -> list[str]:
    """Lines for packets that took the same path as an earlier one."""
    if not hops:
        return []
    lines = []
    for packet in packets(hops):
        way = [packet[0].sender or "?"]
        way += [
            ", ".join(hop.receivers) or "not received"
            for hop in packet
            if hop.step is not Step.DECAPSULATED
        ]
        lines.append(f"{'':7}  {' → '.join(way)}  {packet[0].label}")
    said = "".join(f"{printable(line)}\n" for line in lines).rstrip("\n")
    return [style.dim(f"{'':7}  and along the same path:"), style.dim(said), ""]


_ARROWS = {
    Step.NEIGHBOUR_REQUEST: "--)",
    Step.NEIGHBOUR_REPLY: "-->>",
    Step.REPLY: "->>",
    Step.ICMP_ERROR: "--x",
}
_FOR_MERMAID = str.maketrans(
    {"#": "#35;", ";": "#59;", "<": "#60;", ">": "#62;", "%": "#37;", "{": "#123;", "}": "#125;"}
)


def mermaid(walk: Walk) -> str:
    """Return the diagram; repeated hops have no explanation."""
    ids = {name: f"n{number}" for number, name in enumerate(walk.nodes)}
    lines = ["sequenceDiagram", "    autonumber"]
    lines += [f"    participant {ids[name]} as {_mermaid_text(name)}" for name in walk.nodes]
    for hop in walk.hops:
        lines += _mermaid_hop(hop, ids)
    lines.append(f"    Note over {ids[walk.client]}: {_mermaid_text(walk.outcome)}")
    return "\n".join(lines) + "\n"


def _mermaid_hop(hop: Hop, ids: dict[str, str]) -> list[str]:
    sender = ids.get(hop.sender) or ids.get(hop.receivers[0] if hop.receivers else "")
    if sender is None:
        return []
    receivers = [ids[name] for name in hop.receivers if name in ids] or [sender]
    arrow = _ARROWS.get(hop.step, "->>") if hop.receivers else "-x"
    label = _mermaid_text(f"{hop.label} ({hop.network})")
    lines = [f"    {sender}{arrow}{receiver}: {label}" for receiver in receivers]
    if not hop.again:
        lines.append(f"    Note over {sender}: {_mermaid_text(hop.why)}")
    return lines


def _mermaid_text(text: str) -> str:
    """Escape text so that it neither ends its line nor has a meaning for Mermaid."""
    return printable(text).translate(_FOR_MERMAID)
