"""Find the User-Mode Linux kernel, or unpack it into the user's cache. Needs no root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lvsctl.errors import HostError

PACKAGE = "user-mode-linux"
HINT = f"install it by hand: sudo apt-get install {PACKAGE}"

_SCRATCH_PREFIX = "unpack."

Emit = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A User-Mode Linux kernel: its program and the directory of its modules."""

    program: Path
    modules: Path

    @property
    def release(self) -> str:
        """The kernel's release, such as ``6.1.176``."""
        return self.modules.name


def cache_directory() -> Path:
    """Where the package is unpacked."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "lvsctl" / "uml"


def find() -> Kernel | None:
    """The installed kernel, the distribution's before the cache's; None where there is none."""
    program = shutil.which("linux.uml")
    installed = _kernel_in(Path("/"), Path(program)) if program else None
    return installed or _kernel_in(cache_directory() / "current", None)


def _kernel_in(root: Path, program: Path | None) -> Kernel | None:
    program = program or root / "usr/bin/linux.uml"
    modules = sorted(root.glob("usr/lib/uml/modules/*/modules.dep"))
    if not modules or not os.access(program, os.X_OK):
        return None
    return Kernel(program.resolve(), modules[-1].parent.resolve())


def ensure_installed(emit: Emit) -> Kernel:
    """Find the kernel, fetching it where there is none. Raises HostError."""
    kernel = find()
    if kernel is not None:
        return kernel
    if os.uname().machine not in ("x86_64", "i686"):
        raise HostError(f"User-Mode Linux does not exist for {os.uname().machine}")
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise HostError(
                f"the throwaway kernel ({PACKAGE}) is not installed, and without {tool} "
                "lvsctl cannot fetch it",
                hint=f"put linux.uml on PATH and its modules below /usr/lib/uml/modules; {HINT}",
            )
    cache = cache_directory()
    emit(f"unpacking the throwaway kernel (Debian package {PACKAGE}, 41 MB) into {cache}")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _scratch(cache) as scratch:
            _publish(_unpack(_download(scratch, emit), scratch), cache)
    except OSError as error:
        raise HostError(
            f"cannot unpack the throwaway kernel into {cache}: {error.strerror or error}",
            hint=f"point XDG_CACHE_HOME at a directory with 300 MB of room, or {HINT}",
        ) from error
    kernel = find()
    if kernel is None:
        raise HostError(f"the package {PACKAGE} does not contain what it should", hint=HINT)
    return kernel


@contextlib.contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """A directory to unpack in, locked while in use; those of killed processes are removed.

    It is a sibling of the final place: the rename that publishes must be atomic.
    """
    with contextlib.ExitStack() as stack:
        with _locked(cache, wait=True):  # nobody may take a directory for stale before it is locked
            for stale in cache.glob(f"{_SCRATCH_PREFIX}*"):
                with contextlib.suppress(OSError), _locked(stale):
                    shutil.rmtree(stale, ignore_errors=True)
            made = tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=cache)
            scratch = Path(stack.enter_context(made))
            stack.enter_context(_locked(scratch))
        yield scratch


@contextlib.contextmanager
def _locked(directory: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a directory's lock. Unless it waits, raises BlockingIOError where another has it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(fd)


def _download(scratch: Path, emit: Emit) -> Path:
    """Fetch the package into ``scratch`` with apt, by the system's lists or by fresh ones."""
    first = _run(["apt-get", "download", PACKAGE], scratch)
    if first.returncode != 0:
        emit("the system's package lists do not help: fetching lists of our own")
        options = _private_apt(scratch)
        update = _run(["apt-get", *options, "update"], scratch)
        second = _run(["apt-get", *options, "download", PACKAGE], scratch)
        if second.returncode != 0:
            reason = _last_error(second.stderr) or _last_error(first.stderr)
            cause = _last_error(update.stderr)
            raise HostError(
                f"cannot download {PACKAGE}: {reason}" + (f"\n{cause}" if cause else ""),
                hint=f"check the network and /etc/apt/sources.list, or {HINT}",
            )
    packages = list(scratch.glob("*.deb"))
    if not packages:
        raise HostError(f"apt-get downloaded no {PACKAGE}", hint=HINT)
    return packages[0]


def _private_apt(scratch: Path) -> list[str]:
    """Options that keep apt's lists and cache in ``scratch``: no root needed."""
    state, cache = scratch / "state", scratch / "cache"
    (state / "lists" / "partial").mkdir(parents=True)
    (cache / "archives" / "partial").mkdir(parents=True)
    # apt wants to read its own status file even to download.
    (state / "status").touch()
    options = [
        f"Dir::State={state}",
        f"Dir::State::lists={state}/lists",
        f"Dir::State::status={state}/status",
        f"Dir::Cache={cache}",
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
    ]
    return [word for option in options for word in ("-o", option)]


def _unpack(package: Path, scratch: Path) -> Path:
    tree = scratch / "tree"
    result = _run(["dpkg-deb", "-x", str(package), str(tree)], scratch)
    if result.returncode != 0:
        raise HostError(
            f"cannot unpack {PACKAGE}: {_last_error(result.stderr)}",
            hint=f"it needs 300 MB below {scratch.parent}; or {HINT}",
        )
    # dpkg-deb keeps the archive's mode of its root: our own directory must stay removable.
    tree.chmod(0o755)
    return tree


def _publish(tree: Path, cache: Path) -> None:
    """Put the unpacked tree in its final place, once, whoever else is doing the same."""
    target = cache / "current"
    if _kernel_in(target, None) is not None:
        return  # somebody was faster
    if target.exists():  # left by something else than lvsctl: never half-used, so replace it
        target.rename(tree.parent / "broken")
    try:
        tree.rename(target)
    except OSError:
        if _kernel_in(target, None) is None:
            raise


def _run(command: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool quietly; its end is the end of its whole session on Ctrl-C as well."""
    return subprocess.run(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        check=False,
    )


def _last_error(output: str) -> str:
    """The most telling line of apt's or dpkg's complaints."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("E:", "dpkg-deb: error", "tar:"))]
    return (telling or lines or [""])[0]
