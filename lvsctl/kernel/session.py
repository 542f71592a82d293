"""The namespaces of one lab, open while a plan is applied.

A session belongs to one command; its methods are called from threads that may change their
namespace (``netns.in_thread``). Sockets stay in the namespace in which they were opened, so each
namespace is entered once and its sockets are used from anywhere.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from lvsctl.errors import KernelError
from lvsctl.kernel import netns, paths
from lvsctl.model.lab import NAMESPACE_PREFIX
from lvsctl.netlink import ethtool, ipvs, sockets
from lvsctl.resources.base import Resource

_OTHER_FILES = 256
"""Descriptors that the process may need besides two or three per namespace."""


@dataclass(slots=True)
class OpenNamespace:
    """An open namespace: its descriptor and its netlink sockets."""

    name: str
    fd: int
    route: socket.socket
    generic: socket.socket | None = None
    indexes: dict[str, int] = field(default_factory=lambda: {"lo": 1})

    def index(self, device: str) -> int:
        """Return the ifindex of a device. Raises OSError where it does not exist."""
        if device not in self.indexes:
            self.indexes[device] = ethtool.index_of(self.route, device)
        return self.indexes[device]

    def close(self) -> None:
        """Close everything; the namespace itself stays."""
        os.close(self.fd)
        self.route.close()
        if self.generic is not None:
            self.generic.close()


class Session:
    """Every namespace of ``lab`` that has been needed so far."""

    def __init__(self, lab: str) -> None:
        self.lab = lab
        self._opened: dict[str, OpenNamespace] = {}
        self._limits: tuple[int, int] | None = None
        self._family: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._opened.values():
            opened.close()
        self._opened.clear()
        if self._limits is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)

    def raise_file_limit(self, namespaces: int) -> None:
        """Raise the limit of open files to what so many namespaces need, until the end."""
        need = 3 * namespaces + _OTHER_FILES
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < need:
            ceiling = hard if hard == resource.RLIM_INFINITY else max(hard, need)
            with contextlib.suppress(ValueError, OSError):  # then EMFILE says it better
                resource.setrlimit(resource.RLIMIT_NOFILE, (need, ceiling))
                self._limits = (soft, hard)

    def create(self, name: str) -> OpenNamespace:
        """Create a namespace and leave the calling thread in it. Raises LabError, HostError."""
        return self._keep(name, netns.create(self.lab, name))

    def open(self, name: str) -> OpenNamespace:
        """Return the namespace ``name`` of the lab. Raises LabError where it does not exist."""
        opened = self._opened.get(name)
        if opened is None:
            fd = netns.open_namespace(paths.of(self.lab).namespaces / name)
            with netns.enter(fd):
                opened = self._keep(name, fd)
        return opened

    def close(self, name: str) -> None:
        """Close what is open of one namespace, so that nothing here keeps it alive."""
        if opened := self._opened.pop(name, None):
            opened.close()

    def _keep(self, name: str, fd: int) -> OpenNamespace:
        try:
            opened = OpenNamespace(name, fd, sockets.open_socket())
        except OSError:
            os.close(fd)
            raise
        self._opened[name] = opened
        return opened

    def generic(self, opened: OpenNamespace) -> socket.socket:
        """Return the namespace's generic netlink socket."""
        if opened.generic is None:
            with netns.enter(opened.fd):
                opened.generic = sockets.open_socket(sockets.GENERIC)
        return opened.generic

    def ipvs_family(self, opened: OpenNamespace) -> int:
        """Return the type of IPVS's messages, the same in every namespace. Raises HostError."""
        if self._family is None:
            self._family = ipvs.family_id(self.generic(opened))
        return self._family

    def node(self, name: str) -> str:
        """Return the node, or network, whose namespace is called ``name``."""
        return name.removeprefix(f"{NAMESPACE_PREFIX}-{self.lab}-")

    @contextlib.contextmanager
    def wrap_errors(self, op: Resource) -> Iterator[None]:
        """Turn errors of the kernel into KernelErrors about ``op``."""
        try:
            yield
        except OSError as error:
            raise self.failure(op, error.errno or 0, error.strerror or str(error)) from error
        except KernelError as error:
            if error.command:  # it is about a resource already
                raise
            raise self.failure(op, error.errno, error.message, error.hint) from error

    def failure(self, op: Resource, number: int, text: str, hint: str = "") -> KernelError:
        """Return the error that says which resource failed where, and what may help."""
        node = self.node(op.netns)
        command = "; ".join(op.describe())
        return KernelError(
            f"{node}: {text}\n    {command}",
            node=node,
            command=command,
            errno=number,
            hint=hint or op.hint(number),
        )
