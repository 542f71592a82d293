"""Judge nodes by their state alone: no request was sent, no frame captured.

The rules are those of ``diagnose`` for which the state is evidence enough. A rule says nothing
about a node that was not read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from lvsctl.claims.trace import traces
from lvsctl.diagnosis import ecmp, ha, host_filters, host_settings, ipvs, scheduling
from lvsctl.diagnosis.base import Case, Console, Found, Rule
from lvsctl.diagnosis.engine import RULES, judged_cases
from lvsctl.diagnosis.kernel_counters import COUNTERS_BY_CAUSE, MOST
from lvsctl.diagnosis.network import Network
from lvsctl.model.claim import Cause, Remark
from lvsctl.model.evidence import Evidence
from lvsctl.model.state import LOSSES

_ON_HOSTS = (*host_settings.RULES, *host_filters.RULES)

_MASTERS = (*RULES, *_ON_HOSTS)

_EVERY_DIRECTORS = (*ipvs.RULES, *scheduling.RULES, *ecmp.RULES, *_ON_HOSTS)
"""About what every director must have, not only the master: the IPVS table, packet filters."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Causes in the order of the rules, harmless differences, and what is in order.

    ``rules`` are what the rules that found nothing rule out.
    """

    causes: tuple[Cause, ...]
    remarks: tuple[str, ...]
    rules: tuple[str, ...]


def judge(
    evidence: Evidence, network: Network, read: Collection[str], console: Console
) -> Judgement:
    """Judge the nodes in ``read``; the others' states in ``network`` are assumed.

    ``evidence`` has a run without requests for each service and client.
    """
    causes: dict[tuple[str, str, str], tuple[int, Cause]] = {}
    remarks: dict[str, None] = {}
    clean: dict[str, None] = {}
    dirty: set[str] = set()
    for case in _cases(evidence, network, console):
        rules = _MASTERS if case.director == case.trace.master else _EVERY_DIRECTORS
        rules = tuple(rule for rule in rules if case.lab.floating or rule not in ha.RULES)
        for number, rule in enumerate(rules):
            if not rule.by_state or not (judged := judged_cases(case, rule)):
                continue
            clean.setdefault(rule.rules_out)
            for found in _found(rule, judged):
                if found.node not in read:
                    continue
                dirty.add(rule.rules_out)
                if isinstance(found, Remark):
                    remarks.setdefault(f"{found.node}: {found.text}")
                elif case.taken_out(found.node):
                    text = f"{found.node}: {found.text}; keepalived sends it no requests"
                    remarks.setdefault(text)
                else:
                    key = (found.fault, found.node, found.text)
                    causes.setdefault(key, (number, found))
    ordered = sorted(causes.values(), key=lambda one: one[0])
    return Judgement(
        tuple(_corroborated(cause, evidence) for _, cause in ordered),
        tuple(remarks),
        tuple(rule for rule in clean if rule not in dirty),
    )


def _corroborated(cause: Cause, evidence: Evidence) -> Cause:
    """Add what the node's kernel counted meanwhile: drops that the cause explains."""
    said = COUNTERS_BY_CAUSE.get(cause.fault)
    grown = evidence.counters.get(cause.node, {})
    quoted = [
        f"{cause.node}: its kernel counted {name} +{grown[name]} within 2 s ({LOSSES[name]})"
        for name in (said.counters if said is not None else ())
        if grown.get(name) and name in LOSSES
    ]
    return replace(cause, evidence=(*cause.evidence, *quoted[:MOST]))


def _found(rule: Rule, cases: tuple[Case, ...]) -> Iterator[Found]:
    for case in cases:
        yield from rule.find(case)


def _cases(evidence: Evidence, network: Network, console: Console) -> Iterator[Case]:
    """Each service and client with the master, then with every other director."""
    for trace in traces(evidence):
        case = Case(trace, network, (), console, judged=trace.master)
        yield case
        for director in evidence.lab.directors:
            if director.name != trace.master:
                yield replace(case, judged=director.name)
