"""The namespaces of one lab, open while a plan is carried out.

A session belongs to one command; its methods are called from threads that may
change their namespace (``netns.in_thread``). Sockets stay in the namespace in
which they were opened, so each namespace is entered once and written to from anywhere.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from lvsctl.errors import KernelError
from lvsctl.kernel import hints, links, netns, paths, wire
from lvsctl.kernel.ahead import Ahead
from lvsctl.kernel.descriptors import make_table_hold
from lvsctl.model.lab import NAMESPACE_PREFIX
from lvsctl.resources.ops import Op

_FILES_BESIDES = 256
"""Descriptors that the process may need besides two or three per namespace."""


@dataclass(slots=True)
class Opened:
    """A namespace with its descriptor and its rtnetlink socket."""

    name: str
    fd: int
    route: socket.socket
    generic: socket.socket | None = None
    indexes: dict[str, int] = field(default_factory=lambda: {"lo": 1})

    def index(self, device: str) -> int:
        """The ifindex of a device. Raises OSError where there is none."""
        if device not in self.indexes:
            self.indexes[device] = links.index_of(self.route, device)
        return self.indexes[device]

    def close(self) -> None:
        """Close everything; the namespace itself stays."""
        os.close(self.fd)
        self.route.close()
        if self.generic is not None:
            self.generic.close()


class Session:
    """Every namespace of ``lab`` that has been needed so far; new ones out of ``ahead``."""

    def __init__(self, lab: str, ahead: Ahead | None = None) -> None:
        self.lab = lab
        self._ahead = ahead
        self._opened: dict[str, Opened] = {}
        self._opening = threading.Lock()
        self._spare: list[int] = []
        self._limits: tuple[int, int] | None = None
        self._family: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._opened.values():
            opened.close()
        self._opened.clear()
        while self._spare:
            os.close(self._spare.pop())
        if self._limits is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)

    def make_room(self, namespaces: int) -> None:
        """Raise the limit of open files to what so many namespaces need, until the end.

        Quickest before there are other threads.
        """
        need = 3 * namespaces + _FILES_BESIDES
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < need:
            ceiling = hard if hard == resource.RLIM_INFINITY else max(hard, need)
            with contextlib.suppress(ValueError, OSError):  # then EMFILE says it better
                resource.setrlimit(resource.RLIMIT_NOFILE, (need, ceiling))
                self._limits = (soft, hard)
        make_table_hold(need - _FILES_BESIDES)

    def create(self, name: str) -> Opened:
        """Make a namespace and leave the calling thread in it. Raises LabError, HostError."""
        fd = netns.create(self.lab, name, self._made_already())
        return self._keep(name, fd)

    def _made_already(self) -> int | None:
        made = self._ahead.take() if self._ahead else None
        if made is None:
            with contextlib.suppress(IndexError):  # another hand was quicker
                made = self._spare.pop()
        return made

    def prepare(self, needed: int) -> bool:
        """Make one of ``needed`` namespaces that others are to ``create``; leaves the thread in it.

        False where there are as many, or there is none to be had: ``create`` will say why.
        """
        if len(self._spare) + (self._ahead.left() if self._ahead else 0) >= needed:
            return False
        try:
            self._spare.append(netns.create_nameless())
        except OSError:
            return False
        return True

    def open(self, name: str) -> Opened:
        """The namespace ``name`` of the lab. Raises LabError where there is none."""
        opened = self._opened.get(name)
        return self._opened_now(name) if opened is None else opened

    def _opened_now(self, name: str) -> Opened:
        with self._opening:  # two hands may lay cables to one node
            opened = self._opened.get(name)
            if opened is None:
                fd = netns.open_namespace(paths.namespaces(self.lab) / name)
                with netns.enter(fd):
                    opened = self._keep(name, fd)
            return opened

    def close(self, name: str) -> None:
        """Close what is open of one namespace, so that nothing here keeps it alive."""
        if opened := self._opened.pop(name, None):
            opened.close()

    def _keep(self, name: str, fd: int) -> Opened:
        try:
            opened = Opened(name, fd, wire.open_socket())
        except OSError:
            os.close(fd)
            raise
        self._opened[name] = opened
        return opened

    def generic(self, opened: Opened) -> socket.socket:
        """The namespace's generic netlink socket."""
        if opened.generic is None:
            with netns.enter(opened.fd):
                opened.generic = wire.open_socket(wire.GENERIC)
        return opened.generic

    def ipvs_family(self, opened: Opened) -> int:
        """The type of IPVS's messages, the same in every namespace. Raises HostError."""
        if self._family is None:
            from lvsctl.kernel import ipvs_shapes

            self._family = ipvs_shapes.family_id(self.generic(opened))
        return self._family

    def node(self, name: str) -> str:
        """The node, or network, whose namespace is called ``name``."""
        return name.removeprefix(f"{NAMESPACE_PREFIX}-{self.lab}-")

    @contextlib.contextmanager
    def explaining(self, op: Op) -> Iterator[None]:
        """Errors of the kernel meanwhile become KernelErrors about ``op``."""
        try:
            yield
        except (OSError, KernelError) as error:
            raise self.explained(op, error) from error

    def explained(self, op: Op, error: OSError | KernelError) -> KernelError:
        """``error`` as one about ``op``, unless it is about an operation already."""
        if isinstance(error, OSError):
            return self.failure(op, error.errno or 0, error.strerror or str(error))
        if error.command:
            return error
        return self.failure(op, error.errno, error.message, error.hint)

    def failure(self, op: Op, number: int, text: str, hint: str = "") -> KernelError:
        """The error that says which operation failed where, and what may help."""
        node = self.node(op.netns)
        command = "; ".join(op.describe())
        return KernelError(
            f"{node}: {text}\n    {command}",
            node=node,
            command=command,
            errno=number,
            hint=hint or hints.hint(op, number),
        )
