"""Rules about firewall marks: the director marks what the topology says, before IPVS sees it."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis.base import Case, Found, Rule, shown
from lvsctl.model.claim import Cause, Remark
from lvsctl.model.packet_filter import MARK_TABLE
from lvsctl.model.service import FwMark
from lvsctl.model.state import NodeState
from lvsctl.modes.base import marks_of
from lvsctl.resources.ipvs_service import service_words
from lvsctl.resources.marks import Marks, by_nftables, marked_in


def marked(case: Case) -> Iterator[Found]:
    """Requests to each port and VIP of the service get the service's mark."""
    state = case.state(case.director)
    mine = {endpoint.vip for endpoint in case.service.endpoints}
    for marks in marks_of(case.lab, case.lab.node(case.director)):
        missing = [one for one in marks.missing(state) if one.vip in mine]
        if marks.holds(state) or not missing:
            continue
        what = ", ".join(f"{one.vip} port {one.ports or 'any'}" for one in missing)
        mark = missing[0].mark
        if case.fine:
            text = f"requests to {what} get the mark {mark} by other means than the topology's"
            yield Remark(case.director, text)
            continue
        yield Cause(
            fault="mark-missing",
            node=case.director,
            text=f"the director does not mark requests to {what}",
            evidence=(
                f"{case.director}: {_nothing(state, marks)} gives them the mark {mark}",
                *shown(case.requests(case.director)),
            ),
            consequence=f"they are no requests of {case.service.match} for IPVS",
            remedy=" && ".join(case.type(case.director, *one) for one in _remedy(state, marks)),
        )


def _nothing(state: NodeState, marks: Marks) -> str:
    if by_nftables(state):
        return f"no rule in table {MARK_TABLE} (nft)"
    filters = f"no filter at {' or '.join(marks.devices)} (tc)"
    return f"{filters}, and no table {MARK_TABLE} (nft)," if state.nftables else filters


def _remedy(state: NodeState, marks: Marks) -> tuple[tuple[str, ...], ...]:
    if marks.only_lacks(state):
        return marks.adding(marks.missing(state), state)
    return tuple(one.argv for one in marks.fitted({state.netns: state}).edit_commands())


def taken_by_mark(case: Case) -> Iterator[Found]:
    """No other virtual service takes the requests because they have its mark.

    IPVS looks for a service by firewall mark first (ip_vs_service_find in ip_vs_ctl.c).
    """
    before, after, table = case.trace.run.before, case.trace.run.after, case.table
    came = case.requests(case.director)
    if not came or before is None or after is None or table is None:
        return
    if after.counters.packets_in > before.counters.packets_in:
        return
    for other in case.state(case.director).services:
        match = other.match
        if not isinstance(match, FwMark) or match == table.match or not other.counters.packets_in:
            continue
        if match.version == case.service.match.version and _may_get(case, match):
            yield Cause(
                fault="taken-by-mark",
                node=case.director,
                text=f"requests have the mark of another virtual service and reach that: {match}",
                evidence=(
                    f"{case.director}: {case.service.match} counted no packet meanwhile",
                    f"{case.director}: {match} has counted {other.counters.packets_in}",
                    *_marking(case, match.mark),
                    *shown(came),
                ),
                consequence=(
                    "IPVS looks for a service by firewall mark first, so the real servers, weights "
                    f"and scheduler of {case.service.match} do not apply"
                ),
                remedy=case.type(case.director, "ipvsadm", "-D", *service_words(match)),
            )


def _may_get(case: Case, match: FwMark) -> bool:
    """Whether the requests can have the mark of a service, as far as it is known.

    A service of the topology counts its own requests: there something must give the mark to those
    of this one too.
    """
    if all(match != one.match for one in case.lab.services):
        return True
    state, endpoint = case.state(case.director), case.endpoint
    if any(one.mark == match.mark and one.covers(endpoint) for one in marked_in(state)):
        return True
    rules = case.evidence.packet_filters.get(case.director, ())
    return any(rule.foreign and rule.action == "MARK" and rule.packets for rule in rules)


def _marking(case: Case, mark: int) -> Iterator[str]:
    """What gives packets the mark, as far as it is known."""
    state = case.state(case.director)
    for one in state.filters:
        if f"mark {mark}" in one.actions:
            match = " ".join(one.match) or "packets"
            yield f"{case.director}: a filter at {one.device} marks {match}"
    for rule in state.packet_filters:
        if rule.marks is None and (rule.action == "MARK" or "mark set" in rule.text):
            yield f"{case.director}: a packet filter marks packets: {rule}"
        elif rule.marks is not None and rule.marks.mark == mark:
            yield f"{case.director}: table {rule.table} (nft) marks {rule.marks.text}"


RULES = (
    Rule(find=marked, by_state=False, rules_out="the director marks what the topology says"),
    Rule(
        find=taken_by_mark,
        by_state=False,
        latent=True,
        rules_out="no service by firewall mark takes the requests",
    ),
)
