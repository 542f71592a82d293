"""The guest's file tree: the host's, read-only, with directories of its own to write.

``/`` is the host's tree, read-only. ``/run``, ``/tmp`` and ``/var/tmp`` are the guest's
own; paths of the host that are needed there (a checkout or a virtual environment in /tmp) are
made visible again. Each command has its writable directories in a mount namespace of its own;
only /run is shared by all, so that network namespaces keep their names between commands.

The access to the host's files is what differs between kinds of machine. User-Mode Linux's hostfs
can mount any directory of the host at any time. QEMU shares what it is given at its start, with
9p: ``guest.early`` mounts the host's tree three times, because lookups are slow if emulated and
only directories that rarely change can be cached.
"""

from __future__ import annotations

import os
import shutil

from lvsctl import linux

HOST = "/run/host"
"""The host's tree, read-only and complete."""

EXPORT = "/dev/host"
"""The host's tree, writable. Only in QEMU, and not visible to commands."""

STABLE = "/dev/stable"
"""The host's tree, read-only and cached. Only in QEMU."""

MODULES_DIR = "/dev/modules"
"""The kernel's modules, from the initramfs. Only in QEMU."""

_DROP_NAMES = "2\n"


def mount_stable(directories: list[str]) -> None:
    """Mount directories that rarely change from the cached tree.

    Raises OSError.
    """
    if os.path.ismount(STABLE):
        for directory in directories:
            if os.path.isdir(directory):
                linux.mount(STABLE + directory, directory, flags=linux.MS_BIND)


def drop_cache() -> None:
    """Drop the cache of the stable tree, because something in it has changed."""
    if os.path.ismount(STABLE):
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write(_DROP_NAMES)


def modules_in(directory: str) -> str:
    """Return where to read the kernel's modules, which are in ``directory`` on the host."""
    return MODULES_DIR if os.path.ismount(MODULES_DIR) else HOST + directory


def modules_stay() -> bool:
    """Return whether modules can be read as long as the machine lives."""
    return not os.path.ismount(MODULES_DIR)


def drop_modules() -> None:
    """Free the memory of the modules' files, once they are loaded."""
    if os.path.ismount(MODULES_DIR):
        shutil.rmtree(f"{MODULES_DIR}/kernel")
        linux.unmount(MODULES_DIR)


def mount_writable(directory: str) -> None:
    """Mount a directory of the host writable, under its own name. Raises OSError."""
    if os.path.ismount(EXPORT):
        linux.mount(EXPORT + directory, directory, flags=linux.MS_BIND)
    else:
        linux.mount("none", directory, "hostfs", 0, directory)


def hide_export() -> None:
    """Unmount the writable tree in the calling process's mount namespace. Raises OSError."""
    if os.path.ismount(EXPORT):
        linux.unmount(EXPORT)


HIDDEN = ("/run", "/tmp", "/var/tmp", "/dev", "/proc", "/sys")
"""Directories of the host that are covered by the guest's own."""

_SCRATCH = ("/run", "/tmp", "/var/tmp")

SERVICES = ("/var/cache", "/var/lib", "/var/log")
"""Directories that services such as nginx write: overlaid with the guest's memory."""

_LOGS = "/var/log"

_DEPTH = 2
"""Levels of the services' directories in which what the user may not read is replaced."""

_WRITTEN = "/run/written"


def is_below(path: str, directory: str) -> bool:
    """Return whether ``path`` is ``directory`` or inside it (both absolute and normalized)."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def hidden(path: str) -> bool:
    """Return whether the guest's own directories cover this path of the host."""
    return any(is_below(path, directory) for directory in HIDDEN)


def set_up(visible: list[str]) -> list[str]:
    """Mount the tree and the guest's own directories; return warnings.

    ``visible`` are paths of the host that must be readable under their own name.
    Raises OSError if no command could run.
    """
    complaints = []
    linux.mount("proc", "/proc", "proc")
    linux.mount("sysfs", "/sys", "sysfs")
    for directory in _SCRATCH:
        if os.path.isdir(directory) and not os.path.islink(directory):
            linux.mount("tmpfs", directory, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777")
    os.chmod("/run", 0o755)
    _set_up_devices()
    os.mkdir(HOST)
    # Not recursive: without the mounts that cover parts of the root file system.
    linux.mount("/", HOST, flags=linux.MS_BIND)
    linux.mount("none", "/run", flags=linux.MS_SHARED)
    os.mkdir("/run/netns")
    linux.mount("/run/netns", "/run/netns", flags=linux.MS_BIND)
    linux.mount("none", "/run/netns", flags=linux.MS_SHARED)
    os.mkdir("/run/lvsctl")
    os.mkdir("/run/lock", 0o1777)
    for path in visible:
        try:
            show(path)
        except OSError as error:
            complaints.append(f"cannot show {path}: {error.strerror}")
    return complaints


def open_for_writing(writable: list[str]) -> list[str]:
    """Make ``writable`` and the services' directories writable; return warnings.

    Needs the kernel module overlay. Must run before anything is mounted below the services'
    directories.
    """
    complaints = _set_up_services()
    for path in writable:
        try:
            make_writable(path)
        except OSError as error:
            complaints.append(f"cannot make {path} writable: {error.strerror}")
    return complaints


def _set_up_devices() -> None:
    if not os.path.exists("/dev/ttyS0"):
        linux.mount("devtmpfs", "/dev", "devtmpfs")
    for directory, kind, options in (
        ("/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666"),
        ("/dev/shm", "tmpfs", "mode=1777"),
    ):
        os.makedirs(directory, exist_ok=True)
        linux.mount(kind, directory, kind, 0, options)
    for link, target in (
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "fd/0"),
        ("/dev/stdout", "fd/1"),
        ("/dev/stderr", "fd/2"),
    ):
        if not os.path.lexists(link):
            os.symlink(target, link)
    if not os.path.exists("/dev/net/tun"):
        os.makedirs("/dev/net", exist_ok=True)
        os.mknod("/dev/net/tun", 0o20666, os.makedev(10, 200))


def _set_up_services() -> list[str]:
    """Make the directories that services write writable; return warnings."""
    os.mkdir(_WRITTEN)
    linux.mount("tmpfs", _WRITTEN, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    complaints = []
    for directory in SERVICES:
        if not os.path.isdir(directory) or os.path.islink(directory):
            continue
        upper, work = (f"{_WRITTEN}/{kind}{directory}" for kind in ("upper", "work"))
        os.makedirs(upper)
        os.makedirs(work)
        _replace_closed(directory, upper, files=directory == _LOGS)
        try:
            options = f"lowerdir={directory},upperdir={upper},workdir={work}"
            linux.mount("overlay", directory, "overlay", 0, options)
        except OSError as error:
            complaints.append(f"services cannot write to {directory}: {error.strerror}")
    return complaints


def _replace_closed(lower: str, upper: str, *, files: bool, depth: int = _DEPTH) -> None:
    """Put an empty directory in the place of each that the machine's user may not enter.

    With ``files``, also an empty file in the place of each that this user may not read: a service
    appends to its log, for which overlayfs must copy it. Debian's nginx has both.
    """
    try:
        entries = list(os.scandir(lower))
    except OSError:
        return
    for entry in entries:
        place = f"{upper}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if not _may(entry.path, os.O_DIRECTORY):
                _make_like(entry, place)
                os.setxattr(place, "trusted.overlay.opaque", b"y")
            elif depth > 1:
                _replace_closed(entry.path, place, files=files, depth=depth - 1)
        elif files and entry.is_file(follow_symlinks=False) and not _may(entry.path, 0):
            _make_like(entry, place)


def _may(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags))
    except PermissionError:
        return False
    except OSError:  # gone, or no such file: not the user's rights
        return True
    return True


def _make_like(entry: os.DirEntry[str], place: str) -> None:
    """Create an empty file or directory, and those above it, with the modes of the lower ones."""
    above = os.path.dirname(place)
    if not os.path.isdir(above):
        os.makedirs(above)
        _copy_mode(os.path.dirname(entry.path), above)
    if entry.is_dir(follow_symlinks=False):
        os.mkdir(place)
    else:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600))
    _copy_mode(entry.path, place)


def _copy_mode(source: str, target: str) -> None:
    found = os.lstat(source)
    os.chown(target, found.st_uid, found.st_gid)
    os.chmod(target, found.st_mode & 0o7777)


def show(path: str) -> None:
    """Make a hidden path of the host visible again, read-only. Raises OSError.

    A directory is mounted. A file is a symbolic link into the host's tree, looked up by name each
    time: a mount would keep showing the old file, after an editor has replaced it, as long as a
    process that started with it lives, such as a lab's responder.
    """
    for target in dict.fromkeys((os.path.realpath(HOST + path)[len(HOST) :], path)):
        if not hidden(target) or is_below(target, "/proc") or is_below(target, "/sys"):
            continue
        source = HOST + target
        if os.path.lexists(target) and os.path.samestat(os.stat(source), os.stat(target)):
            continue  # visible already
        if not os.path.isdir(source) and not os.path.lexists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.symlink(source, target)
            continue
        _make_mount_point(target, os.path.isdir(source))
        linux.mount(source, target, flags=linux.MS_BIND)


def make_writable(directory: str) -> None:
    """Make a directory of the host writable under its own name. Raises OSError."""
    if hidden(directory):
        _make_mount_point(directory, is_directory=True)
    # A mount of its own, because the whole tree at / is read-only.
    mount_writable(directory)


def _make_mount_point(path: str, is_directory: bool) -> None:
    if os.path.lexists(path):
        return
    if is_directory:
        os.makedirs(path)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
