"""The rule about firewall marks: the director marks what the topology says, before IPVS sees it."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis.base import Case, Found, Rule, shown
from lvsctl.model.claim import Cause
from lvsctl.modes.base import marks_of
from lvsctl.resources.marks import Marks


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
        yield Cause(
            fault="mark-missing",
            node=case.director,
            text=f"the director does not mark requests to {what}",
            evidence=(
                f"{case.director}: no filter at {marks.device} gives them the mark {mark}",
                *shown(case.requests(case.director)),
            ),
            consequence=f"they are no requests of {case.service.match} for IPVS",
            remedy=_remedy(case, marks),
        )


def _remedy(case: Case, marks: Marks) -> str:
    state = case.state(case.director)
    if marks.only_lacks(state):
        commands = marks.filter_commands(marks.missing(state))
    elif any((one.device, one.parent) == (marks.device, "clsact") for one in state.qdiscs):
        commands = marks.edit_commands()
    else:
        commands = marks.commands()
    return " && ".join(case.type(case.director, *one.argv) for one in commands)


RULES = (Rule(find=marked, by_state=False, rules_out="the director marks what the topology says"),)
