"""JUnit XML: what CI servers count."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from lvsctl.engine.inspect import recompute
from lvsctl.model.claim import Claim, Verdict
from lvsctl.output.text.verification import junit
from tests.unit.recorded import mutations as m
from tests.unit.recorded.reports import evidence_of
from tests.unit.report_samples import lab_of, verification


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 (our own)


def test_a_suite_for_each_service_and_a_case_for_each_claim() -> None:
    root = parsed(junit(recompute(evidence_of("dr"))))
    (suite,) = root
    assert (root.tag, suite.get("name")) == ("testsuites", "dr.web")
    assert len(suite) == int(suite.get("tests", "")) == int(root.get("tests", ""))
    assert suite.get("failures") == "0"
    assert "dr.same-vip" in {case.get("name") for case in suite}


def test_failed_and_undecided_claims_are_failures() -> None:
    found = recompute(m.without(m.at("director"))(evidence_of("dr")))
    kinds = {
        case.get("name"): case[0].get("type")
        for case in parsed(junit(found))[0]
        if case[0].tag == "failure"
    }
    assert kinds["dr.reply-direct"] == "inconclusive"
    assert kinds["dr.only-director-answers-arp"] == "fail"


def test_a_failure_tells_expected_and_observed() -> None:
    root = parsed(junit(verification(lab_of("dr"), Verdict.FAIL)))
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.get("message") == "expected what should be 0; observed what was seen 0"
    assert "expected: what should be 0" in (failure.text or "")


HOSTILE = "]]></failure><error/>&<!--&amp;\x00\x1b[2J\r\ud800\ufffe\u2028\"'"


@pytest.mark.parametrize("verdict", Verdict)
def test_hostile_text_stays_text(verdict: Verdict) -> None:
    """XML cannot say NUL or ESC at all, nor half a surrogate pair: a ? stands for each."""
    found = verification(lab_of("dr"), verdict)
    finding = replace(
        found.findings[0],
        claim=Claim("all." + HOSTILE, "says" + HOSTILE),
        service="service" + HOSTILE,
        expected="expected" + HOSTILE,
        observed="observed" + HOSTILE,
        kernel=("kernel" + HOSTILE,),
    )
    lab = replace(found.lab, name="lab" + HOSTILE)
    text = junit(replace(found, lab=lab, findings=(finding,)))
    text.encode()  # as it goes to a file
    root = parsed(text)
    legible = "]]></failure><error/>&<!--&amp;??[2J????\"'"
    tags = ["testsuites", "testsuite", "testcase"]
    tags.append("system-out" if verdict is Verdict.PASS else "failure")
    elements = list(root.iter())
    assert [element.tag for element in elements] == tags
    said = elements[-1].text or ""
    for word in ("says", "expected", "observed", "kernel"):
        assert word + legible in said
    assert elements[2].get("name") == "all." + legible
    assert elements[2].get("classname") == f"lab{legible}.service{legible}"
    if verdict is not Verdict.PASS:
        message = f"expected expected{legible}; observed observed{legible}"
        assert elements[-1].get("message") == message
