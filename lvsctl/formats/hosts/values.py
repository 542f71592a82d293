"""Values of untrusted JSON and text: each is of its type, or ``Unreadable`` is raised."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from lvsctl.errors import quoted
from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork

_LARGEST = 1 << 64


class Unreadable(Exception):
    """A section that is not what its command prints."""


Object = dict[str, Any]


def objects(text: str) -> list[Object]:
    """Return the objects of a JSON array; of none where the text is empty, as ip(8) prints it."""
    if not text.strip():
        return []
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {str(error)[:80]}") from None
    return objects_of({"": found}, "")


def objects_of(value: Object, key: str) -> list[Object]:
    """Return the objects of an array, without empty ones; of none where the key is missing."""
    found = value.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Unreadable(f"{key or 'the whole'} is not a list of objects")
    return [one for one in found if one]


def object_of(value: Object, key: str) -> Object:
    """Return an object; an empty one where the key is missing."""
    found = value.get(key, {})
    if not isinstance(found, dict):
        raise Unreadable(f"{key} is not an object")
    return found


def text_of(value: Object, key: str, otherwise: str = "") -> str:
    """Return a text, without control characters, as it may be printed."""
    found = value.get(key, otherwise)
    if not isinstance(found, str) or len(found) > 256:
        raise Unreadable(f"{key} is not a text: {quoted(repr(found)[:60])}")
    return found if found.isprintable() else repr(found)[1:-1]


def number_of(value: Object, key: str, otherwise: int = 0) -> int:
    """Return a whole number from 0 on."""
    found = value.get(key, otherwise)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < _LARGEST:
        raise Unreadable(f"{key} is not a number: {quoted(repr(found)[:60])}")
    return found


def words_of(value: Object, key: str) -> frozenset[str]:
    """Return the texts of an array."""
    found = value.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Unreadable(f"{key} is not a list of texts")
    return frozenset(found)


def number(text: str, base: int = 10) -> int:
    """Return a whole number from 0 on, written in a text."""
    if not text.isascii() or not text.isalnum() or len(text) > 20:
        raise Unreadable(f"{quoted(text)} is not a number")
    try:
        return int(text, base)
    except ValueError:
        raise Unreadable(f"{quoted(text)} is not a number") from None


def address(text: str) -> IPAddress:
    """Return an IP address without a zone."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        raise Unreadable(f"{quoted(text)} is not an address") from None


def interface(text: str, length: int) -> IPInterface:
    """Return an address with the length of its prefix."""
    try:
        return ip_interface(f"{text}/{length}")
    except ValueError:
        raise Unreadable(f"{quoted(text)}/{length} is not an address") from None


def network(text: str) -> IPNetwork:
    """Return a prefix; an address without a length is one of its own."""
    try:
        return ip_network(text)
    except ValueError:
        raise Unreadable(f"{quoted(text)} is not a prefix") from None
