"""The comparison of NAT, TUN and DR as a page."""

from __future__ import annotations

from lvsctl.model.claim import Verdict
from lvsctl.model.compare import ComparedRow, Comparison, MethodCell
from lvsctl.output.html.markup import Html, joined, tag
from lvsctl.output.html.page import badge, document

_STYLE = """
.compared-methods{border-collapse:collapse;width:100%}
.compared-methods th,.compared-methods td{padding:8px 14px 8px 0;text-align:left;
vertical-align:top;border-bottom:1px solid var(--line)}
.compared-methods thead th{color:var(--soft)}
.compared-methods tbody th{width:17%;font-weight:600}
.compared-methods td{width:27%;overflow-wrap:anywhere}
.quoted{color:var(--soft);font-style:italic}
.compared-methods summary{font-size:12px;color:var(--soft)}
.compared-methods details p{font-size:12px}
.of{display:none;font-weight:700}
@media (max-width:720px){.compared-methods thead{display:none}
.compared-methods tr,.compared-methods th,.compared-methods td{display:block;width:auto!important}
.compared-methods td{border:0;padding:4px 0}.compared-methods tbody th{padding:14px 0 0;border:0}
.of{display:inline}}
@media print{.compared-methods{font-size:9.5px}.compared-methods details{display:none}}
"""


def compare_page(result: Comparison) -> str:
    """Return the page, which needs nothing else."""
    head = tag("tr", tag("th", ""), *(tag("th", str(m).upper()) for m in result.methods))
    table = tag("table", tag("thead", head), tag("tbody", *map(_row, result.rows)),
                class_="compared-methods")  # fmt: skip
    verdicts = [joined(method.upper(), " ", badge(v), " ") for method, v in result.verified.items()]
    wrong = any(verdict is not Verdict.PASS for verdict in result.verified.values())
    warning = "not every claim holds in these labs: do not trust what is below" if wrong else None
    return document(
        "NAT, TUN and DR, measured",
        joined(
            tag("h1", "NAT, TUN and DR, measured"),
            tag("p", f"three labs of the topology {result.topology}; lvsctl verify: ", *verdicts,
                class_="lead"),
            tag("p", warning, class_="outcome fail") if warning else None,
            tag("p", "in italics: what ", tag("code", result.source), " says", class_="lead"),
        ),
        tag("div", table, class_="card"),
        joined("made by ", tag("code", "lvsctl compare --html FILE")),
        css=_STYLE,
    )  # fmt: skip


def _row(row: ComparedRow) -> Html:
    return tag("tr", tag("th", row.title, scope="row"), *map(_cell, row.cells))


def _cell(cell: MethodCell) -> Html:
    quoted = tag("div", cell.quoted, class_="quoted") if cell.quoted else None
    return tag(
        "td",
        tag("span", f"{cell.method}: ".upper(), class_="of"),
        quoted,
        cell.measured,
        tag(
            "details",
            tag("summary", "evidence"),
            tag("p", tag("code", cell.command)),
            *(
                tag("p", tag("span", str(frame.tap), class_="tap"), tag("code", frame.summary()))
                for frame in cell.frames
            ),
        ),
    )
