"""JUnit XML, which CI servers show: a test suite for each service, a test case for each claim.

What could not be decided is a failure too, of type ``inconclusive``: a ``skipped`` would let
a pipeline pass on a claim that nothing has shown.
"""

from __future__ import annotations

from itertools import groupby
from xml.etree import ElementTree as ET

from lvsctl.model.finding import Finding, Verdict
from lvsctl.report.style import printable
from lvsctl.results import Verification


def junit(verification: Verification) -> str:
    """The findings as JUnit XML (the schema of Jenkins's xunit plugin, and of GitLab)."""
    root = ET.Element("testsuites", name=f"lvsctl verify {verification.lab.name}")
    found = sorted(verification.findings, key=lambda finding: finding.service)
    for service, group in groupby(found, key=lambda finding: finding.service):
        findings = list(group)
        suite = ET.SubElement(root, "testsuite", name=f"{verification.lab.name}.{service}")
        _count(suite, findings)
        for finding in findings:
            suite.append(_case(finding, f"{verification.lab.name}.{service}"))
    _count(root, found)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _count(element: ET.Element, findings: list[Finding]) -> None:
    element.set("tests", str(len(findings)))
    element.set("failures", str(sum(f.verdict is not Verdict.PASS for f in findings)))
    element.set("errors", "0")


def _case(finding: Finding, classname: str) -> ET.Element:
    case = ET.Element("testcase", classname=classname, name=finding.claim.id)
    frames = [
        f"#{f.number} {f.tap} {f.direction.name.lower()} {f.summary()}" for f in finding.frames
    ]
    said = [
        finding.claim.says,
        f"expected: {finding.expected}",
        f"observed: {finding.observed}",
        *finding.kernel,
        *frames,
    ]
    # XML 1.0 has no way to write most control characters, escaped or not.
    text = "\n".join(printable(line) for line in said)
    if finding.verdict is Verdict.PASS:
        ET.SubElement(case, "system-out").text = text
    else:
        failure = ET.SubElement(case, "failure", type=str(finding.verdict))
        failure.set(
            "message", printable(f"expected {finding.expected}; observed {finding.observed}")
        )
        failure.text = text
    return case
