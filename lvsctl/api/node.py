"""A node of a running lab, and what can be run on it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lvsctl.model.addresses import IPInterface
from lvsctl.model.lab import Role

Ran = subprocess.CompletedProcess[str]


class Runs(Protocol):
    """Runs a command on a node: its name, the words, standard input, seconds at most."""

    def __call__(
        self, node: str, argv: Sequence[str], stdin: bytes | None, timeout: float | None
    ) -> subprocess.CompletedProcess[bytes]: ...


@dataclass(frozen=True, slots=True)
class Node:
    """A node: ``addresses`` by the network, which is its interface's name too.

    ``group`` is the name under which the topology declares it (``rs`` for ``rs1``).
    """

    name: str
    role: Role
    group: str
    netns: str
    addresses: Mapping[str, tuple[IPInterface, ...]]
    _runs: Runs = field(repr=False, compare=False)

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = False,
        stdin: str | None = None,
        timeout: float | None = None,
    ) -> Ran:
        """Run a command on the node and wait for its end; its output is UTF-8 text.

        It sees the node's network and the host's files (in the machine all but the current
        directory read-only). ``timeout`` in seconds. Raises UsageError where there is no such
        command, LabError where the lab is gone, subprocess.TimeoutExpired, and with ``check``
        subprocess.CalledProcessError where the exit status is not 0.
        """
        done = self._runs(self.name, argv, None if stdin is None else stdin.encode(), timeout)
        out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
        ran = Ran(list(argv), done.returncode, out, err)
        if check:
            ran.check_returncode()
        return ran
