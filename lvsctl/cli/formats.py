"""Other programs' configuration, without root and without a kernel: import."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lvsctl.cli import failure, sources
from lvsctl.cli.files import write_text
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import show
from lvsctl.errors import legible
from lvsctl.topology import shipped
from lvsctl.topology.overrides import valid_name

app = new_app()


class From(StrEnum):
    """The formats that import reads."""

    KEEPALIVED = "keepalived"
    IPVSADM = "ipvsadm"
    LDIRECTORD = "ldirectord"


@app.command("import", cls=Command)
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file, or - for standard input.")],
    source: Annotated[
        From | None,
        typer.Option(
            "--from",
            help="Format of the file: keepalived, ipvsadm, or ldirectord; default: by its content.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", metavar="LAB", help="The lab's name; default: the file's."),
    ] = None,
    config_id: Annotated[
        str,
        typer.Option(
            "--config-id",
            metavar="ID",
            help="keepalived's: read the lines with @ID in front; default: only those with @^ID.",
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write to this file; default: standard output."
        ),
    ] = None,
) -> None:
    """Turn keepalived.conf, ipvsadm rules or ldirectord.cf into a topology.

    What the file says about virtual services is carried over. What it cannot say (clients,
    networks, a router) is assumed: each assumption is a comment in the topology. Settings that
    a topology has no key for are listed with their lines, here and in the topology. Mistakes are
    errors. Nothing from the file is run, and no file is read but those that it includes.

    `lvsctl up FILE` imports and starts the lab at once.

    Examples:
      lvsctl import /etc/keepalived/keepalived.conf
      lvsctl import keepalived.conf -o site.yaml && lvsctl up ./site.yaml
      sudo ipvsadm-save -n | lvsctl import - -n site
      lvsctl import keepalived.conf --config-id lb1
    """
    from lvsctl.formats import readers

    found = shipped.find(file, sys.stdin.buffer)
    chosen = None if source is None else readers.Source(source)
    imported = readers.import_file(found, chosen, valid_name(name), config_id)
    for remark in imported.remarks:
        failure.warn(legible(str(remark)))
    sources.check(imported)
    if output is None:
        show(imported.text)
    else:
        write_text(output, imported.text)
