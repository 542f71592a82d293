"""What IPVS has for a whole director: timeouts and synchronization daemons."""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from lvsctl.model.lab import Lab
from lvsctl.model.service import IpvsTimeouts
from lvsctl.model.state import NodeState, SyncDaemonState
from lvsctl.resources.base import Command, Deviation, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionTimeouts(Resource):
    """How long IPVS keeps idle connections. Undone, it keeps them as long as by default."""

    timeouts: IpvsTimeouts

    @property
    def key(self) -> Hashable:
        return ConnectionTimeouts, self.netns

    @property
    def is_setting(self) -> bool:
        return True

    def _set(self, to: IpvsTimeouts) -> tuple[Command, ...]:
        return (self.command("ipvsadm", "--set", to.tcp, to.tcp_fin, to.udp),)

    def commands(self) -> tuple[Command, ...]:
        return self._set(self.timeouts)

    def undo_commands(self) -> tuple[Command, ...]:
        return self._set(IpvsTimeouts())

    def modules(self) -> tuple[str, ...]:
        return ("ip_vs",)

    def holds(self, state: NodeState) -> bool:
        return state.ipvs_timeouts == self.timeouts

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        if state.ipvs_timeouts is not None and state.ipvs_timeouts != IpvsTimeouts():
            yield cls(netns=state.netns, timeouts=state.ipvs_timeouts)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state) or state.ipvs_timeouts is None:
            return None
        found, wanted = _words(state.ipvs_timeouts), _words(self.timeouts)
        return Deviation(f"IPVS's timeouts are {found}, not {wanted}", self.why)

    def surplus(self, lab: Lab) -> Deviation | None:
        usual = _words(IpvsTimeouts())
        return Deviation(f"IPVS's timeouts are {_words(self.timeouts)}, not {usual}")


def _words(timeouts: IpvsTimeouts) -> str:
    return f"tcp {timeouts.tcp} s, tcpfin {timeouts.tcp_fin} s, udp {timeouts.udp} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncDaemon(Resource):
    """A synchronization daemon: it sends connections to another director, or receives them."""

    HINTS: ClassVar[dict[int, str]] = {
        errno.ENODEV: "its interface must exist and be up",
    }

    daemon: SyncDaemonState

    @property
    def key(self) -> Hashable:
        return SyncDaemon, self.netns, self.daemon.state

    def commands(self) -> tuple[Command, ...]:
        words = ["ipvsadm", "--start-daemon", self.daemon.state]
        words += ["--mcast-interface", self.daemon.interface]
        return (self.command(*words, "--syncid", self.daemon.sync_id),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("ipvsadm", "--stop-daemon", self.daemon.state),)

    def modules(self) -> tuple[str, ...]:
        return ("ip_vs",)

    def holds(self, state: NodeState) -> bool:
        return self.daemon in state.sync_daemons

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for one in state.sync_daemons:
            yield cls(netns=state.netns, daemon=one)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state) or not state.whole:
            return None
        return Deviation(f"the synchronization daemon {self.daemon.state} does not run", self.why)

    def surplus(self, lab: Lab) -> Deviation | None:
        where = f"{self.daemon.state} on {self.daemon.interface}"
        return Deviation(f"a synchronization daemon runs ({where}), not from the topology")
