"""A running lab as a Python object. (``lvsctl.model.lab.Lab`` is a lab as configured.)"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lvsctl.api.command import Command, Done, error_in, is_lvsctl_error
from lvsctl.api.node import Node
from lvsctl.errors import LabError, UsageError
from lvsctl.model.service import Scheduler

if TYPE_CHECKING:
    from lvsctl.api.results import (
        Diagnosis,
        InjectedFault,
        Inspection,
        Service,
        Verification,
        Walk,
    )


__tracebackhide__ = is_lvsctl_error


def is_text(topology: str | os.PathLike[str]) -> bool:
    """Whether it is a topology's text rather than a name or a path: several lines, or JSON."""
    return isinstance(topology, str) and ("\n" in topology or topology.lstrip().startswith("{"))


class Lab:
    """A running lab. ``Lab.up`` makes one, ``Lab.running`` finds one that runs already.

    As a context manager it goes down at the end, if it was this ``up`` that created it.
    The constructor is for the two. Every method raises LabError where the lab is gone and
    HostError where this host, or the machine, cannot.
    """

    def __init__(self, said: Mapping[str, Any], command: Command, *, created: bool) -> None:
        self._said = said
        self._command = command
        self.created = created
        """Whether it did not run before."""
        self.name: str = said["name"]
        self.description: str = said["description"]
        self.nodes: Mapping[str, Node] = {one["name"]: self._node(one) for one in said["nodes"]}
        """The nodes by name, in the topology's order."""

    @classmethod
    def up(
        cls,
        topology: str | os.PathLike[str],
        *,
        name: str | None = None,
        servers: int | None = None,
        scheduler: Scheduler | str | None = None,
        command: Command = Command(),  # noqa: B008 (frozen)
    ) -> Self:
        """Bring a lab up, as ``lvsctl up`` does, or make the running one equal to its topology.

        ``topology`` is a shipped name, a file's path, or (where it has several lines, or is
        a JSON object) a topology's text. ``name`` calls the lab so, ``servers`` and
        ``scheduler`` bend the topology. ``command`` says where, if not where the environment says.

        Raises SpecError with every mistake of the topology, UsageError where there is none,
        HostError where this host cannot. Where it fails or is interrupted, nothing stays.
        """
        text = os.fspath(topology).encode() if is_text(topology) else None
        words = ["up", "-" if text is not None else os.fspath(topology)]
        for option, value in (
            ("--name", name),
            ("--servers", servers),
            ("--scheduler", scheduler),
        ):
            words += [] if value is None else [f"{option}={value}"]
        said = command.json(*words, stdin=text)
        return cls(said["lab"], command, created=said["created"])

    @classmethod
    def running(
        cls,
        name: str,
        *,
        command: Command = Command(),  # noqa: B008 (frozen)
    ) -> Self:
        """The running lab called ``name``. Raises LabError where there is none."""
        listed = command.json("ls")["labs"]
        for one in listed:
            if one["name"] == name:
                if one["lab"] is None:
                    raise LabError(f"lab {name} is not usable: {one['problem']}")
                return cls(one["lab"], command, created=False)
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
        """Remove it: exactly what it owns."""
        self._command.run("down", self.name)
        self.created = False

    # What it is.

    @property
    def services(self) -> Mapping[str, Service]:
        """The virtual services by name, as configured."""
        from lvsctl.api import reading

        return {service.name: service for service in reading.services(self._said)}

    def node(self, name: str) -> Node:
        """The node called ``name``. Raises UsageError with the names there are."""
        try:
            return self.nodes[name]
        except KeyError:
            raise UsageError(
                f"lab {self.name} has no node {name!r}", hint=f"it has: {', '.join(self.nodes)}"
            ) from None

    def _node(self, said: Mapping[str, Any]) -> Node:
        from ipaddress import ip_interface

        from lvsctl.model.lab import Role

        addresses = {
            one["network"]: tuple(map(ip_interface, one["addresses"])) for one in said["interfaces"]
        }
        role = Role(said["role"])
        return Node(said["name"], role, said["group"], said["netns"], addresses, self._run)

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

    # What it does.

    def verify(self) -> Verification:
        """Send requests through every virtual service; a verdict on every claim about them.

        Its truth value is whether every claim passes.
        """
        from lvsctl.api import reading

        with tempfile.TemporaryDirectory(prefix="lvsctl-verify-") as directory:
            said = self._command.json("verify", self.name, "--report", directory)
            files = {path.name: path.read_bytes() for path in Path(directory).iterdir()}
        return reading.verification(said, files)

    def walk(self, service: str | None = None, client: str | None = None) -> Walk:
        """Send one request to a virtual service (the first) and show its way, hop by hop.

        ``client`` is the node that asks, if not the first client. The truth value of the walk
        is whether an answer came.
        """
        from lvsctl.api import reading, results

        options = {"service": service, "client": client}
        words = [f"--{key}={value}" for key, value in options.items() if value is not None]
        return reading.result(self._command.json("walk", self.name, *words), results.Walk)

    def diagnose(self) -> Diagnosis:
        """Why it does not work. The truth value of the diagnosis is whether all is well."""
        from lvsctl.api import reading, results

        return reading.result(self._command.json("diagnose", self.name), results.Diagnosis)

    def inspect(self, *nodes: str) -> Inspection:
        """What the kernel holds for some nodes (all of them where none is named)."""
        from lvsctl.api import reading, results

        return reading.result(
            self._command.json("inspect", self.name, *map(self._known, nodes)), results.Inspection
        )

    def _known(self, node: str) -> str:
        return self.node(node).name

    # Breaking it on purpose.

    def inject(self, fault: str, node: str | None = None) -> InjectedFault:
        """Break it by a fault, at ``node`` if not where it shows best.

        Raises UsageError where there is no such fault, or it does not apply here.
        """
        from lvsctl.api import reading

        at = [] if node is None else [f"--node={node}"]
        return reading.injected(
            self._command.json("fault", "inject", fault, f"--lab={self.name}", *at)
        )

    def restore(self, fault: str | None = None, node: str | None = None) -> tuple[str, ...]:
        """Take a fault back, or all of them; what was taken back. Raises UsageError."""
        words = [] if fault is None else [fault]
        words += [] if node is None else [f"--node={node}"]
        said = self._command.json("fault", "restore", *words, f"--lab={self.name}")
        return tuple(said["restored"])

    @contextmanager
    def broken(self, fault: str, node: str | None = None) -> Iterator[InjectedFault]:
        """Broken by a fault while entered, and mended again whatever happens."""
        injected = self.inject(fault, node)
        try:
            yield injected
        finally:
            self.restore(injected.fault, injected.node)
