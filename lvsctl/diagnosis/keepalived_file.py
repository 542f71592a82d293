"""Settings of VRRP in a director's keepalived.conf that are not the topology's."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis.base import Case, Found, Rule
from lvsctl.diagnosis.ha import takes_over
from lvsctl.formats.configuration import Notes
from lvsctl.formats.keepalived.lines import read_lines
from lvsctl.formats.keepalived.tree import build_tree
from lvsctl.model.claim import Cause
from lvsctl.resources.keepalived import Keepalived, is_running

Settings = dict[str, dict[str, str]]
"""The settings of each VRRP instance by keyword; of one that is a mere word, empty text."""


def settings_of(text: str) -> Settings:
    """Return the single lines of each ``vrrp_instance`` of a keepalived.conf."""
    notes = Notes("keepalived.conf")
    root = build_tree(read_lines(text, notes, None), notes)
    return {
        " ".join(block.arguments): {
            line.keyword: " ".join(line.arguments)
            for line in block.children or ()
            if line.children is None
        }
        for block in root.each("vrrp_instance")
    }


def who_is_master(case: Case) -> Iterator[Found]:
    """Directors whose file decides otherwise than the topology which of them is master."""
    for one in case.changes:
        planned = one.difference.resource
        state = case.state(one.place)
        if not isinstance(planned, Keepalived) or not state.keepalived_file:
            continue
        if not is_running(state):
            continue
        wanted, found = settings_of(planned.text), settings_of(state.keepalived_file)
        for name, settings in found.items():
            yield from _priority(case, one.place, wanted.get(name, {}), settings, name)
            if "nopreempt" in settings and "nopreempt" not in wanted.get(name, {}):
                yield Cause(
                    fault="preemption-off",
                    node=one.place,
                    text="it does not take over from another master (nopreempt)",
                    evidence=(
                        f"{one.place}: vrrp_instance {name} has nopreempt, not by the topology",
                        _now(case),
                    ),
                    consequence=(
                        "after a failover it stays backup, whatever its priority: which director "
                        "is master depends on what happened last"
                    ),
                    remedy=case.restore(one.place),
                )


def _priority(
    case: Case, node: str, wanted: dict[str, str], found: dict[str, str], name: str
) -> Iterator[Found]:
    own, right = found.get("priority", ""), wanted.get("priority", "")
    if not right or own == right:
        return
    others = [
        other.name
        for other in case.lab.directors
        if other.name != node and _priority_of(case, other.name, name) == own
    ]
    same = f"; {' and '.join(others)} has {own}, too" if others else ""
    yield Cause(
        fault="equal-priorities" if others else "differs-from-topology",
        node=node,
        text=f"its priority is {own}, not {right}" + (f", as {others[0]}'s is" if others else ""),
        evidence=(f"{node}: vrrp_instance {name} has priority {own}{same}", _now(case)),
        consequence=(
            "of equal priorities the higher address wins, and a backup does not take over from it"
            if others
            else "which director becomes master is decided otherwise than the topology says"
        ),
        remedy=case.restore(node),
    )


def _priority_of(case: Case, node: str, name: str) -> str:
    return settings_of(case.state(node).keepalived_file).get(name, {}).get("priority", "")


def _now(case: Case) -> str:
    return f"{case.trace.master} is master now"


RULES = (
    Rule(
        find=who_is_master,
        applies=takes_over,
        rules_out="no running keepalived has another priority than in the topology, or nopreempt",
        latent=True,
        harms_others=True,
    ),
)
