"""The machine's background process on the host: owns the kernel, routes frames to and from it.

Started by ``lvsctl.machine.client`` as ``python -m lvsctl.machine.broker JSON``. Two
processes come of it. The first, the *shepherd*, only waits: whatever happens to the
broker or to the kernel, it ends what is left and removes every file. The second is the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lvsctl.errors import HostError, LvsctlError
from lvsctl.machine import confinement, frames, mount_namespace, process, runtime_files, supervisor
from lvsctl.machine.config import BrokerArguments, guest_config
from lvsctl.machine.kinds import KINDS
from lvsctl.machine.runtime_files import RuntimeFiles
from lvsctl.machine.serial_link import SerialLink

POWER_OFF_TIMEOUT = 5.0
"""Seconds until a guest that was told to power off is killed."""

CONSOLE_LINES = 100
LAST_WORDS = 8

_FROM_CLIENTS = frozenset(
    {
        *(frames.RUN, frames.STDIN, frames.SIGNAL, frames.RESIZE, frames.CLOSE),
        *(frames.CREDIT, frames.PING),
    }
)
_TO_CLIENTS = frozenset({frames.STDOUT, frames.STDERR, frames.EXIT, frames.PONG, frames.CREDIT})


class Broker:
    """One machine: its kernel's process, its line, its clients."""

    def __init__(self, arguments: BrokerArguments, files: RuntimeFiles) -> None:
        self._arguments = arguments
        self._where = files
        self._clients: dict[int, asyncio.StreamWriter] = {}
        self._next_session = 1
        self._console: deque[str] = deque(maxlen=CONSOLE_LINES)
        self._hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._stop = asyncio.Event()
        self._started = time.monotonic()

    async def run(self, started: process.StartedMachine) -> None:
        """Serve until the machine has ended. Raises HostError where it does not start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        self._process = started.process
        self._lacks = started.limitations
        self._has_view = mount_namespace.is_own(self._process.pid)
        reader, writer = await asyncio.open_connection(sock=started.line)
        self._line = SerialLink(writer)
        console = asyncio.StreamReader()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(console), started.process.stdout
        )
        # Not the line's end alone: helpers of a killed User-Mode Linux keep the line open.
        process_fd = os.pidfd_open(self._process.pid)
        loop.add_reader(process_fd, self._ended.set)
        tasks = [
            asyncio.create_task(self._read_console(console)),
            asyncio.create_task(self._read_line(reader)),
        ]
        try:
            await self._wait_for_hello()
            server = await asyncio.start_unix_server(self._accept, str(self._where.socket))
            self._where.socket.chmod(0o600)
            told = [lack for lack in self._lacks if lack != confinement.USUAL]
            _report(self._arguments.report, {"ready": True, "told": told})
            await self._wait_for_end()
            server.close()
        finally:
            loop.remove_reader(process_fd)
            await self._end_kernel()
            for task in tasks:
                await asyncio.wait([task], timeout=1)
        await self._tell_clients()

    # Boot and end.

    def _boot_timeout(self) -> float:
        return KINDS[self._arguments.config.kind].boot_timeout(self._arguments.config)

    async def _wait_for_hello(self) -> None:
        ended = asyncio.create_task(self._ended.wait())
        abandoned = asyncio.create_task(_closed(self._arguments.report))
        stopped = asyncio.create_task(self._stop.wait())
        waiting: set[asyncio.Future[object]] = {self._hello, ended, abandoned, stopped}  # type: ignore[arg-type]
        await asyncio.wait(
            waiting, timeout=self._boot_timeout(), return_when=asyncio.FIRST_COMPLETED
        )
        for task in (ended, abandoned, stopped):
            task.cancel()
        if not self._hello.done():
            console = "\n".join(telling_lines(list(self._console))) or "(nothing)"
            raise HostError(
                f"the machine did not start; its console says:\n{console}",
                hint="lvsctl doctor says what the machine needs",
            )

    async def _wait_for_end(self) -> None:
        ends = [asyncio.create_task(e.wait()) for e in (self._ended, self._stop)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()

    async def _end_kernel(self) -> None:
        """Power off if it still runs, and see that no process of it remains."""
        if not self._ended.is_set():
            # A guest that hangs does not acknowledge, so this must not wait for room.
            quit_task = asyncio.create_task(self._line.send(frames.frame(frames.QUIT)))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), POWER_OFF_TIMEOUT)
            quit_task.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)

    async def _tell_clients(self) -> None:
        if self._stop.is_set():
            died = {"message": "the machine was stopped", "hint": ""}
        else:
            last = "\n".join(f"    {line}" for line in telling_lines(list(self._console)))
            died = {
                "message": f"the machine died; the last lines of its console:\n{last}",
                "hint": "start again: its labs are gone, the host is untouched",
            }
        message = frames.frame(frames.DIED, 0, json.dumps(died).encode())
        for writer in list(self._clients.values()):
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                writer.write(message)
                await asyncio.wait_for(writer.drain(), timeout=1)

    # The guest's side.

    async def _read_console(self, console: asyncio.StreamReader) -> None:
        rest = b""
        while data := await console.read(4096):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-4096:]
            self._console.extend(line.decode(errors="replace").rstrip() for line in lines)

    async def _read_line(self, reader: asyncio.StreamReader) -> None:
        decoder = frames.Decoder()
        try:
            while data := await reader.read(65536):
                for kind, session, payload in decoder.feed(data):
                    self._from_guest(kind, session, payload)
        except (OSError, frames.FrameError) as error:
            self._console.append(f"lvsctl: the line to the machine broke: {error}")
        finally:
            self._ended.set()

    def _from_guest(self, kind: int, session: int, payload: bytes) -> None:
        if kind == frames.ACK:
            self._line.acknowledged(frames.number_of(payload))
        elif kind == frames.BOOTED:
            config = json.dumps(guest_config(self._arguments.config)).encode()
            self._config = asyncio.create_task(
                self._line.send(frames.frame(frames.CONFIG, 0, config))
            )
        elif kind == frames.HELLO:
            if not self._hello.done():
                self._hello.set_result(json.loads(payload))
        elif kind in _TO_CLIENTS and (writer := self._clients.get(session)):
            # No drain: credit bounds what one client can have on its way.
            writer.write(frames.frame(kind, 0, payload))

    # The clients' side.

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = self._next_session
        self._next_session += 1
        self._clients[session] = writer
        writer.write(
            frames.frame(frames.WELCOME, 0, json.dumps({"protocol": frames.PROTOCOL}).encode())
        )
        try:
            await self._serve(session, reader, writer)
        except (OSError, frames.FrameError):
            pass  # a client that breaks off or talks nonsense harms only itself
        finally:
            del self._clients[session]
            writer.close()
            await self._line.send(frames.frame(frames.HANGUP, session))

    async def _serve(
        self, session: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        decoder = frames.Decoder()
        while data := await reader.read(16384):
            for kind, _, payload in decoder.feed(data):
                if kind == frames.STATUS:
                    status = json.dumps(self._status()).encode()
                    writer.write(frames.frame(frames.STATUS, 0, status))
                elif kind == frames.STOP:
                    self._stop.set()
                elif kind in _FROM_CLIENTS:
                    if kind == frames.RUN and self._has_view:
                        self._open_for_writing(payload)
                    await self._line.send(frames.frame(kind, session, payload))

    def _open_for_writing(self, request: bytes) -> None:
        """What a command names, before the guest hears of it."""
        for directory in json.loads(request)["writable"]:
            try:
                mount_namespace.open_for(self._process.pid, directory)
            except OSError as error:  # the command is told so itself once it writes
                self._console.append(f"lvsctl: {directory} stays read-only: {error}")

    def _status(self) -> dict[str, object]:
        hello = self._hello.result()
        complaints = [*self._lacks, *hello["complaints"]]
        return {
            "pid": os.getpid(),
            "uptime": time.monotonic() - self._started,
            "kind": self._arguments.config.kind,
            "kernel": str(self._arguments.config.kernel.program),
            "accelerator": self._arguments.config.accelerator,
            "cpus": self._arguments.config.cpus,
            "memory": self._arguments.config.memory,
            "writable": list(self._arguments.config.writable),
            **hello,
            "complaints": complaints,
        }


def telling_lines(console: Sequence[str]) -> Sequence[str]:
    """The few lines of a dead machine's console that say why: a panic's first, else the last."""
    for index, line in enumerate(console):
        if "Kernel panic" in line or line.startswith("Traceback"):
            return console[index : index + LAST_WORDS]
    return console[-LAST_WORDS:]


async def _closed(fd: int) -> None:
    """Return when the other end of a pipe that we only write has been closed."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(fd)


def _report(fd: int, message: dict[str, object]) -> None:
    """Tell the client that waits for the machine; it may have gone."""
    with contextlib.suppress(OSError):
        os.write(fd, json.dumps(message).encode() + b"\n")
    # Standard error is the same pipe: the client must see its end.
    null = os.open(os.devnull, os.O_WRONLY)
    for target in (fd, 2):
        os.dup2(null, target)
    os.close(null)


def _start(arguments: BrokerArguments, files: RuntimeFiles) -> None:
    """The broker's life: spawn, serve, clean up. Reports failure to the waiting client."""
    work: Path | None = None
    try:
        kind = KINDS[arguments.config.kind]
        work = kind.work_directory(arguments.config)
        started = kind.spawn(arguments.config, work)
        record = runtime_files.Record(
            boot=runtime_files.boot_id(),
            pid=started.process.pid,
            started=runtime_files.start_time(started.process.pid) or 0,
            work=str(work),
        )
        runtime_files.write_record(files, record)
        _compile_agent()
        asyncio.run(_serve(arguments, files, started))
    except LvsctlError as error:
        _report(arguments.report, {"error": error.message, "hint": error.hint})
    except OSError as error:
        hint = f"is there room in {files.directory}?" if error.errno == errno.ENOSPC else ""
        _report(arguments.report, {"error": f"the machine did not start: {error}", "hint": hint})
    finally:
        if work is not None:
            runtime_files.remove_work(str(work))


def _compile_agent() -> None:
    """Have the agent's byte code cached while the kernel boots; the guest cannot write it."""
    importlib.import_module("lvsctl.machine.guest.agent")
    importlib.import_module("lvsctl.machine.guest.forkserver")


async def _serve(
    arguments: BrokerArguments, files: RuntimeFiles, started: process.StartedMachine
) -> None:
    await Broker(arguments, files).run(started)


def main() -> None:
    """Entry of ``python -m lvsctl.machine.broker``."""
    arguments = BrokerArguments.from_json(sys.argv[1])
    files = runtime_files.for_machine(arguments.name)
    os.chdir("/")
    os.umask(0o077)
    if os.fork():
        os._exit(0)  # the client waits for this one, so that it never has a zombie child
    supervisor.guard(files, arguments.life_lock, arguments.report)
    _start(arguments, files)


if __name__ == "__main__":
    main()
