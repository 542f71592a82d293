"""The machine's background process on the host: owns its kernel and routes frames.

Started by ``lvsctl.machine.launch`` as ``python -m lvsctl.machine.broker JSON``. It forks: the
parent (``launch.guard``) waits, and cleans up whatever happens to the broker or to the kernel;
the child is the broker.
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lvsctl.errors import HostError, LvsctlError
from lvsctl.machine import (
    directories,
    frames,
    launch,
    mount_namespace,
    process,
    records,
    runtime_files,
)
from lvsctl.machine.config import BrokerArguments, guest_config
from lvsctl.machine.kinds import KINDS
from lvsctl.machine.runtime_files import RuntimeFiles


class SerialLink:
    """The serial link to the guest. Never holds more than a window of unread bytes."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._window = frames.Credit(frames.LINK_WINDOW)
        self._room = asyncio.Event()
        # asyncio's locks are fair: sessions alternate frame by frame.
        self._turn = asyncio.Lock()
        self._ended = False

    async def send(self, data: bytes) -> None:
        """Send one whole frame; drop it if the guest has ended, or ends meanwhile."""
        async with self._turn:
            while data and not self._ended:
                taken = self._window.spend(len(data))
                if taken:
                    self._writer.write(data[:taken])
                    data = data[taken:]
                else:
                    self._room.clear()
                    await self._room.wait()

    def acknowledged(self, amount: int) -> None:
        """Record that the guest has read ``amount`` bytes."""
        self._window.grant(amount)
        self._room.set()

    def end(self) -> None:
        """Drop what is not sent yet: a guest that has ended acknowledges nothing any more."""
        self._ended = True
        self._room.set()


POWER_OFF_TIMEOUT = 5.0
"""Seconds that a guest may take to power off before it is killed."""

CONSOLE_LINES = 100
LINES_SHOWN = 8

_FROM_CLIENTS = frozenset(
    {
        *(frames.RUN, frames.STDIN, frames.SIGNAL, frames.RESIZE, frames.CLOSE),
        *(frames.CREDIT, frames.PING),
    }
)
_TO_CLIENTS = frozenset({frames.STDOUT, frames.STDERR, frames.EXIT, frames.PONG, frames.CREDIT})


class Broker:
    """One machine: its kernel's process, its serial link, its clients."""

    def __init__(self, arguments: BrokerArguments, files: RuntimeFiles, work: Path) -> None:
        self._arguments = arguments
        self._where = files
        self._work = work
        self._full = ""
        self._has_mount_namespace = False
        self._clients: dict[int, asyncio.StreamWriter] = {}
        self._next_session = 1
        self._console: deque[str] = deque(maxlen=CONSOLE_LINES)
        self._hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._stop = asyncio.Event()
        self._started = time.monotonic()

    async def run(self, started: process.StartedMachine) -> None:
        """Serve until the machine has ended. Raises HostError if it does not start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        self._process = started.process
        self._limitations = started.limitations
        with contextlib.suppress(FileNotFoundError):  # it has ended already
            self._has_mount_namespace = mount_namespace.is_own(self._process.pid)
        reader, writer = await asyncio.open_connection(sock=started.link)
        self._link = SerialLink(writer)
        console = asyncio.StreamReader()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(console), started.process.stdout
        )
        # Helper processes of a killed User-Mode Linux keep the link open: watch the kernel too.
        process_fd = os.pidfd_open(self._process.pid)
        loop.add_reader(process_fd, self._ended.set)
        tasks = [
            asyncio.create_task(self._read_console(console)),
            asyncio.create_task(self._read_link(reader)),
        ]
        try:
            await self._wait_for_hello()
            server = await asyncio.start_unix_server(self._accept, str(self._where.socket))
            self._where.socket.chmod(0o600)
            shown = [text for text in self._limitations if text != process.USUAL]
            program = self._arguments.config.kernel.program
            shown += complaints_of_modules(self._hello.result()["failed_modules"], program)
            _report(self._arguments.report, {"ready": True, "messages": shown})
            await self._wait_for_end()
            server.close()
        finally:
            loop.remove_reader(process_fd)
            os.close(process_fd)
            await self._end_kernel()
            self._link.end()
            for task in tasks:
                await asyncio.wait([task], timeout=1)
        await self._notify_clients()

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
        if self._stop.is_set() and not self._hello.done():
            raise HostError(
                "the machine was stopped while it started", hint="start it again: the same command"
            )
        if not self._hello.done():
            console = "\n".join(relevant_lines(list(self._console))) or "(nothing)"
            raise HostError(
                f"the machine did not start; its console:\n{console}",
                hint=_hint(self._arguments.config.kernel.program),
            )

    async def _wait_for_end(self) -> None:
        ends = [asyncio.create_task(e.wait()) for e in (self._ended, self._stop)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()

    async def _end_kernel(self) -> None:
        """Power off the guest if it still runs, and kill every process of it."""
        if not self._ended.is_set():
            # A guest that hangs acknowledges nothing: waiting for room must not block.
            quit_task = asyncio.create_task(self._link.send(frames.frame(frames.QUIT)))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), POWER_OFF_TIMEOUT)
            quit_task.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)
        self._full = file_system_is_full(self._work)

    async def _notify_clients(self) -> None:
        if self._stop.is_set():
            died = {"message": "the machine was stopped", "hint": ""}
        else:
            died = reason_of_death(list(self._console), self._arguments.config.memory, self._full)
        message = frames.frame(frames.DIED, 0, json.dumps(died).encode())
        for writer in list(self._clients.values()):
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                writer.write(message)
                await asyncio.wait_for(writer.drain(), timeout=1)

    # Frames from the guest.

    async def _read_console(self, console: asyncio.StreamReader) -> None:
        rest = b""
        while data := await console.read(4096):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-4096:]
            self._console.extend(line.decode(errors="replace").rstrip() for line in lines)

    async def _read_link(self, reader: asyncio.StreamReader) -> None:
        decoder = frames.Decoder()
        try:
            while data := await reader.read(65536):
                for kind, session, payload in decoder.feed(data):
                    self._from_guest(kind, session, payload)
        except (OSError, frames.FrameError) as error:
            self._console.append(f"lvsctl: the serial link to the machine failed: {error}")
        finally:
            self._ended.set()

    def _from_guest(self, kind: int, session: int, payload: bytes) -> None:
        if kind == frames.ACK:
            self._link.acknowledged(frames.number_of(payload))
        elif kind == frames.BOOTED:
            config = json.dumps(guest_config(self._arguments.config)).encode()
            self._config = asyncio.create_task(
                self._link.send(frames.frame(frames.CONFIG, 0, config))
            )
        elif kind == frames.HELLO:
            if not self._hello.done():
                self._hello.set_result(json.loads(payload))
        elif kind in _TO_CLIENTS and (writer := self._clients.get(session)):
            # No drain: credit bounds what is on its way to one client.
            writer.write(frames.frame(kind, 0, payload))

    # Frames from clients.

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = self._next_session
        self._next_session += 1
        self._clients[session] = writer
        writer.write(
            frames.frame(frames.WELCOME, 0, json.dumps({"protocol": frames.PROTOCOL}).encode())
        )
        try:
            await self._serve(session, reader, writer)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # a client that disconnects or sends garbage affects only itself
        finally:
            del self._clients[session]
            writer.close()
            await self._link.send(frames.frame(frames.HANGUP, session))

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
                    if kind == frames.RUN and self._has_mount_namespace:
                        self._open_for_writing(payload)
                    await self._link.send(frames.frame(kind, session, payload))

    def _open_for_writing(self, request: bytes) -> None:
        """Make the directories of a command writable, before the guest receives the request."""
        for directory in json.loads(request)["writable"]:
            try:
                mount_namespace.open_for(self._process.pid, directory)
            except OSError as error:  # the command gets the error when it writes
                self._console.append(f"lvsctl: {directory} remains read-only: {error}")

    def _status(self) -> dict[str, object]:
        hello = self._hello.result()
        complaints = [*self._limitations, *hello["complaints"]]
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


_OUT_OF_MEMORY = ("Out of memory", "out of memory", "deadlocked on memory", "oom-kill")
LITTLE = 1024 * 1024
"""Bytes: a file system with less room than this is full."""


def reason_of_death(console: Sequence[str], memory: int, full: str) -> dict[str, str]:
    """Return why a machine of ``memory`` MiB died, as the content of a DIED frame.

    ``full`` is the file system of its memory if that is full, else empty.
    """
    last = "\n".join(f"    {line}" for line in relevant_lines(console))
    shown = f"; the last lines of its console:\n{last}" if last else ", without a word"
    if full:
        return {
            "message": f"the machine died because {full}, which holds its memory, is full{shown}",
            "hint": f"free some space in {full}, or set TMPDIR to another directory",
        }
    if any(word in line for line in console for word in _OUT_OF_MEMORY):
        return {
            "message": f"the machine ran out of its memory ({memory} MiB) and died{shown}",
            "hint": f"start it with more: lvsctl machine start --memory {max(1024, 2 * memory)}",
        }
    return {
        "message": f"the machine died{shown}",
        "hint": "start it again: its labs are lost, the host is not affected",
    }


def file_system_is_full(work: Path) -> str:
    """Return the directory that holds a work directory if its file system is full; else empty."""
    try:
        found = os.statvfs(work)
    except OSError:
        return ""
    return str(work.parent) if found.f_bavail * found.f_frsize < LITTLE else ""


def relevant_lines(console: Sequence[str]) -> Sequence[str]:
    """Return the lines of a dead machine's console that explain it: of a panic, else the last."""
    for index, line in enumerate(console):
        if "Kernel panic" in line or line.startswith("Traceback"):
            return console[index : index + LINES_SHOWN]
    return console[-LINES_SHOWN:]


def complaints_of_modules(failed: Mapping[str, str], program: Path) -> list[str]:
    """Return what to tell of the modules that are none to the kernel: their files are damaged.

    ``failed`` are those that did not load, name → reason. The others are the kernel's own affair:
    a kernel that the user chose need not have them all.
    """
    damaged = [name for name, why in failed.items() if why == os.strerror(errno.ENOEXEC)]
    if not damaged:
        return []
    text = f"the kernel cannot load {', '.join(sorted(damaged))} ({os.strerror(errno.ENOEXEC)})"
    fetch = _fetching_again(program)
    return [f"{text}; {_IF_DAMAGED}: lvsctl machine stop; {fetch}" if fetch else text]


_IF_DAMAGED = "if the kernel's files are damaged, this fetches them again"


def _hint(program: Path) -> str:
    """Return what helps if a kernel does not start."""
    fetch = _fetching_again(program)
    return f"{_IF_DAMAGED}: {fetch}" if fetch else "lvsctl doctor lists what the machine needs"


def _fetching_again(program: Path) -> str:
    """Return the commands that fetch a kernel again; empty if lvsctl did not fetch it."""
    cache = directories.cache_directory()
    if not program.is_relative_to(cache):
        return ""
    tree = cache.joinpath(*program.relative_to(cache).parts[:2])
    return f"rm -r {tree}; lvsctl machine start"


async def _closed(fd: int) -> None:
    """Return when the reading end of a pipe has been closed."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(fd)


def _report(fd: int, message: dict[str, object]) -> None:
    """Send a message to the client that waits for the machine, if it still waits."""
    with contextlib.suppress(OSError):
        os.write(fd, json.dumps(message).encode() + b"\n")
    # Standard error is the same pipe: close it too, or the client waits for ever.
    null = os.open(os.devnull, os.O_WRONLY)
    for target in (fd, 2):
        os.dup2(null, target)
    os.close(null)


def _start(arguments: BrokerArguments, files: RuntimeFiles) -> None:
    """Spawn the kernel, serve, clean up. Errors are reported to the waiting client."""
    work: Path | None = None
    try:
        kind = KINDS[arguments.config.kind]
        work = kind.work_directory(arguments.config)
        record = records.Record(
            boot=records.boot_id(),
            pid=0,
            started=0,
            work=str(work),
            broker=records.process(os.getpid()),
            supervisor=records.process(os.getppid()),
        )
        records.write(files.record, record)  # before the kernel, which takes a moment to start
        started = kind.spawn(arguments.config, work)
        pid, time_started = records.process(started.process.pid)
        records.write(files.record, record._replace(pid=pid, started=time_started))
        _cache_byte_code()
        asyncio.run(_serve(arguments, files, started, work))
    except LvsctlError as error:
        hint = error.hint or _hint(arguments.config.kernel.program)
        _report(arguments.report, {"error": error.message, "hint": hint})
    except OSError as error:
        hint = f"free some space in {files.directory}" if error.errno == errno.ENOSPC else ""
        _report(arguments.report, {"error": f"the machine did not start: {error}", "hint": hint})
    finally:
        if work is not None:
            records.remove_work(str(work))


def _cache_byte_code() -> None:
    """Cache the agent's byte code while the kernel boots: the guest cannot write it."""
    importlib.import_module("lvsctl.machine.guest.agent")
    importlib.import_module("lvsctl.machine.guest.forkserver")


async def _serve(
    arguments: BrokerArguments, files: RuntimeFiles, started: process.StartedMachine, work: Path
) -> None:
    await Broker(arguments, files, work).run(started)


def main() -> None:
    """Run ``python -m lvsctl.machine.broker``."""
    arguments = BrokerArguments.from_json(sys.argv[1])
    files = runtime_files.for_machine(arguments.name)
    os.chdir("/")
    os.umask(0o077)
    if os.fork():
        os._exit(0)  # the client waits for this process, and so has no zombie child
    launch.guard(files, arguments.life_lock, arguments.report)
    _start(arguments, files)


if __name__ == "__main__":
    main()
