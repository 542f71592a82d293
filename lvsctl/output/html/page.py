"""HTML pages: one file each, without scripts and external resources.

The drawn topology, a request's path, and every claim with its verdict and the frames behind it,
with every header.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from itertools import groupby

from lvsctl import __version__
from lvsctl.diagnosis.engine import conclusion
from lvsctl.engine.findings import Verification
from lvsctl.model.claim import Finding, Verdict
from lvsctl.model.frame import Frame
from lvsctl.model.lab import Lab
from lvsctl.model.packet import Icmp, Packet
from lvsctl.model.service import VirtualService
from lvsctl.model.walk import Walk
from lvsctl.output.folding import folded
from lvsctl.output.html import walk as html_walk
from lvsctl.output.html.markup import STYLE, Html, joined, tag
from lvsctl.output.html.topology import topology
from lvsctl.output.phrases import counted, service_line
from lvsctl.walk.walk import walks

MOST_FRAMES = 12
MOST_BYTES = 160
"""Bytes of a frame that are shown in hexadecimal."""

SIGNS = {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.INCONCLUSIVE: "?"}
"""Signs beside the colours, for readers who cannot distinguish these, and for print."""


_FAMILIES = {
    "all": "every mode",
    "joined": "several ports or VIPs",
    "local": "a local node",
    "mss": "MSS clamping",
    "ops": "one-packet scheduling",
    "snat": "NAT with SNAT",
}
"""What claims are for, by how their ids begin."""


def badge(verdict: Verdict) -> Html:
    """A verdict as a badge."""
    return tag("span", f"{SIGNS[verdict]} {verdict}", class_=f"badge {verdict}")


def claims(findings: Sequence[Finding], *, capture: str) -> Html:
    """All claims about one service: those of its mode, and those of every mode.

    ``capture`` is the file that contains the frames.
    """
    parts = []
    first = next((one for one in findings if one.verdict is not Verdict.PASS), None)
    for family, group in groupby(findings, key=lambda finding: finding.claim.id.split(".")[0]):
        name = _FAMILIES.get(family, family.upper())
        parts.append(tag("h4", f"Claims for {name}"))
        for finding in group:
            # The first that does not pass; the others are mostly its consequences.
            shown = first is finding
            parts.append(_claim(finding, capture, shown=shown))
    return tag("div", *parts, class_="claims")


def _claim(finding: Finding, capture: str, *, shown: bool) -> Html:
    claim = finding.claim
    summary = tag(
        "summary",
        badge(finding.verdict),
        tag("span", tag("span", claim.text, class_="statement"), tag("code", claim.id),
            tag("span", folded(finding.observed), class_="seen"), class_="claim-text"),
    )  # fmt: skip
    compared = tag(
        "div",
        tag("div", tag("h5", "expected"), *_folded(finding.expected)),
        tag(
            "div",
            tag("h5", "observed"),
            *_folded(finding.observed),
            joined(*(tag("p", line) for line in finding.kernel)),
            class_="observed",
        ),
        class_="compared",
    )
    return tag(
        "details",
        summary,
        tag(
            "div",
            compared,
            joined(*_evidence(finding, capture)),
            joined(*_breaking(finding)),
            class_="body",
        ),
        class_=f"claim {finding.verdict}",
        open="" if shown else None,
    )


def _folded(text: str) -> Iterator[Html]:
    """The text with long enumerations folded, and in full behind a click."""
    short = folded(text)
    yield tag("p", short)
    if short != text:
        yield tag("details", tag("summary", "in full"), tag("p", text))


def _breaking(finding: Finding) -> Iterator[Html]:
    claim = finding.claim
    if claim.broken_by:
        codes = [joined(" ", tag("code", fault)) for fault in claim.broken_by]
        yield tag("p", "injected faults that make this claim fail:", *codes, class_="broken-by")
    elif claim.unbroken:
        yield tag("p", claim.unbroken, class_="broken-by")


def _evidence(finding: Finding, capture: str) -> Iterator[Html]:
    if not finding.frames:
        if finding.verdict is not Verdict.INCONCLUSIVE:
            said = "decided on counters, tables and the kernel's state: no single frame shows it"
            yield tag("p", said, class_="none")
        return
    yield tag("h5", "the frames that show it")
    for frame in finding.frames[:MOST_FRAMES]:
        yield _frame(frame)
    rest = len(finding.frames) - MOST_FRAMES
    if rest > 0:
        yield tag("p", f"and {counted(rest, 'frame')} more", class_="none")
    if finding.verdict is not Verdict.PASS:
        command = f"wireshark -g {finding.frames[0].number} {shlex.quote(capture)}"
        yield tag("p", "open it: ", tag("code", command), class_="none")


def _frame(frame: Frame) -> Html:
    head = tag(
        "summary",
        tag("span", f"#{frame.number}", class_="number"),
        tag("span", str(frame.tap), class_="tap"),
        tag("span", frame.direction.name.lower(), class_="direction"),
        tag("code", frame.summary()),
    )
    shown = [_layer(name, rows) for name, rows in layers(frame)]
    return tag("details", head, tag("div", *shown, class_="layers"), _bytes(frame), class_="frame")


def _layer(name: str, rows: Sequence[tuple[str, str]]) -> Html:
    body = [tag("div", tag("dt", key), tag("dd", value)) for key, value in rows]
    return tag("section", tag("h6", name), tag("dl", *body))


def layers(frame: Frame) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Every header of a frame, outermost first, as names and values."""
    if frame.ethernet is not None:
        yield "Ethernet", _fields(frame.ethernet, {"type": "#06x"})
    if frame.arp is not None:
        yield "ARP", _fields(frame.arp)
    yield from _packet_layers(frame.packet)


def _packet_layers(packet: Packet, of: str = "") -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for index, ip in enumerate(packet.ips):
        outer = "outer " if index + 1 < len(packet.ips) else ""
        yield f"{of}{outer}IPv{ip.version}", _fields(ip, {"identification": "#06x"})
        for tunnel in packet.tunnels:
            if tunnel.carrier == index:
                yield f"{of}{type(tunnel).__name__.upper()}", _fields(tunnel)
    transport = packet.transport
    if transport is not None:
        yield f"{of}{type(transport).__name__.upper()}", _fields(transport)
    if packet.payload:
        said = packet.payload[:400].decode("latin-1").replace("\r\n", " ⏎ ")
        yield f"{of}payload", [("bytes", str(len(packet.payload))), ("text", said)]
    if packet.malformed:
        yield f"{of}malformed", [("why", packet.malformed)]
    if isinstance(transport, Icmp) and transport.quoted is not None:
        yield from _packet_layers(transport.quoted, "about: ")


_HIDDEN = frozenset({"at", "quoted", "carrier", "payload"})


def _fields(header: object, formats: dict[str, str] | None = None) -> list[tuple[str, str]]:
    assert is_dataclass(header)  # noqa: S101
    rows = []
    for one in fields(header):
        value = getattr(header, one.name)
        if one.name in _HIDDEN or value is None or value == ():
            continue
        text = format(value, formats[one.name]) if formats and one.name in formats else str(value)
        rows.append((one.name.replace("_", " "), text))
    return rows


def _bytes(frame: Frame) -> Html:
    data = frame.raw.data[:MOST_BYTES]
    lines = [f"{at:04x}  {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16)]
    if len(frame.raw.data) > MOST_BYTES:
        lines.append(f"… {len(frame.raw.data)} bytes in all")
    return tag("pre", Html("\n".join(lines)))


POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""A second line of defence: no script runs and nothing is loaded."""

IMAGES = "; img-src data:"
"""For pages that contain images."""


def page(verification: Verification, *, capture: str) -> str:
    """Return the report of a verification; ``capture`` is the file that contains its frames."""
    lab = verification.lab
    passed = verification.verdict is Verdict.PASS
    parts = [*(_all_holds(verification, capture) if passed else _why_not(verification, capture))]
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
    return document(
        f"{lab.name}: {verification.verdict}",
        joined(
            tag("h1", lab.name, badge(verification.verdict)),
            tag("p", lab.description, class_="lead"),
            tag("p", _counts(verification.findings), _when(taken), class_="lead"),
        ),
        joined(*parts),
        joined(*footer),
    )


def _all_holds(verification: Verification, capture: str) -> Iterator[Html]:
    """Yield a page where every claim passed: the topology, then each service."""
    lab = verification.lab
    ways = _ways(verification)
    yield _topology(lab)
    for service in lab.services:
        yield tag("h2", f"{service.name}: {service_line(service)}")
        yield claims(_about(verification, service), capture=capture)
        if service.name in ways:
            yield tag("h2", f"{service.name}: one request, hop by hop")
            yield _way(ways[service.name])


def _why_not(verification: Verification, capture: str) -> Iterator[Html]:
    """Yield a page where one did not: the cause, those claims, then the rest folded."""
    lab = verification.lab
    yield from _causes(verification)
    for service in lab.services:
        found = _about(verification, service)
        if wrong := [one for one in found if one.verdict is not Verdict.PASS]:
            yield tag("h2", f"{service.name}: what does not hold")
            yield claims(wrong, capture=capture)
    ways = _ways(verification)
    for service in lab.services:
        if service.name in ways:
            yield _rest(f"{service.name}: one request, hop by hop", _way(ways[service.name]))
    yield _rest("Topology", _drawn(lab))
    for service in lab.services:
        found = _about(verification, service)
        if right := [one for one in found if one.verdict is Verdict.PASS]:
            said = f"{service.name}: {service_line(service)}: {counted(len(right), 'claim')} passed"
            yield _rest(said, claims(right, capture=capture))


def _ways(verification: Verification) -> dict[str, Walk]:
    """The path of a request to each service, by the service's name."""
    return {way.service.name: way for way in walks(verification.evidence)}


def _about(verification: Verification, service: VirtualService) -> list[Finding]:
    return [one for one in verification.findings if one.service == service.name]


def _rest(heading: str, *content: Html) -> Html:
    """Something that one opens after the cause is understood."""
    return tag("details", tag("summary", tag("h2", heading)), *content, class_="rest")


def _causes(verification: Verification) -> Iterator[Html]:
    """Yield what diagnose finds in the same evidence."""
    found = conclusion(verification.evidence)
    yield tag("h2", "Why")
    if not found.causes:
        said = "no rule of diagnose explains it; lvsctl diagnose looks at the running lab"
        yield tag("div", tag("p", said), class_="card")
    for cause in found.causes:
        yield tag(
            "div",
            tag("p", tag("b", cause.node), ": ", cause.text, " ", tag("code", cause.fault)),
            tag("p", cause.consequence),
            joined(*(tag("p", line, class_="frames") for line in cause.evidence)),
            tag("p", "remedy: ", tag("code", cause.remedy)) if cause.remedy else None,
            class_="card cause",
        )


def topology_page(lab: Lab) -> str:
    """Return a page with the drawn topology and its virtual services."""
    return document(
        lab.name,
        joined(tag("h1", lab.name), tag("p", lab.description, class_="lead")),
        joined(
            *(tag("p", f"{one.name}: {service_line(one)}") for one in lab.services),
            _topology(lab),
        ),
        joined("made by ", tag("code", f"lvsctl graph {lab.name} --format html")),
    )


def walk_page(walk: Walk) -> str:
    """Return a page with the path of one request."""
    lab = walk.lab
    return document(
        f"{lab.name}: one request, hop by hop",
        joined(
            tag("h1", f"{lab.name}: one request, hop by hop"),
            tag("p", lab.description, class_="lead"),
            tag("p", f"{walk.service.name}: {service_line(walk.service)}", class_="lead"),
        ),
        joined(_topology(lab), tag("h2", "Hops"), _way(walk)),
        joined("made by ", tag("code", f"lvsctl walk {lab.name} --format html")),
    )


def document(
    title: str, head: Html, main: Html, foot: Html, *, css: str = "", images: bool = False
) -> str:
    """Return a page of these parts; ``css`` is added to the style sheet.

    ``images``: it contains images, each as a data: URL.
    """
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
            tag(
                "meta",
                http_equiv="Content-Security-Policy",
                content=POLICY + (IMAGES if images else ""),
            ),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", f"{title} · lvsctl"),
            tag("style", Html(STYLE + css)),
        ),
        tag("body", body),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def _topology(lab: Lab) -> Html:
    return joined(tag("h2", "Topology"), _drawn(lab))


def _drawn(lab: Lab) -> Html:
    return tag("div", topology(lab), class_="card")


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
