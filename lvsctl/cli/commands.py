"""The command line: every command, the module that has it, and how one command line is run.

A module is imported when one of its commands is named. So ``lvsctl --help`` and completion, which
need the names and summaries alone, stay quick.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, NamedTuple

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from lvsctl import __version__
from lvsctl.cli import failure
from lvsctl.cli.failure import MEANINGS, ExitStatus
from lvsctl.cli.help import SETTINGS, CommandList, Entry, usage_error
from lvsctl.cli.output import show
from lvsctl.cli.where import WHERE_VARIABLE, Where

NAME = "lvsctl"


class Row(NamedTuple):
    """One command of ``lvsctl``.

    ``module`` is a module of ``lvsctl.cli`` whose ``app`` has it. ``summary`` is the first
    sentence of its docstring (a test compares them). ``panel`` is its heading in the help; a
    command without one is hidden.
    """

    name: str
    module: str
    panel: str
    summary: str


_LABS = "Labs"
_INSPECT = "Inspect and test"
_TOPOLOGIES = "Topologies (no root needed)"
_HOST = "This host"

ROWS = (
    Row("up", "labs", _LABS, "Bring a lab up, or change a running one to match its topology"),
    Row("down", "labs", _LABS, "Remove labs and everything they own, and nothing else"),
    Row("ls", "labs", _LABS, "List running labs"),
    Row("demo", "demo", _LABS, "Show NAT, TUN and DR working on the kernel's real IPVS"),
    Row("inspect", "inspect", _INSPECT, "Show the kernel's configuration of a lab's nodes"),
    Row("verify", "verify", _INSPECT, "Send requests through the VIP and prove LVS's claims"),
    Row("diagnose", "inspect", _INSPECT, "Find out why a lab does not work and how to fix it"),
    Row("walk", "inspect", _INSPECT, "Follow one request through the lab, hop by hop"),
    Row(
        "failover",
        "failover",
        _INSPECT,
        "Make one director take over from another, and measure the outage",
    ),
    Row(
        "drain",
        "drain",
        _INSPECT,
        "Take a real server out while flows run, and see what becomes of each",
    ),
    Row(
        "idle",
        "drain",
        _INSPECT,
        "Let flows be silent for longer than IPVS keeps them, and see what becomes of each",
    ),
    Row(
        "play",
        "play",
        _INSPECT,
        "Carry out a drill in a running lab, and compare what happens with what is expected",
    ),
    Row(
        "scale",
        "scale",
        _INSPECT,
        "Measure throughput over the number of real servers, for each forwarding method",
    ),
    Row("compare", "compare", _INSPECT, "Compare NAT, TUN and DR: the classic table, measured"),
    Row("capture", "capture", _INSPECT, "Capture frames at every interface of every node"),
    Row("watch", "watch", _INSPECT, "Watch a running lab live"),
    Row("exec", "nodes", _INSPECT, "Run a command on a node"),
    Row("shell", "nodes", _INSPECT, "Open a shell on a node"),
    Row("fault", "fault", _INSPECT, "Inject and remove deliberate misconfigurations (faults)"),
    Row("plan", "plans", _TOPOLOGIES, "Print what up would do, as the equivalent commands"),
    Row(
        "import",
        "formats",
        _TOPOLOGIES,
        "Turn keepalived.conf, ipvsadm rules or ldirectord.cf into a topology",
    ),
    Row("diff", "formats", _TOPOLOGIES, "Print what up would change, or what differs in two files"),
    Row(
        "export",
        "formats",
        _TOPOLOGIES,
        "Write a lab as keepalived.conf, rules, playbooks or containers",
    ),
    Row(
        "check",
        "check",
        _TOPOLOGIES,
        "Compare real hosts with a topology, by the rules of diagnose",
    ),
    Row("collect", "check", _TOPOLOGIES, "Print a script that collects a host's state for check"),
    Row("graph", "plans", _TOPOLOGIES, "Draw a topology: its nodes, networks, addresses and VIPs"),
    Row("topologies", "plans", _TOPOLOGIES, "List the shipped topologies, or print one of them"),
    Row(
        "schema",
        "plans",
        _TOPOLOGIES,
        "Print the JSON Schema of topology files, or of a command's JSON",
    ),
    Row("doctor", "doctor", _HOST, "Report what labs can do on this host and what is missing"),
    Row("machine", "machine", _HOST, "Manage the throwaway kernel (User-Mode Linux or QEMU)"),
    Row("_features", "doctor", "", "Print the features of this kernel as JSON"),
)

_EPILOG = "\n".join(
    [
        "TOPOLOGY is the name of a shipped topology (lvsctl topologies), a file, or - for",
        "standard input. If this kernel has no IPVS, or you are not root, labs run in a",
        "throwaway kernel (lvsctl machine --help); --where or LVSCTL_WHERE overrides this.",
        "",
        "Exit status:",
        *(f"  {status:>3}  {meaning}" for status, meaning in MEANINGS),
    ]
)


def _print_version(wanted: bool) -> None:
    if wanted:
        show(f"{NAME} {__version__}")
        raise typer.Exit


def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    where: Annotated[
        Where | None,
        typer.Option(
            "--where", metavar="auto|host|machine", help="Where to run; also after the command."
        ),
    ] = None,
) -> None:
    """Linux Virtual Server labs on the kernel's real IPVS: NAT, TUN and DR.

    \b
    Start here:
      lvsctl demo                               see the three forwarding methods at work
      lvsctl up dr                              bring a lab up
      lvsctl exec client -- curl -s http://10.10.0.100/
      lvsctl verify                             prove that it behaves as LVS specifies
      lvsctl down
    """
    if where is not None:
        os.environ[WHERE_VARIABLE] = where  # as the default of the command's own option


class _Commands(Mapping[str, TyperCommand | TyperGroup]):
    """The commands by name, in the order of ROWS; each is imported when it is looked up."""

    def __init__(self) -> None:
        self._rows = {row.name: row for row in ROWS}
        self._loaded: dict[str, TyperCommand | TyperGroup] = {}

    def __getitem__(self, name: str) -> TyperCommand | TyperGroup:
        row = self._rows[name]
        if name not in self._loaded:
            self._loaded.update(_commands_of(row.module))
        command = self._loaded[name]
        command.rich_help_panel = row.panel
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _commands_of(module: str) -> dict[str, TyperCommand | TyperGroup]:
    """The commands that a module of this package declares, by name."""
    app = importlib.import_module(f"lvsctl.cli.{module}").app
    built = typer.main.get_command(app)
    if isinstance(built, TyperGroup) and not built.name:
        return built.commands  # type: ignore[return-value] # typed as any command of click's
    assert isinstance(built, TyperCommand | TyperGroup)  # noqa: S101 - for the type checker
    return {str(built.name): built}


class _Root(CommandList):
    """``lvsctl`` itself, which lists its commands without importing them."""

    def entries(self) -> Sequence[Entry]:
        """The commands that are not hidden."""
        return [Entry(row.panel, row.name, row.summary) for row in ROWS if row.panel]


@functools.cache
def command() -> TyperGroup:
    """The command ``lvsctl``, built once."""
    app = typer.Typer(
        cls=_Root,
        callback=_main,
        epilog=_EPILOG,
        context_settings=SETTINGS,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    built = typer.main.get_command(app)
    assert isinstance(built, TyperGroup)  # noqa: S101 - for the type checker
    built.commands = _Commands()  # type: ignore[assignment] # nothing adds to it
    return built


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit status. Raises whatever the command raises."""
    group = command()
    try:
        with group.make_context(NAME, list(words), obj=list(words)) as ctx:
            return int(group.invoke(ctx) or 0)
    except typer.Exit as done:
        return done.exit_code
    except SystemExit as done:  # raised by Typer's own options, such as --show-completion
        return int(done.code or 0)
    except typer.TyperException as error:
        message, hint = usage_error(error)
        failure.say(message)
        failure.hint(hint)
        return ExitStatus.USAGE


def complete() -> int:
    """Answer the shell's completion function, whose question is in the environment."""
    try:
        command().main([], prog_name=NAME)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    return 0
