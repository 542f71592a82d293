"""Write the manual pages into man/, from the commands' help: ``make man``.

One page for lvsctl and one for each command, as git has them. Existing generators (click-man and
others) need click's objects, which Typer no longer uses. The help has a manual's structure:
a summary, paragraphs, arguments, options, examples.

The pages are kept in the repository and in the sdist, so that a build needs only hatchling; a
test fails if they are out of date.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from typer._click import Command, Context, Parameter

from lvsctl import __version__
from lvsctl.cli import commands
from lvsctl.cli.failure import MEANINGS
from lvsctl.cli.help import SETTINGS, CommandList

ROOT = Path(__file__).parents[1]

ENVIRONMENT = {
    "LVSCTL_WHERE": "The default of --where: auto, host or machine.",
    "LVSCTL_MACHINE": 'The machine\'s name, if several are used; "default" if not set.',
    "LVSCTL_WRITABLE": "Directories, separated by colons, that commands in the machine may write.",
    "LVSCTL_ERRORS": "Set to json: errors are one line of JSON on standard error, for programs.",
    "LVSCTL_DEBUG": "Set to 1: errors are printed with a Python traceback.",
    "NO_COLOR, FORCE_COLOR": "No colours; colours even if the output is not a terminal.",
}

Rows = list[tuple[str, str]]


def pages() -> Mapping[str, str]:
    """Return the text of every page, by file name."""
    root = commands.command()
    found = {"lvsctl.1": _page("lvsctl", root)}
    for name, command in root.commands.items():
        if not command.hidden:
            found[f"lvsctl-{name}.1"] = _page(f"lvsctl {name}", command)
    return found


def _page(path: str, command: Command) -> str:
    summary, body, examples = _help_of(command)
    title = path.upper().replace(" ", "-")
    lines = [
        ".\\\" Written by tools/manpages.py from the command's help: make man.",
        f'.TH {_text(title)} 1 "{_released()}" "lvsctl {__version__}" "lvsctl manual"',
        ".SH NAME",
        f"{_text(path.replace(' ', '-'))} \\- {_text(_phrase(summary))}",
        ".SH SYNOPSIS",
        *_synopsis(path, command),
        ".SH DESCRIPTION",
        *_paragraphs([summary, *body]),
        *_parameters(path, command),
    ]
    if isinstance(command, CommandList):
        lines += _listing(command) if path == "lvsctl" else _commands(path, command)
        examples = examples or _examples_in(command.epilog or "")
    lines += _verbatim_section("EXAMPLES", examples)
    if path == "lvsctl":
        lines += [".SH ENVIRONMENT", *_list(list(ENVIRONMENT.items()))]
        statuses = [(str(int(status)), _sentence(text)) for status, text in MEANINGS]
        lines += [".SH EXIT STATUS", *_list(statuses)]
    return "\n".join([*lines, ".SH SEE ALSO", *_see_also(path)]) + "\n"


def _released() -> str:
    """Return this version's date in CHANGELOG.md, so that a page changes only with its command."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(rf"^## \[{re.escape(__version__)}\] - (\S+)$", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"CHANGELOG.md has no date for version {__version__}")
    return found[1]


def _help_of(command: Command) -> tuple[str, list[str], list[str]]:
    """Return a summary, paragraphs, and the lines of the examples."""
    text, _, examples = inspect.cleandoc(command.help or "").partition("\nExamples:\n")
    summary, *body = re.split(r"\n{2,}", text.strip())
    return summary.replace("\n", " "), body, examples.splitlines()


def _examples_in(epilog: str) -> list[str]:
    return inspect.cleandoc(epilog).partition("Examples:\n")[2].splitlines()


def _synopsis(path: str, command: Command) -> Iterator[str]:
    pieces = command.collect_usage_pieces(_context(path, command))
    yield f".B {_text(path)}"
    yield _text(" ".join(pieces))


def _context(path: str, command: Command) -> Context:
    above, _, name = path.rpartition(" ")
    parent = _context(above, commands.command()) if above else None
    settings = {} if parent else {"help_option_names": SETTINGS["help_option_names"]}
    return Context(command, info_name=name, parent=parent, **settings)  # type: ignore[arg-type]


def _paragraphs(paragraphs: list[str]) -> Iterator[str]:
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".PP"
        if paragraph.startswith("\b\n"):  # as it is written
            yield from _verbatim(paragraph.removeprefix("\b\n").splitlines())
        else:
            yield _text(" ".join(paragraph.split()))


def _parameters(path: str, command: Command) -> Iterator[str]:
    rows: dict[str, Rows] = {"ARGUMENTS": [], "OPTIONS": []}
    context = _context(path, command)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            rows[_kind(parameter)].append((record[0], record[1]))
    for title, found in rows.items():
        if found:
            yield f".SH {title}"
            yield from _list(found)


def _kind(parameter: Parameter) -> str:
    return "ARGUMENTS" if parameter.param_type_name == "argument" else "OPTIONS"


def _listing(group: CommandList) -> Iterator[str]:
    """Yield the commands under the headings of ``lvsctl --help``."""
    panels: dict[str, Rows] = {}
    for name, command in group.commands.items():
        if not command.hidden:
            panel = str(getattr(command, "rich_help_panel", None))
            panels.setdefault(panel, []).append((f"lvsctl {name}", _sentence(_help_of(command)[0])))
    yield ".SH COMMANDS"
    for panel, rows in panels.items():
        yield f".SS {_text(panel)}"
        yield from _list(rows)


def _commands(path: str, group: CommandList) -> Iterator[str]:
    yield ".SH COMMANDS"
    for name, command in group.commands.items():
        if command.hidden:
            continue
        summary, body, examples = _help_of(command)
        yield f".SS {_text(f'{path} {name}')}"
        yield from _paragraphs([summary, *body])
        yield ".PP"
        yield from _synopsis(f"{path} {name}", command)
        yield from (
            line for line in _parameters(f"{path} {name}", command) if not line.startswith(".SH")
        )
        if examples:
            yield ".PP"
            yield from _verbatim(examples)


def _see_also(path: str) -> Iterator[str]:
    names = [name for name, c in commands.command().commands.items() if not c.hidden]
    others = ["lvsctl", *(f"lvsctl-{name}" for name in names)]
    others = [other for other in others if other != path.replace(" ", "-")]
    if path != "lvsctl":
        others = ["lvsctl"]
    pages = [(other, 1) for other in others] + [("ip-netns", 8), ("ipvsadm", 8)]
    for index, (name, section) in enumerate(pages):
        comma = "" if index == len(pages) - 1 else ","
        yield f".BR {_text(name)} ({section}){comma}"


def _list(rows: Rows) -> Iterator[str]:
    for term, text in rows:
        yield ".TP"
        yield f".B {_text(term)}"
        yield _text(" ".join(text.split()))


def _verbatim_section(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield f".SH {title}"
        yield from _verbatim(lines)


def _verbatim(lines: list[str]) -> Iterator[str]:
    yield ".nf"
    yield from (_text(line) for line in lines if line.strip())
    yield ".fi"


def _phrase(summary: str) -> str:
    """Return the summary as apropos(1) shows it: no capital letter, no full stop."""
    name = summary.startswith("Linux")
    return (summary if name else summary[:1].lower() + summary[1:]).rstrip(".")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _text(text: str) -> str:
    """Escape text for roff: groff-man(7), "Portability"."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = text.replace("`", "\\(ga").replace("^", "\\(ha").replace("~", "\\(ti")
    text = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)
    return f"\\&{text}" if text.startswith((".", "\\(aq", " ")) else text


def main() -> None:
    """Write the pages, and remove those of commands that no longer exist."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "man"
    directory.mkdir(exist_ok=True)
    written = pages()
    for name, text in written.items():
        (directory / name).write_text(text, encoding="ascii")
    for path in directory.glob("lvsctl*.1"):
        if path.name not in written:
            path.unlink()


if __name__ == "__main__":
    main()
