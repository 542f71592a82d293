"""Messages as pyroute2's classes lay them out: fields, attributes, decoded answers.

A message is joined from parts: its fields, and each attribute. pyroute2 encodes the parts, and
equal attributes (the kind of a link, a network's bridge, the key of a virtual service) only once.
"""

from __future__ import annotations

import errno
import functools
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from lvsctl.errors import KernelError
from lvsctl.netlink import lazy_pyroute2, sockets

lazy_pyroute2.install()
from pyroute2.netlink import ctrlmsg, nlmsg_base  # noqa: E402 (the shim comes first)

_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_NUMBER = 0x3FFF  # of an attribute's type; the other bits are flags
_NESTED = 0x8000
_CONTROLLER, _GETFAMILY = 0x10, 3  # GENL_ID_CTRL, CTRL_CMD_GETFAMILY


FAMILIES = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}
"""Address families by IP version."""

Kind = Any
"""A class of pyroute2, which has no types."""


def body(kind: Kind, attributes: Iterable[tuple[str, Any]] = (), **fields: Any) -> bytes:
    """Encode the ``fields`` and ``attributes`` of a message or attribute class, without header."""
    layout, names = _layout(kind)
    values = layout.pack(*(fields.get(name, 0) for name in names))
    listed = list(attributes)
    if not listed:
        return values
    return values + _encode(kind, listed, fields)


@functools.lru_cache(maxsize=4096)
def attribute(kind: Kind, name: str, value: str | int | bytes) -> bytes:
    """Encode one attribute of the class ``kind``, padded."""
    return _encode(kind, [(name, value)], {})


def _encode(kind: Kind, attributes: list[tuple[str, Any]], fields: dict[str, Any]) -> bytes:
    # Not an empty buffer: pyroute2 takes that for none, and attributes would get another one.
    one = _without_fields(kind)(data=bytearray(_ATTRIBUTE.size), offset=_ATTRIBUTE.size)
    one.update(fields)  # an address is encoded as the family in a field says
    one["attrs"] = attributes
    one.encode()
    return bytes(one.data[_ATTRIBUTE.size :])


@functools.cache
def _layout(kind: Kind) -> tuple[struct.Struct, tuple[str, ...]]:
    """Return how pyroute2 lays out the fields of ``kind``, and the names of those with a value.

    Fields in network order (nfgen_msg's) are given and laid out as they are.
    """
    layout = struct.Struct("=" + "".join(code.lstrip("!") for _, code in kind.fields))
    return layout, tuple(name for name, code in kind.fields if not code.endswith("x"))


@functools.cache
def _without_fields(kind: Kind) -> Kind:
    """Return ``kind`` as a class that encodes its attributes and nothing before them."""
    own = {"fields": (), "header": None, "encode": nlmsg_base.encode}
    return type(kind.__name__, (kind,), own)


def nested(kind: Kind, name: str, content: bytes) -> bytes:
    """Encode an attribute of the class ``kind`` around ``content``, which is encoded already."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), _type(kind, name)) + content


@functools.cache
def _type(kind: Kind, name: str) -> int:
    """Return the type of an attribute, flags included, as pyroute2 encodes it."""
    return int(_ATTRIBUTE.unpack_from(attribute(kind, name, ""))[1])


def decode(kind: Kind, whole: bytes, *names: str) -> Any:
    """Decode a message, or of its attributes only those with ``names`` (for long messages).

    An attribute is decoded when it is asked for (``get_attr``); but to find one, pyroute2 makes
    an object of each.
    """
    one = kind(select(kind, whole, *names) if names else whole)
    one.decode()
    return one


def select(kind: Kind, whole: bytes, *names: str) -> bytes:
    """Return a message with only some of its attributes, and without its sequence number.

    Namespaces have many equal links, addresses and routes: what is decoded of equal messages
    can be kept by this.
    """
    wanted = _numbers(kind, names)
    offset = sockets.HEADER.size + _layout(kind)[0].size
    kept = [whole[:offset]]
    while offset + _ATTRIBUTE.size <= len(whole):
        length, number = _ATTRIBUTE.unpack_from(whole, offset)
        if length < _ATTRIBUTE.size:
            break
        end = offset + ((length + 3) & ~3)
        if number & _NUMBER in wanted:
            kept.append(whole[offset:end])
        offset = end
    short = b"".join(kept)
    return len(short).to_bytes(4, sys.byteorder) + short[4:8] + bytes(8) + short[16:]


@functools.cache
def _numbers(kind: Kind, names: tuple[str, ...]) -> frozenset[int]:
    """Return the types of attributes: their places in pyroute2's map."""
    listed = [name for name, *_ in kind.nla_map]
    return frozenset(map(listed.index, names))


def generic_family(sock: socket.socket, name: str) -> int | None:
    """Return the number of a generic netlink family; None where the kernel does not have it."""
    asked = body(ctrlmsg, [("CTRL_ATTR_FAMILY_NAME", name)], cmd=_GETFAMILY, version=1)
    try:
        answer = sockets.request(sock, sockets.message(_CONTROLLER, 0, asked))
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return int(decode(ctrlmsg, answer[0]).get_attr("CTRL_ATTR_FAMILY_ID"))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Split attributes into their contents by type, without flags; of several, the last.

    For long dumps of which little is needed: pyroute2 makes an object of each attribute.
    """
    # Not by ``each_attribute``: labs have tens of thousands, and a generator takes twice as long.
    found = {}
    last = len(data) - _ATTRIBUTE.size
    while offset <= last:
        length, number = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[number & _NUMBER] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def each_attribute(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the type, without flags, and the content of each attribute."""
    while offset + _ATTRIBUTE.size <= len(data):
        length, number = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield number & _NUMBER, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def packed(number: int, content: bytes, *, nests: bool = False) -> bytes:
    """Encode an attribute of a type that is given by its number, padded."""
    kind = number | (_NESTED if nests else 0)
    return (
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind) + content + bytes(-len(content) % 4)
    )


def text_of(content: bytes | None) -> str:
    """Decode a text that ends with a zero byte."""
    return "" if content is None else content.rstrip(b"\0").decode(errors="replace")


def number_of(content: bytes | None, default: int = 0) -> int:
    """Decode a number in host byte order, of any size."""
    return default if content is None else int.from_bytes(content, sys.byteorder)
