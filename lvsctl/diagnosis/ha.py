"""Why not exactly one of several directors is master (VRRP)."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.claims.ha import Advertisement, advertisements, daemon_of, senders
from lvsctl.diagnosis.base import Case, Found, Rule, shown
from lvsctl.diagnosis.packet_filter import may_stop_vrrp
from lvsctl.diagnosis.packet_loss import remedy_of
from lvsctl.model.claim import Cause
from lvsctl.model.frame import Direction
from lvsctl.model.lab import HighAvailability, Node
from lvsctl.model.masters import holders_in
from lvsctl.resources.keepalived import PROCESS, PROCESSES, is_running


def not_running(case: Case) -> Iterator[Found]:
    """Directors on which keepalived does not run."""
    for node in case.lab.directors:
        state = case.evidence.states.get(node.name)
        if state is None or not (state.whole or case.by_state):
            continue
        # Elsewhere, keepalived may leave the virtual servers to others, with fewer processes.
        found = (one for one in state.processes if one.process == PROCESS)
        alive = any(one.state != "Z" for one in found)
        runs = alive if case.by_state else is_running(state)
        if not runs:
            yield Cause(
                fault="keepalived-stopped",
                node=node.name,
                text="keepalived does not run",
                evidence=(_processes(case, node.name),),
                consequence="it takes over from no other director",
                remedy=case.type(node.name, "systemctl", "start", "keepalived")
                if case.by_state
                else case.restore(node.name),
            )


def _processes(case: Case, node: str) -> str:
    found = [one for one in case.state(node).processes if one.process == PROCESS]
    if not found:
        where = "runs on it" if case.by_state else "is in its namespace"
        return f"no process of that name {where}"
    pids = ", ".join(str(one.pid) for one in found)
    return f"only {len(found)} of its {PROCESSES} processes are in its namespace: {pids}"


def two_masters(case: Case) -> Iterator[Found]:
    """Directors that are master beside another one, and what keeps them from knowing."""
    lab = case.lab
    held = holders_in(lab, {name: state.links for name, state in case.evidence.states.items()})
    masters = [d for d in lab.directors if any(d.name in names for names in held.values())]
    if len(masters) < 2:
        return
    ranked = sorted(masters, key=lambda node: -(node.ha.priority if node.ha else 0))
    first, *others = ranked
    sent = senders(case.evidence)
    for node in others:
        both = f"{first.name} and {node.name} both hold {', '.join(map(str, lab.floating))}"
        consequence = "clients reach one or the other, whose answer to ARP comes last"
        own, its = sent.get(node.name), sent.get(first.name)
        ours = _router_ids(case, node.name)
        wrong = ours - _planned_ids(node.ha)
        if wrong and ours != _router_ids(case, first.name):
            yield Cause(
                fault="vrrp-router-id",
                node=node.name,
                text=f"its virtual router id is {_listed(wrong)}, not {_near(node.ha)}",
                evidence=(both, *_quoted(own), *_quoted(its)),
                consequence=f"each takes no notice of the other: {consequence}",
                remedy=case.restore(node.name),
            )
            continue
        came = [
            one
            for one in advertisements(case.evidence)
            if one.frame.tap.node == node.name and one.frame.direction is not Direction.OUT
        ]
        if own is not None and its is not None and own.password != its.password:
            yield _password(case, node, first, (both, *_quoted(own), *_quoted(its)), consequence)
            continue
        if case.by_state:
            yield _split_brain(case, node, both, consequence)
            continue
        arrival = (
            f"{first.name}'s advertisements reach its interface, and it is master all the same"
            if came
            else f"no advertisement of {first.name} reaches it"
        )
        switches = [
            one
            for one in case.changes
            if not came and one.place in {*node.networks} & {*first.networks}
        ]
        for one in switches:
            text = one.difference.deviation.text
            yield Cause(
                fault="differs-from-topology",
                node=one.place,
                text=text,
                evidence=(f"{one.place} differs from the topology: {text}", both, arrival),
                consequence=f"both are master (split brain): {consequence}",
                remedy=remedy_of(case, one),
            )
        if switches:
            continue
        filters = [
            f"a filter of traffic control at {one.device}: {', '.join(one.actions)}"
            for one in case.state(node.name).filters
            if "drop" in one.actions or "gact" in one.actions
        ]
        filters += [
            f"{place}: a packet filter has {rule}"
            for place in (node.name, first.name)
            for rule in case.evidence.packet_filters.get(place, ())
            if rule.foreign and rule.packets != 0 and may_stop_vrrp(case, place, rule)
        ]
        yield Cause(
            fault="vrrp-filtered",
            node=node.name,
            text="it does not receive the master's advertisements (IP protocol 112)",
            evidence=(both, arrival, *_quoted(came[0] if came else its), *filters[:2]),
            consequence=f"it is master too (split brain): {consequence}",
            remedy=case.restore(node.name),
        )


def _split_brain(case: Case, node: Node, both: str, consequence: str) -> Cause:
    """Two masters whose advertisements were not captured."""
    network = case.lab.network_of(case.vip)
    device = case.network.device(node.name, network.name if network else node.networks[0])
    return Cause(
        fault="vrrp-filtered",
        node=node.name,
        text="it holds the VIP beside another director",
        evidence=(both,),
        consequence=(
            "both are master, each without the other's advertisements (split brain), or one has "
            f"the address by hand: {consequence}"
        ),
        remedy=case.type(node.name, "tcpdump", "-vnni", device, "ip", "proto", "112"),
    )


def _password(
    case: Case, node: Node, first: Node, evidence: tuple[str, ...], consequence: str
) -> Cause:
    """Name the director whose advertisements do not carry the topology's password."""
    right = (node.ha.password if node.ha else "").encode().ljust(8, b"\0")
    sent = senders(case.evidence)[node.name].password.ljust(8, b"\0")
    wrong, other = (node, first) if sent != right else (first, node)
    return Cause(
        fault="vrrp-password",
        node=wrong.name,
        text=f"its password for VRRP is not {other.name}'s",
        evidence=(*evidence, "the passwords in them differ"),
        consequence=f"each discards the other's advertisements: {consequence}",
        remedy=case.restore(wrong.name),
    )


def not_synchronized(case: Case) -> Iterator[Found]:
    """Backups that do not receive the master's connections."""
    if not case.failed(_SYNCHRONIZED):
        return
    master = case.trace.master
    sender = daemon_of(case.state(master), "master")
    consequence = "after a failover every connection is reset"
    if sender is None:
        start = ("--start-daemon", "master", "--mcast-interface", case.lab.node(master).networks[0])
        yield Cause(
            fault="sync-daemon-missing",
            node=master,
            text="the master does not send its connections: no synchronization daemon runs",
            evidence=(f"{master}: no synchronization daemon in state master",),
            consequence=consequence,
            remedy=case.type(master, "ipvsadm", *start),
        )
        return
    start = ("--mcast-interface", sender.interface, "--syncid", str(sender.sync_id))
    for name in case.trace.directors:
        receiver = daemon_of(case.state(name), "backup")
        if name == master:
            continue
        remedy = case.type(name, "ipvsadm", "--start-daemon", "backup", *start)
        sends = f"{master} sends them on {sender.interface}, sync id {sender.sync_id}"
        if receiver is None:
            yield Cause(
                fault="sync-daemon-missing",
                node=name,
                text="it does not receive the master's connections: no synchronization daemon runs",
                evidence=(sends, f"{name}: no synchronization daemon in state backup"),
                consequence=consequence,
                remedy=remedy,
            )
        elif (receiver.interface, receiver.sync_id) != (sender.interface, sender.sync_id):
            stop = case.type(name, "ipvsadm", "--stop-daemon", "backup")
            yield Cause(
                fault="sync-daemon-elsewhere",
                node=name,
                text="it receives connections where the master does not send them",
                evidence=(
                    sends,
                    f"{name} receives on {receiver.interface}, sync id {receiver.sync_id}",
                ),
                consequence=consequence,
                remedy=f"{stop} && {remedy}",
            )


def _router_ids(case: Case, node: str) -> set[int]:
    return {
        one.router_id
        for one in advertisements(case.evidence)
        if one.frame.tap.node == node and one.frame.direction is Direction.OUT
    }


def _planned_ids(ha: HighAvailability | None) -> set[int]:
    """The ids that a director may have: one for each network and IP version."""
    first = ha.router_id if ha is not None else 0
    return {(first + number - 1) % 255 + 1 for number in range(8)}


def _near(ha: HighAvailability | None) -> int:
    return ha.router_id if ha is not None else 0


def _listed(ids: set[int]) -> str:
    return ", ".join(map(str, sorted(ids)))


def _quoted(one: Advertisement | None) -> tuple[str, ...]:
    return shown((one.frame,)) if one is not None else ()


_SYNCHRONIZED = "ha.connections-synchronized"


def takes_over(case: Case) -> bool:
    """Whether the directors of the lab take over from each other."""
    return bool(case.lab.floating)


def _synchronized(case: Case) -> bool:
    """Whether that was judged: not without requests, nor where connections are not sent."""
    return any(finding.claim.id == _SYNCHRONIZED for finding in case.findings)


RULES = (
    Rule(
        find=not_running,
        applies=takes_over,
        rules_out="keepalived runs on every director",
        latent=True,
    ),
    Rule(
        find=not_synchronized,
        applies=_synchronized,
        rules_out="the backups receive the master's connections",
        latent=True,
    ),
    Rule(
        find=two_masters,
        applies=takes_over,
        rules_out="one director is master",
        latent=True,
        harms_others=True,
    ),
)
