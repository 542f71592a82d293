"""Findings and causes as text, and findings as JUnit XML, which CI servers show.

In JUnit XML each service is a test suite and each claim a test case. An inconclusive claim is a
failure too, of type ``inconclusive``: a ``skipped`` would let a pipeline pass on a claim that
nothing has shown.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from itertools import groupby
from xml.etree import ElementTree as ET

from lvsctl.diagnosis import Cause
from lvsctl.engine.findings import Diagnosis, Verification
from lvsctl.model.claim import Finding, Verdict
from lvsctl.model.lab import Lab
from lvsctl.output.folding import folded
from lvsctl.output.phrases import counted, service_line
from lvsctl.output.text.style import Cell, Paint, Style, printable

FRAMES, FRAMES_VERBOSE = 4, 16
"""Frames of a claim that are shown at most, and with -v."""


def format_verification(
    verification: Verification,
    *,
    verbose: bool,
    style: Style,
    capture: str | None = None,
    report: str = "",
) -> str:
    """Format a table of claims for each service, and failed claims in full.

    ``capture`` is the file that contains the frames, if it was written; ``report`` the page.
    """
    lines: list[str] = []
    found = sorted(verification.findings, key=lambda finding: _position(verification.lab, finding))
    for service, group in groupby(found, key=lambda finding: finding.service):
        lines += [_heading(verification.lab, service, style)]
        lines += [*_claims(list(group), verbose=verbose, capture=capture, style=style), ""]
    for note in verification.notes:
        lines += [style.wrapped(printable(note), 0, 2), ""]
    lines.append(_total(verification, style))
    if capture is not None:
        lines.append(f"frames: {style.cyan(capture)}")
    if report:
        lines.append(f"report: {style.cyan(report)}  (open it in a browser)")
    return style.finished("\n".join(lines))


def claim_lines(lab: Lab, findings: Iterable[Finding], style: Style) -> Iterator[str]:
    """Yield a table of claims for each service, and failed claims in full."""
    for service, group in groupby(findings, key=lambda finding: finding.service):
        yield _heading(lab, service, style)
        yield from _claims(list(group), verbose=False, capture=None, style=style)


def _position(lab: Lab, finding: Finding) -> int:
    names = [service.name for service in lab.services]
    return names.index(finding.service) if finding.service in names else len(names)


def _heading(lab: Lab, name: str, style: Style) -> str:
    service = next((service for service in lab.services if service.name == name), None)
    line = f"{style.bold(f'{lab.name} / {name}')}"
    return f"{line}  {service_line(service)}" if service else line


def _claims(
    findings: list[Finding], *, verbose: bool, capture: str | None, style: Style
) -> Iterator[str]:
    if not verbose:
        rows = [_row(finding, style) for finding in findings]
        yield style.table(rows, headings=("claim", "verdict", "observed"), indent=2)
    for finding in findings:
        has_evidence = finding.verdict is Verdict.INCONCLUSIVE and finding.frames
        if verbose or finding.verdict is Verdict.FAIL or has_evidence:
            yield from _in_full(finding, style, verbose=verbose, capture=capture)


def _row(finding: Finding, style: Style) -> list[str | Cell]:
    verdict = Cell(str(finding.verdict), _verdict_paint(style, finding.verdict))
    return [finding.claim.id, verdict, folded(finding.observed)]


def _in_full(
    finding: Finding, style: Style, *, verbose: bool, capture: str | None
) -> Iterator[str]:
    verdict = _verdict_paint(style, finding.verdict)(str(finding.verdict))
    yield ""
    yield f"  {style.bold(finding.claim.id)}  {verdict}"
    yield style.wrapped(finding.claim.text, 4)
    yield style.table(_comparison(finding, style, verbose=verbose), indent=4)
    for line in finding.kernel:
        yield style.wrapped(printable(line), 4, 2)
    yield from _frames(finding, FRAMES_VERBOSE if verbose else FRAMES, style)
    if capture is not None and finding.frames and finding.verdict is not Verdict.PASS:
        number = finding.frames[0].number
        yield "    open it: " + style.cyan(f"wireshark -g {number} {shlex.quote(capture)}")
    if verbose and finding.claim.broken_by:
        yield style.dim(style.wrapped(f"broken by {', '.join(finding.claim.broken_by)}", 4, 2))


def _comparison(finding: Finding, style: Style, *, verbose: bool) -> list[list[str | Cell]]:
    """Rows of expected and observed: side by side if the claim does not pass."""
    texts = (printable(finding.expected), printable(finding.observed))
    expected, observed = texts if verbose else map(folded, texts)
    if finding.verdict is Verdict.PASS:
        return [[Cell("expected", style.dim), expected], [Cell("observed", style.dim), observed]]
    paint = _verdict_paint(style, finding.verdict)
    return [
        [Cell("expected", style.dim), Cell("observed", style.dim)],
        [Cell(expected), Cell(observed, paint)],
    ]


def _frames(finding: Finding, most: int, style: Style) -> Iterator[str]:
    """Rows of the frames that are evidence, numbered as in the capture."""
    shown = finding.frames[:most]
    rows: list[list[str | Cell]] = [
        [
            Cell(f"#{frame.number}", style.dim, right=True),
            printable(str(frame.tap)),
            Cell(frame.direction.name.lower(), style.dim),
            Cell(printable(frame.summary()), whole=True),
        ]
        for frame in shown
    ]
    if rows:
        yield style.table(rows, indent=4)
    if len(finding.frames) > most:
        yield style.dim(f"    and {counted(len(finding.frames) - most, 'frame')} more")


def _total(verification: Verification, style: Style) -> str:
    findings = verification.findings
    paint = _verdict_paint(style, verification.verdict)
    counts = [
        f"{number} {verdict}"
        for verdict in Verdict
        if (number := sum(finding.verdict is verdict for finding in findings))
    ]
    said = ", ".join(counts) or "no claim was decided"
    return f"{style.bold(verification.lab.name)}: {paint(str(verification.verdict))} ({said})"


def format_diagnosis(result: Diagnosis, *, style: Style) -> str:
    """Format each cause with its evidence and remedy; without causes, what was ruled out."""
    lines = [_diagnosis_heading(result, style)]
    for number, cause in enumerate(result.causes, 1):
        lines += ["", *cause_lines(number, cause, style)]
    if not result.works and not result.causes:
        lines += listed("ruled out", result.ruled_out, style)
        lines += listed("next steps", result.next_steps, style)
    lines += listed("claims that do not hold", result.differences, style)
    lines += listed("differs from the topology, harmless", result.remarks, style)
    return style.finished("\n".join(lines))


def _diagnosis_heading(result: Diagnosis, style: Style) -> str:
    name = style.bold(result.lab.name)
    if result.healthy:
        return f"{name}: {style.green('healthy')}: no problem found"
    if result.works and not result.causes:
        return f"{name}: {style.yellow('works, but not as the topology says')}"
    if not result.causes:
        return f"{name}: {style.red('not working')}; cause not identified"
    if result.undecided:
        return f"{name}: {style.yellow('undecided')}: requests of {result.undecided} cannot show it"
    found = counted(len(result.causes), "cause")
    if result.works:
        return f"{name}: {style.yellow(found)}, although every request was answered as required"
    return f"{name}: {style.red('not working')}, {found}"


def cause_lines(number: int, cause: Cause, style: Style) -> Iterator[str]:
    """Format a cause: a heading, its evidence, what follows from it, the commands that end it."""
    label = style.dim(f"[{cause.fault}]")
    yield f"{number}. {style.bold(cause.node)}: {printable(folded(cause.text))}  {label}"
    for fact in cause.evidence:
        yield style.wrapped(f"· {printable(folded(fact))}", 3, 2)
    yield style.wrapped(f"so: {printable(folded(cause.consequence))}", 3, 4)
    commands = cause.remedy.split(" && ")
    for position, command in enumerate(commands):
        lead = "remedy: " if position == 0 else " " * 8
        yield f"   {lead}{style.cyan(printable(command))}"


def listed(title: str, items: tuple[str, ...], style: Style) -> Iterator[str]:
    """Format a list with its title; nothing if it is empty."""
    if items:
        yield ""
        yield style.bold(f"{title}:")
        for item in items:
            yield style.wrapped(f"· {printable(folded(item))}", 2, 2)


def junit(verification: Verification) -> str:
    """Format the findings as JUnit XML (the schema of Jenkins's xunit plugin, and of GitLab)."""
    lab = verification.lab.name
    root = _xml_element("testsuites", name=f"lvsctl verify {lab}")
    found = sorted(verification.findings, key=lambda finding: finding.service)
    for service, group in groupby(found, key=lambda finding: finding.service):
        findings = list(group)
        suite = _xml_element("testsuite", name=f"{lab}.{service}")
        root.append(suite)
        _set_counts(suite, findings)
        for finding in findings:
            suite.append(_test_case(finding, f"{lab}.{service}"))
    _set_counts(root, found)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _set_counts(element: ET.Element, findings: list[Finding]) -> None:
    element.set("tests", str(len(findings)))
    element.set("failures", str(sum(f.verdict is not Verdict.PASS for f in findings)))
    element.set("errors", "0")


def _test_case(finding: Finding, classname: str) -> ET.Element:
    case = _xml_element("testcase", classname=classname, name=finding.claim.id)
    frames = [
        f"#{f.number} {f.tap} {f.direction.name.lower()} {f.summary()}" for f in finding.frames
    ]
    said = [
        finding.claim.text,
        f"expected: {finding.expected}",
        f"observed: {finding.observed}",
        *finding.kernel,
        *frames,
    ]
    text = "\n".join(map(printable, said))
    if finding.verdict is Verdict.PASS:
        shown = _xml_element("system-out")
    else:
        message = f"expected {finding.expected}; observed {finding.observed}"
        shown = _xml_element("failure", type=str(finding.verdict), message=message)
    shown.text = text
    case.append(shown)
    return case


def _xml_element(tag: str, **attributes: str) -> ET.Element:
    """Create an element; control characters, which XML 1.0 cannot express, become ``?``."""
    return ET.Element(tag, {key: printable(value) for key, value in attributes.items()})


def _verdict_paint(style: Style, verdict: Verdict) -> Paint:
    """Return the colour of a verdict."""
    return {
        Verdict.PASS: style.green,
        Verdict.FAIL: style.red,
        Verdict.INCONCLUSIVE: style.yellow,
    }[verdict]
