"""Collect evidence: send requests through a running lab and capture frames at every node.

Each step serves a claim. Nothing is configured, but that routers send flows to another one of
several active directors for a moment (``rerouting``); neighbour entries and path MTUs are read and
then flushed, so that the capture shows how they are learnt.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lvsctl.capture.capture import Capture
from lvsctl.capture.decode import decode_all
from lvsctl.capture.listener import Options
from lvsctl.claims.neighbours import CONFIGURED, wrong_neighbours, wrongly_claimed
from lvsctl.engine.ask_services import STAGES, THREADS, Answers, ask_all, at_once, one_way
from lvsctl.engine.whole import changed_settings
from lvsctl.kernel import learnt, readings
from lvsctl.kernel.drops import DropReasons, Martians
from lvsctl.kernel.state import flush_neighbours_and_routes
from lvsctl.model import nstat
from lvsctl.model.addresses import IPAddress
from lvsctl.model.event import Emit, StageStarted, ignore
from lvsctl.model.evidence import Evidence, Run, gue_ports
from lvsctl.model.frame import Recording
from lvsctl.model.lab import Lab, Node, Role
from lvsctl.model.packet_filter import growth
from lvsctl.model.service import VirtualService
from lvsctl.model.state import ChangedSysctls, Dropped, NeighbourState, NodeState
from lvsctl.traffic.neighbours import ask_neighbours


def collect_evidence(
    lab: Lab,
    sender: Node | None = None,
    *,
    patient: bool = False,
    settings: bool = True,
    emit: Emit = ignore,
) -> Evidence:
    """Send requests through every virtual service of ``lab``.

    Each service is asked by the clients that reach its VIP, or by ``sender`` only. ``patient``:
    where connections are accepted and requests not answered, wait longer for some. Without
    ``settings`` the sysctls that no plan sets are only compared where requests are not answered:
    ``with_settings`` can do it later.

    Raises LabError if a part of the lab is missing, HostError without root.
    """
    with _capture(lab) as capture:
        seen = _ask_and_read(lab, sender, patient=patient, settings=settings, emit=emit)
        # What is done before the block ends does not wait until the sockets are freed.
        evidence = _evidence(lab, seen, capture.stop())
    _leave_as_found(evidence)
    return evidence


class _Seen(NamedTuple):
    """What was read while the capture ran."""

    asked: Answers
    before: readings.Readings
    after: readings.Readings
    kernel_drops: tuple[Dropped, ...]
    kernel_log: tuple[str, ...]


def _ask_and_read(
    lab: Lab, sender: Node | None, *, patient: bool, settings: bool, emit: Emit
) -> _Seen:
    nodes = [lab.netns(node.name) for node in lab.nodes]
    switches = [lab.netns(network.name) for network in lab.networks]
    directors = [lab.netns(node.name) for node in lab.directors]
    places = len(nodes) + len(switches)
    emit(StageStarted(f"reading counters of {places} namespaces", 1, STAGES))
    with (
        ThreadPoolExecutor(1) as background,
        DropReasons() as reasons,
        Martians() as martians,
    ):
        since = time.monotonic()
        before = readings.read_and_flush(nodes, switches, directors)
        _probe_vips(lab)
        asked = ask_all(lab, sender, background, patient=patient, settings=settings, emit=emit)
        _await_advertisement(lab, since)
        emit(StageStarted(f"reading counters of {places} namespaces again", 4, STAGES))
        # What the requests taught is flushed; ``_leave_as_found`` puts back what was wrong before.
        after = readings.read_and_flush(nodes, switches, directors)
        kernel_drops = reasons.dropped() if reasons.supported else martians.dropped()
        return _Seen(asked, before, after, kernel_drops, martians.logged())


def _evidence(lab: Lab, seen: _Seen, recording: Recording) -> Evidence:
    nodes = {lab.netns(node.name): node.name for node in lab.nodes}
    switches = {lab.netns(network.name): network.name for network in lab.networks}
    asked, before, after = seen.asked, seen.before, seen.after
    states = _with_changed(
        {name: after.latest(state) for name, state in asked.states.items()},
        asked.changed.result() if asked.changed is not None else None,
    )
    return Evidence(
        lab=lab,
        runs=asked.runs,
        frames=decode_all(recording.frames, gue_ports=gue_ports(lab, asked.runs)),
        taps=tuple(sorted(recording.taps)),
        drops={node: count for node, count in recording.drops.items() if count},
        states={nodes[name]: state for name, state in states.items() if name in nodes},
        switches={switches[name]: state for name, state in states.items() if name in switches},
        counters={
            nodes[name]: nstat.growth(before.counters[name], after.counters[name]) for name in nodes
        },
        kernel_drops=seen.kernel_drops,
        kernel_log=seen.kernel_log,
        packet_filters={
            place: tuple(rule for rule in grown if rule.foreign)
            for name, place in (nodes | switches).items()
            if (grown := growth(before.packet_filters[name], after.packet_filters[name]))
        },
        before=_not_taught(lab, {nodes[name]: found for name, found in before.learnt.items()}),
    )


def _await_advertisement(lab: Lab, since: float) -> None:
    """Wait until the master has advertised itself, which it does once in an interval (RFC 5798).

    ``since`` is when the capture began. Asking takes longer as a rule, but not if IPVS adds up its
    counters just then.
    """
    interval = max((node.ha.advert_int for node in lab.directors if node.ha), default=0.0)
    left = since + 2 * interval - time.monotonic()
    if interval and left > 0:
        time.sleep(left)  # noqa: TID251 (what is waited for is a frame, and the capture takes it)


def with_settings(evidence: Evidence, but: Iterable[str] = ()) -> Evidence:
    """Compare the sysctls that no plan sets, where that was left out; ``but`` some nodes'."""
    lab = evidence.lab
    if all(one.changed_sysctls is not None for one in evidence.states.values()):
        return evidence
    changed = changed_settings(lab, map(lab.netns, but))
    return replace(
        evidence,
        states=_with_changed(evidence.states, changed),
        switches=_with_changed(evidence.switches, changed),
    )


def _with_changed(
    states: Mapping[str, NodeState], changed: ChangedSysctls | None
) -> dict[str, NodeState]:
    return {
        name: replace(
            state, changed_sysctls=changed.get(state.netns) if changed is not None else None
        )
        for name, state in states.items()
    }


def _not_taught(lab: Lab, before: Mapping[str, NodeState]) -> dict[str, NodeState]:
    """Leave out what lvsctl's own last requests taught: it is no evidence of earlier traffic."""
    own = learnt.taught(lab.name)
    return {
        node: NodeState(
            state.netns,
            neighbours=tuple(n for n in state.neighbours if (str(n.address), n.mac) not in own),
            connections=state.connections,
        )
        for node, state in before.items()
    }


def _leave_as_found(evidence: Evidence) -> None:
    """Put back what nodes had learnt wrong; what the requests taught them was flushed.

    So that asking neither heals a lab nor breaks it, however often it is asked.
    """
    wrong: dict[str, list[NeighbourState]] = {}
    for node, entry, *_ in wrong_neighbours(evidence):
        if entry.state not in CONFIGURED:
            wrong.setdefault(evidence.lab.netns(node), []).append(entry)
    learnt.put_back(wrong)
    claimed = wrongly_claimed(evidence)
    learnt.note_taught(evidence.lab.name, ((str(address), mac) for address, mac in claimed))


def collect_request_evidence(lab: Lab, service: VirtualService, sender: Node) -> Evidence:
    """Send one ordinary request from ``sender`` and capture it everywhere, for ``walk``.

    Raises as ``collect_evidence``.
    """
    with _capture(lab) as capture:
        flush_neighbours_and_routes([lab.netns(node.name) for node in lab.nodes])
        call = "" if service.keeps_calls else None
        (exchange,) = at_once(lab, service.endpoint, sender, 1, call=call)
    return Evidence(
        lab=lab,
        runs=(Run(service, sender.name, (exchange,), before=None, after=None, connections=()),),
        frames=capture.frames,
        taps=tuple(sorted(capture.taps)),
        drops={node: count for node, count in capture.drops.items() if count},
    )


def _capture(lab: Lab) -> Capture:
    """A capture at every node; it ends once nothing has arrived for two crossings of the lab."""
    namespaces: dict[str | Path, str] = {lab.netns(node.name): node.name for node in lab.nodes}
    vips = {*lab.gateways, *(vip for service in lab.services for vip in service.vips)}
    known = {
        node.name: vips | {a.ip for i in node.interfaces for a in i.addresses} for node in lab.nodes
    }
    return Capture(
        namespaces,
        Options(known=known),
        quiet=0.05 + 2 * one_way(lab),
        gue_ports=gue_ports(lab, ()),
    )


def _probe_vips(lab: Lab) -> None:
    """Ask all neighbours for each VIP from every client and router on its network."""
    asked: list[tuple[str, str, IPAddress, IPAddress]] = []
    for vip in dict.fromkeys(vip for service in lab.services for vip in service.vips):
        network = lab.network_of(vip)
        if network is None or lab.ecmp:  # routes to the VIP lead to the directors' own addresses
            continue
        for node in (*lab.having(Role.CLIENT), *lab.having(Role.ROUTER)):
            held = node.addresses_on(network.name)
            own = next((a.ip for a in held if a.version == vip.version), None)
            if own is not None:
                asked.append((lab.netns(node.name), network.name, own, vip))
    patience = _NEIGHBOUR_PATIENCE + 8 * one_way(lab)
    # Where no node answers, all wait at the same time.
    with ThreadPoolExecutor(THREADS) as pool:
        for waiting in [pool.submit(ask_neighbours, *one, patience) for one in asked]:
            try:
                waiting.result()
            except OSError as error:
                # A device that is renamed, missing or down asks nothing; its state shows why.
                if error.errno not in (errno.ENODEV, errno.ENETDOWN, errno.ENXIO):
                    raise


_NEIGHBOUR_PATIENCE = 0.5
"""Seconds to wait for a neighbour's reply, which no process has to give."""
