"""The comparison of NAT, TUN and DR: compare.

A command imports what it needs of the engine when it runs: where it is only forwarded to the
throwaway kernel, that takes longer than everything else.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lvsctl.cli import options
from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.files import check_writable, write_text
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Progress, show, show_json, style
from lvsctl.cli.scale import load_scale, parse_scale, read_saved
from lvsctl.cli.where import ForwardRequest, Where, in_lab_kernel
from lvsctl.model.compare import Subject

app = new_app()


class CompareFormat(StrEnum):
    """The output formats of compare."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def complete_subjects(incomplete: str) -> list[str]:
    """Rows of the table, of which several are separated by commas."""
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + one for one in options.starting_with(last, Subject)]


def parse_subjects(text: str | None) -> tuple[Subject, ...]:
    """Parse rows of the table, separated by commas. Raises BadParameter."""
    words = [] if text is None else [word.strip() for word in text.split(",")]
    for word in words:
        if word not in tuple(Subject):
            raise typer.BadParameter(f"{word!r} is none of {', '.join(Subject)}.")
    return tuple(dict.fromkeys(map(Subject, words)))


def _check(
    words: list[str], only: str | None, scale: Path | None, page: Path | None, **_: object
) -> ForwardRequest:
    """Find mistakes here, before a machine is started."""
    parse_subjects(only)
    given = None
    if scale is not None:
        text = read_saved(scale)
        parse_scale(text, scale)
        given = text.encode() if str(scale) == "-" else None
    if page is None:
        return ForwardRequest(words, given)
    check_writable(page)
    return ForwardRequest(words, given, writes=page.absolute().parent)


@app.command(cls=Command)
@in_lab_kernel(starts=True, prepare=_check)
def compare(
    ctx: typer.Context,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="ROW,…",
            autocompletion=complete_subjects,
            help=f"Rows of the table: {', '.join(Subject)}; default: all.",
        ),
    ] = None,
    scale: Annotated[
        Path | None,
        typer.Option(
            "--scale",
            metavar="FILE",
            help="What `lvsctl scale --format json` printed, for the number of real servers.",
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Show the command and frames behind each cell."),
    ] = False,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page, in one file.")
    ] = None,
    wanted: Annotated[
        CompareFormat,
        typer.Option("--format", "-f", help="Output format: text, json, or markdown."),
    ] = CompareFormat.TEXT,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Compare NAT, TUN and DR: the classic table, measured.

    Builds a lab of each method with the same nodes and links (topology methods), verifies it, and
    tries in it what the methods are compared by: what a real server needs, and what happens
    without each of it; where replies go and real servers can be; what a client sees and reaches;
    ports, packets through the director, latency, MTU, IPv6. What Wensong Zhang's table says stands
    beside what was measured. It takes about a minute. The exit status is 1 if a claim fails in one
    of the labs.

    Examples:
      lvsctl compare
      lvsctl compare --only load,mtu -v
      lvsctl scale --format json > scale.json && lvsctl compare --scale scale.json
      lvsctl compare --html compare.html
      lvsctl compare --format markdown > compare.md
    """
    from lvsctl.engine import compare as engine

    subjects = parse_subjects(only)
    scaled = None if scale is None else load_scale(scale)
    if page is not None:
        check_writable(page)
    with Progress() as progress:
        result = engine.compare(
            subjects, scaled, lambda text, share: progress.note(f"{share:4.0%} {text}")
        )
    match wanted:
        case CompareFormat.JSON:
            show_json(result)
        case CompareFormat.MARKDOWN:
            from lvsctl.output import compare_markdown

            show(compare_markdown.page(result))
        case CompareFormat.TEXT:
            from lvsctl.output.text.compare import format_comparison

            show(format_comparison(result, verbose=verbose, style=style()))
    if page is not None:
        from lvsctl.output.html.compare import compare_page

        write_text(page, compare_page(result))
    return ExitStatus.OK if result.holds else ExitStatus.CLAIM_FAILED
