"""JUnit XML: what CI servers count."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from lvsctl.app import recomputed
from lvsctl.model.finding import Verdict
from lvsctl.report.junit import junit
from tests.unit.recorded import mutations as m
from tests.unit.recorded.reports import evidence_of
from tests.unit.report_samples import lab_of, verification


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 (our own)


def test_a_suite_for_each_service_and_a_case_for_each_claim() -> None:
    root = parsed(junit(recomputed(evidence_of("dr"))))
    (suite,) = root
    assert (root.tag, suite.get("name")) == ("testsuites", "dr.web")
    assert len(suite) == int(suite.get("tests", "")) == int(root.get("tests", ""))
    assert suite.get("failures") == "0"
    assert "dr.same-vip" in {case.get("name") for case in suite}


def test_failed_and_undecided_claims_are_failures() -> None:
    found = recomputed(m.without(m.at("director"))(evidence_of("dr")))
    kinds = {
        case.get("name"): case[0].get("type")
        for case in parsed(junit(found))[0]
        if case[0].tag == "failure"
    }
    assert kinds["dr.reply-direct"] == "inconclusive"
    assert kinds["dr.only-director-answers-arp"] == "fail"


def test_a_failure_tells_expected_and_observed_and_hostile_text_stays_text() -> None:
    root = parsed(junit(verification(lab_of("dr"), Verdict.FAIL)))
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.get("message") == "expected what should be 0; observed what was seen 0"
    assert "expected: what should be 0" in (failure.text or "")
