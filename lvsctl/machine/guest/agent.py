"""Process 1 of the machine: sets the guest up, then runs commands for the broker.

Started as ``python -I -S init.py LINK``. The broker is at the other end of the device LINK and
sends the configuration; when the link is closed, the machine powers off.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import sys
import time
import traceback

from lvsctl import linux
from lvsctl.machine import frames
from lvsctl.machine.guest import boot, command, mounts
from lvsctl.machine.guest.forkserver import EntryPoint, ForkServers
from lvsctl.machine.guest.session import Session, memory_failures

_REFUSED = (ValueError, LookupError, TypeError, OSError, RecursionError, MemoryError, struct.error)
"""The errors by which a malformed frame shows."""


class Agent:
    """The main loop of process 1."""

    def __init__(self, link: int) -> None:
        self._link = link
        self._decoder = frames.Decoder()
        self._sessions: dict[int, Session] = {}
        self._fork_servers = ForkServers()
        self._fingerprint = ""
        self._quit = False
        self._wakeup, wakeup_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self._wakeup, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    # The link to the broker.

    def send(self, kind: int, session: int = 0, payload: bytes = b"") -> None:
        """Send one frame; the broker always reads, so this does not block for long."""
        data = memoryview(frames.frame(kind, session, payload))
        while data:
            data = data[os.write(self._link, data) :]

    def run(self) -> None:
        """Serve until the link is closed or the broker sends QUIT."""
        self.send(frames.BOOTED)
        while not self._quit:
            self._turn()

    def _configure(self, config: dict[str, object]) -> None:
        self.send(frames.HELLO, 0, json.dumps(boot.set_up(config)).encode())
        self._fingerprint = str(config["fingerprint"])
        entry = EntryPoint(
            boot.strings(config["path"]), str(config["main"]), str(config["preload"])
        )
        self._fork_servers.start(entry, self._fingerprint)

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        owners = {}
        for fd in self._fork_servers.filenos():
            poll.register(fd, select.POLLIN)
        for session in self._sessions.values():
            for fd, events in session.interests().items():
                poll.register(fd, events)
                owners[fd] = session
        for fd, events in poll.poll(self._timeout()):
            if fd == self._link:
                self._read_link()
            elif fd == self._wakeup:
                os.read(self._wakeup, 4096)
            elif fd in owners:
                owners[fd].ready(fd, events, time.monotonic())
        self._read_fork_servers()
        self._reap()
        self._finish_sessions()

    def _timeout(self) -> float | None:
        deadlines = [d for s in self._sessions.values() if (d := s.deadline()) is not None]
        if not deadlines:
            return None
        return max(0.0, min(deadlines) - time.monotonic()) * 1000 + 1

    def _read_link(self) -> None:
        try:
            data = os.read(self._link, 4096)
        except OSError:
            data = b""
        if not data:
            self._quit = True  # the broker has ended
            return
        self.send(frames.ACK, 0, frames.number(len(data)))
        for kind, session, payload in self._decoder.feed(data):
            try:
                self._handle(kind, session, payload)
            except _REFUSED as error:
                if session == 0:
                    raise  # of the broker, which does not send garbage
                self._refuse(session, f"the machine cannot do this: {error!r}")

    def _refuse(self, identity: int, why: str) -> None:
        """End the session of a client that sends garbage; no other session is affected."""
        session = self._sessions.get(identity)
        if session is not None:
            session.hang_up(time.monotonic())
        self.send(frames.STDERR, identity, f"lvsctl: {why}\n".encode())
        self.send(frames.EXIT, identity, frames.number(command.HOST_CANNOT))

    def _handle(self, kind: int, identity: int, payload: bytes) -> None:
        if kind == frames.RUN:
            self._start(identity, command.Request(json.loads(payload)))
        elif kind == frames.CONFIG:
            self._configure(json.loads(payload))
        elif kind == frames.QUIT:
            self._quit = True
        elif kind == frames.PING:
            self.send(frames.PONG, identity, json.dumps(self._status()).encode())
        elif (session := self._sessions.get(identity)) is not None:
            session.handle(kind, payload, time.monotonic())

    def _status(self) -> dict[str, object]:
        with open("/proc/meminfo", encoding="ascii") as file:
            memory = {line.split(":")[0]: int(line.split()[1]) for line in file}
        return {
            "memory_total_kib": memory["MemTotal"],
            "memory_available_kib": memory["MemAvailable"],
            "commands": len(self._sessions),
        }

    # Commands.

    def _start(self, identity: int, request: command.Request) -> None:
        if request.fingerprint != self._fingerprint:
            mounts.drop_cache()
            self._fingerprint = request.fingerprint
        if identity in self._sessions:
            raise ValueError("a second request in one session")
        session = Session(identity, request, self.send)
        self._sessions[identity] = session
        try:
            if request.kind == "lvsctl":
                self._fork_servers.start_command(session)
            else:
                session.started(self._fork_exec(session))
        except OSError as error:  # no process can be created
            command.print_refusal(session.child_streams[2], error)
            session.reject(command.HOST_CANNOT)
        session.close_child_streams()

    def _fork_exec(self, session: Session) -> int:
        pid = command.fork()
        if pid:
            return pid
        try:
            command.restore_signals()
            command.become(session.request, session.child_streams)
            command.execute(session.request)
        except BaseException:  # noqa: BLE001 - a child must never return into process 1's loop
            traceback.print_exc()
        finally:
            os._exit(command.BUG)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for session in self._sessions.values():
                if session.pid == pid and session.status is None:
                    self._session_ended(session, status)

    def _session_ended(self, session: Session, wait_status: int) -> None:
        code = os.waitstatus_to_exitcode(wait_status)
        if code == -signal.SIGKILL and memory_failures() > session.memory_failures:
            self._say_memory_is_used_up(session)
            code = command.HOST_CANNOT
        session.ended(code if code >= 0 else 128 - code, time.monotonic())

    def _say_memory_is_used_up(self, session: Session) -> None:
        if not session.hung_up:
            total = self._status()["memory_total_kib"]
            text = (
                f"lvsctl: the machine ran out of its memory ({int(str(total)) // 1024} MiB besides "
                "its kernel's own), and the kernel killed the command\n  → start it with more: "
                "lvsctl machine stop; lvsctl machine start --memory 2048\n"
            )
            self.send(frames.STDERR, session.identity, text.encode())

    def _finish_sessions(self) -> None:
        now = time.monotonic()
        for identity, session in list(self._sessions.items()):
            session.tick(now)
            if session.finished(now):
                del self._sessions[identity]
                if not session.hung_up:
                    self.send(frames.EXIT, identity, frames.number(session.status or 0))

    def _read_fork_servers(self) -> None:
        for identity, answer in self._fork_servers.answers():
            session = self._sessions.get(identity)
            if session is None or session.status is not None:
                continue
            if "pid" in answer:
                session.started(answer["pid"])
                if session.hung_up:  # before there was a process to signal
                    session.hang_up(time.monotonic())
            else:
                self._session_ended(session, answer["status"])
        if self._fork_servers.died():
            for session in self._sessions.values():
                if session.request.kind == "lvsctl" and session.pid == 0:
                    self._lost(session)

    def _lost(self, session: Session) -> None:
        """End a session whose fork server has died before it started the command."""
        if memory_failures() > session.memory_failures:
            self._say_memory_is_used_up(session)
            session.ended(command.HOST_CANNOT, time.monotonic())
            return
        text = "lvsctl: the machine's fork server has died; the next command gets a new one\n"
        self.send(frames.STDERR, session.identity, text.encode())
        session.ended(command.BUG, time.monotonic())


def _power_off() -> None:
    linux.power_off()
    signal.pause()  # if process 1 ended, the kernel would panic


def main() -> None:
    """Run process 1. Never returns."""
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        Agent(boot.open_link(sys.argv[1])).run()
    except BaseException:  # noqa: BLE001 - the console is the only output
        traceback.print_exc()
    _power_off()
