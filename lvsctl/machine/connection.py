"""A client's connection to its machine's broker."""

from __future__ import annotations

import contextlib
import json
import socket
from types import TracebackType
from typing import Self

from lvsctl.errors import HostError, LabError
from lvsctl.machine import frames
from lvsctl.machine.runtime_files import RuntimeFiles

_WELCOME_TIMEOUT = 10.0


class Connection:
    """Frames to and from the broker over its socket. Closed by leaving the context."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = frames.Decoder()
        self._arrived: list[tuple[int, bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Return the socket's file descriptor, for poll."""
        return self._socket.fileno()

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send one frame. If the broker has ended, the next ``receive`` raises the error."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(frames.frame(kind, 0, payload))

    def receive(self) -> list[tuple[int, bytes]]:
        """Wait for frames and return them, as (kind, payload).

        Raises HostError if the machine or its broker has ended.
        """
        while not self._arrived:
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise HostError(
                    "the machine's background process has died, and the machine with it",
                    hint="start it again: its labs are lost, the host is not affected",
                )
            self._arrived = [(kind, payload) for kind, _, payload in self._decoder.feed(data)]
        arrived, self._arrived = self._arrived, []
        for index, (kind, payload) in enumerate(arrived):
            if kind == frames.DIED and index == 0:
                died = json.loads(payload)
                raise HostError(died["message"], hint=died["hint"])
            if kind == frames.DIED:  # after the frames before it
                self._arrived = arrived[index:]
                return arrived[:index]
        return arrived

    def pending(self) -> bool:
        """Return whether ``receive`` would return (or raise) without reading."""
        return bool(self._arrived)

    def wait_for(self, kind: int, timeout: float) -> bytes:
        """Return the payload of the next frame of this kind; drop others before it.

        ``timeout`` is in seconds. Raises HostError if no such frame arrives.
        """
        self._socket.settimeout(timeout)
        try:
            while True:
                for index, (arrived, payload) in enumerate(frames_now := self.receive()):
                    if arrived == kind:
                        self._arrived = frames_now[index + 1 :]
                        return payload
        except TimeoutError as error:
            raise HostError(
                "the machine does not respond", hint="stop it: lvsctl machine stop"
            ) from error
        finally:
            self._socket.settimeout(None)

    def wait_for_end(self, timeout: float) -> None:
        """Wait until the broker closes the connection, up to ``timeout`` seconds."""
        self._socket.settimeout(timeout)
        with contextlib.suppress(TimeoutError, HostError):
            while True:
                self.receive()


def connect(files: RuntimeFiles, *, any_version: bool = False) -> Connection | None:
    """Connect to a running machine; return None if none runs.

    Raises LabError if it was started by an incompatible version of lvsctl, unless ``any_version``
    (for STOP, which every version accepts), and HostError if its broker does not respond.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(str(files.socket))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    connection = Connection(sock)
    try:
        welcome = json.loads(connection.wait_for(frames.WELCOME, _WELCOME_TIMEOUT))
        if welcome["protocol"] != frames.PROTOCOL and not any_version:
            raise LabError(
                f"the machine {files.name} was started by another version of lvsctl",
                hint="stop it and its labs: lvsctl machine stop",
            )
    except BaseException:
        sock.close()
        raise
    return connection
