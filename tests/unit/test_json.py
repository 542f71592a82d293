"""The JSON interface: every document is as its published schema says, and is read back whole."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lvsctl.cli.main import main
from lvsctl.cli.plans import SchemaOf
from lvsctl.diagnosis import conclusion
from lvsctl.engine.campaign import Cell, Column, Health, Proof, Trial
from lvsctl.engine.faults import list_faults, show_fault
from lvsctl.engine.findings import Check, CheckedHost, Diagnosis, FaultShown, Inspection
from lvsctl.engine.inspect import recompute
from lvsctl.engine.preview import between
from lvsctl.faults import FAULTS
from lvsctl.kernel.probe import Features
from lvsctl.model.addresses import Endpoint
from lvsctl.model.claim import Verdict
from lvsctl.model.drill import Measure
from lvsctl.model.evidence import Answers
from lvsctl.model.failover import Failover, HeldConnection, Moment, Step
from lvsctl.model.flows import (
    Drain,
    DrainRow,
    FlowKind,
    FlowResult,
    FlowSetting,
    Idle,
    Outcome,
    SettingTrial,
    Way,
)
from lvsctl.model.lab import Lab
from lvsctl.model.played import Expectation, Phase, Played
from lvsctl.model.service import ForwardingMethod, FwMark, IpvsTimeouts
from lvsctl.model.state import Dropped
from lvsctl.model.walk import Walk
from lvsctl.output.json_formats import FORMATS
from lvsctl.output.json_schemas import DOCUMENTS, json_schema
from lvsctl.output.serialize import from_json, structure_strictly, to_json, unstructure
from lvsctl.plan import planner
from lvsctl.plan.stages import Up
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.walk.walk import walks
from lvsctl.watch.changes import changes
from lvsctl.watch.view import view
from tests.unit.recorded import mutations as m
from tests.unit.recorded.reports import NAMES, evidence_of, files_of
from tests.unit.report_samples import (
    FEATURES,
    KINDS,
    MACHINE,
    healthy,
    lab_of,
    listed,
    verification,
)
from tests.unit.scale_samples import measured
from tests.unit.test_compare import comparison
from tests.unit.watch_samples import VIP, mac_of, sample

DR, TUN = lab_of("dr"), lab_of("tun")
DR_OPS = planner.plan_for(DR).resources
SERVICE = next(op for op in DR_OPS if isinstance(op, IpvsService))
SERVER = next(op for op in DR_OPS if isinstance(op, IpvsRealServer))


def as_read(document: dict[str, Any]) -> dict[str, Any]:
    """The document as a program reads it."""
    found: dict[str, Any] = json.loads(json.dumps(document))
    return found


def diagnosis(name: str) -> Diagnosis:
    evidence = m.with_run(m.nothing_answered)(evidence_of(name))
    found = conclusion(evidence)
    return Diagnosis(
        evidence.lab, found.causes, found.remarks, found.ruled_out, found.works, found.next_steps
    )


def proof() -> Proof:
    findings = recompute(evidence_of("dr")).findings
    fault = FAULTS["vip-missing"]
    trial = Trial(fault, "rs1", ("dr.same-vip",), (), findings[:1])
    return Proof(evidence_of("dr").lab, findings, (trial,), findings)


def columns() -> tuple[Column, ...]:
    good = Health(Verdict.PASS, ())
    bad = Health(Verdict.FAIL, (("vip-missing", "rs1"),))
    cell = Cell("dr", proof().trials[0], (("vip-missing", "rs1"),), good)
    return (Column("dr", good, (cell,)), Column("nat", bad, ()))


def watched() -> dict[str, Any]:
    before = sample(DR, 0)
    after = sample(DR, 2, connections=3, owner="rs1", counters={"rs1": {"TcpOutRsts": 1}})
    after = replace(after, table=(), dropped=(Dropped("NO_SOCKET", 2),))
    answers = Answers({}, {("client", VIP): (mac_of(DR, "rs1"),)})
    events = tuple(changes(before, after, "director"))
    return to_json(view(DR, [before, after], events, answers))


def failed_over() -> Failover:
    """A failover with one line of each kind."""
    step = Step(1.5, Moment.TOOK_OVER, "director2", "director2 is master", 7)
    held = HeldConnection("10.60.0.10:1", "rs1", 2, known=False, survived=False, why="reset")
    findings = verification(DR, *Verdict).findings
    return Failover(
        lab="dr-ha",
        service="web",
        action="director1 loses its power",
        client="client",
        before="director1",
        after="director2",
        interval=10.0,
        resolution=20.0,
        outage=None,
        sent=5,
        answered=4,
        steps=(step,),
        held=(held,),
        findings=findings,
    )


def drained() -> Drain:
    """A real server that was taken out, with one line of each kind."""
    flow = FlowResult(
        kind=FlowKind.HELD,
        service="web",
        client="10.10.0.10:1",
        outcome=Outcome.RESET,
        text="reset after 104 ms",
        after=104.0,
        resolution=100.0,
        servers={"rs2": 1},
        failed=1,
        entry="ESTABLISHED at rs1, 9 s left",
        why="reset by director",
    )
    setting = FlowSetting("conn_reuse_mode", "1", "a client port")
    return Drain(
        lab="dr",
        real_server="rs1",
        way=Way.DELETE,
        client="client",
        window=4.0,
        interval=100.0,
        commands=("ipvsadm -d",),
        flows=(flow,),
        settings=(setting,),
        trials=(SettingTrial(setting, (flow,), (FlowKind.HELD,)),),
    )


def idled() -> Idle:
    """Flows that were silent."""
    one = drained()
    return Idle(
        lab="dr",
        real_server="rs1",
        client="client",
        idle=3.5,
        window=1.0,
        timeouts=IpvsTimeouts(),
        flows=one.flows,
        settings=one.settings,
        trials=one.trials,
    )


def played() -> Played:
    """A drill with one line of each kind."""
    return Played(
        lab="dr",
        drill="drill.yaml",
        description="",
        service="web",
        client="client",
        interval=20.0,
        seconds=6.0,
        sent=300,
        late=1,
        lost=2,
        outage=None,
        resolution=20.0,
        phases=(Phase("weight rs1 0", 1.0, 1.001, 2.5, 100, 1, 2, {"rs2": 98}),),
        held=drained().flows,
        expectations=(Expectation(Measure.LOST, "0", "2 of 300", Verdict.FAIL),),
    )


DOCUMENT_SAMPLES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("up", to_json(Up(DR, created=True))),
    ("up", to_json(Up(TUN, created=False, added=planner.plan_for(TUN).resources))),
    ("diff", to_json(between(planner.plan_for(DR), planner.plan_for(TUN), TUN))),
    ("ls", to_json(labs=listed(DR))),
    ("inspect", to_json(healthy(DR))),
    ("inspect", to_json(healthy(TUN))),
    ("verify", to_json(verification(DR, *Verdict), capture=None)),
    *(("verify", to_json(recompute(evidence_of(name)), capture="c")) for name in NAMES),
    ("verify-prove", to_json(proof())),
    *(("diagnose", to_json(diagnosis(name))) for name in NAMES),
    ("check", to_json(Check(DR, diagnosis("dr").causes, (), ("x",), (CheckedHost("a", "rs1"),)))),
    *(("walk", to_json(next(walks(evidence_of(name))))) for name in NAMES),
    ("failover", to_json(failed_over())),
    ("drain", to_json(drained())),
    (
        "drain-matrix",
        to_json(rows=(DrainRow(Way.STOP, {"conn_reuse_mode": "1"}, drained().flows),)),
    ),
    ("idle", to_json(idled())),
    ("play", to_json(played())),
    ("scale", to_json(measured(ForwardingMethod.NAT, (1, 0.5), (10, 5.0), (20, 5.0)))),
    ("compare", to_json(comparison())),
    ("watch", to_json(view(DR, [sample(DR, 0)]))),
    ("watch", watched()),
    ("fault-list", to_json(lab=None, faults=list_faults())),
    ("fault-show", to_json(show_fault(None, "vip-missing"))),
    ("fault-inject", to_json(show_fault(None, "wrong-gateway"))),
    ("fault-restore", to_json(lab="dr", restored=("vip-missing at rs1",))),
    ("fault-matrix", to_json(holds=True, topologies=columns())),
    ("plan", to_json(planner.plan_for(TUN))),
    ("topologies", to_json(topologies=[{"name": "dr", "description": "Direct routing"}])),
    ("doctor", to_json(host=Features("host", FEATURES), machine=None)),
    ("machine-status", to_json(running=True, machine=MACHINE, features={"ip_vs": True})),
    ("machine-status", to_json(running=False, machine=None, features={})),
    ("machine-list", to_json(kinds=KINDS)),
)


def closed(schema: Any) -> Any:
    """The schema, with unknown keys forbidden: what is not documented must not be written."""
    if isinstance(schema, list):
        return [closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(inner) for key, inner in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        found["additionalProperties"] = False
    return found


@pytest.mark.parametrize(
    ("command", "document"),
    DOCUMENT_SAMPLES,
    ids=[f"{number} {command}" for number, (command, _) in enumerate(DOCUMENT_SAMPLES)],
)
def test_a_document_is_as_its_schema_says(command: str, document: dict[str, Any]) -> None:
    jsonschema.validate(as_read(document), closed(json_schema(command)))


def test_every_schema_has_a_document_and_a_name_on_the_command_line() -> None:
    assert {command for command, _ in DOCUMENT_SAMPLES} == set(DOCUMENTS)
    assert [str(one) for one in SchemaOf] == list(DOCUMENTS)


@pytest.mark.parametrize("command", DOCUMENTS)
def test_the_command_prints_the_schema(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--of", command]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.Draft7Validator.check_schema(found)
    assert found == json_schema(command)
    assert found["properties"]["version"] == {"const": 2}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("topologies", ["topologies"]),
        ("plan", ["plan", "nat-one-arm"]),
        ("fault-list", ["fault", "list"]),
        ("fault-show", ["fault", "show", "rp-filter-on-tunnel"]),
    ],
)
def test_what_commands_print_is_as_the_schema_says(
    command: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, closed(json_schema(command)))


def test_a_saved_report_of_version_1_is_printed_in_version_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in files_of("tun-gue").items():
        (tmp_path / name).write_bytes(content)
    assert json.loads(files_of("tun-gue")["evidence.json"])["version"] == 1
    assert main(["verify", "--from", str(tmp_path), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, closed(json_schema("verify")))


def test_every_format_is_of_a_type_that_is_written() -> None:
    written = json.dumps([json_schema(command) for command in DOCUMENTS])
    flattened = {"Claim", "Entry", "Rates", "ServiceKey", "Trial"}
    documents = {one.result.__name__ for one in DOCUMENTS.values() if one.result is not None}
    for name in FORMATS.keys() - flattened - documents:
        assert f'"#/definitions/{name}"' in written, f"{name} is in no schema"


@pytest.mark.parametrize("name", NAMES)
def test_results_are_read_back_whole(name: str) -> None:
    evidence = evidence_of(name)
    lab = evidence.lab
    walk, found = next(walks(evidence)), diagnosis(name)
    assert from_json(as_read(to_json(lab)), Lab) == lab
    assert from_json(as_read(to_json(walk)), Walk, lab=lab) == walk
    assert from_json(as_read(to_json(found)), Diagnosis, lab=lab) == found


def test_a_firewall_marks_service_is_read_back_with_what_is_marked() -> None:
    """That is not compared, so that it equals the kernel's, which knows only the mark."""
    lab = lab_of("dr-fwmark")
    again = from_json(as_read(to_json(lab)), Lab)
    for service, read in zip(lab.services, again.services, strict=True):
        assert read.endpoints == service.endpoints
        assert isinstance(service.match, FwMark)
        assert isinstance(read.match, FwMark)
        assert read.match.ports == service.match.ports


def test_an_inspection_and_a_fault_are_read_back_whole() -> None:
    for lab in (DR, TUN):
        inspection = healthy(lab)
        assert from_json(as_read(to_json(inspection)), Inspection, lab=lab) == inspection
    shown = show_fault(None, "vip-missing")
    assert from_json(as_read(to_json(shown)), FaultShown) == shown


@pytest.mark.parametrize("text", ["10.0.0.1:80", "[fd00::1]:65535"])
def test_endpoints_are_text(text: str) -> None:
    address, _, port = text.rpartition(":")
    endpoint = Endpoint(ip_address(address.strip("[]")), int(port))
    assert unstructure(endpoint) == text
    assert structure_strictly(text, Endpoint) == endpoint


def test_a_plan_has_every_command_in_order() -> None:
    steps = [op for stage in to_json(planner.plan_for(DR))["stages"] for op in stage["resources"]]
    assert [step["commands"] for step in steps] == [list(op.describe()) for op in DR_OPS]


def test_up_changed_something_unless_it_did_nothing() -> None:
    assert to_json(Up(DR, created=False))["changed"] is False
    assert to_json(Up(DR, created=True))["changed"] is True


def test_up_edits_what_exists() -> None:
    up = Up(DR, created=False, added=(SERVICE, SERVER), edited=(SERVICE,))
    service, server = (step["commands"][0] for step in to_json(up)["added"])
    assert (" -E " in service, " -a " in server) == (True, True)


def test_a_kernel_can_run_labs_if_only_optional_features_are_missing() -> None:
    assert not Features("host", FEATURES).able  # no ipip
    assert Features("host", tuple(f for f in FEATURES if f.id != "ipip")).able
    assert not Features("machine", (), "not running").able


def test_a_text_is_called_text_and_further_help_next_steps() -> None:
    document = json.dumps([document for _, document in DOCUMENT_SAMPLES])
    assert '"says"' not in document
    assert '"look_at"' not in document
