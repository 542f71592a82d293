"""A topology in JSON: the same lab, and the same words about mistakes, as PyYAML gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lvsctl.errors import SpecError, UsageError
from lvsctl.modes import violations
from lvsctl.topology import json_tree, reading, shipped
from lvsctl.topology.loading import parse_topology
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.reading import MAX_BYTES, MAX_VALUES, NotATree
from lvsctl.topology.tree import plain
from tests.fuzz.targets import json_topology, without_places

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("topologies/*.yaml"), *ROOT.glob("examples/**/*.yaml")])
BROKEN = Path(__file__).parent / "spec" / "broken"
LAYOUTS: tuple[dict[str, Any], ...] = (
    {},
    {"indent": 2},
    {"indent": 0},
    {"separators": (",", ":")},
    {"separators": (" ,\n ", " :\n ")},
)
"""How programs write JSON."""


def in_json(file: Path, layout: dict[str, Any]) -> str:
    tree, _ = reading.parsed(file.read_text(encoding="utf-8"))
    return json.dumps(plain(tree), ensure_ascii=False, **layout)


def outcome(text: str | bytes) -> object:
    """The lab, or what is said instead."""
    try:
        return parse_topology(text, "it.json", rules=violations)
    except SpecError as error:
        return error.problems, str(error)


def by_yaml_alone(text: str | bytes) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_tree, "tree_of", lambda _text: None)
        return outcome(text)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_topology_in_json_is_the_same_lab_without_pyyaml(
    file: Path, layout: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = in_json(file, layout)
    there = by_yaml_alone(text)
    assert there == outcome(file.read_bytes())
    monkeypatch.delattr(reading, "parsed")
    assert parse_topology(text, "it.json", rules=violations) == there
    assert parse_topology(f"\n  {text}\n".encode(), "it.json", rules=violations) == there


words = st.text("abn:,#-{}[]'!&*?%@`|> ~é—\u00a0\U0001f600", max_size=6) | st.text(max_size=6)
scalars = (
    words
    | st.sampled_from(("null", "true", "on", "~", "<<", "- a", "1:30", "::1", "10.0.0.1/8"))
    | st.integers()
    | st.booleans()
    | st.none()
    | st.floats()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4)
)
trees = st.dictionaries(words, values, max_size=5)


@settings(max_examples=100)
@given(trees, st.sampled_from(LAYOUTS), st.booleans())
def test_any_json_is_the_same_tree(tree: Any, layout: dict[str, Any], ascii_only: bool) -> None:
    text = json.dumps(tree, ensure_ascii=ascii_only, **layout)
    json_topology(text.encode(errors="surrogatepass"))
    try:
        json_topology(text.replace(":", "\t:", 1).encode())
    except UnicodeEncodeError:
        assert json_tree.tree_of(text) is None


@settings(max_examples=400)
@given(st.text('{}[]":,\n \r\t\\-0123456789.eEnultrfas#', max_size=40).map("{{{}".format))
@example('{"a":1}x')
def test_what_is_nearly_json(text: str) -> None:
    json_topology(text.encode())


@given(trees.filter(bool))
def test_what_pyyaml_is_spared(tree: Any) -> None:
    """Nothing falls back without a reason: plain words, numbers and nesting do not."""

    def tame(value: Any) -> Any:
        if isinstance(value, dict):
            return {f"k{n}": tame(inner) for n, inner in enumerate(value.values())}
        if isinstance(value, list):
            return list(map(tame, value))
        return "wörd: #1" if isinstance(value, str | float) else value

    text = json.dumps(tame(tree), ensure_ascii=False)
    assert json_tree.tree_of(text) == without_places(reading.parsed(text)[0])


SMALL = (Path(__file__).parent / "spec" / "small.json").read_text()

IN_DOUBT: dict[str, tuple[str, str]] = {
    "the same key twice": ('"name": "small",', '"name": "small", "name": "other",'),
    "the same key twice, within": ('["lan"]},', '["lan"], "role": "client"},'),
    "a float": ('"count": 2', '"count": 2.0'),
    "an exponent": ('"count": 2', '"count": 2e0'),
    "no number": ('"count": 2', '"count": NaN'),
    "infinite": ('"count": 2', '"count": -Infinity'),
    "a huge number": ('"count": 2', f'"count": {"9" * 5000}'),
    "an escape": ('"small"', '"sm\\u0061ll"'),
    "an escape that YAML does not know": ('"small"', '"\\ud800"'),
    "an escaped slash": ("0/24", "0\\/24"),
    "a tab": ("  ", "\t"),
    "a tab in text": ('"small"', '"sm\tall"'),
    "carriage returns": ("\n", "\r\n"),
    "a byte order mark": ("{\n", "\ufeff{\n"),
    "a byte order mark within": ('"small"', '"sm\ufeffall"'),
    "a line separator": ('"small"', '"sm\u2028all"'),
    "a control character": ('"small"', '"sm\x7fall"'),
    "a colon in the next line": ('"name":', '"name"\n:'),
    "a colon far away": ('"name":', f'"name"{" " * 1100}:'),
    "a long key": ('"name"', f'"{"n" * 1100}": 1, "name"'),
    "a long text": ('"small"', f'"small", "description": "{"n" * 1100}"'),
    "a comma too many": ('["lan"]', '["lan",]'),
    "a comma missing": ('"client",', '"client"'),
    "a comment": ("1,", "1, # the first"),
    "single quotes": ('"small"', "'small'"),
    "no quotes": ('"small"', "small"),
    "not closed": ("\n}\n", ""),
    "closed twice": ("\n}\n", "\n}}"),
    "a second document": ("\n}\n", "\n}\n---\n{}"),
    "an alias": ('["lan"]', "*lan"),
    "a merge key": ('"name"', '<<: {}, "name"'),
    "too deep": ('"small"', "[" * 17 + "]" * 17),
    "far too deep": ('"small"', "[" * 20_000),
    "deep and closed": ('"small"', "[" * 20_000 + "]" * 20_000),
    "deep mappings": ('"small"', '{"a": ' * 20_000),
    "too many values": ('"small"', '["a"' + ',"a"' * MAX_VALUES + "]"),
    "too large": ('"small"', f'"{"s" * MAX_BYTES}"'),
}
"""What may be in a file that begins as JSON does: what is exchanged, and by what."""

MISTAKES: dict[str, tuple[str, str]] = {
    "an unknown key": ('"name"', '"nmae"'),
    "a word that is none": ('"dr"', '"masquerade"'),
    "a number for text": ('"small"', "-0"),
    "nothing": ('"small"', "null"),
    "truth": ('"count": 2', '"count": true'),
    "a list for a mapping": ('{"ipv4": "10.10.0.0/24"}', "[]"),
    "a mapping for text": ('"10.10.0.100"', '{"a": {}}'),
    "a merge key in quotes": ('"name"', '"<<": {}, "name"'),
    "an empty key": ('"name"', '"": 1, "name"'),
    "several": ('"lan"', '"länn"'),
    "a rule of the forwarding method": ('"real_servers": ["rs"]',
     '"real_servers": [{"node": "rs", "port": 81}]'),
    "no room": ("10.10.0.0/24", "10.10.0.0/30"),
}  # fmt: skip
"""Faultless JSON, and no topology."""


def changed(change: tuple[str, str]) -> str:
    assert change[0] in SMALL
    return SMALL.replace(*change)


@pytest.mark.parametrize("case", IN_DOUBT)
def test_what_is_in_doubt_is_left_to_pyyaml(case: str) -> None:
    text = changed(IN_DOUBT[case])
    assert json_tree.tree_of(text) is None
    assert json_tree.tree_of(text.encode()) is None
    assert outcome(text) == by_yaml_alone(text)


@pytest.mark.parametrize("data", [b'{"a": "\xff"}', b"\xff{}", b'\xef\xbb\xbf{"a": 1}', b"", b"{"])
def test_bytes_that_are_no_text(data: bytes) -> None:
    assert json_tree.tree_of(data) is None
    assert outcome(data) == by_yaml_alone(data)


def test_a_lone_surrogate() -> None:
    assert json_tree.tree_of('{"a": "\ud800"}') is None


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_in_the_same_words(case: str) -> None:
    text = changed(MISTAKES[case])
    assert json_tree.tree_of(text) is not None
    found = outcome(text)
    assert isinstance(found, tuple), "no mistake"
    assert found == by_yaml_alone(text)
    assert all(problem.line for problem in found[0])


def _broken() -> list[Path]:
    return [file for file in sorted(BROKEN.glob("*.yaml")) if _is_tree(file)]


def _is_tree(file: Path) -> bool:
    try:
        return bool(reading.parsed(file.read_text(encoding="utf-8")))
    except (NotATree, UnicodeDecodeError):
        return False  # not even YAML


@pytest.mark.parametrize("file", _broken(), ids=lambda file: file.stem)
def test_the_known_mistakes_in_json(file: Path) -> None:
    text = in_json(file, {"indent": 2})
    assert outcome(text) == by_yaml_alone(text)


def test_what_the_command_line_changes() -> None:
    three = parse_topology(SMALL, "it.json", overrides=Overrides(name="tri", servers=3))
    assert (three.name, sum(node.name.startswith("rs") for node in three.nodes)) == ("tri", 3)
    with pytest.raises(UsageError, match="this topology can have 1 to 1000"):
        parse_topology(SMALL, "it.json", overrides=Overrides(servers=2000))


def test_the_small_one_is_a_lab() -> None:
    assert json_tree.tree_of(SMALL) is not None
    assert outcome(SMALL) == by_yaml_alone(SMALL)
    assert not isinstance(outcome(SMALL), tuple)


def test_shipped_ones_are_among_them() -> None:
    assert {file.stem for file in FILES} > set(shipped.names())
