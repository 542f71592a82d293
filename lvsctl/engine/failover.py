"""Make one director take over from another, and measure what clients notice of it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from lvsctl.capture.capture import Capture
from lvsctl.claims import failover as story
from lvsctl.engine import reconcile
from lvsctl.engine.labs import find_node
from lvsctl.errors import LabError, UsageError
from lvsctl.faults.injector import FaultInjector
from lvsctl.kernel import commands, masters, netns, registry, state, undo, wide
from lvsctl.kernel.apply import apply_plan
from lvsctl.model.addresses import Endpoint, host_route
from lvsctl.model.event import ignore
from lvsctl.model.evidence import Failure
from lvsctl.model.failover import Failover, HeldConnection, Moment, Step
from lvsctl.model.frame import VRRP, Direction, Frame
from lvsctl.model.lab import Lab, Node
from lvsctl.model.masters import Holders, has_one_master, master_by
from lvsctl.model.service import Protocol, VirtualService
from lvsctl.model.state import Connection, NodeState
from lvsctl.plan import planner
from lvsctl.plan.stages import Stage
from lvsctl.resources.address import Address
from lvsctl.resources.drop_filter import DropFilter
from lvsctl.resources.ipvs_config import SyncDaemon
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.link_up import LinkUp
from lvsctl.traffic import again
from lvsctl.traffic.every import Asked, SteadyClient, is_prompt

INTERVAL = 0.01
"""Seconds between two requests of the client that measures the outage."""

BEFORE, AFTER = 20, 20
"""Requests that are answered before anything is done, and at once afterwards."""

HELD = 3
"""Connections of each kind that are held: idle since their handshake, and with a request."""

LEARNT_SECONDS = 3.0
"""How long neighbours may take to learn from announcements who is master.

Shorter than an entry that was confirmed before is kept without a question: 15 s and more
(ARP's and ND's base_reachable_time, RFC 4861, section 6.3.2).
"""

ANSWER_SECONDS = 3.0
"""How long a held connection has to answer again: TCP sends lost data again after 0.2, 0.4 s …"""

_UNANSWERED = "no answer"


@dataclass(frozen=True, slots=True)
class Action:
    """What makes the master change: its sentence, and the function that does it."""

    text: str
    carry_out: Callable[[], None]
    back: bool = False
    split: bool = False
    """Whether the director that is master stays it, beside another one."""


def fail_over(
    lab: Lab,
    *,
    kill: str | None = None,
    cut: str | None = None,
    split: bool = False,
    back: bool = False,
) -> Failover:
    """Kill a director, cut one of its links, or bring everything back; tell what happened.

    ``split`` keeps every director's advertisements from the others.

    Without any, the master is killed. Raises UsageError where the lab has one director or no
    service over TCP, LabError where it has not exactly one master before.
    """
    if not lab.floating:
        raise UsageError(
            f"lab {lab.name} has one director: nothing takes over from it",
            hint="start one that has two: lvsctl up dr-ha",
        )
    service = service_of(lab)
    found = masters.holders(lab)
    if not back and not has_one_master(found):
        raise LabError(
            f"lab {lab.name} has not exactly one master now",
            hint=f"lvsctl diagnose {lab.name}, or bring it back: lvsctl failover {lab.name} --back",
        )
    master = lab.node(master_by(lab, found))
    action = _action(lab, master, kill, cut, split=split, back=back)
    with registry.lock(lab.name):
        return _measured(lab, service, master.name, action)


def service_of(lab: Lab) -> VirtualService:
    """Return the service with which a failover is measured. Raises UsageError."""
    service = next((one for one in lab.services if one.endpoint.protocol is Protocol.TCP), None)
    if service is None:
        raise UsageError(f"lab {lab.name} has no service over TCP, with which it is measured")
    return service


def _action(
    lab: Lab, master: Node, kill: str | None, cut: str | None, *, split: bool, back: bool
) -> Action:
    if sum(one is not None for one in (kill, cut)) + split + back > 1:
        raise UsageError("--kill, --cut, --split and --back exclude each other")
    if split:
        return Action(
            "directors do not receive each other's advertisements any more",
            lambda: split_directors(lab),
            split=True,
        )
    if back:
        return Action(
            f"everything of lab {lab.name} is brought back", lambda: revive(lab), back=True
        )
    if cut is not None:
        node, network = link_of(lab, master, cut)
        return Action(
            f"the link of {node.name} to {network} is cut", lambda: cut_links(lab, node, (network,))
        )
    node = master if kill is None else find_node(lab, kill)
    if node not in lab.directors:
        raise UsageError(f"{node.name} is no director", hint=f"the master is {master.name}")
    return Action(f"{node.name} loses its power", lambda: kill_director(lab, node))


def link_of(lab: Lab, master: Node, words: str) -> tuple[Node, str]:
    """Return the director and the network that NETWORK or DIRECTOR:NETWORK names."""
    name, colon, network = words.rpartition(":")
    node = find_node(lab, name) if colon else master
    if network not in node.networks or node not in lab.directors:
        links = ", ".join(f"{one.name}:{n}" for one in lab.directors for n in one.networks)
        raise UsageError(f"{words!r} is no link of a director", hint=f"these are: {links}")
    return node, network


def cut_links(lab: Lab, node: Node, networks: Sequence[str]) -> None:
    """Set the switches' ports of a node down."""
    undo.undo([LinkUp(netns=lab.netns(one), device=node.name) for one in networks], lab.name)


def split_directors(lab: Lab) -> None:
    """Drop VRRP's advertisements at every director, as a firewall does that does not know them."""
    versions = dict.fromkeys(one.version for one in lab.floating)
    filters = tuple(
        DropFilter(netns=lab.netns(node.name), device=device, protocol=VRRP, version=version)
        for node in lab.directors
        for device in node.networks
        for version in versions
    )
    apply_plan((Stage("split", filters),), lab.name, ignore, reconciling=True)


def kill_director(lab: Lab, node: Node) -> None:
    """Do what a power failure does: no link, no process, no virtual address."""
    cut_links(lab, node, node.networks)
    # The first process starts the others again: it goes first.
    while pids := commands.keepalived_pids(lab.name, lab.netns(node.name)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    held = [one for one, names in masters.holders(lab).items() if node.name in names]
    addresses = []
    for one in held:
        network = lab.network_of(one)
        if network is not None:
            addresses.append(
                Address(netns=lab.netns(node.name), device=network.name, address=host_route(one))
            )
    undo.undo(addresses, lab.name)
    table = _with_daemons(lab, node.name)
    undo.undo([*SyncDaemon.from_state(table), *IpvsService.from_state(table)], lab.name)


def _with_daemons(lab: Lab, director: str) -> NodeState:
    """Read a director's IPVS table and synchronization daemons."""
    name = lab.netns(director)
    found = state.node_state(name, sysctls=(), director=True)
    return netns.run_inside(name, lambda: wide.with_ipvs_config(found))


def _receivers(lab: Lab) -> dict[str, bool]:
    """Return, for each director with keepalived, whether it receives others' connections."""
    found = {}
    for node in lab.directors:
        if commands.keepalived_pids(lab.name, lab.netns(node.name)):
            daemons = _with_daemons(lab, node.name).sync_daemons
            found[node.name] = any(one.state == "backup" for one in daemons)
    return found


def bring_back(lab: Lab) -> None:
    """Make the lab what its topology says, as ``up`` does."""
    form = reconcile.Form(lab, planner.plan_for(lab), _entry(lab))
    reconcile.change(form, form, ignore)


def revive(lab: Lab) -> None:
    """The same, but injected faults stay: with them it is to be seen who is master again."""
    injector = FaultInjector(lab)
    reconcile.repair(reconcile.Form(lab, injector.broken_plan(), _entry(lab)), ignore)
    injector.inject_again()


def _entry(lab: Lab) -> registry.Entry:
    entry = registry.read(lab.name)
    if entry is None:
        raise LabError(f"lab {lab.name} is not running")
    return entry


# ── measuring ────────────────────────────────────────────────────────────────────────────────


def _measured(lab: Lab, service: VirtualService, before: str, action: Action) -> Failover:
    endpoint = service.endpoint
    sender = lab.default_client
    nodes: dict[str | Path, str] = {lab.netns(node.name): node.name for node in lab.nodes}
    patience = masters.takeover_seconds(lab)
    receivers = _receivers(lab)
    name = lab.netns(sender.name)
    with Capture(nodes, quiet=0.1) as capture, held_connections(name, service) as connections:
        with SteadyClient(name, endpoint.vip, endpoint.port, INTERVAL) as client:
            # What is to be brought back may answer nothing.
            client.wait_for_answers(0.0, BEFORE, 1.0 if action.back else patience)
            began = time.clock_gettime_ns(time.CLOCK_REALTIME)
            found = masters.holders(lab)
            action.carry_out()
            holders = _wait_for_another(lab, found, patience)
            after = _new_master(lab, holders, before if action.split else "")
            # An entry that announcements did not change is confirmed, or asked for again, later.
            answered = client.wait_for_answers(time.time(), AFTER, LEARNT_SECONDS)
            known = _neighbours(lab)
            moved = _moved(lab, began, (before, after), holders, known)
            if not answered and not story.entries_of(moved)[1]:
                answered = client.wait_for_answers(time.time(), AFTER, patience)
            table = _table(lab, after)
            held = go_on(connections, table)
        asked = sorted(client.asked)  # those that wait for an answer are over now
    moved = replace(
        moved,
        frames=capture.frames,
        dropped=sum(capture.drops.values()),
        receiving=receivers.get(after),
        back=action.back,
    )
    moved = replace(moved, held=tuple(_explained(moved, service, one) for one in held))
    worst = max(outages(asked, began / 1e9), key=lambda one: one.seconds, default=None)
    steps = [
        Step(0.0, Moment.ACTION, "", action.text),
        *story.story(moved),
        *_answers(worst, began, sender.name),
        *([] if answered else _last_answer(asked, began, sender.name)),
    ]
    gaps = [later - earlier for earlier, later in pairwise([one.sent for one in asked])]
    return Failover(
        lab.name,
        service.name,
        action.text,
        sender.name,
        before,
        after,
        INTERVAL * 1000,
        (worst.blur if worst is not None else max(gaps, default=0.0)) * 1000,
        (worst.seconds * 1000 if worst is not None else 0.0) if answered else None,
        len(asked),
        sum(map(is_prompt, asked)),
        tuple(sorted(steps, key=lambda step: step.at)),
        moved.held,
        story.findings(moved, service.name),
        back=action.back,
        masters=tuple(dict.fromkeys(n for names in holders.values() for n in names)),
    )


def _moved(
    lab: Lab,
    began: int,
    masters: tuple[str, str],
    holders: Holders,
    known: Mapping[str, NodeState],
) -> story.Moved:
    """Return what is known of a failover before its frames are decoded."""
    return story.Moved(
        lab,
        (),
        began,
        *masters,
        holders,
        {node: found.neighbours for node, found in known.items()},
        {
            node: frozenset(link.mac for link in found.links if link.mac)
            for node, found in known.items()
        },
    )


def _new_master(lab: Lab, holders: Holders, but: str) -> str:
    """Return who is master, other than ``but`` where there are two; empty: none is."""
    names = {name for found in holders.values() for name in found}
    if but and names - {but}:
        return min(names - {but})
    return master_by(lab, holders) if names else ""


def _wait_for_another(lab: Lab, before: Holders, patience: float) -> Holders:
    """Wait until a director holds the addresses that did not; or it is known that none will."""
    now = masters.holders(lab)
    if now != before and has_one_master(now):
        return now
    return masters.wait_for_change(lab, before) if patience else now


class Outage(NamedTuple):
    """A time without an answer, in seconds since the epoch: after ``last``, until ``first``.

    ``blur``: how long no request was sent at its beginning and at its end.
    """

    last: float
    first: float
    blur: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.first - self.last


def outages(asked: Sequence[Asked], began: float) -> list[Outage]:
    """Return the times without an answer that end after ``began``.

    From the last answer that came at once to the first that does again; between them are
    requests whose answer did not. Where none was sent, nothing is known to be out.
    """
    found: list[Outage] = []
    last: Asked | None = None
    failed: list[Asked] = []
    for one in sorted(asked):
        if not is_prompt(one):
            failed.append(one)
            continue
        if failed and last is not None and one.answered > began:
            blur = failed[0].sent - last.sent + one.sent - failed[-1].sent
            found.append(Outage(last.answered, one.answered, blur))
        last, failed = one, []
    return found


def _last_answer(asked: Sequence[Asked], began: int, client: str) -> Iterator[Step]:
    """Yield the last answer of an outage that was not over when the client ended."""
    last = max((one.answered for one in asked if is_prompt(one)), default=0.0)
    if last:
        text = f"{client} receives its last answer"
        yield Step(last * 1e3 - began / 1e6, Moment.LAST_ANSWER, client, text)


def _answers(worst: Outage | None, began: int, client: str) -> Iterator[Step]:
    """Yield the last answer before the outage, and the first one after it."""
    if worst is None:
        return
    for moment, when, text in (
        (Moment.LAST_ANSWER, worst.last, "receives its last answer"),
        (Moment.ANSWERED, worst.first, "receives an answer again"),
    ):
        yield Step(when * 1e3 - began / 1e6, moment, client, f"{client} {text}")


def _neighbours(lab: Lab) -> dict[str, NodeState]:
    return {
        node.name: found
        for node in lab.nodes
        for found in (state.node_state(lab.netns(node.name), sysctls=()),)
    }


def _table(lab: Lab, director: str) -> tuple[Connection, ...]:
    if not director:
        return ()
    return netns.run_inside(lab.netns(director), state.read_connections)


# ── held connections ─────────────────────────────────────────────────────────────────────────


class Held(NamedTuple):
    """A connection that was held open, and what came of its last request."""

    client: Endpoint
    error: str = ""
    """Why it was not answered; empty: it was."""
    known: bool = False
    """Whether the new director had the connection in its table."""

    @property
    def survived(self) -> bool:
        """Whether the last request was answered."""
        return not self.error


@contextlib.contextmanager
def held_connections(name: str, service: VirtualService) -> Iterator[again.Flows]:
    """Open connections that have asked nothing yet, and others that have an answer."""
    with again.opened(name, service.endpoint, 2 * HELD, ANSWER_SECONDS) as flows:
        flows.ask(HELD)
        yield flows


def go_on(flows: again.Flows, table: Sequence[Connection]) -> list[Held]:
    """Ask once more over every connection; ``table`` is the new director's before that."""
    known = {Endpoint(one.client, one.client_port) for one in table}
    flows.ask()
    found = []
    for *_, last in flows.exchanges:
        if last.local is not None:
            late = last.error == Failure.TIMED_OUT
            error = f"{_UNANSWERED} within {ANSWER_SECONDS:g} s" if late else last.error
            found.append(Held(last.local, error, last.local in known))
    return found


def _explained(moved: story.Moved, service: VirtualService, one: Held) -> HeldConnection:
    """Say of a held connection how many packets it had, and why it did not survive."""
    vip = Endpoint(service.endpoint.vip, service.endpoint.port)

    def is_request(frame: Frame) -> bool:
        return frame.flow is not None and (frame.flow.src, frame.flow.dst) == (one.client, vip)

    packets = sum(
        frame.tap.node == moved.before
        and frame.direction is Direction.IN
        and frame.time <= moved.began
        and is_request(frame)
        for frame in moved.frames
    )
    why = "" if one.survived else _why(moved, packets, one)
    server = next(
        (
            frame.tap.node
            for frame in moved.frames
            if frame.direction is Direction.OUT
            and frame.flow is not None
            and frame.flow.dst == one.client
            and any(s.node == frame.tap.node for s in service.real_servers)
        ),
        "",
    )
    return HeldConnection(str(one.client), server, packets, one.known, one.survived, why)


def _why(moved: story.Moved, packets: int, one: Held) -> str:
    if not moved.after:
        return f"{one.error}: no director took over"
    wrong = story.entries_of(moved)[1]
    if wrong and one.error.startswith(_UNANSWERED):
        return f"{one.error}: {'; '.join(wrong)}"
    if one.known:
        return f"{one.error}, although {moved.after} has it in its table"
    return f"{one.error}: {moved.after} does not know it, {_unknown(moved, packets)}"


def _unknown(moved: story.Moved, packets: int) -> str:
    """Return why the new director does not know a connection."""
    ha = moved.lab.node(moved.before).ha
    if ha is None or not ha.sync:
        return "because connections are not synchronized (sync: true)"
    if moved.receiving is None:
        return "because its keepalived did not run when the connection began"
    if not moved.receiving:
        return "because it received no connections then (no synchronization daemon as backup)"
    first, period = ha.sync_threshold
    if packets < first:
        return f"because it had {packets} packets: sync_threshold is {first} {period}"
    return f"though it had {packets} packets (sync_threshold {first} {period})"
