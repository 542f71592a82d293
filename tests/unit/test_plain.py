"""Command lines that are read without Typer are read as Typer reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.cli import completion, plain, tree
from lvsctl.cli.output import Format
from lvsctl.cli.where import Placed, Where
from lvsctl.model.service import Scheduler

Reading = tuple[list[str], Where, dict[str, Any]]

WORDS = {
    "up": ["dr", "./mine.yaml", "-", "5", "0", "-1", "05", "rr", "RR", "json", "host", "--servers",
           "-s", "--servers=3", "-s3", "--scheduler", "--scheduler=wlc", "--name", "-n", "--name=x",
           "-n=x", "--format=json", "-f", "--where=host", "--where", "--serv", "--help", "--", "",
           "--name=", "--format=xml", "²", "1_0"],
    "down": ["dr", "nat", "--all", "--wait", "--where=machine", "--where", "auto", "--all=1",
             "-h", "--", "", "--al"],
    "ls": ["--format", "json", "text", "-f", "--format=json", "--where=auto", "--where", "dr", ""],
}  # fmt: skip


def readings(
    words: list[str],
    environment: str | None = None,
    read: Callable[[list[str]], int | None] = plain.run,
) -> tuple[list[Reading], int | None]:
    """What `lvsctl WORDS` would run, as ``read`` reads it, and its status (None: not plain)."""
    seen: list[Reading] = []

    def run(_: Placed, words: list[str], where: Where, arguments: dict[str, Any]) -> int:
        seen.append((words, where, arguments))
        return 0

    variables = {} if environment is None else {"LVSCTL_WHERE": environment}
    with mock.patch.object(Placed, "run", run), mock.patch.dict(os.environ, variables):
        return seen, read(words)


def typers(words: list[str], environment: str | None = None) -> list[Reading]:
    """The same, read by Typer."""
    seen, status = readings(words, environment, tree.run)
    assert status == 0, words
    return seen


def test_every_word_of_a_plain_command_is_known_to_typer() -> None:
    for name in plain._COMMANDS:
        known = {
            option: parameter.name
            for parameter in tree.command().commands[name].params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        one = plain._plain(name)
        for option, (parameter, _) in one.values.items():
            assert known[option] == parameter
        for option, parameter in one.flags.items():
            assert known[option] == parameter
        assert not one.words or known[one.words] == one.words


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("up dr", {"topology": "dr"}),
        ("up - --servers 5 -n try", {"topology": "-", "servers": 5, "name": "try"}),
        ("up --scheduler=wlc x.yaml", {"topology": "x.yaml", "scheduler": Scheduler.WLC}),
        ("up dr -f json", {"topology": "dr", "wanted": Format.JSON}),
        ("down", {}),
        ("down dr nat --wait", {"labs": ["dr", "nat"], "wait": True}),
        ("down --all", {"all_": True}),
        ("ls --format=json", {"wanted": Format.JSON}),
    ],
)
def test_what_is_plain(line: str, arguments: dict[str, Any]) -> None:
    words = line.split()
    seen, status = readings(words)
    assert status == 0
    [(handed_on, where, read)] = seen
    assert handed_on == words
    assert where is Where.AUTO
    assert read.items() >= arguments.items()
    assert seen == typers(words)


@pytest.mark.parametrize(
    "line",
    ["", "plan dr", "up", "up dr nat", "up dr --help", "up -s5 dr", "up dr -s 0", "up dr -s -1",
     "up dr -s 2 -s 3", "up -- dr", "up dr --scheduler RR", "up dr --servers", "up dr --serv 3",
     "down --al", "ls dr", "ls -f xml", "ls --where there", "ls --where"],
)  # fmt: skip
def test_what_is_not_plain(line: str) -> None:
    assert readings(line.split()) == ([], None)


@pytest.mark.parametrize("environment", ["host", "machine", "auto", ""])
@pytest.mark.parametrize("words", [["ls"], ["ls", "--where", "machine"]])
def test_where_from_the_environment(environment: str, words: list[str]) -> None:
    seen, _ = readings(words, environment)
    assert seen == typers(words, environment)


def test_a_where_that_there_is_not_is_typers_to_refuse() -> None:
    assert readings(["ls"], "there") == ([], None)


@given(st.sampled_from(sorted(WORDS)).flatmap(
    lambda name: st.lists(st.sampled_from(WORDS[name]), max_size=5).map(lambda more: [name, *more])
))  # fmt: skip
def test_what_is_read_is_what_typer_reads(words: list[str]) -> None:
    seen, status = readings(words)
    if status is not None:
        assert seen == typers(words)


def test_the_list_of_commands_is_that_of_the_whole_tree() -> None:
    listed = tree._built("", listed=True)
    whole = tree.command()
    assert listed.get_help(listed.make_context(tree.NAME, ["ls"])) == whole.get_help(
        whole.make_context(tree.NAME, ["ls"])
    )


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"COMP_WORDS": "lvsctl up ", "COMP_CWORD": "2"}, ["up"]),
        ({"COMP_WORDS": "lvsctl up d", "COMP_CWORD": "2"}, ["up"]),
        ({"COMP_WORDS": "lvsctl up", "COMP_CWORD": "1"}, ["?"]),
        ({"COMP_WORDS": "lvsctl ", "COMP_CWORD": "1"}, ["?"]),
        ({"_TYPER_COMPLETE_ARGS": "lvsctl up "}, ["up"]),
        ({"_TYPER_COMPLETE_ARGS": "lvsctl up"}, ["?"]),
        ({}, ["?"]),
    ],
)
def test_which_words_are_whole_when_completing(
    variables: dict[str, str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COMP_WORDS", "COMP_CWORD", "_TYPER_COMPLETE_ARGS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert completion._words_before() == words
