"""Take a real server out of a running lab while flows run: what became of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product

from lvsctl.claims import draining
from lvsctl.claims.flows import Observed, differing
from lvsctl.engine.experiment import Change, Directors, Experiment
from lvsctl.engine.labs import find_node
from lvsctl.engine.up import temporary_lab
from lvsctl.errors import UsageError
from lvsctl.kernel import probe, registry, undo
from lvsctl.model.flows import (
    DRAINED,
    Drain,
    DrainRow,
    FlowKind,
    FlowResult,
    FlowSetting,
    SettingTrial,
    Way,
)
from lvsctl.model.ipvs_sysctls import IPVS_SYSCTLS
from lvsctl.model.lab import Lab
from lvsctl.model.service import IpvsTimeouts, Protocol, VirtualService
from lvsctl.plan import planner
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.typed import typeable
from lvsctl.topology import shipped
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology
from lvsctl.traffic.flows import INTERVAL, Wanted
from lvsctl.traffic.responder import set_stopped

WINDOW = 4.0
"""Seconds for which flows are watched: TCP keepalives notice a silent server after three."""

SHORT = 10
"""Seconds of IPVS's timeouts up to which it is waited until a flow's entry has expired."""

PERSISTENT_FOR = 300
"""Seconds of the persistence that is tried where a service has none."""

VALUES = {
    "expire_nodest_conn": ("0", "1"),
    "expire_quiescent_template": ("0", "1"),
    "conn_reuse_mode": ("0", "1", "2"),
}
"""The settings that decide, with the values that are tried; conn_reuse_mode is a set of bits."""

MATRIX_TOPOLOGY = "draining"
MATRIX_SERVER = "rs1"
MATRIX_TIMEOUT = 2
"""Seconds after which entries expire in the matrix, so that it is seen what happens then."""


@dataclass(frozen=True, slots=True)
class _Drain(Experiment):
    """A real server that is taken out by ``way``."""

    way: Way

    @property
    def ports(self) -> tuple[ResponderPort, ...]:
        """What serves on the real server."""
        plan = planner.plan_for(self.lab)
        ports = (one for one in plan.resources if isinstance(one, ResponderPort))
        return tuple(one for one in ports if one.node == self.server.name)

    def run(self, change: Change) -> tuple[Observed, tuple[FlowResult, ...]]:
        """Take the real server out once; the caller holds the lab's lock."""
        self._refuse_unused(self.directors())
        with self.changed(change) as directors, self._serving_again():
            window = _window(directors)
            observed, records = self.observe(directors, lambda: self._take_out(directors), window)
        return observed, tuple(draining.drained(observed, self.way, one) for one in records)

    @contextmanager
    def _serving_again(self) -> Iterator[None]:
        """Start again what served on the real server, where that was stopped."""
        try:
            yield
        finally:
            if self.way is Way.STOP:
                set_stopped(self.lab, ())

    def commands(self) -> tuple[str, ...]:
        """What a person would type to take the real server out."""
        inside = probe.inside_machine()
        match self.way:
            case Way.WEIGHT:
                found = [c for one in self._drained(self.directors()) for c in one.edit_commands()]
            case Way.DELETE:
                found = [c for one in self._drained(self.directors()) for c in one.undo_commands()]
            case Way.STOP:
                found = [c for one in self.ports for c in one.undo_commands()]
        return tuple(typeable(str(one), self.lab, in_machine=inside) for one in found)

    def alternatives(self, now: Observed, change: Change) -> Iterator[tuple[FlowSetting, Change]]:
        """Yield each setting that may matter with another value."""
        for name, values in VALUES.items():
            for value in values:
                if now.settings[name] not in ("", value):
                    yield setting(name, value), replace(change, sysctls={name: value})
        for service in self.services:
            if service.endpoint.protocol is Protocol.TCP:
                other = 0 if now.persistence[service.name] else PERSISTENT_FOR
                tried = replace(change, persistence={service.name: other})
                yield persistence_setting(service.name, other), tried

    def _refuse_unused(self, directors: Directors) -> None:
        mine = [one for found in directors.values() for one in self.entries(found)]
        if not any(one.real_server.weight for one in mine):
            reason = "its weight is 0" if mine else "it is not in IPVS's table"
            raise UsageError(
                f"{self.server.name} gets no connections: {reason}",
                hint=f"`lvsctl inspect {self.lab.name}` shows the table",
            )

    def _drained(self, directors: Directors) -> tuple[IpvsRealServer, ...]:
        """Return the real server's entries with weight 0."""
        return tuple(
            replace(one, real_server=replace(one.real_server, weight=0))
            for found in directors.values()
            for one in self.entries(found)
        )

    def _take_out(self, directors: Directors) -> None:
        match self.way:
            case Way.WEIGHT:
                self.apply(*self._drained(directors))
            case Way.DELETE:
                undo.undo(self._drained(directors), self.lab.name)
            case Way.STOP:
                set_stopped(self.lab, (self.server.name,))


def _window(directors: Directors) -> float:
    """Return for how many seconds flows are watched."""
    timeouts = [found.ipvs_timeouts or IpvsTimeouts() for found in directors.values()]
    longest = max(max(one.tcp, one.udp) for one in timeouts)
    return WINDOW + (longest if longest <= SHORT else 0)


def setting(name: str, value: str) -> FlowSetting:
    """Describe a value of one of IPVS's sysctls."""
    return FlowSetting(name, value, IPVS_SYSCTLS[name].meaning(value))


def persistence_setting(service: str, seconds: int) -> FlowSetting:
    """Describe the persistence of a service."""
    value = f"{seconds} s" if seconds else "none"
    text = "a client stays with its real server" if seconds else "each connection is scheduled"
    return FlowSetting(f"persistence of {service}", value, text)


def _settings(observed: Observed, services: Sequence[VirtualService]) -> Iterator[FlowSetting]:
    yield from settings_of(observed, VALUES)
    for service in services:
        if service.endpoint.protocol is Protocol.TCP:
            yield persistence_setting(service.name, observed.persistence[service.name])
    yield timeouts_setting(observed.timeouts)


def settings_of(observed: Observed, names: Iterable[str]) -> Iterator[FlowSetting]:
    """Describe those of IPVS's sysctls that this kernel has, as they were."""
    for name in names:
        if observed.settings[name]:
            yield setting(name, observed.settings[name])


def timeouts_setting(timeouts: IpvsTimeouts) -> FlowSetting:
    """Describe IPVS's timeouts."""
    words = f"tcp {timeouts.tcp} s, tcpfin {timeouts.tcp_fin} s, udp {timeouts.udp} s"
    return FlowSetting("timeouts", words, "how long an idle entry of the connection table is kept")


def drain(
    lab: Lab,
    server: str,
    way: Way,
    kinds: Sequence[FlowKind] = (),
    *,
    sender: str | None = None,
    timeout: int = 0,
    tried: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Drain:
    """Take ``server`` out of a running lab while flows of ``kinds`` (default: all) run.

    ``sender`` is the client, ``timeout`` that of IPVS meanwhile, in seconds. With ``tried``
    again with each setting changed that may matter. ``report`` gets what is done now. Everything
    is put back, also on an exception or Ctrl-C.

    Raises UsageError where the lab has no such real server, flow or client; LabError where a flow
    does not begin.
    """
    experiment = _experiment(lab, server, way, kinds, sender)
    with registry.lock(lab.name):
        change = Change({}, {}, timeout)
        report(f"taking {server} out (--by {way})")
        observed, flows = experiment.run(change)
        trials = []
        for one, other in experiment.alternatives(observed, change) if tried else ():
            report(f"again with {one.name}: {one.value}")
            _, found = experiment.run(other)
            trials.append(SettingTrial(one, found, differing(flows, found)))
        return Drain(
            lab.name,
            server,
            way,
            experiment.sender.name,
            round(observed.until - observed.done, 1),
            INTERVAL * 1000,
            experiment.commands(),
            flows,
            tuple(_settings(observed, experiment.services)),
            tuple(trials),
        )


def _experiment(
    lab: Lab, server: str, way: Way, kinds: Sequence[FlowKind], sender: str | None
) -> _Drain:
    node = find_node(lab, server)
    services = [s for s in lab.services if any(r.node == node.name for r in s.real_servers)]
    if not services:
        names = dict.fromkeys(r.node for s in lab.services for r in s.real_servers)
        raise UsageError(
            f"{server} is no real server of lab {lab.name}", hint=f"these are: {', '.join(names)}"
        )
    client = lab.default_client if sender is None else find_node(lab, sender)
    flows = wanted_flows(services, kinds or DRAINED, skip=not kinds)
    experiment = _Drain(lab, node, client, flows, way)
    if way is Way.STOP and not experiment.ports:
        raise UsageError(
            f"{server} has a server of its own (`run:`), which lvsctl does not stop",
            hint="--by weight or --by delete",
        )
    return experiment


def wanted_flows(
    services: Sequence[VirtualService], kinds: Sequence[FlowKind], *, skip: bool
) -> tuple[Wanted, ...]:
    """Return the flows of ``kinds`` to run, each with its service.

    A kind that no service allows is left out with ``skip``. Raises UsageError without, or if
    none is left.
    """
    found = []
    for kind in kinds:
        fitting = [one for one in services if _fits(one, kind)]
        # A service without persistence where there is one.
        service = min(fitting, key=lambda one: bool(one.persistence), default=None)
        if service is not None:
            found.append(Wanted(kind, service.name, service.endpoint, service.keeps_calls))
        elif not skip:
            raise UsageError(f"there is no flow of kind {kind}: {_WHY_NOT[kind]}")
    if not found:
        raise UsageError("no service of the real server is over TCP, or keeps flows of UDP")
    return tuple(found)


def _fits(service: VirtualService, kind: FlowKind) -> bool:
    """Whether a service can have flows of a kind."""
    if kind in (FlowKind.UDP, FlowKind.IDLE_UDP):
        return service.endpoint.protocol is Protocol.UDP and not service.one_packet
    if service.endpoint.protocol is not Protocol.TCP:
        return False
    if kind is FlowKind.PERSISTENT:
        return service.persistence > 0
    # The one client of all flows is bound to the real server: that is FlowKind.PERSISTENT.
    return not (service.persistence and kind in (FlowKind.NEW, FlowKind.REUSED_PORT))


_NO_TCP = "the real server has no service over TCP"
_NO_UDP = "no service of the real server is over UDP and keeps flows"
_WHY_NOT = {
    FlowKind.HELD: _NO_TCP,
    FlowKind.KEEPALIVE: _NO_TCP,
    FlowKind.NEW: f"{_NO_TCP} without persistence",
    FlowKind.REUSED_PORT: f"{_NO_TCP} without persistence",
    FlowKind.PERSISTENT: "no service of the real server has `persistence:`",
    FlowKind.UDP: _NO_UDP,
    FlowKind.IDLE: _NO_TCP,
    FlowKind.HALF_CLOSED: _NO_TCP,
    FlowKind.IDLE_UDP: _NO_UDP,
}


def matrix(
    ways: Sequence[Way] = (), report: Callable[[int, int, DrainRow], None] = lambda *_: None
) -> tuple[DrainRow, ...]:
    """Take a real server out in every way (or ``ways``) with every combination of the sysctls.

    In a lab of its own, which is removed afterwards. Raises LabError if a lab of that name is
    running, and what ``bring_up`` raises. ``report`` gets each row with its number and how many
    there will be.
    """
    text = Topology(MATRIX_TOPOLOGY, shipped.text_of(MATRIX_TOPOLOGY).encode())
    combinations = list(product(ways or Way, *VALUES.values()))
    rows = []
    with temporary_lab(text, Overrides(name=f"matrix-{MATRIX_TOPOLOGY}")) as lab:
        for number, (way, *values) in enumerate(combinations, 1):
            experiment = _experiment(lab, MATRIX_SERVER, Way(way), (), None)
            sysctls = dict(zip(VALUES, values, strict=True))
            _, flows = experiment.run(Change(sysctls, {}, MATRIX_TIMEOUT))
            rows.append(DrainRow(Way(way), sysctls, flows))
            report(number, len(combinations), rows[-1])
    return tuple(rows)
