"""The path of a request as a Mermaid sequence diagram, which GitHub and GitLab render."""

from __future__ import annotations

from lvsctl.model.walk import Hop, Step, Walk
from lvsctl.output.text.style import printable

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
    lines += [f"    participant {ids[name]} as {_text(name)}" for name in walk.nodes]
    for hop in walk.hops:
        lines += _hop(hop, ids)
    lines.append(f"    Note over {ids[walk.client]}: {_text(walk.outcome)}")
    return "\n".join(lines) + "\n"


def _hop(hop: Hop, ids: dict[str, str]) -> list[str]:
    sender = ids.get(hop.sender) or ids.get(hop.receivers[0] if hop.receivers else "")
    if sender is None:
        return []
    receivers = [ids[name] for name in hop.receivers if name in ids] or [sender]
    arrow = _ARROWS.get(hop.step, "->>") if hop.receivers else "-x"
    label = _text(f"{hop.label} ({hop.network})")
    lines = [f"    {sender}{arrow}{receiver}: {label}" for receiver in receivers]
    if not hop.again:
        lines.append(f"    Note over {sender}: {_text(hop.why)}")
    return lines


def _text(text: str) -> str:
    """Text that cannot end its line, nor mean anything to Mermaid."""
    return printable(text).translate(_FOR_MERMAID)
