"""What becomes of flows when a real server is taken out, in every way, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from lvsctl.model.flows import DrainRow, FlowKind, FlowResult, Outcome, Way
from lvsctl.output.text.drain import brief

_HEAD = """\
# Draining: every combination

`lvsctl drain --matrix --write docs/draining-matrix.md` writes this page: in a lab of the topology
`draining` it takes `rs1` out in each way, with each combination of the sysctls of IPVS that decide
what becomes of the flows that are with it. Clients ask every 100 ms, and IPVS's timeouts of idle
flows are 2 s meanwhile, so that *silent, then …* is what happens once an entry has expired: with
the usual timeouts after 15 minutes (TCP) or 5 minutes (UDP). What each kind of flow is:
[draining](draining.md).
"""

_TITLES = {
    Way.WEIGHT: ("Weight 0", "`ipvsadm -e … -w 0`: new connections go elsewhere."),
    Way.DELETE: ("Removed from the table", "`ipvsadm -d …`"),
    Way.STOP: (
        "Its server process ends",
        """IPVS's table stays as it is, and half of the new connections are refused: what checks the
health of real servers, such as keepalived, has to take it out.""",
    ),
}


def page(rows: Sequence[DrainRow]) -> str:
    """Return the page with a table for each way."""
    return _HEAD + "".join(_section(way, rows) for way in Way if any(r.way is way for r in rows))


def _section(way: Way, rows: Sequence[DrainRow]) -> str:
    title, text = _TITLES[way]
    mine = [row for row in rows if row.way is way]
    names = list(mine[0].sysctls)
    kinds = [kind for kind in FlowKind if any(flow.kind is kind for flow in mine[0].flows)]
    table = [[*(f"`{name}`" for name in names), *kinds], ["---"] * (len(names) + len(kinds))]
    for row in mine:
        found = {flow.kind: _cell(way, flow) for flow in row.flows}
        table.append([*row.sysctls.values(), *(found.get(kind, "") for kind in kinds)])
    lines = "\n".join("| " + " | ".join(line) + " |" for line in table)
    return f"\n## {title}\n\n{text}\n\n{lines}\n"


def _cell(way: Way, flow: FlowResult) -> str:
    # A connection with a request on its way is reset when its process ends: a matter of chance.
    if way is Way.STOP and flow.outcome is Outcome.RESET:
        return str(Outcome.CLOSED)
    return brief(flow)
