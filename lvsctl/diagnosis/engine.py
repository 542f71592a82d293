"""Apply all rules to the evidence of a lab."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from lvsctl import claims
from lvsctl.claims import packet_loss
from lvsctl.claims.trace import of_other_clients, traces
from lvsctl.diagnosis import (
    announcements,
    arp,
    clients,
    connections,
    ecmp,
    ha,
    hosts,
    ipvs,
    keepalived_file,
    links,
    listeners,
    marks,
    packet_filter,
    paths,
    proxies,
    scheduling,
    segments,
    snat,
    ttl,
    tunnel,
)
from lvsctl.diagnosis import packet_loss as vanishing
from lvsctl.diagnosis.base import EVERY_MODE, Case, LabConsole, Rule
from lvsctl.diagnosis.differences import Changed, changes
from lvsctl.diagnosis.kernel_counters import corroborate
from lvsctl.diagnosis.network import Network
from lvsctl.model.claim import Cause, Remark, Verdict
from lvsctl.model.evidence import Evidence
from lvsctl.walk.walk import walks

RULES: tuple[Rule, ...] = (
    *clients.RULES,
    *ha.RULES,
    *keepalived_file.RULES,
    *announcements.RULES,
    *ecmp.RULES,
    *ipvs.RULES[:1],
    *hosts.RULES,
    *packet_filter.RULES,
    *ttl.RULES,
    *links.RULES,
    *marks.RULES,
    *listeners.RULES,
    *snat.RULES,
    *vanishing.BLOCKING,
    *ipvs.RULES[1:2],
    *proxies.RULES,
    *tunnel.RULES,
    *segments.RULES,
    *paths.RULES,
    *ipvs.RULES[2:],
    *scheduling.RULES,
    *connections.RULES,
    *arp.RULES,
)
"""In the order in which causes are named: first those that mask others."""

LAST = (vanishing.CHANGED, vanishing.RULES)
"""Applied one after the other, if no other rule finds a cause."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The result of all rules. ``works``: every claim that matters was observed.

    ``works`` is also true where every request was answered and no cause was found, but in another
    way than the topology's: then ``differences`` are the claims that do not hold.
    ``next_steps`` suggests next steps if it does not work and no cause was found.
    """

    causes: tuple[Cause, ...]
    remarks: tuple[str, ...]
    ruled_out: tuple[str, ...]
    works: bool
    next_steps: tuple[str, ...]
    differences: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether all works, as the topology says, and nothing can break it."""
        return self.works and not self.causes and not self.differences


def conclusion(evidence: Evidence, up: str = "") -> Conclusion:
    """Find the causes, the most likely first.

    ``up`` is the command that makes the lab what its topology says.
    """
    console = LabConsole(evidence.lab.name, up or f"lvsctl up {evidence.lab.name}")
    findings = tuple(claims.findings(evidence))
    network = Network(evidence.lab, evidence.states)
    changed = changes(evidence)
    cases = [
        Case(trace, network, own, console, changed)
        for trace in traces(evidence)
        for own in [tuple(f for f in findings if f.service == trace.run.service.name)]
    ]
    # A client of its own case only if it fails: its way to the VIP is another one.
    cases += [
        case
        for first in tuple(cases)
        for trace in of_other_clients(first.trace)
        if not (case := Case(trace, network, (), console, changed)).answered
    ]
    # Where several directors handle requests, the table of each is looked at.
    if evidence.lab.ecmp:
        names = [node.name for node in evidence.lab.directors]
        cases = [replace(case, judged=name) for case in cases for name in names]
    found = _Found()
    unsuitable = [case for case in cases if any(clients.suitable(case))]
    for case in cases:
        found.apply((clients.UNSUITABLE,) if case in unsuitable else RULES, case)
    works = all(case.fine for case in cases) and not unsuitable
    for case in (case for case in cases if case not in unsuitable):
        if not case.fine and not found.harmful and not _only_differs(case, found):
            for rules in LAST:
                if not found.harmful:
                    found.apply(rules, case)
    causes = tuple(corroborate(cause, evidence) for cause in _once(found.in_order()))
    works = works or (not causes and all(case.works_otherwise for case in cases))
    # What fails without harm is said too: verify, which decides these claims, fails.
    differences = tuple(
        dict.fromkeys(
            f"{finding.claim.id}: {finding.observed}"
            for case in (cases if works and not causes else ())
            for finding in case.findings
            if finding.verdict is Verdict.FAIL
        )
    )
    further = _unmentioned(changed, found.places) if works and not causes else ()
    return Conclusion(
        causes=causes,
        remarks=tuple(dict.fromkeys((*found.remarks, *further))),
        ruled_out=tuple(rule for rule in found.clean if rule not in found.dirty),
        works=works,
        next_steps=() if works or causes else tuple(_next_steps(evidence, cases)),
        differences=differences,
    )


def _unmentioned(changed: Iterable[Changed], places: Collection[str]) -> Iterator[str]:
    """Differences of a lab that works, at the places of which no rule says anything."""
    for one in changed:
        if one.place not in places:
            yield f"{one.place}: {one.difference.deviation.text}"


def _once(causes: tuple[Cause, ...]) -> Iterator[Cause]:
    """Leave out a filter of packets where it is named as one of ICMP errors."""
    known = {cause.node for cause in causes if cause.fault == "icmp-filtered"}
    for cause in causes:
        if cause.fault != "packets-filtered" or cause.node not in known:
            yield cause


def _only_differs(case: Case, found: _Found) -> bool:
    """Whether every request was answered and nothing was sent twice: no packet vanished."""
    return case.answered and not found.harmful and not case.failed("all.nothing-sent-again")


class _Found:
    """Collects causes and remarks."""

    def __init__(self) -> None:
        self.causes: dict[tuple[str, str, str], tuple[bool, int, Cause]] = {}
        self.remarks: list[str] = []
        self.places: set[str] = set()
        self.clean: dict[str, None] = {}
        self.dirty: set[str] = set()

    @property
    def harmful(self) -> bool:
        """Whether any cause explains a present failure."""
        return any(not latent for latent, _, _ in self.causes.values())

    def apply(self, rules: tuple[Rule, ...], case: Case) -> None:
        """Apply the rules for the service's forwarding methods."""
        for number, rule in enumerate(rules):
            judged = judged_cases(case, rule)
            if judged:
                self.clean.setdefault(rule.rules_out)
            for found in (found for one in judged for found in rule.find(one)):
                self.dirty.add(rule.rules_out)
                self.places.add(found.node)
                if isinstance(found, Remark):
                    self.remarks.append(f"{found.node}: {found.text}")
                elif case.taken_out(found.node):
                    self.remarks.append(
                        f"{found.node}: {found.text}; keepalived sends it no requests"
                    )
                elif rule.latent or _harms(case, rule, found):
                    key = (found.fault, found.node, found.text)
                    rank = (rule.latent and not _harms(case, rule, found), number, found)
                    # One service may be harmed by what does another one no harm.
                    self.causes[key] = min(self.causes.get(key, rank), rank, key=lambda r: r[:2])
                else:
                    self.remarks.append(f"{found.node}: {found.text}; no harm observed")

    def in_order(self) -> tuple[Cause, ...]:
        """Causes of a present failure first, then latent ones."""
        ranked = sorted(self.causes.values(), key=lambda one: one[:2])
        return tuple(cause for _, _, cause in ranked)


def judged_cases(case: Case, rule: Rule) -> tuple[Case, ...]:
    """The case as the rule judges it: one of some methods only, by the real servers of each.

    None where the rule does not apply.
    """
    if not rule.applies(case):
        return ()
    ways = [way for way in case.service.ways if way[0] in rule.modes]
    if set(rule.modes) == set(EVERY_MODE):
        return (case,)
    if len(case.service.ways) == 1 and not case.service.local:
        return (case,) if ways else ()
    return tuple(replace(case, trace=case.trace.by(*way)) for way in ways)


def _harms(case: Case, rule: Rule, cause: Cause) -> bool:
    """Whether a cause may explain a failure.

    Not if nothing fails, nor at a real server that answered and affects only itself.
    """
    if case.fine or rule.harms_others:
        return not case.fine
    members = {server.node for server in case.service.remote}
    harmless = case.served(cause.node) and not case.troubled(cause.node)
    return not (cause.node in members and harmless)


def _next_steps(evidence: Evidence, cases: list[Case]) -> Iterator[str]:
    """Where the request was captured last, and which claims fail."""
    for walk in walks(evidence):
        if not walk.exchange.answered:
            yield f"{walk.service.name}: {walk.outcome}"
            yield f"show it hop by hop: lvsctl walk {evidence.lab.name}"
    for case in cases:
        for finding in case.findings:
            if finding.verdict is Verdict.FAIL:
                yield f"{finding.claim.id} fails: {finding.observed}"
        large = case.trace.run.large
        if large is not None and not large.answered:
            yield f"{case.service.name}: one large request was not answered: {large.error}"
    yield from packet_loss.everything(evidence)
