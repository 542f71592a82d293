"""The layout of help, and usage errors.

Typer's own help is laid out by rich, which takes longer to import than all of lvsctl.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import NamedTuple

import typer
from typer import TyperException
from typer._click import Context, HelpFormatter
from typer._click.shell_completion import CompletionItem
from typer.core import TyperCommand, TyperGroup

_EXAMPLES = "Examples:"

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

ARGUMENTS_FOLLOW = {"allow_interspersed_args": False}
"""For commands that run another one: what follows the first argument belongs to that."""


def new_app(**settings: str) -> typer.Typer:
    """Return an empty application for the commands of one module."""
    return typer.Typer(cls=CommandList, add_completion=False, rich_markup_mode=None, **settings)  # type: ignore[arg-type] # settings are texts: name, help, epilog


class Command(TyperCommand):
    """A command whose docstring is its help: a summary, paragraphs, and ``Examples:``."""

    def format_help_text(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """Write the docstring up to the examples."""
        text = inspect.cleandoc(self.help or "").partition(f"\n{_EXAMPLES}")[0]
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text.strip())

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """Write the examples unchanged."""
        examples = inspect.cleandoc(self.help or "").partition(f"\n{_EXAMPLES}")[2]
        if examples:
            formatter.write_paragraph()
            formatter.write(f"{_EXAMPLES}{examples}\n")

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """Return the usage without the braces that Typer puts around required arguments."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


class Entry(NamedTuple):
    """A line of a list of commands: its heading, the command's name and summary."""

    panel: str
    name: str
    summary: str


class CommandList(TyperGroup):
    """A command of commands, which its help lists under headings."""

    def entries(self) -> Sequence[Entry]:
        """The commands that are not hidden, in the order in which they were added."""
        return [
            Entry("Commands", name, _summary(command.help or ""))
            for name, command in self.commands.items()
            if not command.hidden
        ]

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Parse the arguments; without any, print the help."""
        return super().parse_args(ctx, args or ["--help"])

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands under their headings."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for entry in self.entries():
            panels.setdefault(entry.panel, []).append((entry.name, entry.summary))
        width = max(len(entry.name) for entry in self.entries())
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl([(name.ljust(width), summary) for name, summary in rows])

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """Write the epilog unchanged."""
        formatter.write_paragraph()
        formatter.write(inspect.cleandoc(self.epilog or ""))
        formatter.write("\n")

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command, or an option."""
        names = [
            CompletionItem(entry.name, help=entry.summary)
            for entry in self.entries()
            if entry.name.startswith(incomplete)
        ]
        options = super(TyperGroup, self).shell_complete(ctx, incomplete)  # not the names again
        return [*names, *options]


def _summary(text: str) -> str:
    return inspect.cleandoc(text).partition("\n\n")[0].replace("\n", " ").rstrip(".")


_UNKNOWN = re.compile(r"No such command '([^']*)'")

_WORDS = {
    **dict.fromkeys(("start", "create", "deploy", "apply", "add"), "up TOPOLOGY"),
    **dict.fromkeys(("stop", "delete", "destroy", "remove", "rm", "kill"), "down LAB"),
    **dict.fromkeys(("status", "ps", "list", "labs"), "ls"),
    **dict.fromkeys(("test", "prove"), "verify"),
    **dict.fromkeys(("show", "describe", "state"), "inspect LAB"),
    **dict.fromkeys(("trace", "traceroute", "follow"), "walk"),
    **dict.fromkeys(("tcpdump", "dump", "sniff"), "capture"),
    **dict.fromkeys(
        ("run", "ssh", "attach", "console"), "exec NODE -- COMMAND, or lvsctl shell NODE"
    ),
    **dict.fromkeys(("explain", "debug", "why", "doctor-lab"), "diagnose"),
    **dict.fromkeys(("validate", "lint"), "plan FILE"),
    "break": "fault inject FAULT",
}
"""What other tools call lvsctl's commands."""


def usage_error(error: TyperException) -> tuple[str, str]:
    """Return the message and the hint for a mistake on the command line."""
    message = error.format_message().rstrip(".")
    ctx = getattr(error, "ctx", None)
    unknown = _UNKNOWN.match(message)
    meant = _WORDS.get(unknown[1].lower(), "") if unknown and ctx and ctx.parent is None else ""
    if meant:
        message, hint = unknown[0] if unknown else message, f"did you mean: lvsctl {meant}"
    elif ctx is None:
        hint = "lvsctl --help"
    elif "unexpected extra argument" in message and _takes_lab_as_option(ctx):
        words = (word for word in ctx.command.collect_usage_pieces(ctx) if word != "[OPTIONS]")
        hint = f"{ctx.command_path} {' '.join(words)} --lab LAB"
    else:
        hint = f"{ctx.command_path} --help"
    return message[:1].lower() + message[1:], hint


def _takes_lab_as_option(ctx: Context) -> bool:
    """Return whether the command has --lab; others take the lab as their first argument."""
    return any("--lab" in parameter.opts for parameter in ctx.command.params)
