"""HTML pages: one file each, without scripts and external resources.

The topology drawn, a request's way, every claim with its verdict and the frames behind it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from lvsctl import __version__
from lvsctl.engine.findings import Verification
from lvsctl.model.claim import Finding, Verdict
from lvsctl.model.lab import Lab
from lvsctl.model.walk import Walk
from lvsctl.output.html import walk as html_walk
from lvsctl.output.html.claims import badge, claims
from lvsctl.output.html.markup import STYLE, Html, joined, tag
from lvsctl.output.html.topology import topology
from lvsctl.output.phrases import counted, service_line
from lvsctl.walk.walk import walks

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""A second line of defence: no script runs and nothing is loaded."""


def page(verification: Verification, *, capture: str) -> str:
    """Return the report of a verification; ``capture`` is the file that contains its frames."""
    lab = verification.lab
    ways = {way.service.name: way for way in walks(verification.evidence)}
    parts: list[Html] = [_topology(lab)]
    for service in lab.services:
        found = [one for one in verification.findings if one.service == service.name]
        parts.append(tag("h2", f"{service.name}: {service_line(service)}"))
        parts.append(claims(found, capture=capture))
        if service.name in ways:
            parts.append(tag("h2", f"{service.name}: one request, hop by hop"))
            parts.append(_way(ways[service.name]))
    taken = [frame.time for frame in verification.evidence.frames[:1]]
    footer = [
        f"{counted(len(verification.evidence.frames), 'frame')} at "
        f"{counted(len(verification.evidence.taps), 'tap')}"
        + (f", {verification.evidence.dropped} lost" if verification.evidence.dropped else ""),
        "; open them: ",
        tag("code", f"wireshark {capture}"),
        "; recompute the verdicts on any machine: ",
        tag("code", "lvsctl verify --from ."),
    ]
    return _document(
        f"{lab.name}: {verification.verdict}",
        joined(
            tag("h1", lab.name, badge(verification.verdict)),
            tag("p", lab.description, class_="lead"),
            tag("p", _counts(verification.findings), _when(taken), class_="lead"),
        ),
        joined(*parts),
        joined(*footer),
    )


def walk_page(walk: Walk) -> str:
    """Return a page with the path of one request."""
    lab = walk.lab
    return _document(
        f"{lab.name}: one request, hop by hop",
        joined(
            tag("h1", f"{lab.name}: one request, hop by hop"),
            tag("p", lab.description, class_="lead"),
            tag("p", f"{walk.service.name}: {service_line(walk.service)}", class_="lead"),
        ),
        joined(_topology(lab), tag("h2", "Hops"), _way(walk)),
        joined("made by ", tag("code", f"lvsctl walk {lab.name} --format html")),
    )


def _document(title: str, head: Html, main: Html, foot: Html) -> str:
    body = joined(
        html_walk.markers(),
        tag("header", head),
        tag("main", main),
        tag("footer", tag("p", foot), tag("p", f"lvsctl {__version__}")),
    )
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", f"{title} · lvsctl"),
            tag("style", Html(STYLE)),
        ),
        tag("body", body),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def _topology(lab: Lab) -> Html:
    return joined(tag("h2", "Topology"), tag("div", topology(lab), class_="card"))


def _way(walk: Walk) -> Html:
    verdict = "pass" if walk.exchange.answered else "fail"
    return tag("div", html_walk.walk(walk), tag("p", walk.outcome, class_=f"outcome {verdict}"),
               class_="card")  # fmt: skip


def _counts(findings: tuple[Finding, ...]) -> str:
    counts = {verdict: sum(f.verdict is verdict for f in findings) for verdict in Verdict}
    said = [f"{number} {verdict}" for verdict, number in counts.items() if number]
    return f"{counted(len(findings), 'claim')} judged on captured frames: " + (
        ", ".join(said) or "none"
    )


def _when(taken: list[int]) -> str | None:
    if not taken:
        return None
    return f" · {datetime.fromtimestamp(taken[0] / 1e9, UTC):%Y-%m-%d %H:%M UTC}"
