"""The machine's mount namespace on the host: read-only, except for chosen directories.

In a mount namespace of its own (mount_namespaces(7)) every mount is read-only, and each chosen
directory is covered by a copy of its mount on the host. Unlike Landlock this also protects modes,
owners, times and attributes, and a directory can be added later. It needs CAP_SYS_ADMIN. A user
namespace would not do: there the files of root and of other users have the owner nobody, and
programs that check the owner of their files refuse to run.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import threading
from collections.abc import Iterable
from pathlib import Path

from lvsctl import linux
from lvsctl.machine import config

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # the same on every architecture
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_MOUNT_ATTR_RDONLY = 1

_ATTRIBUTES = struct.Struct("=QQQQ")
"""struct mount_attr: set, cleared, propagation, a user namespace."""


def become_read_only(directories: Iterable[str]) -> None:
    """Make all mounts read-only for this process, except for ``directories``.

    Missing directories are ignored. Unmounting on the host takes effect here too; later mounts
    are not made read-only, as with systemd's ReadOnlyPaths=. Raises OSError.
    """
    there = [directory for directory in directories if Path(directory).is_dir()]
    copies = [(directory, _copy(directory)) for directory in there]
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
    _unmount_namespaces()
    _set(_AT_FDCWD, b"/", _AT_RECURSIVE, _ATTRIBUTES.pack(_MOUNT_ATTR_RDONLY, 0, 0, 0))
    for directory, copy in copies:
        _put(copy, directory)


def is_own(pid: int) -> bool:
    """Return whether the process has another mount namespace than this one."""
    return not Path(f"/proc/{pid}/ns/mnt").samefile("/proc/self/ns/mnt")


def open_for(pid: int, directory: str) -> None:
    """Make a directory writable for the process ``pid`` in its mount namespace.

    Raises OSError, for a directory that must not be written (``config``) and for a path that
    is no longer the directory it was (a symbolic link has been put into it) too.
    """
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.path.realpath(f"/proc/self/fd/{fd}") != directory or config.why_not_writable(
            directory
        ):
            raise PermissionError(1, "it must not be written", directory)
        if _as_here(pid, directory, fd):
            return
        copy = _copy("", fd)
    finally:
        os.close(fd)
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    failures: list[OSError] = []

    def put() -> None:
        """Run in a thread of its own, which cannot return to the broker's namespace."""
        try:
            linux.unshare(linux.CLONE_FS)
            linux.setns(namespace, linux.CLONE_NEWNS)
            _put(copy, directory)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    thread.join()
    os.close(namespace)
    if failures:
        os.close(copy)
        raise failures[0]


def _as_here(pid: int, directory: str, fd: int) -> bool:
    """Return whether the process has the same directory at this path, as writable as here."""
    try:
        there = os.open(f"/proc/{pid}/root{directory}", os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        same = os.path.samestat(os.fstat(there), os.fstat(fd))
        read_only = os.fstatvfs(there).f_flag & os.ST_RDONLY
        return same and read_only == os.fstatvfs(fd).f_flag & os.ST_RDONLY
    finally:
        os.close(there)


def _copy(path: str, at: int = _AT_FDCWD) -> int:
    """Return a copy of the mounts at a directory, not attached anywhere yet."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE | (0 if path else _AT_EMPTY_PATH)
    copy = linux.syscall(
        f"open_tree {path}", _OPEN_TREE, at, os.fsencode(path), ctypes.c_uint(flags)
    )
    slave = _ATTRIBUTES.pack(0, 0, linux.MS_SLAVE, 0)
    _set(copy, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, slave)
    return copy


def _put(copy: int, directory: str) -> None:
    path, flags = os.fsencode(directory), _MOVE_MOUNT_F_EMPTY_PATH
    linux.syscall(f"mount {directory}", _MOVE_MOUNT, copy, b"", _AT_FDCWD, path, flags)
    os.close(copy)


def _unmount_namespaces() -> None:
    """Unmount network namespaces: mounts here would keep those that ``ip netns del`` removes."""
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            place, _, source = line.partition(" - ")
            if source.startswith("nsfs "):
                path = os.fsencode(place.split()[4]).decode("unicode_escape").encode("latin-1")
                with contextlib.suppress(OSError):
                    linux.unmount(os.fsdecode(path))


def _set(at: int, path: bytes, flags: int, attributes: bytes) -> None:
    size = ctypes.c_size_t(len(attributes))
    arguments = (at, path, ctypes.c_uint(flags), attributes, size)
    linux.syscall("mount_setattr", _MOUNT_SETATTR, *arguments)
