"""The trees that are kept are those that PyYAML's events make."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsctl.topology import reading, shipped, trees
from tools import trees as tool


def test_the_file_is_what_is_read() -> None:
    assert Path(trees.FILE).read_text(encoding="utf-8") == tool.text(), "write it anew: make trees"


@pytest.mark.parametrize("name", shipped.names())
def test_a_shipped_topology_is_known_and_the_same_to_the_last_position(name: str) -> None:
    text = shipped.text_of(name)
    assert trees.known(text) == reading.parsed(text)[0]
    assert reading.tree_of(text) == reading.parsed(text)


@pytest.mark.parametrize("name", shipped.names())
def test_a_text_that_differs_in_a_comment_is_read(name: str) -> None:
    text = shipped.text_of(name) + "# and more\n"
    assert trees.known(text) is None
    assert reading.tree_of(text) == reading.parsed(text)


def test_without_the_file_everything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "_trees", dict)
    text = shipped.text_of("dr")
    assert reading.tree_of(text) == reading.parsed(text)


def test_every_kind_of_value_comes_back() -> None:
    text = "a: {b: [1, '2', {c: }], d: \"x\"}\ne: []\n"
    tree, _ = reading.parsed(text)
    assert trees._read(trees.written(tree)) == tree
