"""Topologies and plans, without root and without a kernel: plan, topologies, schema."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lvsctl.cli import options, sources
from lvsctl.cli.files import write_text
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, json_text, show, show_json, style
from lvsctl.output import graph as drawing
from lvsctl.output import shell_script
from lvsctl.output.text.hosts import format_topologies
from lvsctl.output.text.plan import format_plan
from lvsctl.plan import planner
from lvsctl.topology import shipped
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.schema import json_schema

app = new_app()


class PlanFormat(StrEnum):
    """The output formats of plan."""

    TEXT = "text"
    JSON = "json"
    SH = "sh"


class SchemaOf(StrEnum):
    """Commands whose JSON has a schema."""

    UP = "up"
    DIFF = "diff"
    LS = "ls"
    INSPECT = "inspect"
    VERIFY = "verify"
    PROVE = "verify-prove"
    DIAGNOSE = "diagnose"
    CHECK = "check"
    WALK = "walk"
    FAILOVER = "failover"
    DRAIN = "drain"
    DRAIN_MATRIX = "drain-matrix"
    IDLE = "idle"
    PLAY = "play"
    SCALE = "scale"
    COMPARE = "compare"
    WATCH = "watch"
    FAULT_LIST = "fault-list"
    FAULT_SHOW = "fault-show"
    FAULT_INJECT = "fault-inject"
    FAULT_RESTORE = "fault-restore"
    FAULT_MATRIX = "fault-matrix"
    PLAN = "plan"
    TOPOLOGIES = "topologies"
    DOCTOR = "doctor"
    MACHINE_STATUS = "machine-status"
    MACHINE_LIST = "machine-list"


@app.command(cls=Command)
def plan(
    topology: options.Topology,
    servers: options.Servers = None,
    scheduler: options.SchedulerOption = None,
    forward: options.Forward = None,
    name: options.Name = None,
    wanted: Annotated[
        PlanFormat,
        typer.Option("--format", "-f", help="Output format: text, json, or sh (a script)."),
    ] = PlanFormat.TEXT,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write to this file; default: standard output."
        ),
    ] = None,
) -> None:
    """Print what up would do, as the equivalent commands.

    The ip, sysctl and ipvsadm commands, each with its reason. Needs no root and changes
    nothing. With --format sh the output is a script that builds the same namespaces on
    any machine without lvsctl, and removes them.

    Examples:
      lvsctl plan dr
      lvsctl plan nat --format sh -o nat.sh
      sudo sh nat.sh && sudo sh nat.sh down
    """
    found = sources.find_topology(topology)
    lab = planner.load_lab(found, Overrides(name, servers, scheduler, forward))
    result = planner.plan_for(lab)
    match wanted:
        case PlanFormat.SH:
            content = shell_script.script(lab, result)
        case PlanFormat.JSON:
            content = json_text(result)
        case PlanFormat.TEXT:
            content = format_plan(result, style=style())
    if output is None:
        show(content)
    else:
        write_text(output, content)


class GraphFormat(StrEnum):
    """The output formats of graph."""

    SVG = "svg"
    HTML = "html"
    MERMAID = "mermaid"
    DOT = "dot"


@app.command(cls=Command)
def graph(
    topology: options.Topology,
    servers: options.Servers = None,
    wanted: Annotated[
        GraphFormat,
        typer.Option("--format", "-f", help="Output format: svg, html, mermaid, or dot."),
    ] = GraphFormat.MERMAID,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write to this file; default: standard output."
        ),
    ] = None,
) -> None:
    """Draw a topology: its nodes, networks, addresses and VIPs.

    Mermaid is what GitHub and GitLab draw in Markdown, dot what Graphviz lays out; svg and
    html need no other program. Large groups of real servers are one shape. Needs no root and
    changes nothing.

    Examples:
      lvsctl graph dr
      lvsctl graph tun --format svg -o tun.svg
      lvsctl graph nat --servers 300 --format dot | dot -Tpng -o nat.png
    """
    found = sources.find_topology(topology)
    lab = planner.load_lab(found, Overrides(servers=servers))
    match wanted:
        case GraphFormat.MERMAID:
            content = drawing.mermaid(lab)
        case GraphFormat.DOT:
            content = drawing.dot(lab)
        case GraphFormat.SVG | GraphFormat.HTML:
            from lvsctl.output.html import page  # heavy, and no other command here needs it
            from lvsctl.output.html.topology import image

            content = image(lab) if wanted is GraphFormat.SVG else page.topology_page(lab)
    if output is None:
        show(content)
    else:
        write_text(output, content)


@app.command(cls=Command)
def topologies(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            autocompletion=options.complete_topologies,
            help="Topology whose file to print; default: list all.",
        ),
    ] = None,
    wanted: options.As = Format.TEXT,
) -> None:
    """List the shipped topologies, or print one of them.

    To write your own, print one into a file and change it.

    Examples:
      lvsctl topologies
      lvsctl topologies dr > mine.yaml && lvsctl up ./mine.yaml
    """
    if name is not None:
        show(shipped.text_of(name))
    elif wanted is Format.JSON:
        show_json(
            topologies=[
                {"name": name, "description": description}
                for name, description in shipped.summaries().items()
            ]
        )
    else:
        show(format_topologies(shipped.summaries(), style=style()))


@app.command(cls=Command)
def schema(
    of: Annotated[
        SchemaOf | None,
        typer.Option(
            "--of",
            metavar="COMMAND",
            help="Print the schema of this command's --format json; default: of topology files. "
            f"One of: {', '.join(SchemaOf)}.",
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of topology files, or of a command's JSON.

    Editors that support it complete keys, explain them and mark mistakes while you type.

    Examples:
      lvsctl schema > lvsctl.schema.json
      lvsctl schema --of verify
      # then, in the first line of a topology, for editors with yaml-language-server:
      # yaml-language-server: $schema=lvsctl.schema.json
    """
    if of is None:
        found = json_schema()
    else:
        # Imports the types of every command's result.
        from lvsctl.output import json_schemas

        found = json_schemas.json_schema(of)
    show(json.dumps(found, indent=2, ensure_ascii=False))
