"""A director's keepalived, with the configuration that is written from the lab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import Command, Deviation, Resource

PROCESS = "keepalived"
"""The name of its processes (proc_pid_stat(5))."""

PROCESSES = 3
"""The first one, one for VRRP and one for virtual servers: fewer do not do all of it."""


def is_running(state: NodeState) -> bool:
    """Return whether keepalived runs in a namespace, with all its processes."""
    found = [one for one in state.processes if one.process == PROCESS and one.state != "Z"]
    return len(found) >= PROCESSES


_START = (
    'printf %s "$1" >"$0.conf" && exec keepalived --dont-fork --log-console --log-detail '
    '--use-file "$0.conf" --pid "$0.pid" --vrrp_pid "$0-vrrp.pid" --checkers_pid "$0-checkers.pid"'
)
"""A shell's command: its name is where keepalived's files are, its argument the configuration.

All nodes share /run, where keepalived has its pid files otherwise (keepalived(8)).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalived(Resource):
    """keepalived runs on ``node``, and holds the ``floating`` addresses while it is master.

    ``text`` is its configuration. It sets up the director's IPVS table too, and runs the
    synchronization daemons if ``sync``. ``directory`` has its files.
    """

    node: str
    text: str
    floating: tuple[IPAddress, ...]
    sync: bool = False
    directory: str = field(default="/run", compare=False)

    @property
    def argv(self) -> tuple[str, ...]:
        """The command that writes its configuration and becomes keepalived."""
        return ("/bin/sh", "-c", _START, f"{self.directory}/keepalived-{self.node}", self.text)

    def commands(self) -> tuple[Command, ...]:
        return (Command(("run", self.netns, *self.argv)),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (Command((), comment=f"{self.node}: end keepalived"),)

    def holds(self, state: NodeState) -> bool:
        if not state.whole:
            return True
        return is_running(state) and state.keepalived_file in ("", self.text)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        return iter(())

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        if not is_running(state):
            return Deviation("keepalived does not run", self.why)
        changed = "; ".join(differing_lines(state.keepalived_file, self.text))
        return Deviation(f"keepalived's configuration was changed: {changed}", self.why)


def differing_lines(found: str, wanted: str) -> Iterator[str]:
    """Yield what a configuration has more and less than another, without words of a password."""
    before, after = (
        [line.strip() for line in text.splitlines() if line.strip() and "auth_pass" not in line]
        for text in (found, wanted)
    )
    for mark, text in (("has", before), ("lacks", after)):
        other = after if text is before else before
        lines = list(dict.fromkeys(line for line in text if line not in other))
        if lines:
            more = f" and {len(lines) - _SHOWN} lines more" if len(lines) > _SHOWN else ""
            yield f"it {mark} {', '.join(f'`{line}`' for line in lines[:_SHOWN])}{more}"
    if before == after:
        yield "another password"


_SHOWN = 3
"""Lines of each configuration that a difference names."""
