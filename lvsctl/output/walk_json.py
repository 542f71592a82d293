"""A request's way as JSON, under the rules of ``jsonable``."""

from __future__ import annotations

from typing import Any

from lvsctl.model.walk import Hop, Walk
from lvsctl.output.walk_text import headers

VERSION = 1


def walk(walk: Walk) -> dict[str, Any]:
    """``{version, lab, service, client, server, answered, outcome, seconds, nodes, hops: [hop]}``.

    ``server`` is who answered, null where nobody did or it did not say. A hop is ``{step, from,
    to: [node], network, label, why, repeats, headers, changes: [{what, before, after}],
    frames: [{tap, frame, direction, time, summary}]}``: ``step`` is one of ``question``,
    ``answer``, ``request``, ``unpacked``, ``reply`` and ``message``; ``from`` is null where
    nobody was seen sending it, ``to`` is empty where nobody received it; ``time`` in
    nanoseconds since the epoch.
    """
    return {
        "version": VERSION,
        "lab": walk.lab.name,
        "service": walk.service.name,
        "client": walk.client,
        "server": walk.exchange.node or None,
        "answered": walk.exchange.answered,
        "outcome": walk.outcome,
        "seconds": walk.exchange.seconds,
        "nodes": list(walk.nodes),
        "hops": [_hop(hop) for hop in walk.hops],
    }


def _hop(hop: Hop) -> dict[str, Any]:
    return {
        "step": str(hop.step),
        "from": hop.sender or None,
        "to": list(hop.receivers),
        "network": hop.network,
        "label": hop.label,
        "why": hop.why,
        "repeats": hop.again,
        "headers": dict(headers(hop.frame)),
        "changes": [
            {"what": change.what, "before": change.before, "after": change.after}
            for change in hop.changes
        ],
        "frames": [
            {
                "tap": str(frame.tap),
                "frame": frame.number,
                "direction": frame.direction.name.lower(),
                "time": frame.time,
                "summary": frame.summary(),
            }
            for frame in hop.frames
        ],
    }
