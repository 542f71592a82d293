"""User-Mode Linux on processors with more registers than it supports (AMX).

Its kernel up to 6.12 cannot set the registers of a process on such a host, and dies with
"Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b". A small library,
compiled from ``xstate.c`` and loaded into it, completes what it sets.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import zlib
from pathlib import Path

from lvsctl.errors import HostError
from lvsctl.machine import directories, packages
from lvsctl.machine.packages import Emit

KNOWN = 2696
"""Bytes of registers that User-Mode Linux 6.1 saves: up to AVX-512 and protection keys."""

OTHERS = 1024
"""Maximum of the other bytes in a signal frame (rest of the ucontext, red zone, alignment)."""

SOURCE = Path(__file__).with_name("xstate.c")
PACKAGE = "tcc"
HINT = "install a C compiler (sudo apt-get install gcc), or use --kind qemu"


def is_needed() -> bool:
    """Return whether this host's processor has more registers than User-Mode Linux saves.

    A signal frame contains them all; the kernel reports its size (getauxval(3), AT_MINSIGSTKSZ).
    """
    if platform.machine() != "x86_64":
        return False
    try:
        return os.sysconf("SC_MINSIGSTKSZ") > KNOWN + OTHERS
    except (ValueError, OSError):  # an old kernel or C library: before AMX
        return False


def library() -> Path:
    """Return the path of the compiled library, which may not exist yet."""
    return directories.cache_directory() / "uml" / f"xstate-{zlib.crc32(SOURCE.read_bytes()):x}.so"


def ensure_library(emit: Emit) -> Path:
    """Compile the library into the cache unless it exists. Raises HostError."""
    target = library()
    if target.exists():
        return target
    place = target.parent
    emit(f"this processor needs a library for User-Mode Linux: compiling {SOURCE.name}")
    try:
        place.mkdir(parents=True, exist_ok=True)
        with directories.scratch_directory(place) as scratch:
            made = scratch / "xstate.so"
            words = [*_compiler(scratch, emit), "-shared", "-nostdlib", "-fPIC"]
            done = packages.run([*words, "-o", str(made), str(SOURCE)], scratch)
            if done.returncode != 0:
                reason = packages.last_error(done.stderr)
                raise HostError(f"{words[0]} cannot compile {SOURCE}: {reason}", hint=HINT)
            with made.open("rb") as file:
                os.fsync(file.fileno())
            made.rename(target)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"cannot compile {SOURCE.name} in {place}: {error}", hint=HINT) from error
    return target


def _compiler(scratch: Path, emit: Emit) -> list[str]:
    """Return the command of a C compiler: the host's, or Debian's tcc unpacked into ``scratch``."""
    if found := shutil.which("cc"):
        return [found]
    if tool := packages.missing_tool():
        raise HostError(
            f"User-Mode Linux needs a C compiler on this processor, and {tool}, needed to download "
            "one, is missing",
            hint=HINT,
        )
    package = packages.download(PACKAGE, scratch, emit, HINT)
    tree = scratch / "tree"
    packages.unpack(package, tree, HINT)
    (support,) = tree.glob("usr/lib/*/tcc")
    return [str(tree / "usr/bin/tcc"), f"-B{support}"]
