"""Process 1's view of the warm processes: one in use, older ones seeing their commands out."""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback

from . import boot, command, warm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .session import Session

_SO_SNDBUFFORCE = 32  # SO_SNDBUF beyond the limit; the socket module does not name it


class WarmProcess:
    """A warm process: its channel, and the source code that it has imported."""

    def __init__(self, channel: socket.socket, fingerprint: str) -> None:
        self.channel = channel
        self.fingerprint = fingerprint


class WarmPool:
    """Hands lvsctl commands to a warm process that has the client's source code."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._current: WarmProcess | None = None
        self._retired: list[WarmProcess] = []
        self._died = False

    def start(self, path: list[str], fingerprint: str) -> None:
        """Start the first warm process, which imports by this sys.path."""
        self._path = path
        self._current = self._spawn(fingerprint)

    def ask(self, session: Session) -> None:
        """Have a session's command started; the answer comes from ``answers``."""
        fingerprint = session.request.fingerprint
        if self._current is not None and self._current.fingerprint != fingerprint:
            # It ends when its commands have.
            self._current.channel.shutdown(socket.SHUT_WR)
            self._retired.append(self._current)
            self._current = None
        if self._current is None:
            self._current = self._spawn(fingerprint)
        message = json.dumps({**vars(session.request), "session": session.identity}).encode()
        try:
            socket.send_fds(self._current.channel, [message], list(session.child_streams))
        except OSError as error:
            text = f"lvsctl: the machine cannot start the command: {error}\n"
            os.write(session.child_streams[2], text.encode())
            session.reject(command.BUG)

    def filenos(self) -> list[int]:
        """What to poll for answers."""
        return [process.channel.fileno() for process in self._processes()]

    def answers(self) -> Iterator[tuple[int, dict[str, int]]]:
        """Session and answer (see ``warm.serve``), as far as they have arrived."""
        for process in self._processes():
            while data := self._read(process):
                answer = json.loads(data)
                yield answer["session"], answer

    def died(self) -> bool:
        """Whether the warm process in use has died since the last call."""
        died, self._died = self._died, False
        return died

    def _processes(self) -> list[WarmProcess]:
        return [*self._retired, *([self._current] if self._current else [])]

    def _read(self, process: WarmProcess) -> bytes:
        """An answer; empty where there is none (any more)."""
        try:
            data = process.channel.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            # It has ended. Commands that it left behind are process 1's own children now.
            process.channel.close()
            if process is self._current:
                self._current = None
                self._died = True
            else:
                self._retired.remove(process)
        return data

    def _spawn(self, fingerprint: str) -> WarmProcess:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, warm.MAX_MESSAGE)
        if os.fork():
            theirs.close()
            return WarmProcess(ours, fingerprint)
        try:
            command.restore_signals()
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as in any Python
            ours.detach()
            # The commands' streams must end when process 1 and the command close them.
            os.closerange(3, theirs.fileno())
            os.closerange(theirs.fileno() + 1, boot.MAX_OPEN_FILES)
            warm.serve(theirs, self._path)
        except BaseException:  # noqa: BLE001 - a child must never return into process 1's loop
            traceback.print_exc()
        finally:
            os._exit(command.BUG)
