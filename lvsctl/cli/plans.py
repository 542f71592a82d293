"""Topologies and plans, without root and without a kernel: plan, schema, topologies."""

from __future__ import annotations

import stat
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lvsctl.cli import complete, options
from lvsctl.cli.labs import overrides_of
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.errors import HostError, UsageError


class PlanFormat(StrEnum):
    """How a plan is printed."""

    TEXT = "text"
    JSON = "json"
    SH = "sh"


def plan(
    topology: options.Topology,
    servers: options.Servers = None,
    scheduler: options.Schedulers = None,
    name: options.Name = None,
    wanted: Annotated[
        PlanFormat,
        typer.Option("--format", "-f", help="Text for people, JSON for programs, or a script."),
    ] = PlanFormat.TEXT,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")
    ] = None,
) -> None:
    """Print what up would do, as the equivalent commands.

    The ip, sysctl and ipvsadm commands, each with the reason why it is there. Needs no root
    and changes nothing. With --format sh it is a script that builds the same namespaces on
    any machine without lvsctl, and removes them.

    Examples:
      lvsctl plan dr
      lvsctl plan nat --format sh -o nat.sh
      sudo sh nat.sh && sudo sh nat.sh down
    """
    from lvsctl.engine.plans import load_lab, make_plan
    from lvsctl.topology import shipped

    found = shipped.find(topology, sys.stdin.buffer)
    lab = load_lab(found, overrides_of(name, servers, scheduler))
    result = make_plan(lab)
    if wanted is PlanFormat.SH:
        from lvsctl.output import script

        said = script.script(lab, result)
    elif wanted is PlanFormat.JSON:
        import json

        from lvsctl.output import jsonable

        said = json.dumps(jsonable.plan(result), indent=2, ensure_ascii=False)
    else:
        from lvsctl.output import text

        said = text.plan(result, style=style())
    if output is None:
        show(said)
    else:
        _write(output, said)


def _write(file: Path, text: str) -> None:
    """The whole text or nothing: on a full disk an earlier file stays what it was."""
    from lvsctl.output import planted

    content = (text.rstrip("\n") + "\n").encode()
    try:
        is_link = not planted.nofollow(file)
        if file.is_file() or not file.exists():
            mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else None
            # Resolved: through a link to the file, not in place of the link.
            planted.replace(file.resolve() if is_link else file, content, mode=mode)
        else:  # /dev/stdout, for one
            with planted.opened(file) as stream:
                stream.write(content)
    except OSError as error:
        mistaken = (IsADirectoryError, NotADirectoryError, FileNotFoundError)
        kind = UsageError if isinstance(error, mistaken) else HostError
        raise kind(f"cannot write {file}: {error.strerror}") from error


def schema() -> None:
    """Print the JSON Schema of topology files.

    Editors that know it complete keys, explain them and mark mistakes as you type.

    Examples:
      lvsctl schema > lvsctl.schema.json
      # then, in the first line of a topology, for editors with yaml-language-server:
      # yaml-language-server: $schema=lvsctl.schema.json
    """
    from lvsctl.topology.schema import json_schema

    show_json(json_schema())


def topologies(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", autocompletion=complete.topologies, help="Print this one's file."
        ),
    ] = None,
    wanted: options.As = Format.TEXT,
) -> None:
    """List the topologies that ship with lvsctl, or print one of them.

    A good start for one of your own: print one into a file and change it.

    Examples:
      lvsctl topologies
      lvsctl topologies dr > mine.yaml && lvsctl up ./mine.yaml
    """
    from lvsctl.topology import shipped

    if name is not None:
        show(shipped.text_of(name))
    elif wanted is Format.JSON:
        from lvsctl.output import jsonable

        show_json(jsonable.topologies(shipped.summaries()))
    else:
        from lvsctl.output import text

        show(text.topologies(shipped.summaries(), style=style()))
