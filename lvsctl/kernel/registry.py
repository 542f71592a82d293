"""The labs of this machine: their entries, the lock for changing one, and its removal.

A lab's directory is written before the lab's first effect, so that a command killed
at any point leaves something for `lvsctl down` to find. What `down` removes is seen
from what exists (``kernel.paths``): an entry that cannot be read is still removable.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from lvsctl.errors import HostError, LabError
from lvsctl.kernel import loopback, netns, paths, processes
from lvsctl.kernel.paths import wrap_os_errors

FORMAT = 1
"""Of registry.json; another number is another version's, and only fit for removal."""

_END_OF_TIME = 1e11
"""The year 5138, in seconds since the epoch."""

LOCK_SECONDS = 10.0
_POLL_SECONDS = 0.02
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class State(StrEnum):
    """The state of a lab when its entry was last written."""

    COMING_UP = "coming-up"
    UP = "up"
    CHANGING = "changing"
    """Running, but partly as another topology if the command that was changing it has ended."""
    GOING_DOWN = "going-down"
    BROKEN = "broken"
    """Never written: the entry cannot be read or is a leftover (``Entry.problem``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A lab in the registry.

    ``topology`` is the text that it was started from, ``source`` the place of that
    text, ``argument`` its name on the command line and ``overrides`` what that changed, so
    that the same plan can be made again. ``started`` is in seconds since the epoch.
    ``problem`` says what is wrong where ``state`` is BROKEN.
    """

    lab: str
    topology: str = ""
    source: str = ""
    argument: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    namespaces: tuple[str, ...] = ()
    started: float = 0.0
    state: State = State.COMING_UP
    problem: str = ""


class Removed(NamedTuple):
    """What ``remove`` found and removed: names of namespaces, and how many processes ended.

    ``existed`` False: there was nothing of that lab at all.
    """

    existed: bool
    namespaces: tuple[str, ...]
    processes: int


@contextlib.contextmanager
def lock(lab: str, seconds: float | None = None) -> Iterator[None]:
    """Hold the lock of ``lab``, so that no other command changes it.

    Raises LabError, naming the other command, where it still holds the lab after
    ``seconds`` (LOCK_SECONDS); HostError where there can be no lock.
    """
    file = paths.of(lab).lock
    fd = _acquire(lab, file, time.monotonic() + (LOCK_SECONDS if seconds is None else seconds))
    try:
        yield
    finally:
        _let_go(lab, file, fd)
        with contextlib.suppress(OSError):  # other labs are there
            paths.RUN.rmdir()


def _acquire(lab: str, file: Path, deadline: float) -> int:
    with wrap_os_errors(f"lock lab {lab}"):
        fd = _open_lock(file)
        try:
            while not _taken(fd, file):
                if time.monotonic() > deadline:
                    raise LabError(f"lab {lab} is being changed by {_holder(fd)}",
                                   hint="wait for it to end, or end it")  # fmt: skip
                if _is(fd, file):
                    time.sleep(_POLL_SECONDS)  # noqa: TID251 (no event when a lock is released)
                else:  # removed together with the lab: there is a new one, or will be
                    os.close(fd)
                    fd = _open_lock(file)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            _let_go(lab, file, fd)
            raise
        return fd


def _let_go(lab: str, file: Path, fd: int) -> None:
    """Close the lock; delete its file with the lab, unless another command holds it by now."""
    try:
        if not _is_ours(paths.of(lab).directory) and _taken(fd, file):
            file.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _open_lock(file: Path) -> int:
    for _ in range(100):
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _check_safe(file.parent)
        with contextlib.suppress(FileNotFoundError):  # another lab's end removed the directory
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    raise HostError(f"cannot create {file}")


def _check_safe(directory: Path) -> None:
    """Raise HostError where other users could replace our files.

    /run is root's alone on any host; a container's may be a tmpfs that all may write.
    """
    found = directory.lstat()
    mine = found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022
    if not stat.S_ISDIR(found.st_mode) or not mine:
        raise HostError(
            f"{directory} is not a directory that only root can write",
            hint=f"`ls -ld {directory}`; remove it, lvsctl makes its own",
        )


def _taken(fd: int, file: Path) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if _is(fd, file):
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _is(fd: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(file))
    except FileNotFoundError:
        return False


def is_held(lab: str) -> bool:
    """Return whether a command is changing ``lab`` right now."""
    try:
        fd = os.open(paths.of(lab).lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _holder(fd: int) -> str:
    pid = os.pread(fd, 32, 0).decode(errors="replace").strip()
    try:
        words = Path(f"/proc/{int(pid)}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except (OSError, ValueError):
        return "another command"
    return f"process {pid} ({b' '.join(words).decode(errors='replace')[:100]})"


def begin(entry: Entry) -> None:
    """Write the entry of a lab that is about to come up, before its first effect.

    Raises LabError where a namespace's name is taken by something that is not the
    lab's, or where the lab exists; HostError where the entry cannot be written.
    """
    directory = paths.of(entry.lab).directory
    netns.check_free(entry.lab, entry.namespaces)
    if _is_ours(directory):
        raise LabError(f"lab {entry.lab} exists already", hint=f"`lvsctl down {entry.lab}` first")
    if os.path.lexists(directory):
        raise LabError(
            f"{directory} is in the way: lvsctl did not make it",
            hint=f"`ls -l {directory}`; remove it if it is not needed, or take another --name",
        )
    with wrap_os_errors(f"register lab {entry.lab}", directory):
        directory.mkdir(mode=0o755, parents=True)
    try:
        write(entry)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove_tree(directory)
        raise


def write(entry: Entry) -> None:
    """Replace the entry of a lab, in one step. Raises HostError where that is impossible."""
    file = paths.of(entry.lab).registry
    fresh = file.with_suffix(".new")
    with wrap_os_errors(f"register lab {entry.lab}", file):
        try:
            fresh.write_text(said(entry), encoding="utf-8")
            fresh.replace(file)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise


def said(entry: Entry) -> str:
    """Return the text that is written of an entry."""
    words = {"format": FORMAT, "boot": _boot(), **asdict(entry)}
    words.pop("problem")
    return json.dumps(words, indent=1) + "\n"


def mark(entry: Entry, state: State) -> Entry:
    """Write ``entry`` with another state and return it."""
    entry = replace(entry, state=state)
    write(entry)
    return entry


def read(lab: str) -> Entry | None:
    """Read the entry of ``lab``; None where the lab does not exist. Never fails on its content."""
    if not _is_ours(paths.of(lab).directory):
        return None
    try:
        return _entry(lab, json.loads(paths.of(lab).registry.read_text(encoding="utf-8")))
    except FileNotFoundError:
        problem = "its entry is missing: it was being started or removed when that ended"
    except PermissionError:
        problem = f"{paths.of(lab).registry} cannot be read"
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        problem = f"{paths.of(lab).registry} is damaged ({type(error).__name__}: {error})"
    return _broken(lab, problem)


def _entry(lab: str, said: Mapping[str, Any]) -> Entry:
    if said["format"] != FORMAT:
        version = f"format {said['format']}, this one has {FORMAT}"
        return _broken(lab, f"it was made by another version of lvsctl ({version})")
    if said["boot"] != _boot():
        return _broken(lab, "it is left over from before the machine was started anew")
    entry = Entry(
        lab=str(said["lab"]),
        topology=str(said["topology"]),
        source=str(said["source"]),
        argument=str(said.get("argument", "")),
        overrides=dict(said["overrides"]),
        namespaces=tuple(map(str, said["namespaces"])),
        started=float(said["started"]),
        state=State(said["state"]),
    )
    if entry.lab != lab:
        raise ValueError(f"it is named for lab {entry.lab!r}")
    if not 0 <= entry.started < _END_OF_TIME:
        raise ValueError(f"its start time is {entry.started!r}")
    return entry


def _broken(lab: str, problem: str) -> Entry:
    return Entry(lab=lab, state=State.BROKEN, problem=problem)


def labs() -> tuple[Entry, ...]:
    """Return every lab of which anything exists, by name."""
    with wrap_os_errors("list the labs", paths.RUN):
        _refuse_link()
        try:
            found = [entry.name for entry in os.scandir(paths.RUN)]
        except FileNotFoundError:
            return ()
    names = sorted(filter(paths.is_name, found))  # whatever else lies there is not a lab
    return tuple(entry for name in names if (entry := read(name)) is not None)


def _refuse_link() -> None:
    """Raise HostError if the directory of all labs is a symlink: its target may be anyone's."""
    if paths.RUN.is_symlink():
        raise HostError(
            f"{paths.RUN} is a symlink, which lvsctl never makes and does not follow",
            hint=f"`ls -ld {paths.RUN}`; remove it, lvsctl makes a directory",
        )


def _is_ours(directory: Path) -> bool:
    """Return whether a lab's directory exists. A file or symlink of that name is not ours."""
    with wrap_os_errors("look for labs", directory):
        _refuse_link()
        return directory.is_dir() and not directory.is_symlink()


def remove(lab: str) -> Removed:
    """Remove everything that ``lab`` owns, in whatever state; for the holder of its lock.

    Ends its processes, releases its namespaces (the kernel destroys them in the background),
    deletes its names and its directory. Nothing else is touched: what is not in the lab's
    directory and does not point into it is not the lab's.
    Raises HostError where something cannot be removed; a second attempt continues from there.
    """
    directory = paths.of(lab).directory
    existed = _is_ours(directory)
    _note_going_down(lab)
    ended = _end_processes(lab) if existed else 0
    if existed:
        loopback.put_down(_namespaces(lab))
        netns.unmount_store(lab)
    names = _unlink_names(lab)
    if existed:
        with wrap_os_errors(f"remove lab {lab}", directory):
            _remove_directory(directory)
    return Removed(existed or bool(names), names, ended)


def _namespaces(lab: str) -> tuple[Path, ...]:
    store = paths.of(lab).namespaces
    with contextlib.suppress(OSError):
        return tuple(store.iterdir())
    return ()


def _note_going_down(lab: str) -> None:
    entry = read(lab)
    if entry is not None and entry.state is not State.BROKEN:
        with contextlib.suppress(HostError):  # a full disk must not prevent the removal
            mark(entry, State.GOING_DOWN)


def _end_processes(lab: str) -> int:
    """End the lab's processes, and those that they start meanwhile; return how many."""
    ended = 0
    for _ in range(10):
        found = processes.terminate(lambda: processes.of_lab(lab))
        if not found:
            break
        ended += found
    return ended


def _unlink_names(lab: str) -> tuple[str, ...]:
    """Remove the symlinks in /run/netns that point into the lab's directory."""
    found: list[str] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(paths.NETNS) as entries:
        found += (e.name for e in entries if e.is_symlink() and netns.owned(lab, Path(e.path)))
    for name in found:
        with wrap_os_errors(f"remove lab {lab}", paths.NETNS / name):
            (paths.NETNS / name).unlink(missing_ok=True)
    return tuple(sorted(found))


def _remove_directory(directory: Path) -> None:
    """Remove the lab's directory, its entry last."""
    for part in list(directory.iterdir()):
        if part.is_dir() and not part.is_symlink():
            _remove_tree(part)
        elif part != paths.of(directory.name).registry:
            part.unlink(missing_ok=True)
    _remove_tree(directory)


def _remove_tree(directory: Path) -> None:
    shutil.rmtree(directory)


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
