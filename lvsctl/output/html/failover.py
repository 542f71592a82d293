"""A failover as a page: a time line, the story, the held connections and the claims."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.model.claim import Verdict
from lvsctl.model.failover import Failover, HeldConnection, Moment, Step
from lvsctl.output.html.markup import Html, joined, number, tag
from lvsctl.output.html.page import SIGNS, badge, document
from lvsctl.output.text.failover import outage_text, title_text

_STYLE = """
.lane{display:grid;grid-template-columns:120px 1fr;gap:10px;align-items:center;margin:0 0 6px}
.lane .who{font-weight:700;font-size:13.5px;overflow-wrap:anywhere}
.lane svg{display:block;width:100%;height:26px;border-radius:6px;background:var(--bg)}
.lane .on{fill:var(--director);opacity:.75}.lane .good{fill:var(--pass);opacity:.6}
.lane .out{fill:var(--fail);opacity:.8}.lane .mark{stroke:var(--ink);stroke-width:2;
vector-effect:non-scaling-stroke;stroke-dasharray:4 3}
.ticks{position:relative;height:20px;font-size:12px;color:var(--soft)}
.ticks span{position:absolute;transform:translateX(-50%);white-space:nowrap}
.ticks .first{transform:none}.ticks .last{transform:translateX(-100%)}
.story{border-left:3px solid var(--line);margin:0 0 0 8px;padding:0}
.story div{display:grid;grid-template-columns:92px 1fr auto;gap:12px;padding:5px 0 5px 14px}
.story .at{font-variant-numeric:tabular-nums;text-align:right;color:var(--soft);white-space:nowrap}
.story .action{font-weight:700}.story .last-answer,.story .stayed-master{color:var(--fail)}
.story .answered-again{color:var(--pass)}
.held,.found{border-collapse:collapse;width:100%}
.held td,.held th,.found td{padding:6px 14px 6px 0;text-align:left;vertical-align:top;
border-bottom:1px solid var(--line)}
.held th{font-size:12px;color:var(--soft)}.held td:last-child,.found td:last-child{
overflow-wrap:anywhere}
@media (max-width:720px){.lane{grid-template-columns:1fr;gap:2px}
.story div{grid-template-columns:72px 1fr;gap:8px;padding-left:4px}
.story .number{grid-column:2}
.held thead{display:none}.held tr,.held td,.found tr,.found td{display:block;border:0;padding:1px 0}
.held tr,.found tr{border-bottom:1px solid var(--line);padding:7px 0}}
@media print{.held,.found,.story{font-size:10px}}
"""

_WIDTH = 1000.0
"""Units of a lane's drawing, which is as wide as the page."""


def failover_page(result: Failover) -> str:
    """Return the page, which needs nothing else."""
    parts = [tag("h2", "When"), tag("div", *_lanes(result), class_="card")]
    parts += [tag("h2", "What happened"), tag("div", _story(result.steps), class_="card")]
    if result.held:
        survived = sum(one.survived for one in result.held)
        said = f"Connections that were open: {survived} of {len(result.held)} survived"
        parts += [tag("h2", said), tag("div", _held(result.held), class_="card")]
    parts += [tag("h2", "Claims"), tag("div", _claims(result), class_="card")]
    title = f"{result.lab}: {title_text(result)}"
    return document(
        title,
        joined(
            tag("h1", title, badge(result.verdict)),
            tag("p", result.action, class_="lead"),
            tag("p", outage_text(result), class_="lead"),
        ),
        joined(*parts),
        joined("made by ", tag("code", f"lvsctl failover {result.lab} --html FILE")),
        css=_STYLE,
    )


# ── the time line ────────────────────────────────────────────────────────────────────────────


def _lanes(result: Failover) -> Iterator[Html]:
    """Yield a lane for each director that was master, one for the client, and the scale."""
    first = min((step.at for step in result.steps), default=0.0)
    last = max((step.at for step in result.steps), default=0.0)
    pad = max(50.0, (last - first) / 20)
    begin, end = first - pad, last + pad

    def rect(kind: str, since: float, until: float) -> Html:
        x = (since - begin) / (end - begin) * _WIDTH
        width = (until - since) / (end - begin) * _WIDTH
        return tag("rect", class_=kind, x=number(x), y=0, width=number(width), height=26)

    def lane(who: str, meaning: str, *bars: Html) -> Html:
        at = number(-begin / (end - begin) * _WIDTH)
        mark = tag("line", class_="mark", x1=at, x2=at, y1=0, y2=26)
        drawn = tag("svg", *bars, mark, viewBox=f"0 0 {number(_WIDTH)} 26", role="img",
                    preserveAspectRatio="none", aria_label=f"{who}: {meaning}")  # fmt: skip
        return tag("div", tag("span", who, class_="who", title=meaning), drawn, class_="lane")

    for who, since, until in _masters(result, begin, end):
        text = f"master from {since:.0f} ms to {until:.0f} ms"
        yield lane(who, text, rect("on", since, until))
    out = _out(result, end)
    bars = [rect("good", begin, end)] if out is None else [
        rect("good", begin, out[0]), rect("out", *out), rect("good", out[1], end)
    ]  # fmt: skip
    yield lane(result.client, outage_text(result), *bars)
    shown = [at for at in (begin, end) if abs(at) > (end - begin) / 5]
    ticks = [
        tag(
            "span",
            f"{at:+.0f} ms",
            class_="first" if at == begin else "last" if at == end else None,
            style=f"left:{number((at - begin) / (end - begin) * 100)}%",
        )
        for at in sorted({0.0, *shown})
    ]
    yield tag("div", tag("span", ""), tag("div", *ticks, class_="ticks"), class_="lane")
    yield tag(
        "p",
        "A director's bar: it is master. The client's: it is answered at once; the red part: it is "
        "not. The dashed line: ",
        result.action,
        ".",
        class_="none",
    )


def _masters(result: Failover, begin: float, end: float) -> Iterator[tuple[str, float, float]]:
    """Yield who was master, since and until when, in milliseconds since the action."""
    at = {step.moment: step.at for step in reversed(result.steps)}
    gone = at.get(Moment.RESIGNED, max(0.0, at.get(Moment.ADVERTISED, 0.0)))
    stays = result.before == result.after or result.before in result.masters
    if result.before:
        yield result.before, begin, end if stays else gone
    if result.after and result.after != result.before:
        yield result.after, at.get(Moment.TOOK_OVER, 0.0), end


def _out(result: Failover, end: float) -> tuple[float, float] | None:
    """Return when the outage began and ended; None: there was none."""
    at = {step.moment: step.at for step in result.steps}
    if Moment.LAST_ANSWER not in at:
        return None
    return at[Moment.LAST_ANSWER], at.get(Moment.ANSWERED, end)


# ── tables ───────────────────────────────────────────────────────────────────────────────────


def _story(steps: tuple[Step, ...]) -> Html:
    rows = [
        tag(
            "div",
            tag("span", f"{step.at:+.0f} ms", class_="at"),
            tag("span", step.text, class_=str(step.moment)),
            tag("span", f"frame {step.frame}" if step.frame else "", class_="number"),
        )
        for step in steps
    ]
    return tag("div", *rows, class_="story")


def _held(held: tuple[HeldConnection, ...]) -> Html:
    heads = ("client", "real server", "packets", "what became of it")
    head = tag("tr", *(tag("th", text, scope="col") for text in heads))
    rows = []
    for one in held:
        verdict = Verdict.PASS if one.survived else Verdict.FAIL
        became = tag(
            "span", f"{SIGNS[verdict]} {'survived' if one.survived else one.why}",
            class_=f"outcome {verdict}" if one.survived else None,
        )  # fmt: skip
        cells = (tag("code", one.client), one.real_server, f"{one.packets} packets", became)
        rows.append(tag("tr", *(tag("td", cell) for cell in cells)))
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="held")


def _claims(result: Failover) -> Html:
    rows = [
        tag(
            "tr",
            tag("td", badge(one.verdict)),
            tag("td", tag("b", one.claim.text), " ", tag("code", one.claim.id)),
            tag("td", one.observed),
        )
        for one in result.findings
    ]
    return tag("table", tag("tbody", *rows), class_="found")
