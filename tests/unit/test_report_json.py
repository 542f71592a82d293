"""The JSON interface: each value against its schema. A change here is a change for users."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from lvsctl.engine.results import Up
from lvsctl.model.claim import Verdict
from lvsctl.output import jsonable
from lvsctl.plan import planner
from tests.unit.report_samples import (
    FEATURES,
    KINDS,
    MACHINE,
    healthy,
    lab_of,
    listed,
    verification,
)

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
TRUTH: Schema = {"type": "boolean"}
NULL: Schema = {"type": "null"}


def of(**properties: Schema) -> Schema:
    """Exactly these keys."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def many(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def mapping(item: Schema) -> Schema:
    return {"type": "object", "additionalProperties": item}


def maybe(item: Schema) -> Schema:
    return {"anyOf": [item, NULL]}


VERSION: Schema = {"const": 1}
OP = of(op=TEXT, netns=TEXT, why=TEXT, commands=many(TEXT))
IMPAIRMENT = of(delay=NUMBER, loss=NUMBER, rate=WHOLE)
COUNTERS = of(
    connections=WHOLE, packets_in=WHOLE, packets_out=WHOLE, bytes_in=WHOLE, bytes_out=WHOLE
)
LAB = of(
    name=TEXT,
    description=TEXT,
    networks=many(of(name=TEXT, subnets=many(TEXT), impairment=IMPAIRMENT)),
    nodes=many(
        of(
            name=TEXT,
            role={"enum": ["client", "director", "real-server", "router"]},
            group=TEXT,
            netns=TEXT,
            interfaces=many(of(network=TEXT, addresses=many(TEXT))),
            routes=many(of(to=maybe(TEXT), via=TEXT)),
            sysctls=mapping(TEXT),
            run=many(TEXT),
        )
    ),
    services=many(
        of(
            name=TEXT,
            protocol=TEXT,
            vip=TEXT,
            port=WHOLE,
            forward={"enum": ["nat", "tun", "dr"]},
            encapsulation=TEXT,
            scheduler=TEXT,
            persistence=WHOLE,
            real_servers=many(
                of(node=TEXT, rip=TEXT, port=WHOLE, weight=WHOLE, upper=WHOLE, lower=WHOLE)
            ),
        )
    ),
)
UP = of(
    version=VERSION,
    lab=LAB,
    created=TRUTH,
    changed=TRUTH,
    added=many(OP),
    removed=many(OP),
    restored=many(TEXT),
)
LISTING = of(
    version=VERSION,
    labs=many(
        of(
            name=TEXT,
            state={"enum": ["up", "coming-up", "going-down", "broken"]},
            answering=TRUTH,
            problem=TEXT,
            started=maybe(NUMBER),
            source=TEXT,
            lab=maybe(LAB),
            faults=many(TEXT),
        )
    ),
)
NODE = of(
    role=TEXT,
    netns=TEXT,
    links=many(
        of(
            name=TEXT,
            index=WHOLE,
            kind=TEXT,
            mac=TEXT,
            mtu=WHOLE,
            up=TRUTH,
            carrier=TRUTH,
            master=TEXT,
            addresses=many(TEXT),
            impairment=IMPAIRMENT,
        )
    ),
    routes=many(of(to=maybe(TEXT), via=maybe(TEXT), device=TEXT, kernel=TRUTH)),
    neighbours=many(of(address=TEXT, device=TEXT, mac=TEXT, state=TEXT)),
    sysctls=mapping(TEXT),
    listeners=many(of(protocol=TEXT, address=TEXT, port=WHOLE, process=TEXT, pid=WHOLE)),
    services=many(
        of(
            protocol=TEXT,
            vip=TEXT,
            port=WHOLE,
            scheduler=TEXT,
            persistence=WHOLE,
            counters=COUNTERS,
            real_servers=many(
                of(
                    rip=TEXT,
                    port=WHOLE,
                    forward=TEXT,
                    weight=WHOLE,
                    upper=WHOLE,
                    lower=WHOLE,
                    encapsulation=TEXT,
                    tunnel_port=WHOLE,
                    active=WHOLE,
                    inactive=WHOLE,
                    counters=COUNTERS,
                )
            ),
        )
    ),
    connections=many(
        of(
            protocol=TEXT,
            client=TEXT,
            client_port=WHOLE,
            vip=TEXT,
            vport=WHOLE,
            rip=TEXT,
            rport=WHOLE,
            state=TEXT,
            expires=WHOLE,
        )
    ),
    gue_ports=many(WHOLE),
    deviations=many(of(says=TEXT, why=TEXT)),
)
INSPECTION = of(version=VERSION, lab=TEXT, nodes=mapping(NODE), faults=many(TEXT))
VERDICT: Schema = {"enum": ["pass", "fail", "inconclusive"]}
VERIFICATION = of(
    version=VERSION,
    lab=TEXT,
    verdict=VERDICT,
    claims=many(
        of(
            id=TEXT,
            service=TEXT,
            says=TEXT,
            verdict=VERDICT,
            expected=TEXT,
            observed=TEXT,
            evidence=many(of(tap=TEXT, frame=WHOLE, summary=TEXT)),
            kernel=many(TEXT),
            broken_by=many(TEXT),
        )
    ),
    capture=maybe(TEXT),
)
PLAN = of(
    version=VERSION,
    lab=TEXT,
    namespaces=many(TEXT),
    stages=many(of(title=TEXT, ops=many(OP))),
)
FEATURE_LIST = of(
    version=VERSION,
    where=TEXT,
    able=TRUTH,
    features=many(
        of(id=TEXT, says=TEXT, present=TRUTH, needed_for=TEXT, remedy=TEXT, optional=TRUTH)
    ),
)
TOPOLOGIES = of(version=VERSION, topologies=many(of(name=TEXT, description=TEXT)))
MACHINE_STATUS = of(
    version=VERSION,
    running=TRUTH,
    machine=maybe(
        of(
            name=TEXT,
            kind=TEXT,
            kernel=TEXT,
            accelerator=TEXT,
            cpus=WHOLE,
            pid=WHOLE,
            release=TEXT,
            uptime=NUMBER,
            memory=WHOLE,
            memory_available=WHOLE,
            commands=WHOLE,
            socket=TEXT,
            writable=many(TEXT),
            complaints=many(TEXT),
            failed_modules=mapping(TEXT),
            features=mapping(TRUTH),
        )
    ),
)

MACHINE_KINDS = of(
    version=VERSION,
    kinds=many(
        of(name=TEXT, title=TEXT, can=TRUTH, obstacle=TEXT, how=TEXT, kernels=mapping(TEXT))
    ),
)

LAB_DR, LAB_TUN = lab_of("dr"), lab_of("tun")
CASES: dict[str, tuple[Schema, dict[str, Any]]] = {
    "up, new": (UP, jsonable.up(Up(LAB_DR, created=True))),
    "up, changed": (
        UP,
        jsonable.up(Up(LAB_TUN, created=False, added=planner.plan_for(LAB_TUN).resources)),
    ),
    "listing": (LISTING, jsonable.listing(listed(LAB_DR))),
    "inspection": (INSPECTION, jsonable.inspection(healthy(LAB_DR))),
    "inspection of tun": (INSPECTION, jsonable.inspection(healthy(LAB_TUN))),
    "verification": (VERIFICATION, jsonable.verification(verification(LAB_DR, *Verdict))),
    "plan": (PLAN, jsonable.plan(planner.plan_for(LAB_TUN))),
    "features": (FEATURE_LIST, jsonable.features(FEATURES, "host")),
    "topologies": (TOPOLOGIES, jsonable.topologies({"dr": "Direct routing"})),
    "machine": (
        MACHINE_STATUS,
        jsonable.machine(MACHINE, {"ip_vs": True, "scheduler twos": False}),
    ),
    "kinds of machine": (MACHINE_KINDS, jsonable.machine_kinds(KINDS)),
    "no machine": (MACHINE_STATUS, jsonable.machine(None, {})),
}


@pytest.mark.parametrize("case", CASES)
def test_json_is_as_documented(case: str) -> None:
    schema, value = CASES[case]
    jsonschema.validate(json.loads(json.dumps(value)), schema)


def test_plan_has_every_command_in_order() -> None:
    plan = planner.plan_for(LAB_DR)
    ops = [op for stage in jsonable.plan(plan)["stages"] for op in stage["ops"]]
    assert [op["commands"] for op in ops] == [list(op.describe()) for op in plan.resources]


def test_changed_is_false_only_where_nothing_was_done() -> None:
    assert jsonable.up(Up(LAB_DR, created=False))["changed"] is False
    assert jsonable.up(Up(LAB_DR, created=True))["changed"] is True


def test_a_lab_can_run_where_only_what_is_optional_lacks() -> None:
    assert jsonable.features(FEATURES, "host")["able"] is False  # no ipip
    assert jsonable.features([f for f in FEATURES if f.id != "ipip"], "host")["able"] is True


def test_evidence_names_tap_and_frame() -> None:
    found = jsonable.verification(verification(LAB_DR, Verdict.PASS))
    (shown,) = found["claims"][0]["evidence"]
    assert (shown["tap"], shown["frame"]) == ("director:lan", 7)
