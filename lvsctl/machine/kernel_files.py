"""A distribution's kernel: its release, the uncompressed image, the modules that machines use.

The image's format is described in the kernel's Documentation/arch/x86/boot.rst. QEMU starts an
uncompressed kernel at its PVH entry, which saves the guest from unpacking it, slow if emulated.

Packages have no modules.dep (depmod writes it at installation), and newer ones have compressed
modules. Both are prepared once, on the host.
"""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lvsctl.errors import HostError
from lvsctl.machine.guest.modules import name_of, wanted

_SETUP_SECTS, _MAGIC, _VERSION = 0x1F1, 0x202, 0x20E
_PAYLOAD = 0x248  # offset and length, from protocol 2.08 on
_PVH_NOTE = struct.pack("<III", 4, 4, 18) + b"Xen\0"
_PVH_NOTE_64 = struct.pack("<III", 4, 8, 18) + b"Xen\0"


def image_release(image: bytes, name: str) -> str:
    """Return the release, such as ``6.1.0-56-amd64``. Raises HostError if it is no x86 kernel."""
    if image[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise HostError(f"{name} is not a kernel for x86_64 (a vmlinuz or bzImage)")
    start = struct.unpack_from("<H", image, _VERSION)[0] + 0x200
    text = image[start : start + 200].partition(b"\0")[0].decode(errors="replace")
    return text.split(" ", 1)[0]


def uncompressed(image: bytes) -> bytes | None:
    """Return the uncompressed kernel (vmlinux); None if it must be started compressed.

    That is so if it cannot be unpacked here, or has no PVH entry.
    """
    start = ((image[_SETUP_SECTS] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    payload = image[start + offset : start + offset + length]
    try:
        found = decompressed(payload)
    except HostError:
        return None
    has_entry = _PVH_NOTE in found or _PVH_NOTE_64 in found
    return found if found.startswith(b"\x7fELF") and has_entry else None


def decompressed(data: bytes) -> bytes:
    """Decompress xz, gzip or zstd; return anything else unchanged. Raises HostError.

    Bytes after the compressed stream (a kernel's payload ends with its length) are ignored.
    """
    for magic, unpack in _UNPACKERS.items():
        if data.startswith(magic):
            return unpack(data)
    return data


def _xz(data: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(data)


def _gzip(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(data)


def _zstd(data: bytes) -> bytes:
    program = shutil.which("zstd")
    if program is None:
        raise HostError(
            "this kernel is compressed with zstd, which is not installed",
            hint="sudo apt-get install zstd",
        )
    # Reports an error for the bytes after the stream, but has written all of it then.
    done = subprocess.run([program, "-dcq"], input=data, capture_output=True, check=False)
    if not done.stdout:
        raise HostError(f"zstd: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


_UNPACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\xfd7zXZ\0": _xz,
    b"\x1f\x8b": _gzip,
    b"\x28\xb5\x2f\xfd": _zstd,
}


BOOT_MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p")
"""The modules that QEMU's guest needs to read files of the host."""

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_SOFTLY = re.compile(rb"\0softdep=pre: ([^\0]*)\0")


class ModuleFiles:
    """The modules below ``directory`` (a /lib/modules/RELEASE)."""

    def __init__(self, directory: Path) -> None:
        self._paths = {
            name_of(path.name): path.relative_to(directory)
            for path in sorted(directory.glob("kernel/**/*.ko*"))
        }
        self._directory = directory
        self._content: dict[str, bytes] = {}
        self._needs: dict[str, list[str]] = {}
        builtin = directory / "modules.builtin"
        lines = builtin.read_text(encoding="utf-8").split() if builtin.exists() else []
        self._builtin = {name_of(line) for line in lines}

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those that are neither modules nor built in."""
        return [n for n in names if n not in self._paths and n not in self._builtin]

    def copy(self, target: Path) -> None:
        """Write the modules that a machine loads, and their modules.dep, below ``target``."""
        lines = []
        roots = [
            name for name, path in self._paths.items() if wanted(str(path)) or name in BOOT_MODULES
        ]
        for name in dict.fromkeys(dep for root in roots for dep in self._closure(root)):
            path = _plain(self._paths[name])
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(self._content[name])
            # Closest first, as depmod has it.
            below = [_plain(self._paths[d]) for d in reversed(self._closure(name)) if d != name]
            lines.append(f"{path}: {' '.join(map(str, below))}\n")
        (target / "modules.dep").write_text("".join(lines), encoding="utf-8")

    def _closure(self, name: str) -> list[str]:
        """Return a module and its dependencies, in the order of loading."""
        found: dict[str, None] = {}
        for below in self._needed_by(name):
            found.update(dict.fromkeys(self._closure(below)))
        return [*found, name]

    def _needed_by(self, name: str) -> list[str]:
        if name not in self._needs:
            content = decompressed((self._directory / self._paths[name]).read_bytes())
            match = _DEPENDS.search(content)
            needs = match[1].decode().split(",") if match and match[1] else []
            softly = _SOFTLY.search(content)
            needs += softly[1].decode().split() if softly else []
            self._content[name] = content
            self._needs[name] = [
                found
                for one in needs
                # An algorithm (crc32c) is requested by its alias; its module has this name.
                if (found := name_of(one)) in self._paths
                or (found := f"{name_of(one)}_generic") in self._paths
            ]
        return self._needs[name]


def _plain(path: Path) -> Path:
    return path.with_name(path.name.partition(".ko")[0] + ".ko")


def boot_order(modules_dep: str) -> Iterator[str]:
    """Yield the paths of the modules for the guest's first program, dependencies first."""
    needs = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        needs[name_of(path)] = [*reversed(rest.split()), path]
    yield from dict.fromkeys(path for name in BOOT_MODULES for path in needs.get(name, ()))
