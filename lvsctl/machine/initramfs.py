"""The initramfs for QEMU's guest: Python, what ``guest.early`` imports, and kernel modules.

It is made from the host's files, so that no static shell is needed: the host's Python imports
``guest.early`` and lists the files that it used. Each keeps its path, except the shared
libraries, which are in one directory.
"""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from lvsctl.errors import HostError
from lvsctl.machine.config import interpreter
from lvsctl.machine.guest.early import FIRST, MODULES

LIBRARIES = "/early-libraries"
"""LD_LIBRARY_PATH for the first program."""

_SCRIPT = "/early.py"

_START = """import sys
sys.path.insert(0, {root!r})
from lvsctl.machine.guest import early
early.main()
"""

_LOOK = """
import os, sys
sys.path.insert(0, sys.argv[1])
import lvsctl.machine.guest.early
for module in list(sys.modules.values()):
    for path in (getattr(module, "__file__", None), getattr(module, "__cached__", None)):
        if path and os.path.exists(path):
            print("file", path)
print("file", os.__file__)  # Python finds its library by this file, frozen or not
for line in open("/proc/self/maps"):
    fields = line.rstrip().split(None, 5)
    if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/"):
        print("code", fields[5])
"""


def arguments(link: str) -> list[str]:
    """Return the command line of the first program; ``link`` is the device of the serial link."""
    return [interpreter(), "-I", "-S", _SCRIPT, link]


def content(modules: Path, first: Iterable[str]) -> bytes:
    """Return an initramfs with a kernel's modules that loads the ``first`` and starts the agent.

    ``first`` are paths below ``modules``. Raises HostError if this host's Python fails to list
    the files that it uses.
    """
    archive = _Archive()
    root = str(Path(__file__).resolve().parents[2])
    python = Path(interpreter())
    archive.add(str(python), python)
    files, code = _used(root)
    for path in files:
        archive.add(path, Path(path))
    for path in code - files - {str(python)}:
        library = Path(path)
        archive.add(f"{LIBRARIES}/{library.name}", library)
        for name in _other_names(library):
            archive.link(f"{LIBRARIES}/{name}", library.name)
    loader = _loader(python.read_bytes())
    if loader:
        archive.add(loader, Path(loader))
    for module in sorted(modules.rglob("*.ko")):
        archive.add(f"{MODULES}/{module.relative_to(modules)}", module)
    archive.add(f"{MODULES}/modules.dep", modules / "modules.dep")
    archive.add(FIRST, "\n".join(first).encode())
    archive.add(_SCRIPT, _START.format(root=root).encode())
    return archive.finished()


def _used(root: str) -> tuple[set[str], set[str]]:
    """Return the files of the first program: Python's modules, and what the loader mapped."""
    done = subprocess.run(
        [interpreter(), "-I", "-S", "-c", _LOOK, root],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise HostError(f"{interpreter()} cannot run the guest's first program:\n{done.stderr}")
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    files, code = ({path for use, _, path in lines if use == wanted} for wanted in ("file", "code"))
    return files, code


def _other_names(library: Path) -> Iterator[str]:
    """Yield the other names of a shared library (libz.so.1 for libz.so.1.2.13)."""
    for entry in library.parent.iterdir():
        if entry.is_symlink() and entry.resolve() == library.resolve():
            yield entry.name


def _loader(elf: bytes) -> str:
    """Return the dynamic loader of a 64-bit program (PT_INTERP); empty for a static one."""
    (table,) = struct.unpack_from("<Q", elf, 0x20)  # e_phoff
    size, count = struct.unpack_from("<HH", elf, 0x36)  # e_phentsize, e_phnum
    for index in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", elf, table + index * size)
        if kind == 3:
            return elf[offset : offset + length].rstrip(b"\0").decode()
    return ""


class _Archive:
    """A cpio archive in the kernel's format (Documentation/driver-api/early-userspace)."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._there = {"/"}

    def add(self, path: str, content: bytes | Path) -> None:
        """Add a file and its directories, unless the path is in the archive already."""
        if path in self._there:
            return
        self._make_directories(path)
        # Byte code is valid only for a source file with this time.
        when = int(content.stat().st_mtime) if isinstance(content, Path) else 0
        data = content.read_bytes() if isinstance(content, Path) else content
        self._entry(path, stat.S_IFREG | 0o755, data, when)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        if path not in self._there:
            self._make_directories(path)
            self._entry(path, stat.S_IFLNK | 0o777, os.fsencode(target))

    def _make_directories(self, path: str) -> None:
        for parent in reversed(PurePath(path).parents):
            if str(parent) not in self._there:
                self._entry(str(parent), stat.S_IFDIR | 0o755)

    def _entry(self, path: str, mode: int, data: bytes = b"", when: int = 0) -> None:
        self._there.add(path)
        name = os.fsencode(path.lstrip("/")) + b"\0"
        number = len(self._there)
        # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdev…, namesize, check
        fields = (number, mode, 0, 0, 1, when, len(data), 0, 0, 0, 0, len(name), 0)
        self._data += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        self._pad()
        self._data += data
        self._pad()

    def _pad(self) -> None:
        self._data += bytes(-len(self._data) % 4)

    def finished(self) -> bytes:
        """Return the whole archive."""
        self._entry("/TRAILER!!!", 0)
        return bytes(self._data)
