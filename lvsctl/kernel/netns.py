"""Create, name, enter and release network namespaces.

A lab's namespaces are bind mounts on one private tmpfs, and ``/run/netns/<name>`` is
a symlink to each, which ip(8) follows. So one unmount releases all of them, a slow
``/run`` does not matter, and the symlink's target shows which lab owns the namespace.

A thread is in one namespace at a time (setns(2), unshare(2)). Functions change that of the
calling thread only where their docstring says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from lvsctl import linux
from lvsctl.errors import HostError, LabError, UsageError
from lvsctl.kernel import paths, probe
from lvsctl.kernel.paths import describe_os_error, wrap_os_errors
from lvsctl.kernel.worker import block_signals

T = TypeVar("T")

_OWN = "/proc/thread-self/ns/net"
_NEW = os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC


def unshare() -> None:
    """Move the calling thread into a new network namespace. Raises OSError."""
    linux.unshare(linux.CLONE_NEWNET)


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace ``fd``. Raises OSError."""
    linux.setns(fd, linux.CLONE_NEWNET)


def check_free(lab: str, names: Sequence[str]) -> None:
    """Raise LabError where one of ``names`` exists and is not of ``lab``, before any effect.

    Raises HostError where that cannot be seen.
    """
    with wrap_os_errors("look for namespaces"):
        try:
            here = set(os.listdir(paths.NETNS))  # noqa: PTH208 (a tenth of the time)
        except FileNotFoundError:
            return
    foreign = [name for name in names if name in here and not owned(lab, paths.NETNS / name)]
    if foreign:
        some = ", ".join(foreign[:3]) + (" …" if len(foreign) > 3 else "")
        raise LabError(
            f"namespace {some} exists already and does not belong to lab {lab}",
            hint=f"`ip netns del {foreign[0]}` if it is not needed, or start the lab"
            " under another name (--name)",
        )


def owned(lab: str, name: Path) -> bool:
    """Return whether ``name``, in /run/netns, is a symlink to a namespace of ``lab``."""
    try:
        return name.readlink().parent == paths.of(lab).namespaces
    except OSError:
        return False


def mounted(lab: str) -> bool:
    """Return whether the tmpfs for the namespaces of ``lab`` is mounted."""
    return os.path.ismount(paths.of(lab).namespaces)


def mount_store(lab: str) -> None:
    """Mount the tmpfs for the namespaces of ``lab``, unless it is mounted. Raises HostError.

    It is shared, so that an unmount also reaches the mount namespaces that processes copied
    from ours (as every `ip netns exec` does): otherwise they would keep a namespace alive.
    """
    store = str(paths.of(lab).namespaces)
    if mounted(lab):
        return
    try:
        paths.of(lab).namespaces.mkdir(mode=0o755, parents=True, exist_ok=True)
        flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
        linux.mount("lvsctl", store, "tmpfs", flags, "mode=0755,size=64k")
        linux.mount("", store, flags=linux.MS_SHARED)
        paths.NETNS.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise _no_namespaces(error) from error


def unmount_store(lab: str) -> bool:
    """Release every namespace of ``lab`` at once; return whether anything was mounted."""
    store = paths.of(lab).namespaces
    found = _unmounted(store)
    with contextlib.suppress(OSError):  # where the store went first, by hand or by accident
        for place in list(store.iterdir()):
            found |= _unmounted(place)
    return found


def _unmounted(place: Path) -> bool:
    """Unmount everything at ``place``; return whether there was any. Raises HostError."""
    found = False
    while True:  # a crashed `up` may have left it mounted, never more than a few times
        try:
            linux.unmount(str(place))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                return found
            raise HostError(f"cannot unmount {place}: {error.strerror}") from error
        found = True


def create(lab: str, name: str) -> int:
    """Create a namespace and leave the calling thread in it; return its descriptor.

    Raises LabError where the name is taken, HostError where the host cannot.
    """
    place = _place(lab, name)
    try:
        unshare()
        linux.mount(_OWN, place, flags=linux.MS_BIND)
        return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _no_namespaces(error) from error


def _place(lab: str, name: str) -> str:
    """Create the file to mount the namespace ``name`` on, and its name for ip(8)."""
    place = f"{paths.of(lab).namespaces}/{name}"
    try:
        try:
            os.close(os.open(place, _NEW, 0o444))
        except FileExistsError:
            if os.path.ismount(place):
                raise
            # `ip netns del` took the namespace away by hand, and left the file
        _name(lab, name, place)
    except FileExistsError as error:
        raise LabError(
            f"namespace {name} exists already", hint=f"`lvsctl down {lab}`, then up again"
        ) from error
    except OSError as error:
        raise _no_namespaces(error) from error
    return place


def _name(lab: str, name: str, place: str) -> None:
    """Create the symlink for ip(8). Raises FileExistsError where it is not the lab's."""
    try:
        os.symlink(place, f"{paths.NETNS}/{name}")  # noqa: PTH211 (a tenth of the time)
    except FileExistsError:
        if not owned(lab, paths.NETNS / name):
            raise
        # the namespaces' mount was taken away by hand, and the names were left


def name_again(lab: str, names: Iterable[str]) -> None:
    """Restore the names of namespaces of ``lab`` that were removed by hand."""
    for name in names:
        place = paths.of(lab).namespaces / name
        if not os.path.lexists(paths.NETNS / name) and os.path.ismount(place):
            with wrap_os_errors(f"name {name}", paths.NETNS):
                _name(lab, name, str(place))


def delete(lab: str, name: str) -> None:
    """Release one namespace of ``lab``; nothing happens where it does not exist."""
    place = paths.of(lab).namespaces / name
    with contextlib.suppress(OSError):
        linux.unmount(str(place))
    place.unlink(missing_ok=True)
    if owned(lab, paths.NETNS / name):
        (paths.NETNS / name).unlink(missing_ok=True)


def _no_namespaces(error: OSError) -> HostError:
    if error.errno == errno.EACCES and error.filename:
        said = describe_os_error(error)
        return HostError(f"cannot create a network namespace: {said.message}", hint=said.hint)
    hints = {
        errno.EPERM: "run it as root, or in the throwaway kernel with --where machine",
        errno.EACCES: "run it as root, or in the throwaway kernel with --where machine",
        errno.ENOSPC: "look at `sysctl user.max_net_namespaces` and `df /run`",
        errno.EMFILE: "raise the limit of open files: `ulimit -n 65536`",
        errno.EINVAL: "this kernel has no network namespaces (CONFIG_NET_NS)",
    }
    where = f" ({error.filename})" if error.filename else ""
    return HostError(
        f"cannot create a network namespace: {error.strerror}{where}",
        hint=hints.get(error.errno or 0, ""),
    )


def open_namespace(netns: str | Path) -> int:
    """Open the namespace ``netns``: a name as `ip netns` lists it, or a path.

    The caller closes the descriptor. Raises LabError where it does not exist.
    """
    try:
        return os.open(paths.NETNS / netns, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise LabError(
            f"namespace {Path(netns).name} does not exist",
            hint="`lvsctl ls` lists the labs; `lvsctl down` and up again if it was removed by hand",
        ) from error
    except PermissionError as error:
        raise HostError(f"cannot open namespace {Path(netns).name}: {error.strerror}",
                        hint="run it as root") from error  # fmt: skip


@contextlib.contextmanager
def enter(netns: str | Path | int) -> Iterator[None]:
    """Move the calling thread into ``netns`` (a name, path or descriptor) for the block.

    For threads and processes of one's own, others use ``run_inside``; sockets opened inside
    stay there. Raises LabError where it does not exist, HostError without root.
    """
    target = netns if isinstance(netns, int) else open_namespace(netns)
    try:
        home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter_for_good(target)
            try:
                yield
            finally:
                setns(home)
        finally:
            os.close(home)
    finally:
        if not isinstance(netns, int):
            os.close(target)


Name = TypeVar("Name", str, Path, "str | Path")


def each(namespaces: Iterable[Name]) -> Iterator[Name]:
    """Move the calling thread into each of ``namespaces`` in turn; it stays in the last.

    For threads of ``in_thread``, which end with their work. Raises LabError where one does not
    exist, HostError without root.
    """
    for one in namespaces:
        fd = open_namespace(one)
        try:
            enter_for_good(fd)
        finally:
            os.close(fd)
        yield one


def enter_for_good(fd: int) -> None:
    """Move the calling thread into a namespace. Raises LabError, HostError."""
    try:
        setns(fd)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise LabError("a namespace of the lab was removed by hand",
                           hint="`lvsctl down` and up again") from error  # fmt: skip
        raise HostError(f"cannot enter a namespace: {error.strerror}",
                        hint="run it as root") from error  # fmt: skip


def in_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread that may change its namespace; return or raise what it does."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 (handed over to the caller)
            errors.append(error)

    thread = threading.Thread(target=body, name="lvsctl-netns", daemon=True)
    with block_signals():
        thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def run_inside(netns: str | Path, work: Callable[[], T]) -> T:
    """Run ``work`` in ``netns``, in a thread of its own; return or raise what it does."""

    def inside() -> T:
        with enter(netns):
            return work()

    return in_thread(inside)


HOST_NAME_MAX = 64
"""Maximum of bytes in a host's name (gethostname(2)); a node's is shorter."""


def become(netns: str | Path, hostname: str = "") -> None:
    """Move this process into ``netns`` for good, as `ip netns exec` does (ip-netns(8)).

    It gets a mount namespace of its own, in which /sys shows the devices of ``netns``
    and the files in /etc/netns/<name>/ lie over those in /etc. With ``hostname`` it gets a UTS
    namespace of its own too, with that name (uts_namespaces(7)).
    Raises LabError, HostError.
    """
    fd = open_namespace(netns)
    try:
        enter_for_good(fd)
    finally:
        os.close(fd)
    name = Path(netns).name
    if hostname:
        with contextlib.suppress(OSError):  # no more namespaces of this kind: the host's name
            linux.unshare(linux.CLONE_NEWUTS)
            socket.sethostname(hostname[:HOST_NAME_MAX])
    try:
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("", "/", flags=linux.MS_SLAVE | linux.MS_REC)
        read_only = os.statvfs("/sys").f_flag & os.ST_RDONLY
        with contextlib.suppress(OSError):  # nothing mounted there: fine
            linux.unmount("/sys")
        if hostname:
            _name_in_hosts(hostname)
        linux.mount(name, "/sys", "sysfs", linux.MS_RDONLY if read_only else 0)
        own = Path("/etc/netns") / name
        for entry in sorted(own.iterdir()) if own.is_dir() else ():
            linux.mount(str(entry), f"/etc/{entry.name}", flags=linux.MS_BIND)
    except OSError as error:
        raise HostError(
            f"cannot prepare the mounts for {name}: {error.strerror} ({error.filename})"
        ) from error


def _name_in_hosts(hostname: str) -> None:
    """Put the node's name into the calling process's /etc/hosts, as Debian does for a host's.

    Otherwise programs that look their own name up, such as Python's http.server, would wait for a
    name server that no node reaches. The file is on a tmpfs that only this mount keeps.
    """
    hosts = Path("/etc/hosts")
    with contextlib.suppress(OSError):
        text = f"127.0.1.1\t{hostname}\n{hosts.read_text(encoding='utf-8', errors='replace')}"
        linux.mount("tmpfs", "/sys", "tmpfs")
        try:
            fresh = Path("/sys/hosts")
            fresh.write_text(text, encoding="utf-8")
            fresh.chmod(0o644)
            linux.mount(str(fresh), str(hosts), flags=linux.MS_BIND)
        finally:
            linux.unmount("/sys")


def exec_in(
    netns: str | Path,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str | Path = ".",
    *,
    hostname: str = "",
) -> NoReturn:
    """Replace this process by ``argv``, run in ``netns`` as ``become`` does.

    Raises UsageError where there is no such command, LabError, HostError.
    """
    os.chdir(cwd)
    program = shutil.which(argv[0], path=env.get("PATH", os.defpath))
    if program is None:
        if "/" in argv[0] and Path(argv[0]).exists():
            denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            raise UsageError(f"{argv[0]}: it is not executable") from denied
        raise UsageError(f"{argv[0]}: command not found", hint=not_found_hint(argv[0]))
    become(netns, hostname)
    try:
        os.execve(program, list(argv), dict(env))  # noqa: S606
    except OSError as error:
        raise UsageError(f"{argv[0]}: {error.strerror}") from error


def not_found_hint(program: str) -> str:
    """Return what helps where a program does not exist."""
    if probe.inside_machine() and "/" in program and Path(f"/run/host/{program}").exists():
        return (
            f"the machine has a directory of its own in the place of {Path(program).parent}: "
            "copy the program elsewhere, or name its directory: LVSCTL_WRITABLE=DIRECTORY"
        )
    if "/" in program:
        return "nodes share the files of this host, which has no such file"
    return (
        "nodes share the programs of this host: install it here, "
        f"for example: sudo apt-get install {program}"
    )


def existing(lab: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``names`` that are namespaces of ``lab`` right now."""
    store = paths.of(lab).namespaces
    try:
        own = store.stat().st_dev
    except OSError:
        return ()
    return tuple(name for name in names if _is_there(store, own, name))


def _is_there(store: Path, own: int, name: str) -> bool:
    """Return whether a name leads to a namespace that is mounted in ``store``, a device ``own``.

    What is not mounted there is only a file. Not by pathlib: a lab has hundreds of namespaces.
    """
    try:
        target = os.readlink(f"{paths.NETNS}/{name}")  # noqa: PTH115
        return os.path.dirname(target) == str(store) and os.stat(target).st_dev != own  # noqa: PTH116, PTH120
    except OSError:
        return False
