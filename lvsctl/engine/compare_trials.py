"""Trials in a running lab for the comparison: what is tried rather than asserted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lvsctl import claims
from lvsctl.capture.capture import Capture
from lvsctl.engine import collect
from lvsctl.engine.up import apply_to_running
from lvsctl.faults import FAULTS
from lvsctl.faults.injector import FaultInjector
from lvsctl.kernel import undo
from lvsctl.kernel.paths import InjectedFault
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Finding, Verdict
from lvsctl.model.compare import MethodCell
from lvsctl.model.evidence import Exchange
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Lab
from lvsctl.model.service import ForwardingMethod
from lvsctl.plan import planner
from lvsctl.resources.ipvs_real_server import FORWARD_FLAG, IpvsRealServer
from lvsctl.traffic import client

REPLY = 6000
"""Bytes of a reply that needs several full-sized packets."""

OTHER_PORT = 8080
"""The port of the real servers that is tried instead of the service's."""

ROUNDS = 20
"""Requests whose time is measured, to the VIP and to a real server in turn."""

PATIENCE = 1.5
"""Seconds that a request of a trial may take."""


def _ask(lab: Lab, address: IPAddress, port: int, count: int = 1, path: str = "/",
         patience: float = PATIENCE) -> tuple[Exchange, ...]:  # fmt: skip
    sender = lab.netns(lab.default_client.name)
    return client.requests(sender, address, port, count=count, concurrency=count, path=path,
                           timeout=patience, connect=patience)  # fmt: skip


def without(lab: Lab, fault: str) -> tuple[str, tuple[Frame, ...]]:
    """Take one thing away from a real server by a fault, and say what became of requests."""
    injector = FaultInjector(lab)
    node = injector.node_for(FAULTS[fault])
    try:
        injector.inject(FAULTS[fault], node)
        evidence = collect.collect_evidence(lab, settings=False)
    finally:
        injector.restore([InjectedFault(fault, node)])
    failed = [one for one in claims.findings(evidence) if one.verdict is Verdict.FAIL]
    run = evidence.runs[0]
    answered = f"{len(run.answered)} of {len(run.exchanges)} answered"
    if len(run.answered) == len(run.exchanges):
        first, *others = dict.fromkeys(one.claim.id for one in failed) or ("no claim",)
        more = f" and {len(others)} more claims fail" if others else " fails"
        answered += f", but {first}{more}"
    return f"{fault}: {answered}", _frames(failed)


def _frames(findings: Sequence[Finding]) -> tuple[Frame, ...]:
    return next((one.frames[:2] for one in findings if one.frames), ())


def exposed(lab: Lab, method: ForwardingMethod) -> MethodCell:
    """Try to reach a real server, the director and another port of the VIP from the client."""
    service = lab.services[0]
    port, vip = service.endpoint.port, service.endpoint.vip
    server = service.real_servers[0]
    director = next(one for one in lab.directors[0].addresses if one.version == vip.version)
    parts = []
    figures = {}
    for name, address, asked in (
        ("RIP", server.rip, server.answers_at(service.endpoint)),
        ("DIP", director, port),
        ("VIP", vip, port + 1),
    ):
        (found,) = _ask(lab, address, asked)
        parts.append(f"{name}:{asked} {'answers' if found.answered else found.error}")
        figures[f"{name}:{asked}"] = int(found.answered)
    command = _typed(lab, f"curl -s -m 2 http://{server.rip}:{port}/")
    return MethodCell(method, ", ".join(parts), command, figures=figures)


def other_port(lab: Lab, method: ForwardingMethod) -> MethodCell:
    """Let IPVS's table have another port of the real servers; see where requests arrive."""
    service = lab.services[0]
    entries = _entries(lab)
    others = [
        replace(one, real_server=replace(one.real_server, port=OTHER_PORT)) for one in entries
    ]
    servers = {one.real_server.node for one in entries}
    with _instead(lab, entries, others), _captured(lab) as capture:
        _ask(lab, service.endpoint.vip, service.endpoint.port)
    arrived = [
        frame
        for frame in capture.frames
        if frame.tap.node in servers
        and frame.direction is Direction.IN
        and frame.packet.opens_connection
    ]
    ports = {frame.flow.dst.port for frame in arrived if frame.flow is not None}
    text = f"none arrived for port {OTHER_PORT}"
    if ports == {OTHER_PORT}:
        text = f"yes: arrives at port {OTHER_PORT}"
    elif ports:
        text = f"no: arrives at port {', '.join(map(str, sorted(ports)))} all the same"
    flag = FORWARD_FLAG[method]
    server = service.real_servers[0]
    vip = f"{service.endpoint.vip}:{service.endpoint.port}"
    # With TUN and DR ipvsadm writes the service's port instead (ipvsadm(8), -r).
    table = (
        f"ipvsadm -d -t {vip} -r {server.rip}:{server.port}; "
        f"ipvsadm -a -t {vip} -r {server.rip}:{OTHER_PORT} {flag}; ipvsadm -Ln"
    )
    command = f"lvsctl exec {lab.name}/{lab.directors[0].name} -- sh -c '{table}'"
    return MethodCell(method, text, command, frames=tuple(arrived[:2]),
                figures={"asked": OTHER_PORT, "arrived": max(ports, default=0)})  # fmt: skip


def times(lab: Lab) -> tuple[list[float], list[float]]:
    """Measure requests to the VIP and to the real server that answers, in turn, in seconds."""
    service = lab.services[0]
    through: list[float] = []
    direct: list[float] = []
    server = service.real_servers[0]
    for _ in range(ROUNDS):
        for address, port, into in (
            (service.endpoint.vip, service.endpoint.port, through),
            (server.rip, server.answers_at(service.endpoint), direct),
        ):
            (found,) = _ask(lab, address, port)
            if found.answered:
                into.append(found.seconds)
    return through, direct


def large_reply(lab: Lab) -> tuple[Frame, ...]:
    """Return the frames of a large reply as they arrive at the client."""
    service = lab.services[0]
    with _captured(lab) as capture:
        _ask(lab, service.endpoint.vip, service.endpoint.port, path=f"/bytes/{REPLY}", patience=5.0)
    name = lab.default_client.name
    return tuple(
        frame
        for frame in capture.frames
        if frame.tap.node == name and frame.direction is Direction.IN and frame.flow is not None
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """How many requests of how many were answered."""

    answered: int
    sent: int

    def __str__(self) -> str:
        return f"{self.answered} of {self.sent} answered"


def forwarded_by(lab: Lab, method: ForwardingMethod, count: int) -> Answered:
    """Let IPVS forward by another method to the same real servers, and send requests."""
    entries = _entries(lab)
    others = [replace(one, real_server=replace(one.real_server, forward=method)) for one in entries]
    with _instead(lab, (), others, back=entries):
        return asked(lab, count)


def asked(lab: Lab, count: int) -> Answered:
    """Send requests at the same time."""
    endpoint = lab.services[0].endpoint
    found = _ask(lab, endpoint.vip, endpoint.port, count)
    return Answered(sum(one.answered for one in found), count)


def _entries(lab: Lab) -> list[IpvsRealServer]:
    return [one for one in planner.plan_for(lab).resources if isinstance(one, IpvsRealServer)]


@contextmanager
def _instead(
    lab: Lab,
    removed: Sequence[IpvsRealServer],
    added: Sequence[IpvsRealServer],
    back: Sequence[IpvsRealServer] = (),
) -> Iterator[None]:
    """Let IPVS's table have other entries inside the ``with`` block."""
    try:
        undo.undo(removed, lab.name)
        apply_to_running(lab, *added)
        yield
    finally:
        if removed:
            undo.undo(added, lab.name)
        apply_to_running(lab, *(removed or back))


def _captured(lab: Lab) -> Capture:
    return Capture({lab.netns(node.name): node.name for node in lab.nodes}, quiet=0.1)


def _typed(lab: Lab, command: str) -> str:
    return f"lvsctl exec {lab.name}/{lab.default_client.name} -- {command}"
