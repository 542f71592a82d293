"""How the help looks and how mistakes on the command line are told.

Typer's own help is laid out by rich, which takes longer to import than all of lvsctl.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from typer import TyperException
    from typer._click import Context, HelpFormatter

_EXAMPLES = "Examples:"

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Command(TyperCommand):
    """A command whose docstring is its help: a summary, paragraphs, and ``Examples:``."""

    def format_help_text(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """The docstring up to the examples."""
        text = inspect.cleandoc(self.help or "").partition(f"\n{_EXAMPLES}")[0]
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text.strip())

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """The examples, as they are written."""
        _write_verbatim(formatter, inspect.cleandoc(self.help or "").partition(f"\n{_EXAMPLES}")[2])

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """Typer puts required arguments into braces; nobody else does."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


class Group(TyperGroup):
    """A command of commands, which its help lists under the headings of their panels."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Without a command, help."""
        return super().parse_args(ctx, args or ["--help"])

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """The commands by panel, in the order in which they were added."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            if not command.hidden:
                panel = getattr(command, "rich_help_panel", None) or "Commands"
                panels.setdefault(panel, []).append((name, _summary(command.help or "")))
        width = max(len(name) for name in self.commands)
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl([(name.ljust(width), summary) for name, summary in rows])

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """The epilog, as it is written."""
        formatter.write_paragraph()
        formatter.write(inspect.cleandoc(self.epilog or ""))
        formatter.write("\n")


def _write_verbatim(formatter: HelpFormatter, examples: str) -> None:
    if examples:
        formatter.write_paragraph()
        formatter.write(f"{_EXAMPLES}{examples}\n")


def _summary(text: str) -> str:
    return inspect.cleandoc(text).partition("\n\n")[0].replace("\n", " ").rstrip(".")


def complaint(error: TyperException) -> tuple[str, str]:
    """A mistake on the command line as a message and a hint."""
    message = error.format_message().rstrip(".")
    ctx = getattr(error, "ctx", None)
    if ctx is None:
        hint = "lvsctl --help"
    elif "unexpected extra argument" in message and _names_its_lab(ctx):
        words = (word for word in ctx.command.collect_usage_pieces(ctx) if word != "[OPTIONS]")
        hint = f"{ctx.command_path} {' '.join(words)} --lab LAB"
    else:
        hint = f"{ctx.command_path} --help"
    return message[:1].lower() + message[1:], hint


def _names_its_lab(ctx: Context) -> bool:
    """Whether the command takes its lab as an option: others take it as the first word."""
    return any("--lab" in parameter.opts for parameter in ctx.command.params)
