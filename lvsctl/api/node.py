"""A node of a running lab, on which commands can be run."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lvsctl.model.addresses import IPInterface
from lvsctl.model.lab import Role

Ran = subprocess.CompletedProcess[str]


class CommandRunner(Protocol):
    """Runs a command on a node, with standard input and a timeout in seconds."""

    def __call__(
        self, node: str, argv: Sequence[str], stdin: bytes | None, timeout: float | None
    ) -> subprocess.CompletedProcess[bytes]: ...


@dataclass(frozen=True, slots=True)
class Node:
    """A node: ``addresses`` by network, which is also the name of its interface.

    ``group`` is the name under which the topology declares it (``rs`` for ``rs1``).
    """

    name: str
    role: Role
    group: str
    netns: str
    addresses: Mapping[str, tuple[IPInterface, ...]]
    _runs: CommandRunner = field(repr=False, compare=False)

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = False,
        stdin: str | None = None,
        timeout: float | None = None,
    ) -> Ran:
        """Run a command on the node and wait for it; its output is decoded as UTF-8.

        It has the node's network and the host's files (in the machine read-only, except for the
        current directory). ``timeout`` is in seconds. Raises UsageError if the command does not
        exist, LabError if the lab does not exist any more, subprocess.TimeoutExpired, and with
        ``check`` subprocess.CalledProcessError if the exit status is not 0.
        """
        done = self._runs(self.name, argv, None if stdin is None else stdin.encode(), timeout)
        out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
        ran = Ran(list(argv), done.returncode, out, err)
        if check:
            ran.check_returncode()
        return ran
