"""Arguments and options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from lvsctl.cli import complete
from lvsctl.cli.output import Format
from lvsctl.model.service import Scheduler

Topology = Annotated[
    str,
    typer.Argument(
        metavar="TOPOLOGY",
        autocompletion=complete.topologies,
        help="A shipped topology's name, a file, or - for standard input.",
        show_default=False,
    ),
]

Lab = Annotated[
    str | None,
    typer.Argument(
        metavar="[LAB]", autocompletion=complete.labs, help="The lab; needless where one runs."
    ),
]

Servers = Annotated[
    int | None,
    typer.Option("--servers", "-s", metavar="N", min=1, help="How many real servers."),
]

Schedulers = Annotated[
    Scheduler | None,
    typer.Option(
        "--scheduler",
        metavar="NAME",
        autocompletion=complete.schedulers,
        help=f"One of {', '.join(Scheduler)}.",
    ),
]

Name = Annotated[
    str | None,
    typer.Option("--name", "-n", metavar="LAB", help="Call the lab so: several can run at once."),
]

As = Annotated[Format, typer.Option("--format", "-f", help="Text for people or JSON for programs.")]
