"""A distribution's kernel file: its release, and the uncompressed kernel inside.

The format is described in the kernel's Documentation/arch/x86/boot.rst. QEMU starts an
uncompressed kernel at its PVH entry, which saves the guest from unpacking it, slow if emulated.
"""

from __future__ import annotations

import lzma
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable

from lvsctl.errors import HostError

_SETUP_SECTS, _MAGIC, _VERSION = 0x1F1, 0x202, 0x20E
_PAYLOAD = 0x248  # offset and length, from protocol 2.08 on
_PVH_NOTE = struct.pack("<III", 4, 4, 18) + b"Xen\0"
_PVH_NOTE_64 = struct.pack("<III", 4, 8, 18) + b"Xen\0"


def release(image: bytes, name: str) -> str:
    """Return the release, such as ``6.1.0-56-amd64``. Raises HostError if it is no x86 kernel."""
    if image[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise HostError(f"{name} is not a kernel for x86_64 (a vmlinuz or bzImage)")
    start = struct.unpack_from("<H", image, _VERSION)[0] + 0x200
    text = image[start : start + 200].partition(b"\0")[0].decode(errors="replace")
    return text.split(" ", 1)[0]


def plain(image: bytes) -> bytes | None:
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
