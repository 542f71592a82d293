"""Rules about what stopped packets where no rule knows what the setting does.

``BLOCKING`` is applied with the others; the rest are the last resort, if nothing explains a loss.

First whatever differs from the topology where the packets were captured last; then that place.

What drops it is not known then. It shows in the frames where: they enter a node that should
forward or answer them, and nothing leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lvsctl.claims.trace import Conversation
from lvsctl.diagnosis.base import Case, Found, Rule, shown
from lvsctl.diagnosis.differences import Changed
from lvsctl.diagnosis.lost_at import lost_at
from lvsctl.model.claim import Cause, Remark
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Role
from lvsctl.resources.bridge import Bridge
from lvsctl.resources.drop_filter import DropFilter
from lvsctl.resources.foreign import BridgeVlan, FdbEntry, Xfrm
from lvsctl.resources.link_setting import LinkSetting
from lvsctl.resources.qdisc import Qdisc


def swallowed(case: Case) -> Iterator[Found]:
    """Packets that entered a node and did not leave it."""
    found: dict[tuple[str, bool], Cause] = {}
    for conversation in case.conversations:
        if conversation.exchange.answered:
            continue
        cause = _last_seen(case, conversation)
        if cause is not None:
            found.setdefault((cause.node, cause.fault == "tunnel-filtered"), cause)
    yield from found.values()


def _last_seen(case: Case, conversation: Conversation) -> Cause | None:
    frames = [f for f in conversation.replies if f.direction is not Direction.OTHER]
    reply = bool(frames)
    frames = frames or [f for f in conversation.requests if f.direction is not Direction.OTHER]
    if not frames:
        return None
    last = max(frames, key=lambda f: f.time)
    node = last.tap.node
    if last.direction is Direction.OUT or (reply and node == case.client):
        return None  # lost between nodes, or refused: not filtered by a node
    role = case.lab.node(node).role
    if role is Role.CLIENT:
        return None
    unanswered = _unanswered(case, last)
    if unanswered is not None:
        return _not_found(case, node, unanswered)
    return _swallowing(case, node, last, reply)


def _unanswered(case: Case, last: Frame) -> Frame | None:
    """An unanswered ARP request of the node that captured the packet last."""
    node = last.tap.node
    answered = {
        frame.arp.sender_ip
        for frame in case.trace.at(node)
        if frame.arp is not None and not frame.arp.is_request
    }
    for frame in case.trace.at(node):
        arp = frame.arp if frame.direction is Direction.OUT else None
        if arp is not None and arp.is_request and arp.target_ip not in answered:
            return frame
    return None


def _not_found(case: Case, node: str, question: Frame) -> Cause:
    """The next hop does not answer, although its state says that it would."""
    device = question.tap.device
    target = question.arp.target_ip if question.arp is not None else None
    owner = next(
        (
            other.name
            for other in case.lab.nodes
            if any(a.ip == target for a in other.addresses_on(device))
        ),
        "",
    )
    heard = [
        frame
        for frame in (case.trace.at(owner) if owner else ())
        if frame.arp is not None and frame.arp.is_request and frame.arp.target_ip == target
    ]
    looking = case.type(owner or node, "tc", "-s", "qdisc", "show", "dev", device)
    return Cause(
        fault="arp-unanswered",
        node=owner if heard else node,
        text=(
            f"{owner} receives ARP requests for {target} but does not answer"
            if heard
            else f"ARP requests for {target} do not reach the node that has it"
        ),
        evidence=shown([question, *heard], 2),
        consequence=f"{node} cannot resolve {target} and drops packets for it",
        remedy=looking
        if heard
        else f"bridge -n {case.lab.netns(device)} -d link show  # is a port isolated, or a VLAN's?",
    )


def _filters(case: Case) -> str:
    """What is known of packet filters; older reports do not contain them."""
    if any(state.whole for state in case.evidence.states.values()):
        return "no packet filter that counts its packets matched them"
    return "packet filters were not read"


def _swallowing(case: Case, node: str, last: Frame, reply: bool) -> Cause:
    wrapped = len(last.ips) > 1
    what = "replies" if reply else "requests"
    outer = last.outer.protocol if last.outer is not None else 0
    protocol = f" in IP packets (protocol {outer})" if wrapped else ""
    role = case.lab.node(node).role
    return Cause(
        fault="tunnel-filtered" if wrapped and role is Role.ROUTER else "packets-filtered",
        node=node,
        text=(
            f"{what}{protocol} enter {node} but do not leave it, and nothing that was read says why"
        ),
        evidence=(
            f"{node}: {what}{protocol} come in, {_filters(case)}, and nothing leaves it",
            *shown([last]),
        ),
        consequence=f"{what} end at {node}",
        remedy=case.restore(node),
    )


# ── differences from the topology ────────────────────────────────────────────────────────────


def explaining(case: Case) -> Iterator[Found]:
    """Differences where packets were lost; where there are none, all of them."""
    losses = lost_at(case)
    here = [one for one in case.changes if one.place in losses]
    ends = _ends(case, (frame for frames in losses.values() for frame in frames))
    beside = [one for one in case.changes if one.place in ends]
    chosen = here or beside or case.changes
    for one in case.changes:
        if one not in chosen:
            yield Remark(one.place, f"{one.difference.deviation.text} (differs from the topology)")
            continue
        yield _differing(case, one, losses)


def _differing(case: Case, one: Changed, losses: Mapping[str, tuple[Frame, ...]]) -> Cause:
    text = one.difference.deviation.text
    return Cause(
        fault=_fault(case, one, losses),
        node=one.place,
        text=text,
        evidence=(
            f"{one.place} differs from the topology: {text}",
            *shown(losses.get(one.place, ()) or next(iter(losses.values()), ())),
        ),
        consequence=_consequence(case, one, losses),
        remedy=remedy_of(case, one),
    )


_BLOCKING = (Qdisc, DropFilter, Xfrm)
_BLOCKING_SWITCH = (*_BLOCKING, Bridge, BridgeVlan, FdbEntry, LinkSetting)
"""What stops packets, and is known only as a difference from the topology: no rule reads it."""


def blocking(case: Case) -> Iterator[Found]:
    """Filters, policies and switch settings where packets were lost, whatever else is wrong.

    Where only large requests hang, the rules for the path MTU know more.
    """
    small = all(exchange.answered for exchange in case.trace.run.exchanges)
    losses = {} if small else lost_at(case)
    for one in case.changes:
        if one.place in losses and _blocks(case, one):
            yield _differing(case, one, losses)


def _blocks(case: Case, one: Changed) -> bool:
    resource = one.difference.resource
    if isinstance(resource, Qdisc) and resource.parent == "root":
        return bool(resource.filters)  # what else it does is found by the rule for links
    of_switch = any(one.place == network.name for network in case.lab.networks)
    return isinstance(resource, _BLOCKING_SWITCH if of_switch else _BLOCKING)


def _ends(case: Case, frames: Iterable[Frame]) -> frozenset[str]:
    """The nodes that sent lost packets, and those that they were addressed to."""
    found = set()
    for frame in frames:
        found.add(frame.tap.node)
        if frame.ethernet is not None:
            nodes = (node.name for node in case.lab.nodes)
            found.update(name for name in nodes if frame.ethernet.dst in case.trace.macs(name))
    return frozenset(found)


def _fault(case: Case, one: Changed, losses: Mapping[str, tuple[Frame, ...]]) -> str:
    resource = one.difference.resource
    if one.place not in {node.name for node in case.lab.nodes} or not isinstance(
        resource, (Qdisc, DropFilter)
    ):
        return "differs-from-topology"
    if isinstance(resource, Qdisc) and not resource.filters:
        return "differs-from-topology"
    tunnelled = any(len(frame.ips) > 1 for frame in losses.get(one.place, ()))
    routes = case.lab.node(one.place).role is Role.ROUTER
    return "tunnel-filtered" if tunnelled and routes else "packets-filtered"


def _consequence(case: Case, one: Changed, losses: Mapping[str, tuple[Frame, ...]]) -> str:
    if one.place in losses:
        return f"packets of the requests were captured last at {one.place}"
    where = ", ".join(losses) or case.client
    return f"packets of the requests were captured last at {where}; nothing else explains it"


def remedy_of(case: Case, one: Changed) -> str:
    """The command that undoes a difference from the topology."""
    commands = one.difference.commands
    # What has no namespace is no program to run there: a function of the shell script.
    if len(commands) != 1 or not commands[0].argv or not commands[0].netns:
        return case.restore(one.place)
    return case.type(one.place, *commands[0].argv)


BLOCKING = (
    Rule(
        find=blocking,
        by_state=False,
        harms_others=True,
        rules_out="no filter, policy or switch setting stops packets where they were lost",
    ),
)
"""To be applied with the other rules."""
RULES = (
    Rule(find=swallowed, by_state=False, rules_out="no node drops packets whose path is in order"),
)
CHANGED = (
    Rule(
        find=explaining,
        by_state=False,
        harms_others=True,
        rules_out="nothing else differs from the topology",
    ),
)
"""To be applied before ``RULES``: where one finds a cause, the packets did not just vanish."""
