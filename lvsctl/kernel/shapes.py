"""Netlink messages that pyroute2 encoded ahead of time, for their fields to be patched.

Importing pyroute2's message classes takes 45 ms, as long as bringing a small lab up, and
encoding one message 0.3 ms. So what an ordinary lab sends was encoded by them beforehand
(``kernel.by_pyroute2``, `make shapes`) and lies in shapes.txt: a line for each shape, its
key and its bytes. A shape that is not there is encoded by pyroute2 when it is needed.
tests/unit/test_shapes.py holds the file, and every message made from it, against pyroute2.
"""

from __future__ import annotations

import functools
import sys

from lvsctl.kernel import wire

FILE = f"{__file__.removesuffix('.py')}.txt"
NAME_BYTES = 15
"""The longest name of a device (IFNAMSIZ, without the closing NUL)."""


@functools.cache
def shape(kind: str, *words: int) -> bytes:
    """A message of ``kind``, one of ``by_pyroute2.KINDS``, as its encoder makes it of ``words``."""
    known = _known().get(key(kind, *words))
    if known is not None:
        return bytes.fromhex(known)
    from lvsctl.kernel import by_pyroute2

    return bytes(by_pyroute2.KINDS[kind].encode(*words))


def key(kind: str, *words: int) -> str:
    """What a shape's line in the file begins with."""
    return " ".join([kind, *map(str, words)])


@functools.cache
def _known() -> dict[str, str]:
    if sys.byteorder != "little":  # as the file is
        return {}
    try:
        with open(FILE, encoding="utf-8") as file:  # noqa: PTH123 (a third of the time)
            return dict(line.rstrip().rsplit(" ", 1) for line in file)
    except OSError:  # slower, and no worse: pyroute2 encodes them anew
        return {}


@functools.cache
def offset(message: bytes, start: int, *path: int) -> int:
    """Where the payload of a nested attribute begins, the first ones being at ``start``.

    ``path`` is the types of the attributes on the way; a negative number skips as many
    bytes, for the header inside VETH_INFO_PEER.
    """
    end = len(message)
    view = memoryview(message)
    for step in path:
        if step < 0:
            start -= step
            continue
        found = wire.attribute_offset(view[:end], start, step)
        if found is None:
            raise LookupError(f"no attribute {step} of {path}")
        start, end = found[0], found[0] + found[1]
    return start


def room_for(name: str) -> int:
    """The longest name that takes as many bytes in a message as ``name`` does: 3, 7, 11 or 15.

    Attributes are padded to four bytes, so that only their length tells these names apart.
    """
    return len(name) | 3


def put_name(message: bytearray, at: int, name: str) -> None:
    """A device's name at ``at``, in place of one of ``room_for(name)`` letters."""
    room = room_for(name) + 1
    message[at - 4 : at - 2] = (4 + len(name) + 1).to_bytes(2, sys.byteorder)
    message[at : at + room] = name.encode("ascii").ljust(room, b"\0")
