"""Configuration in and out, and what it changes: import, diff, export."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lvsctl.cli import failure, options, sources
from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.files import make_directory, write_text
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import ForwardRequest, Where, in_lab_kernel
from lvsctl.errors import UsageError, legible
from lvsctl.output.text.plan import format_difference, format_preview
from lvsctl.plan import planner
from lvsctl.plan.stages import Up
from lvsctl.topology import shipped
from lvsctl.topology.overrides import Overrides, valid_name

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

    found = shipped.read_file(file, sys.stdin.buffer, readers.CONFIGURATION)
    chosen = None if source is None else readers.Source(source)
    imported = readers.import_file(found, chosen, valid_name(name), config_id)
    for remark in imported.remarks:
        failure.warn(legible(str(remark)))
    sources.check(imported)
    if output is None:
        show(imported.text)
    else:
        write_text(output, imported.text)
        if output.is_file():
            written = str(output)
            # A bare word is a shipped topology's name to `up`.
            typed = written if "/" in written or "." in written else f"./{written}"
            failure.say(f"written: {legible(written)}")
            failure.say(f"next: lvsctl up {legible(shlex.quote(typed))}")


def _are_files(other: str | None, **_: object) -> bool:
    """Return whether two files are compared, for which no lab is needed."""
    # No lab has a name with a dot.
    return other is not None and (
        other == "-" or "/" in other or "." in other or Path(other).is_file()
    )


def _forwarded(words: list[str], topology: str, **_: object) -> ForwardRequest:
    """Check the topology here; forward its text if the machine cannot read it."""
    return sources.forwarded(words, topology, Overrides(), brief=False)


def _without_machine(topology: str, other: str | None, wanted: Format, **_: object) -> ExitStatus:
    """Answer ``diff`` if no machine is running, and so no lab."""
    found = sources.find_topology(topology, brief=False)
    lab = planner.load_lab(found, Overrides(other))
    return _show_preview(Up(lab, True, planner.plan_for(lab).resources), wanted, exit_code=False)


@app.command(cls=Command)
@in_lab_kernel(prepare=_forwarded, without_machine=_without_machine, anywhere=_are_files)
def diff(
    ctx: typer.Context,
    topology: options.Topology,
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="[LAB|FILE]",
            autocompletion=options.complete_labs,
            help="Running lab to compare with; default: the topology's. Or a second file.",
        ),
    ] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with status 1 if anything differs.")
    ] = False,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Print what up would change, or what differs in two files.

    With one topology: what `up` would do to the running lab, as commands, without doing it. Also
    what was changed by hand, because up undoes that. With two files: what changes from the first
    to the second, which needs no lab. Each may be keepalived.conf, ipvsadm rules or ldirectord.cf.

    Examples:
      lvsctl diff ./mine.yaml                  before lvsctl up ./mine.yaml
      lvsctl diff dr trial                     compare the running lab `trial` with topology dr
      lvsctl diff keepalived.conf keepalived.conf.new
      lvsctl diff old.yaml new.yaml --format json
    """
    if _are_files(other):
        assert other is not None  # noqa: S101 - for the type checker
        return _compare(topology, other, wanted, exit_code=exit_code)
    from lvsctl.engine.preview import preview  # with all of the engine

    found = sources.find_topology(topology, brief=False)
    result = preview(planner.load_lab(found, Overrides(other)))
    return _show_preview(result, wanted, exit_code=exit_code)


def _show_preview(result: Up, wanted: Format, *, exit_code: bool) -> ExitStatus:
    if wanted is Format.JSON:
        show_json(result)
    else:
        show(format_preview(result, style=style()))
    return ExitStatus.CLAIM_FAILED if exit_code and result.changed else ExitStatus.OK


def _compare(topology: str, other: str, wanted: Format, *, exit_code: bool) -> ExitStatus:
    from lvsctl.engine.preview import between

    if topology == other == "-":
        raise UsageError("standard input is one file, not two", hint="name the other one")
    first = planner.load_lab(sources.find_topology(topology, brief=False))
    found = sources.find_topology(other, brief=False)
    second = planner.load_lab(found, Overrides(first.name))
    result = between(planner.plan_for(first), planner.plan_for(second), second)
    if wanted is Format.JSON:
        show_json(result)
    else:
        show(format_difference(result, topology, other, style=style()))
    return ExitStatus.CLAIM_FAILED if exit_code and result.changed else ExitStatus.OK


class To(StrEnum):
    """The formats that export writes."""

    KEEPALIVED = "keepalived"
    IPVSADM = "ipvsadm"
    ANSIBLE = "ansible"
    CONTAINERLAB = "containerlab"
    CLABERNETES = "clabernetes"


def _is_topology(topology: str, **_: object) -> bool:
    """Return whether a topology is exported, for which no lab is needed."""
    named = topology in shipped.names() or topology == "-" or "/" in topology or "." in topology
    return named or Path(topology).is_file()


@app.command(cls=Command)
@in_lab_kernel(needs_root=False, anywhere=_is_topology)
def export(
    ctx: typer.Context,
    topology: Annotated[
        str,
        typer.Argument(
            metavar="TOPOLOGY|LAB",
            autocompletion=options.complete_topologies,
            help="A topology's name, a file, - for standard input, or the name of a running lab.",
        ),
    ],
    to: Annotated[
        To,
        typer.Option(
            "--to",
            help="Format: keepalived, ipvsadm, ansible, containerlab, or clabernetes.",
        ),
    ],
    servers: options.Servers = None,
    scheduler: options.SchedulerOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write to this file, or to this directory if there are several; default: "
            "standard output.",
        ),
    ] = None,
    where: options.Placement = Where.AUTO,
) -> None:
    """Write a lab as keepalived.conf, rules, playbooks or containers.

    keepalived: VRRP for the VIPs, the virtual services, a health check for each real server (not
    for SCTP). ipvsadm: the director's rules, as `ipvsadm -R` takes them. ansible: a directory that
    `ansible-playbook` applies to real directors and real servers, and takes back. containerlab:
    the same lab of containers; clabernetes: the same for a Kubernetes cluster. A file in another
    program's format is imported first, so that this also converts one into the other. What a format
    does not contain is listed on standard error, and in keepalived.conf and the playbooks' README.

    Examples:
      lvsctl export dr --to keepalived
      lvsctl export ./mine.yaml --to keepalived -o keepalived.conf
      lvsctl export keepalived.conf --to ipvsadm | sudo ipvsadm -R
      lvsctl export dr --to ansible -o site && ansible-playbook -i site/inventory.yml site/apply.yml
      lvsctl export dr --to containerlab -o dr.clab.yml && sudo containerlab deploy -t dr.clab.yml
      lvsctl export dr --to clabernetes | kubectl apply -f -
    """
    from lvsctl.formats import writers

    overrides = Overrides(None, servers, scheduler)
    if _is_topology(topology):
        lab = planner.load_lab(sources.find_topology(topology), overrides)
    else:
        from lvsctl.engine.labs import running_lab

        lab = running_lab(topology)
    resources, target = planner.plan_for(lab).resources, writers.Target(to)
    files = writers.export(lab, resources, target)
    for text in writers.lost(lab, resources, target):
        failure.warn(f"not in it: {text}")
    if output is None:
        show("\n".join(_named(files)))
    elif len(files) == 1:
        write_text(output, next(iter(files.values())))
    else:
        make_directory(output)
        for directory in sorted({Path(name).parent for name in files}):
            make_directory(output / directory)
        for name, text in files.items():
            write_text(output / name, text)


def _named(files: dict[str, str]) -> list[str]:
    """Return the texts, with the files' names as comments if there are several."""
    if len(files) == 1:
        return list(files.values())
    return [f"# {name}\n{text}" for name, text in files.items()]
