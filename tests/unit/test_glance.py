"""A guess at what a topology is, right where it is written as people and programs do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl import modes
from lvsctl.topology import glance, shipped
from lvsctl.topology.loading import parse_topology

WORDS = [
    "name",
    "role",
    "count",
    "ipv4",
    ":",
    " ",
    '"',
    "'",
    "{",
    "}",
    "\n",
    "-",
    "7",
    "²",
    "é",
    "dr",
]


@pytest.mark.parametrize("name", shipped.names())
def test_a_shipped_topology_is_what_it_seems(name: str) -> None:
    text = shipped.text_of(name)
    lab = parse_topology(text, name, rules=modes.violations)
    for written in (text, json.dumps(as_tree(text)), json.dumps(as_tree(text), indent=2)):
        assert glance.name(written.encode()) == lab.name
        assert glance.namespaces(written.encode()) == len(lab.nodes) + len(lab.networks)


def as_tree(text: str) -> object:
    import yaml

    return yaml.safe_load(text)


def test_the_command_line_says_how_many_servers() -> None:
    text = shipped.text_of("dr").encode()
    assert glance.namespaces(text, 40) == glance.namespaces(text) + 38


def test_what_is_not_there_is_no_name_and_nothing() -> None:
    assert (glance.name(b""), glance.namespaces(b"")) == ("", 0)
    assert glance.name(b"names: [dr]") == ""


@given(st.lists(st.sampled_from(WORDS)).map("".join).map(str.encode) | st.binary())
def test_no_text_is_too_strange(text: bytes) -> None:
    assert glance.name(text).isascii()
    assert isinstance(glance.namespaces(text, 3), int)


def test_a_large_text_is_looked_at_in_part() -> None:
    assert glance.namespaces(b"role: client\n" * 100_000) < 10_000
