"""Throughput over the number of real servers: scale.

A command imports what it needs of the engine when it runs: where it is only forwarded to the
throwaway kernel, that takes longer than everything else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lvsctl.cli import options, sources
from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.files import check_writable, write_bytes, write_text
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, Progress, show, show_json, style
from lvsctl.cli.where import ForwardRequest, Where, in_lab_kernel
from lvsctl.errors import UsageError
from lvsctl.model.claim import Verdict
from lvsctl.model.service import ForwardingMethod

if TYPE_CHECKING:
    from lvsctl.model.scale import Scale

app = new_app()

MOST = 1000
"""Real servers that can be asked for."""


def parse_counts(text: str) -> tuple[int, ...]:
    """Parse numbers of real servers, separated by commas. Raises BadParameter."""
    found = []
    for word in map(str.strip, text.split(",")):
        if not word.isdecimal() or not 1 <= int(word) <= MOST:
            raise typer.BadParameter(f"{word!r} is not a number of real servers from 1 to {MOST}.")
        found.append(int(word))
    return tuple(sorted(set(found)))


def parse_methods(text: str) -> tuple[ForwardingMethod, ...]:
    """Parse forwarding methods, separated by commas. Raises BadParameter."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in tuple(ForwardingMethod):
            raise typer.BadParameter(f"{word!r} is none of {', '.join(ForwardingMethod)}.")
    return tuple(dict.fromkeys(map(ForwardingMethod, words)))


def _check(
    words: list[str], topology: str, servers: str, forward: str, saved: Path | None, **paths: object
) -> ForwardRequest:
    """Find mistakes here, before a machine is started."""
    from lvsctl.topology.overrides import Overrides

    parse_counts(servers)
    parse_methods(forward)
    _check_files(paths.get("page"), paths.get("picture"))
    return sources.forwarded(words, topology, Overrides())._replace(
        writes=_directory(paths.get("page"), paths.get("picture"))
    )


def _directory(*files: object) -> Path | None:
    """Return the directory that the files are in, for the machine to write there."""
    return next((file.absolute().parent for file in files if isinstance(file, Path)), None)


def _check_files(*files: object) -> None:
    """Raise UsageError where files cannot be written, before anything is measured."""
    wanted = [file for file in files if isinstance(file, Path)]
    if not wanted:
        return
    from lvsctl.output import plots

    plots.check()
    for file in wanted:
        check_writable(file)
    if len({file.absolute().parent for file in wanted}) > 1:
        raise UsageError("--html and --png need the same directory")


def _from_file(*, saved: Path | None, **_: object) -> bool:
    """Return whether nothing is measured."""
    return saved is not None


@app.command(cls=Command)
@in_lab_kernel(starts=True, prepare=_check, anywhere=_from_file)
def scale(
    ctx: typer.Context,
    topology: Annotated[
        str,
        typer.Argument(
            metavar="[TOPOLOGY]",
            autocompletion=options.complete_topologies,
            help="Name of a shipped topology, a file, or - for standard input.",
        ),
    ] = "methods",
    servers: Annotated[
        str,
        typer.Option("--servers", "-s", metavar="N,…", help="Numbers of real servers."),
    ] = "1,2,5,10,20,50,100",
    forward: Annotated[
        str,
        typer.Option(
            "--forward",
            metavar="METHOD,…",
            help=f"Forwarding methods: {','.join(ForwardingMethod)}.",
        ),
    ] = "nat,tun,dr",
    connections: Annotated[
        int | None,
        typer.Option(
            "--connections",
            "-c",
            metavar="N",
            min=1,
            max=64,
            help="Connections for each real server at the same time; default: 2 of wrk, 6 of "
            "lvsctl's own client.",
        ),
    ] = None,
    reply: Annotated[
        int,
        typer.Option("--reply", metavar="BYTES", min=1, max=1 << 20, help="Body of each reply."),
    ] = 4096,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            metavar="SECONDS",
            min=0.2,
            max=60,
            callback=options.refuse_nan,
            help="Length of each of the three windows that are measured.",
        ),
    ] = 1.0,
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with the curves, in one file."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--png", metavar="FILE", help="Write the curves as a picture.")
    ] = None,
    saved: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Show what --format json printed earlier; measure nothing.",
        ),
    ] = None,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Measure throughput over the number of real servers, for each forwarding method.

    Builds a lab for each method with as many real servers as the largest number, and lets more
    and more of them serve. Clients ask as fast as they can (wrk, if it is installed), and what
    they receive is compared with what the links' rates allow (`rate:` in a topology): with NAT
    replies fill the director's link, with TUN and DR they bypass it. The exit status is 1 if a
    measured point differs by more than 15 % from what is expected, or nothing could be decided.
    --html and --png need matplotlib: pip install 'lvsctl[plots]'.

    Examples:
      lvsctl scale
      lvsctl scale --servers 1,5,10,20 --forward nat,dr
      lvsctl scale ./mine.yaml --html scale.html --png scale.png
      lvsctl scale --format json > scale.json
      lvsctl scale --from scale.json --html scale.html
    """
    _check_files(page, picture)
    result = (
        load_scale(saved)
        if saved is not None
        else _measure(topology, servers, forward, connections, reply, seconds)
    )
    if wanted is Format.JSON:
        show_json(result)
    else:
        from lvsctl.output.text.scale import format_scale

        show(format_scale(result, style=style()))
    if page is not None:
        from lvsctl.output.html.scale import scale_page

        write_text(page, scale_page(result))
    if picture is not None:
        from lvsctl.output import plots

        write_bytes(picture, plots.scale_png(result))
    return ExitStatus.OK if result.verdict in (Verdict.PASS, None) else ExitStatus.CLAIM_FAILED


def _measure(
    topology: str, servers: str, forward: str, connections: int | None, reply: int, seconds: float
) -> Scale:
    from lvsctl.engine import scale as engine
    from lvsctl.engine.scale_counts import Settings

    settings = Settings(connections=connections or 0, reply=reply, seconds=seconds)
    with Progress() as progress:
        return engine.measure(
            sources.find_topology(topology),
            parse_counts(servers),
            parse_methods(forward),
            settings,
            lambda text, share: progress.note(f"{share:4.0%} {text}"),
        )


def load_scale(file: Path) -> Scale:
    """Read what `lvsctl scale --format json` printed. Raises UsageError if it is something else."""
    return parse_scale(read_saved(file), file)


def read_saved(file: Path) -> str:
    """Return the text of a file, or of standard input for ``-``. Raises UsageError."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise _something_else(file) from error


def parse_scale(text: str, file: Path) -> Scale:
    """Parse the text of ``file``; see ``load_scale``."""
    from cattrs.errors import BaseValidationError

    from lvsctl.model.scale import Scale
    from lvsctl.output.serialize import from_json

    try:
        result = from_json(json.loads(text), Scale)
    except (ValueError, BaseValidationError) as error:
        raise _something_else(file) from error
    measured = [curve for curve in result.curves if not curve.obstacle]
    if not all(curve.points and all(one.throughput for one in curve.points) for curve in measured):
        raise _something_else(file)
    if not measured:
        raise UsageError(f"{file} has no measured forwarding method")
    return result


def _something_else(file: Path) -> UsageError:
    return UsageError(f"{file} is not what `lvsctl scale --format json` printed")
