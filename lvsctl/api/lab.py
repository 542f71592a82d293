"""A running lab and its nodes as Python objects.

(``lvsctl.model.lab.Lab`` is a lab as configured.)
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from lvsctl.api.command import Command, Done, error_in, is_lvsctl_error
from lvsctl.engine.campaign import Proof
from lvsctl.engine.findings import Diagnosis, FaultShown, Inspection, Verification
from lvsctl.engine.inspect import recompute
from lvsctl.errors import LabError, TopologyError, UsageError
from lvsctl.model.addresses import IPInterface
from lvsctl.model.lab import Lab as Configuration
from lvsctl.model.lab import Role
from lvsctl.model.played import Played
from lvsctl.model.service import Scheduler, VirtualService
from lvsctl.model.walk import Walk
from lvsctl.output import saved_report
from lvsctl.output.serialize import from_json

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
        argv: str | Sequence[str],
        *,
        check: bool = False,
        stdin: str | None = None,
        timeout: float | None = None,
    ) -> Ran:
        """Run a command on the node and wait for it; its output is decoded as UTF-8.

        ``argv`` are its words; one string is a shell's command line, for /bin/sh. The command
        has the node's network and the host's files (in the machine read-only, except for the
        current directory). ``timeout`` is in seconds. Raises UsageError if the command does not
        exist, LabError if the lab does not exist any more, subprocess.TimeoutExpired, and with
        ``check`` subprocess.CalledProcessError if the exit status is not 0.
        """
        argv = ["/bin/sh", "-c", argv] if isinstance(argv, str) else list(argv)
        done = self._runs(self.name, argv, None if stdin is None else stdin.encode(), timeout)
        out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
        ran = Ran(list(argv), done.returncode, out, err)
        if check:
            ran.check_returncode()
        return ran


__tracebackhide__ = is_lvsctl_error

T = TypeVar("T")

Topology = str | os.PathLike[str] | Mapping[str, object]
"""A shipped name, a file's path, a topology's text (several lines, or JSON), or its content."""


def topology_argument(topology: Topology) -> str | os.PathLike[str]:
    """Return a topology as text, or its name or path. Raises UsageError for anything else."""
    if isinstance(topology, Mapping):
        try:
            return json.dumps(topology)
        except (TypeError, ValueError) as error:
            raise UsageError(f"this topology cannot be written as JSON: {error}") from None
    if isinstance(topology, str | os.PathLike):
        return topology
    raise UsageError(
        f"a value of type {type(topology).__name__} is not a topology",
        hint="a shipped name, a path, a topology's text, or a dict",
    )


def _of_value(error: TopologyError, *, has_lines: bool) -> TopologyError:
    """Return the error about a topology that was no file; a dict has no lines either."""
    problems = error.problems
    if not has_lines:
        problems = tuple(one._replace(line=0, column=0) for one in problems)
    return TopologyError("the topology", problems)


def is_text(topology: str | os.PathLike[str]) -> bool:
    """Whether it is a topology's text rather than a name or a path: several lines, or JSON."""
    return isinstance(topology, str) and ("\n" in topology or topology.lstrip().startswith("{"))


def save_report(verification: Verification, directory: Path | str) -> None:
    """Write a report: JSON, HTML, JUnit XML and the capture. Raises UsageError, HostError."""
    saved_report.save(Path(directory), verification)


class Lab:
    """A running lab. ``Lab.up`` creates one, ``Lab.running`` finds one.

    As a context manager it is removed at the end, if this ``up`` created it. The constructor
    is for these two. Every method raises LabError if the lab does not exist any more, and
    HostError if this host, or the machine, cannot run it.
    """

    def __init__(self, configuration: Configuration, command: Command, *, created: bool) -> None:
        self.configuration = configuration
        """The lab as configured."""
        self._command = command
        self.created = created
        """Whether ``up`` created it."""
        self.name = configuration.name
        self.description = configuration.description
        self.nodes: Mapping[str, Node] = {
            node.name: Node(
                node.name,
                node.role,
                node.group,
                configuration.netns(node.name),
                {interface.network: interface.addresses for interface in node.interfaces},
                self._run,
            )
            for node in configuration.nodes
        }
        """The nodes by name, in the topology's order."""
        self.services: Mapping[str, VirtualService] = {
            service.name: service for service in configuration.services
        }
        """The virtual services by name, as configured."""

    @classmethod
    def up(
        cls,
        topology: Topology,
        *,
        name: str | None = None,
        servers: int | None = None,
        scheduler: Scheduler | str | None = None,
        change: bool = False,
        command: Command = Command(),  # noqa: B008 (frozen)
    ) -> Self:
        """Create a lab, as ``lvsctl up --new`` does.

        If a lab of that name is running, LabError is raised: it may be someone else's. With
        ``change`` it is changed to match its topology, as ``lvsctl up`` does.

        ``topology`` is a shipped name, a file's path, a topology's text (if it has several lines,
        or is a JSON object), or a dict with its content. ``name``, ``servers`` and ``scheduler``
        override the topology's. ``command`` decides where it runs, instead of the environment.

        Raises TopologyError with every mistake of the topology, UsageError if it does not exist,
        HostError if this host cannot run labs. If it fails or is interrupted, nothing remains.
        """
        given = topology_argument(topology)
        text = os.fspath(given).encode() if is_text(given) else None
        words = ["up", "-" if text is not None else os.fspath(given)]
        words += [] if change else ["--new"]
        for option, value in (
            ("--name", name),
            ("--servers", servers),
            ("--scheduler", scheduler),
        ):
            words += [] if value is None else [f"{option}={value}"]
        try:
            result = command.json(*words, stdin=text)
        except TopologyError as error:
            if text is None:
                raise
            raise _of_value(error, has_lines=not isinstance(topology, Mapping)) from None
        return cls(from_json(result["lab"], Configuration), command, created=result["created"])

    @classmethod
    def running(
        cls,
        name: str,
        *,
        command: Command = Command(),  # noqa: B008 (frozen)
    ) -> Self:
        """Return the running lab called ``name``. Raises LabError if it is not running."""
        listed = command.json("ls")["labs"]
        for one in listed:
            if one["name"] == name:
                if one["lab"] is None:
                    raise LabError(f"lab {name} is not usable: {one['problem']}")
                return cls(from_json(one["lab"], Configuration), command, created=False)
        names = ", ".join(one["name"] for one in listed)
        raise LabError(
            f"lab {name} is not running",
            hint=f"running: {names}" if names else f"start it: lvsctl up {name}",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.created:
            self.down()

    def __repr__(self) -> str:
        return f"<lab {self.name}>"

    def down(self) -> None:
        """Remove it and everything it owns."""
        self._command.run("down", self.name)
        self.created = False

    # What it is.

    def node(self, name: str) -> Node:
        """Return the node called ``name``. Raises UsageError with the nodes' names."""
        try:
            return self.nodes[name]
        except KeyError:
            raise UsageError(
                f"lab {self.name} has no node {name!r}", hint=f"it has: {', '.join(self.nodes)}"
            ) from None

    def _run(
        self, node: str, argv: Sequence[str], stdin: bytes | None, timeout: float | None
    ) -> Done:
        words = ["exec", f"{self.name}/{node}", "--", *argv]
        try:
            done = self._command.process(words, stdin=stdin, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise subprocess.TimeoutExpired(list(argv), error.timeout) from None
        refusal = error_in(done) if done.returncode else None
        if refusal is not None:
            raise refusal
        return done

    # Examining it.

    def verify(self) -> Verification:
        """Send requests through every virtual service and decide every claim about them.

        The result is true if every claim passes.
        """
        with tempfile.TemporaryDirectory(prefix="lvsctl-verify-") as directory:
            self._command.json("verify", self.name, "--report", directory)
            return recompute(saved_report.load(Path(directory)))

    def walk(self, service: str | None = None, client: str | None = None) -> Walk:
        """Send one request to a virtual service (default: the first) and trace it hop by hop.

        ``client`` is the node that sends it (default: the first client). The result is true if
        a whole reply came.
        """
        options = {"service": service, "client": client}
        words = [f"--{key}={value}" for key, value in options.items() if value is not None]
        return self._result(Walk, "walk", self.name, *words)

    def diagnose(self) -> Diagnosis:
        """Find out why it does not work. The result is true if it is healthy."""
        return self._result(Diagnosis, "diagnose", self.name)

    def inspect(self, *nodes: str) -> Inspection:
        """Read the state of some nodes (default: all) from the kernel.

        The result is true if they are as the topology says.
        """
        return self._result(Inspection, "inspect", self.name, *map(self._known, nodes))

    def play(self, drill: Topology) -> Played:
        """Carry out a drill: a file's path, its text, or a dict with its content.

        The result is true if every expectation of it is met. Afterwards the lab is what its
        topology says. Raises TopologyError with the drill's mistakes.
        """
        given = topology_argument(drill)
        text = os.fspath(given).encode() if is_text(given) else None
        file = "-" if text is not None else os.fspath(given)
        return from_json(self._command.json("play", file, self.name, stdin=text), Played)

    def prove(self) -> Proof:
        """Inject every fault that applies, one after the other: each must break its claims.

        The result is true if each broke those that it must and no others, every claim can fail
        or says why not, and the lab is healthy before and after. It takes minutes.
        """
        return self._result(Proof, "verify", self.name, "--prove")

    def _result(self, kind: type[T], *words: str) -> T:
        return from_json(self._command.json(*words), kind, lab=self.configuration)

    def _known(self, node: str) -> str:
        return self.node(node).name

    # Faults.

    def inject(self, fault: str, node: str | None = None) -> FaultShown:
        """Inject a fault, at ``node`` or at the fault's default node.

        Raises UsageError if the fault does not exist or does not apply.
        """
        at = [] if node is None else [f"--node={node}"]
        return self._result(FaultShown, "fault", "inject", fault, f"--lab={self.name}", *at)

    def restore(self, fault: str | None = None, node: str | None = None) -> tuple[str, ...]:
        """Restore a fault (default: all) and return what was restored. Raises UsageError."""
        words = [] if fault is None else [fault]
        words += [] if node is None else [f"--node={node}"]
        result = self._command.json("fault", "restore", *words, f"--lab={self.name}")
        return tuple(result["restored"])

    @contextmanager
    def broken(self, fault: str, node: str | None = None) -> Iterator[FaultShown]:
        """Inject a fault for the duration of the context."""
        injected = self.inject(fault, node)
        try:
            yield injected
        finally:
            self.restore(injected.fault.id, injected.node)
