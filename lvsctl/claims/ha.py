"""What several directors promise that share their VIPs by VRRP: one of them at a time is master."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, join_names, passed_if
from lvsctl.claims.trace import Trace
from lvsctl.model.addresses import Endpoint
from lvsctl.model.evidence import Evidence
from lvsctl.model.frame import VRRP, Direction, Frame
from lvsctl.model.masters import has_one_master, holders_in
from lvsctl.model.state import NodeState, SyncDaemonState
from lvsctl.resources.keepalived import is_running

CLAIMS = ClaimTable()


class Advertisement(NamedTuple):
    """An advertisement of VRRP: who says that it is master of which virtual router."""

    frame: Frame
    router_id: int
    priority: int
    password: bytes = b""
    """In version 2, of authentication type 1 (RFC 2338, section 5.3.6)."""


def advertisements(evidence: Evidence) -> Iterator[Advertisement]:
    """Yield the captured advertisements at every tap (RFC 5798, section 5.2: type 1)."""
    for frame in evidence.frames:
        if frame.outer is None or frame.outer.protocol != VRRP:
            continue
        data = frame.payload
        if len(data) >= 3 and data[0] & 0xF == 1:
            simple = data[0] >> 4 == 2 and len(data) >= 16 and data[4] == 1
            yield Advertisement(frame, data[1], data[2], bytes(data[-8:]) if simple else b"")


def senders(evidence: Evidence) -> dict[str, Advertisement]:
    """Return the directors that advertised themselves, each with its last advertisement."""
    return {
        one.frame.tap.node: one
        for one in advertisements(evidence)
        # Priority 0: it resigns (RFC 5798, section 5.2.4).
        if one.frame.direction is Direction.OUT and one.priority
    }


def _is_shared(trace: Trace) -> bool:
    return bool(trace.evidence.lab.floating)


@CLAIMS.add(
    "ha.one-master",
    "one director is master: it alone holds the VIPs and advertises itself",
    broken_by=("vrrp-filtered", "vrrp-router-id", "vrrp-password"),
    applies=_is_shared,
    needs_requests=False,
)
def one_master(trace: Trace) -> CheckResult:
    """Compare the addresses of all directors, and who advertised itself meanwhile."""
    evidence = trace.evidence
    lab = evidence.lab
    held = holders_in(lab, {name: state.links for name, state in evidence.states.items()})
    expected = f"{', '.join(map(str, lab.floating))} at one director, which alone advertises itself"
    sent = senders(evidence)
    who = {name: None for names in held.values() for name in names}
    observed = f"held by {join_names(tuple(who))}" if who else "held by no director"
    split = [str(one) for one, names in held.items() if len(names) != 1]
    if split and who:
        observed = "; ".join(
            f"{one} is held by {join_names(names) if names else 'no director'}"
            for one, names in held.items()
        )
    observed += f"; advertised by {join_names(sorted(sent))}" if sent else "; no advertisement seen"
    frames = tuple(one.frame for one in sent.values())
    if not has_one_master(held):
        return passed_if(False, expected, observed, frames)
    if not sent:
        return inconclusive(expected, observed)
    return passed_if(set(sent) == set(who), expected, observed, frames[:1])


@CLAIMS.add(
    "ha.backup-ready",
    "every other director can take over: its keepalived runs and it has the same virtual services",
    broken_by=("keepalived-stopped",),
    applies=_is_shared,
    needs_requests=False,
    needs_frames=False,
)
def backup_ready(trace: Trace) -> CheckResult:
    """Look at the backups' processes and IPVS tables."""
    evidence, master = trace.evidence, trace.master
    service = trace.run.service
    others = [name for name in trace.directors if name != master]
    expected = f"keepalived and {service.match} at {join_names(others)}"
    wanted = {(one.rip, one.port) for one in service.real_servers}
    wrong = []
    for name in others:
        state = evidence.states.get(name)
        if state is None or not state.whole:
            return inconclusive(expected, f"{name} was not looked at")
        if not is_running(state):
            wrong.append(f"keepalived does not run on {name}")
            continue
        table = next((one for one in state.services if one.match == service.match), None)
        if table is None:
            wrong.append(f"{name} has no such service")
        elif missing := wanted - {(one.rip, one.port) for one in table.real_servers}:
            wrong.append(f"{name} lacks {', '.join(str(Endpoint(*place)) for place in missing)}")
    return passed_if(not wrong, expected, "; ".join(wrong) or f"both at {join_names(others)}")


FAILBACK_TEXT = (
    "once everything is back, the director with the highest priority is master; without "
    "preemption the one that was stays it"
)


def _preempts(trace: Trace) -> bool:
    lab = trace.evidence.lab
    return _is_shared(trace) and all(node.ha.preempt for node in lab.directors if node.ha)


@CLAIMS.add(
    "ha.failback",
    FAILBACK_TEXT,
    broken_by=("equal-priorities", "preemption-off"),
    applies=_preempts,
    needs_requests=False,
    needs_frames=False,
)
def failback(trace: Trace) -> CheckResult:
    """Compare the master with the topology's priorities, of the directors that can be master."""
    evidence = trace.evidence
    lab, states = evidence.lab, evidence.states
    held = holders_in(lab, {name: state.links for name, state in states.items()})
    able = {
        node.name: node.ha.priority
        for node in lab.directors
        if node.ha is not None and _can_be_master(states.get(node.name), node.networks)
    }
    highest = max(able.values(), default=0)
    first = [name for name, priority in able.items() if priority == highest]
    expected = f"{join_names(first) if first else 'a director'}, by priority {highest}"
    if not able or not has_one_master(held):
        return inconclusive(expected, "not exactly one director is master")
    master = trace.master
    observed = f"{master} is master" + (f", by priority {able[master]}" if master in able else "")
    return passed_if(master in first, expected, observed)


def _can_be_master(state: NodeState | None, networks: tuple[str, ...]) -> bool:
    """Whether keepalived runs on a director, and its interfaces carry frames."""
    if state is None or not state.whole or not is_running(state):
        return False
    links = [state.link(name) for name in networks]
    return all(link is not None and link.up and link.carrier for link in links)


@CLAIMS.add(
    "ha.macs-differ",
    "every director has a MAC address of its own on each network, by which a switch finds it",
    broken_by=("duplicate-mac",),
    applies=_is_shared,
    needs_requests=False,
    needs_frames=False,
)
def macs_differ(trace: Trace) -> CheckResult:
    """Compare the MAC addresses of the directors' interfaces."""
    evidence = trace.evidence
    holders: dict[tuple[str, str], list[str]] = {}
    for node in evidence.lab.directors:
        state = evidence.states.get(node.name)
        for link in state.links if state is not None else ():
            if link.name in node.networks and link.mac:
                holders.setdefault((link.name, link.mac), []).append(node.name)
    several = [
        f"{join_names(names)} have {mac} on {network}"
        for (network, mac), names in holders.items()
        if len(names) > 1
    ]
    expected = "as many as interfaces"
    if not holders:
        return inconclusive(expected, "no director was looked at")
    return passed_if(not several, expected, "; ".join(several) or f"{len(holders)}, all different")


def _is_synchronized(trace: Trace) -> bool:
    return _is_shared(trace) and any(n.ha and n.ha.sync for n in trace.evidence.lab.directors)


def daemon_of(state: NodeState, role: str) -> SyncDaemonState | None:
    """Return a director's synchronization daemon in a state, ``master`` or ``backup``."""
    return next((one for one in state.sync_daemons if one.state == role), None)


@CLAIMS.add(
    "ha.connections-synchronized",
    "the master sends its connections to the other directors, which receive them on the same "
    "network",
    broken_by=("sync-daemon-missing", "sync-daemon-elsewhere"),
    applies=_is_synchronized,
    needs_requests=False,
    needs_frames=False,
)
def connections_synchronized(trace: Trace) -> CheckResult:
    """Compare the synchronization daemons of the directors, where one of them is master."""
    evidence, master = trace.evidence, trace.master
    states = {name: evidence.states.get(name) for name in trace.directors}
    others = [name for name in trace.directors if name != master]
    expected = f"sent by {master}, received by {join_names(others)}"
    held = holders_in(evidence.lab, {n: s.links for n, s in states.items() if s is not None})
    if not has_one_master(held):
        return inconclusive(expected, "not exactly one director is master")
    for name, state in states.items():
        if state is None or not state.whole:
            return inconclusive(expected, f"{name} was not looked at")
        if not is_running(state):
            return inconclusive(expected, f"keepalived does not run on {name}")
    first = states[master]
    sender = daemon_of(first, "master") if first is not None else None
    if sender is None:
        return passed_if(False, expected, f"{master} sends none")
    wrong = []
    for name in others:
        state = states[name]
        receiver = daemon_of(state, "backup") if state is not None else None
        if receiver is None:
            wrong.append(f"{name} receives none")
        elif (receiver.interface, receiver.sync_id) != (sender.interface, sender.sync_id):
            wrong.append(
                f"{master} sends on {sender.interface} (sync id {sender.sync_id}), {name} receives "
                f"on {receiver.interface} (sync id {receiver.sync_id})"
            )
    return passed_if(not wrong, expected, "; ".join(wrong) or f"on {sender.interface}")
