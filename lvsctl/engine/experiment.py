"""Run flows in a lab while its directors are changed for a moment, and put everything back.

``lvsctl up`` puts back what a killed command leaves behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from lvsctl.capture.capture import Capture
from lvsctl.claims.flows import SETTINGS, Observed
from lvsctl.engine.up import apply_to_running
from lvsctl.kernel import masters, netns, ordering, parts, state
from lvsctl.model.flows import FlowKind, FlowRecord
from lvsctl.model.ipvs_sysctls import PREFIX
from lvsctl.model.lab import Lab, Node
from lvsctl.model.service import IpvsTimeouts, Scheduler, ServiceMatch, VirtualService
from lvsctl.model.state import Connection, NodeState
from lvsctl.plan import planner
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_config import ConnectionTimeouts
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.sysctl import Sysctl
from lvsctl.traffic.flows import Flows, Wanted

BEGIN_SECONDS = 15.0
"""How long the flows may take to begin, on a slow machine."""

REUSE_SECONDS = 0.5
"""How long connections from ports that are used again may take."""

_HASHING = (Scheduler.SH, Scheduler.DH, Scheduler.MH)
"""Schedulers that may refuse clients where a weight is 0."""

Directors = Mapping[str, NodeState]
"""What was read of each director, by namespace."""


@dataclass(frozen=True, slots=True)
class Change:
    """Settings of an experiment that differ from the lab's.

    ``sysctls`` without their prefix, ``persistence`` in seconds by service; ``timeout`` in
    seconds is that of IPVS for idle flows over TCP and UDP, ``fin_timeout`` that of connections
    that are being closed; 0: as it is.
    """

    sysctls: Mapping[str, str]
    persistence: Mapping[str, int]
    timeout: int = 0
    fin_timeout: int = 0


@dataclass(frozen=True, slots=True)
class Experiment:
    """Flows of ``sender`` that all begin at the real server ``server``."""

    lab: Lab
    server: Node
    sender: Node
    wanted: tuple[Wanted, ...]

    @property
    def services(self) -> tuple[VirtualService, ...]:
        """The services that the flows ask."""
        names = {one.service for one in self.wanted}
        return tuple(one for one in self.lab.services if one.name in names)

    def directors(self) -> Directors:
        """Read every director's IPVS table, timeouts and settings."""
        wanted = {
            self.lab.netns(node.name): parts.Wanted(
                sysctls=[PREFIX + name for name in SETTINGS], ipvs=True, timeouts=True
            )
            for node in self.lab.directors
        }
        return parts.read_states(wanted)

    def entries(self, director: NodeState) -> tuple[IpvsRealServer, ...]:
        """Return the real server's entries in a director's table, of every service."""
        mine = {
            (service.match, server.rip, server.port)
            for service in self.lab.services
            for server in service.real_servers
            if server.node == self.server.name
        }
        return tuple(
            one
            for one in IpvsRealServer.from_state(director)
            if (one.service, one.real_server.rip, one.real_server.port) in mine
        )

    def apply(self, *resources: Resource) -> None:
        """Apply resources to the running lab: what is there already is changed."""
        apply_to_running(self.lab, *resources)

    @contextmanager
    def changed(self, change: Change) -> Iterator[Directors]:
        """Change settings inside the ``with`` block, then put everything back.

        Yields what was read of the directors after the change. What is put back is what was
        there before: services, real servers and settings.
        """
        before = self.directors()
        try:
            self.apply(*(one for found in before.values() for one in _changes(found, self, change)))
            yield self.directors()
        finally:
            self.apply(*(one for found in before.values() for one in _resources(found)))
            if self.lab.ecmp:  # what was removed is the last one now
                ordering.put_in_order(planner.plan_for(self.lab).resources, self.lab.name)

    def observe(
        self, directors: Directors, act: Callable[[], None], window: float
    ) -> tuple[Observed, tuple[FlowRecord, ...]]:
        """Begin the flows, call ``act``, watch for ``window`` seconds; return what was seen."""
        with self._watching() as capture:
            with self._begun(directors) as flows:
                began = time.time()
                act()
                done = time.time()
                flows.go_on()
                flows.wait_until_over(window)
                until = time.time()
                table = self.connections()
            records = flows.records
        return self._observed(directors, (began, done, until), table, capture), records

    def observe_idle(
        self, directors: Directors, idle: float, window: float
    ) -> tuple[Mapping[FlowKind, Observed], tuple[FlowRecord, ...]]:
        """Begin the flows, and let them go on after ``idle`` seconds, ports that are used again at
        once; watch for ``window`` seconds; return what was seen of each kind.
        """
        again = FlowKind.REUSED_PORT
        with self._watching() as capture:
            with self._begun(directors, idle) as flows:
                first = time.time()
                flows.go_on(again)
                flows.wait_until_over(REUSE_SECONDS)
                reused = self.connections()
                flows.wait_until_over(idle - REUSE_SECONDS)
                table = self.connections()
                then = time.time()
                flows.go_on()
                flows.wait_until_over(window)
                until = time.time()
            records = flows.records
        late = self._observed(directors, (then, then, until), table, capture)
        early = replace(late, began=first, done=first, table=reused)
        return {kind: early if kind is again else late for kind in FlowKind}, records

    def connections(self) -> tuple[Connection, ...]:
        """Read the connection tables of the directors that handle requests."""
        return tuple(
            one for name in self._active() for one in netns.run_inside(name, state.read_connections)
        )

    def _active(self) -> tuple[str, ...]:
        return tuple(self.lab.netns(one.name) for one in masters.active_directors(self.lab))

    def _watching(self) -> Capture:
        return Capture({self.lab.netns(node.name): node.name for node in self.lab.nodes}, quiet=0.1)

    @contextmanager
    def _begun(self, directors: Directors, idle: float = 0.0) -> Iterator[Flows]:
        own = {one.ip for interface in self.sender.interfaces for one in interface.addresses}
        used = {one.client_port for one in self.connections() if one.client in own}
        sender = self.lab.netns(self.sender.name)
        only = ExitStack()
        only.enter_context(self._only_this_server(directors))
        with Flows(sender, self.server.name, self.wanted, used, idle=idle) as flows:
            flows.wait_until_begun(BEGIN_SECONDS)
            only.close()
            yield flows

    def _observed(
        self,
        directors: Directors,
        when: tuple[float, float, float],
        table: tuple[Connection, ...],
        capture: Capture,
    ) -> Observed:
        found = directors[self._active()[0]]
        persistence = {one.match: one.persistence for one in found.services}
        return Observed(
            self.lab,
            self.server.name,
            *when,
            {name: found.sysctls.get(PREFIX + name, "") for name in SETTINGS},
            {one.name: persistence.get(one.match, 0) for one in self.lab.services},
            found.ipvs_timeouts or IpvsTimeouts(),
            table,
            capture.frames,
        )

    @contextmanager
    def _only_this_server(self, directors: Directors) -> Iterator[None]:
        """Let the scheduler choose no other real server, so that all flows begin at this one.

        Persistent clients are not sent where they were before. Schedulers that hash might refuse
        the client then; there connections are opened until one gets to the real server.
        """
        services = {s.match for s in self.services if s.scheduler not in _HASHING}
        before: list[Resource] = []
        for found in directors.values():
            before += _other_servers(found, services, self.entries(found))
            before += [one for one in _settings(found) if one.name.endswith("quiescent_template")]
        self.apply(*map(_without_connections, before))
        yield
        self.apply(*before)


def _other_servers(
    director: NodeState, services: set[ServiceMatch], mine: tuple[IpvsRealServer, ...]
) -> list[IpvsRealServer]:
    keys = {one.key for one in mine}
    return [
        one
        for one in IpvsRealServer.from_state(director)
        if one.service in services and one.key not in keys
    ]


def _without_connections(resource: Resource) -> Resource:
    if isinstance(resource, IpvsRealServer):
        return replace(resource, real_server=replace(resource.real_server, weight=0))
    return replace(resource, value="1") if isinstance(resource, Sysctl) else resource


def _settings(director: NodeState) -> list[Sysctl]:
    return [
        Sysctl(netns=director.netns, name=key, value=value)
        for key, value in director.sysctls.items()
    ]


def _resources(director: NodeState) -> list[Resource]:
    """Return everything that an experiment may change of a director, as it was read."""
    timeouts = director.ipvs_timeouts or IpvsTimeouts()
    return [
        *_settings(director),
        ConnectionTimeouts(netns=director.netns, timeouts=timeouts),
        *IpvsService.from_state(director),
        *IpvsRealServer.from_state(director),
    ]


def _changes(director: NodeState, experiment: Experiment, change: Change) -> Iterator[Resource]:
    for one in _settings(director):
        name = one.name.removeprefix(PREFIX)
        if name in change.sysctls:
            yield replace(one, value=change.sysctls[name])
    now = director.ipvs_timeouts
    if now is not None:
        either, fin = change.timeout, change.fin_timeout
        new = IpvsTimeouts(either or now.tcp, fin or now.tcp_fin, either or now.udp)
        yield ConnectionTimeouts(netns=director.netns, timeouts=new)
    wanted = {
        service.match: change.persistence[service.name]
        for service in experiment.lab.services
        if service.name in change.persistence
    }
    for found in IpvsService.from_state(director):
        if found.service in wanted:
            yield replace(found, persistence=wanted[found.service])
