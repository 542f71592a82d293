"""Whose connections were whose: told by frames where nothing else tells it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvsctl import claims
from lvsctl.claims.trace import traces
from lvsctl.model.claim import Verdict
from lvsctl.model.evidence import Evidence
from lvsctl.model.service import Protocol, VipPort
from lvsctl.plan.planner import load_lab
from lvsctl.plan.routing import clients_of
from lvsctl.topology.shipped import Topology
from tests.unit.recorded.reports import NAMES, evidence_of


def unnamed(evidence: Evidence) -> Evidence:
    """The same, answered by servers of the user's own."""
    runs = (
        replace(run, exchanges=tuple(replace(e, node="") for e in run.exchanges))
        for run in evidence.runs
    )
    return replace(evidence, runs=tuple(runs))


@pytest.mark.parametrize("name", NAMES)
def test_frames_tell_who_answered(name: str) -> None:
    found = list(claims.findings(unnamed(evidence_of(name))))

    assert {finding.verdict for finding in found} == {Verdict.PASS}
    assert found == list(claims.findings(evidence_of(name)))


def test_without_frames_nobody_knows() -> None:
    blind = replace(unnamed(evidence_of("dr")), frames=())

    verdicts = {finding.claim.id: finding.verdict for finding in claims.findings(blind)}

    assert verdicts["all.requests-answered"] is Verdict.FAIL


@pytest.mark.parametrize("name", ["dr", "nat"])
def test_other_peoples_requests_leave_it_undecided(name: str) -> None:
    evidence = evidence_of(name)
    (run,) = evidence.runs
    others = replace(evidence, runs=(replace(run, exchanges=run.exchanges[:-2]),))

    found = {finding.claim.id: finding for finding in claims.findings(others)}

    assert found["all.counters-agree"].verdict is Verdict.INCONCLUSIVE
    assert "2 connections of other clients" in found["all.counters-agree"].observed
    assert not [f.claim.id for f in found.values() if f.verdict is Verdict.FAIL]


def test_counters_that_nobody_explains_fail() -> None:
    evidence = evidence_of("dr")
    (run,) = evidence.runs
    first, *rest = run.exchanges
    other = replace(first, node=rest[0].node)
    wrong = replace(evidence, runs=(replace(run, exchanges=(other, *rest)),))

    found = {finding.claim.id: finding.verdict for finding in claims.findings(wrong)}

    assert found["all.counters-agree"] is Verdict.FAIL
    assert found["all.distribution"] is Verdict.FAIL


TWO_NETWORKS = """
version: 1
name: two
networks:
  a: {ipv4: 192.0.2.0/24}
  b: {ipv4: 198.51.100.0/24}
  c: {ipv4: 203.0.113.0/24}
nodes:
  first:    {role: client, networks: [a]}
  second:   {role: client, networks: [b]}
  routed:   {role: client, networks: [c]}
  router:   {role: router, networks: [b, c]}
  director: {role: director, networks: [a, b]}
  rs:       {role: real-server, networks: [a, b], count: 2}
services:
  - {name: one, vip: 192.0.2.100, port: 80, forward: dr, real_servers: [rs]}
  - {name: two, vip: 198.51.100.100, port: 80, forward: dr, real_servers: [rs]}
"""


def test_each_service_is_asked_by_the_clients_that_reach_it() -> None:
    lab = load_lab(Topology("two.yaml", TWO_NETWORKS.encode()))
    asking = {s.name: [node.name for node in clients_of(lab, s)] for s in lab.services}

    assert asking == {"one": ["first"], "two": ["second", "routed"]}


@pytest.mark.parametrize("other", ["another VIP", "another port", "another protocol"])
def test_two_services_that_are_asked_from_one_port_have_their_own_frames(other: str) -> None:
    """The kernel gives a local port to two connections where their other ends differ."""
    evidence = evidence_of("dr")
    (run,) = evidence.runs
    here = run.service.endpoint
    there = VipPort(
        Protocol.UDP if other == "another protocol" else Protocol.TCP,
        here.vip + 50 if other == "another VIP" else here.vip,
        here.port + (other == "another port"),
    )
    servers = tuple(replace(one, port=there.port) for one in run.service.real_servers)
    service = replace(run.service, name="other", match=there, real_servers=servers)
    beside = replace(run, service=service)
    first, second = traces(replace(evidence, runs=(run, beside)))
    (alone,) = traces(evidence)
    assert first.conversations == alone.conversations
    assert not any((*c.requests, *c.replies) for c in second.conversations)
