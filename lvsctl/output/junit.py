"""JUnit XML, which CI servers show: a test suite for each service, a test case for each claim.

What could not be decided is a failure too, of type ``inconclusive``: a ``skipped`` would let
a pipeline pass on a claim that nothing has shown.
"""

from __future__ import annotations

from itertools import groupby
from xml.etree import ElementTree as ET

from lvsctl.engine.findings import Verification
from lvsctl.model.claim import Finding, Verdict
from lvsctl.output.text.style import printable


def junit(verification: Verification) -> str:
    """The findings as JUnit XML (the schema of Jenkins's xunit plugin, and of GitLab)."""
    lab = verification.lab.name
    root = _element("testsuites", name=f"lvsctl verify {lab}")
    found = sorted(verification.findings, key=lambda finding: finding.service)
    for service, group in groupby(found, key=lambda finding: finding.service):
        findings = list(group)
        suite = _element("testsuite", name=f"{lab}.{service}")
        root.append(suite)
        _count(suite, findings)
        for finding in findings:
            suite.append(_case(finding, f"{lab}.{service}"))
    _count(root, found)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _count(element: ET.Element, findings: list[Finding]) -> None:
    element.set("tests", str(len(findings)))
    element.set("failures", str(sum(f.verdict is not Verdict.PASS for f in findings)))
    element.set("errors", "0")


def _case(finding: Finding, classname: str) -> ET.Element:
    case = _element("testcase", classname=classname, name=finding.claim.id)
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
        shown = _element("system-out")
    else:
        message = f"expected {finding.expected}; observed {finding.observed}"
        shown = _element("failure", type=str(finding.verdict), message=message)
    shown.text = text
    case.append(shown)
    return case


def _element(tag: str, **attributes: str) -> ET.Element:
    """XML 1.0 has no way to write most control characters, escaped or not: ? stands for them."""
    return ET.Element(tag, {key: printable(value) for key, value in attributes.items()})
