"""The command reference, from the command line's own tree."""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Iterator
from typing import Any
from unittest import mock

from tools.docs.reference.markdown import block, code, prose, table

TITLE = "# Commands"
SOURCE = "the docstrings and options in lvsctl/cli"

_EXAMPLES = "\nExamples:"

_INTRODUCTION = """\
Every command has `-h`. Commands that report have `--format json`: see [JSON](json.md). The exit
statuses are in [Exit statuses](statuses.md)."""


def text() -> str:
    """Return every command, by the headings of `lvsctl --help`."""
    from lvsctl.cli.commands import command

    root: Any = command()
    # The page must not depend on the terminal's width or the environment.
    with mock.patch.dict(os.environ, {"COLUMNS": "80"}), root.make_context("lvsctl", ["ls"]) as ctx:
        index = [
            (f"[`{words}`](#{_anchor(words)})", _summary(one)) for words, one, _ in _all(root, ctx)
        ]
        sections = [_section(words, one, inner) for words, one, inner in _all(root, ctx)]
        return "\n\n".join(
            [
                _INTRODUCTION,
                table(("command", "what it does"), index),
                *sections,
                "## Environment\n",
                table(
                    ("variable", "what it does"),
                    (
                        (code("LVSCTL_WHERE"), "the default of `--where`: auto, host or machine"),
                        (
                            code("LVSCTL_MACHINE"),
                            "the machine's name; several machines can run side by side",
                        ),
                        (
                            "`LVSCTL_MACHINE_KIND`, `_KERNEL`, `_MEMORY`, `_CPUS`",
                            "defaults of [`lvsctl machine start`](#lvsctl-machine-start)",
                        ),
                        (code("LVSCTL_ERRORS"), "`json`: print errors as [JSON](json.md#errors)"),
                        (code("NO_COLOR"), "disables colours (no-color.org)"),
                    ),
                ),
            ]
        )


def _all(root: Any, ctx: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield every command that is not hidden, with its words and its context."""
    for name, command in root.commands.items():
        if command.hidden:
            continue
        inner = type(ctx)(command, info_name=name, parent=ctx)
        words = f"{inner.command_path}"
        if hasattr(command, "commands"):
            yield from _all(command, inner)
        else:
            yield words, command, inner


def _anchor(words: str) -> str:
    return words.replace(" ", "-")


def _help(command: Any) -> tuple[str, str]:
    """The description and the examples."""
    description, _, examples = inspect.cleandoc(command.help or "").partition(_EXAMPLES)
    return description.strip(), textwrap.dedent(examples).strip("\n")


def _summary(command: Any) -> str:
    return prose(_help(command)[0].partition("\n\n")[0])


def _section(words: str, command: Any, ctx: Any) -> str:
    description, examples = _help(command)
    usage = " ".join(ctx.command.collect_usage_pieces(ctx))
    parts = [f"## {words} {{ #{_anchor(words)} }}", block(f"{words} {usage}"), prose(description)]
    rows = [row for param in command.get_params(ctx) if (row := param.get_help_record(ctx))]
    parts.append(
        table(("argument or option", "what it is"), ((code(a), prose(b)) for a, b in rows))
    )
    if examples:
        parts += ["Examples:", block(examples, "sh")]
    return "\n\n".join(parts)
