"""Throughput over the number of real servers, as a page: curves and tables."""

from __future__ import annotations

import base64

from lvsctl.model.claim import Verdict
from lvsctl.model.scale import Scale, ScaleCurve, ScalePoint
from lvsctl.output import plots
from lvsctl.output.html.markup import Html, joined, tag
from lvsctl.output.html.page import SIGNS, document
from lvsctl.output.text.scale import HEADINGS, LEGEND, VERDICTS, cells, conditions, remarks

_STYLE = """
.plot img{display:block;width:100%;height:auto;margin:0 auto}
.plot{margin-top:16px}
.figures{border-collapse:collapse;font-variant-numeric:tabular-nums}
.figures th,.figures td{padding:3px 12px 3px 0;text-align:right;white-space:nowrap;
border-bottom:1px solid var(--line)}
.figures th{font-size:12px;color:var(--soft);font-weight:600}
.figures td:nth-child(3){font-weight:700}
@media print{.figures th,.figures td{font-size:9px;padding:1px 8px 1px 0}
.card,.plot{break-inside:avoid}}
"""


def scale_page(result: Scale) -> str:
    """Return the page, which needs nothing else. Raises HostError without matplotlib."""
    title = f"{result.topology}: throughput over the number of real servers"
    parts = [tag("div", _plots(result), class_="card plot")]
    for curve in result.curves:
        parts += [tag("h2", str(curve.method).upper()), _curve(curve)]
    parts.append(tag("div", *(tag("p", line) for line in LEGEND), class_="none"))
    return document(
        title,
        joined(tag("h1", title), *(tag("p", line, class_="lead") for line in conditions(result))),
        joined(*parts),
        joined("made by ", tag("code", f"lvsctl scale {result.topology} --html FILE")),
        css=_STYLE,
        images=True,
    )


def _plots(result: Scale) -> Html:
    """The curves in four drawings, of which a browser shows one: width and colours."""
    sources = [
        tag("source", media=media, srcset=_address(plots.scale_svg(result, theme, narrow=narrow)))
        for media, theme, narrow in (
            ("screen and (max-width:720px) and (prefers-color-scheme:dark)", plots.DARK, True),
            ("screen and (max-width:720px)", plots.LIGHT, True),
            ("screen and (prefers-color-scheme:dark)", plots.DARK, False),
        )
    ]
    drawn = _address(plots.scale_svg(result, plots.LIGHT))
    text = "; ".join(f"{curve.method}: {curve.text}" for curve in result.curves)
    return tag("picture", *sources, tag("img", src=drawn, alt=text))


def _address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def _curve(curve: ScaleCurve) -> Html:
    if curve.obstacle:
        return tag("div", tag("p", f"not here: {curve.obstacle}"), class_="card")
    head = tag("tr", *(tag("th", text, scope="col") for text in HEADINGS))
    rows = [_row(point) for point in curve.points]
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="figures")
    return tag("div", _verdict(curve), table, *(tag("p", line) for line in remarks(curve)),
               class_="card")  # fmt: skip


def _verdict(curve: ScaleCurve) -> Html:
    if curve.verdict is None:
        return tag("p", curve.text)
    badge = f"{SIGNS[curve.verdict]} {VERDICTS[curve.verdict]}"
    look = {Verdict.PASS: "pass", Verdict.FAIL: "fail"}.get(curve.verdict, "inconclusive")
    return tag("p", tag("span", badge, class_=f"badge {look}"), " ", curve.text)


def _row(point: ScalePoint) -> Html:
    return tag("tr", *(tag("td", text) for text in cells(point)))
