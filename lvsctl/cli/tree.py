"""All commands, in the order in which ``lvsctl --help`` lists them."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
import typer.main

from lvsctl import __version__
from lvsctl.cli import (
    capture,
    demo,
    diagnose,
    failure,
    fault,
    host,
    labs,
    look,
    machine,
    nodes,
    plans,
    walk,
    watch,
)
from lvsctl.cli.exit_status import MEANINGS, ExitStatus
from lvsctl.cli.grammar import SETTINGS, Command, Group, complaint
from lvsctl.cli.output import show

NAME = "lvsctl"

_EPILOG = "\n".join(
    [
        "TOPOLOGY is the name of a shipped topology (lvsctl topologies), a file, or - for",
        "standard input. Where this kernel has no IPVS, or you are not root, labs run in a",
        "throwaway kernel (lvsctl machine --help); --where and LVSCTL_WHERE decide otherwise.",
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
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Linux Virtual Server labs on the kernel's real IPVS: NAT, TUN and DR.

    \b
    Start here:
      lvsctl demo                               see the three modes at work
      lvsctl up dr                              bring a lab up
      lvsctl exec client -- curl -s http://10.10.0.100/
      lvsctl verify                             does it behave as LVS says?
      lvsctl down
    """


def _app(only: str, *, listed: bool = False) -> typer.Typer:
    """All commands; with ``only``, none but that one and the hidden ones.

    ``listed``: each with its name and help alone, which is all that listing them takes.
    """
    app = typer.Typer(
        cls=Group,
        callback=_main,
        epilog=_EPILOG,
        context_settings=SETTINGS,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    def wanted(name: str) -> bool:
        return only in ("", name)

    def add(panel: str, name: str, command: Callable[..., object], **settings: Any) -> None:
        if wanted(name):
            read = _without_parameters(command) if listed else command
            app.command(name, cls=Command, rich_help_panel=panel, **settings)(read)

    for panel, commands in _COMMANDS.items():
        for name, command in commands.items():
            add(panel, name, command)
    for name, command in {"exec": nodes.exec_, "shell": nodes.shell}.items():
        add("Look", name, command, context_settings=nodes.WORDS_FOLLOW)
    if wanted("fault"):
        app.add_typer(_fault(empty=listed), name="fault", rich_help_panel="Look")
    here = "This host"
    add(here, "doctor", host.doctor)
    app.command("_features", hidden=True)(host.features)
    if wanted("machine"):
        app.add_typer(_machine(empty=listed), name="machine", rich_help_panel=here)
    return app


_COMMANDS: dict[str, dict[str, Callable[..., object]]] = {
    panel: {command.__name__: command for command in commands}
    for panel, commands in {
        "Labs": (labs.up, labs.down, labs.ls, demo.demo),
        "Look": (
            look.inspect,
            look.verify,
            diagnose.diagnose,
            walk.walk,
            capture.capture,
            watch.watch,
        ),
        "Topologies, without root": (plans.plan, plans.topologies, plans.schema),
    }.items()
}
_NAMES = frozenset(name for commands in _COMMANDS.values() for name in commands)


def _without_parameters(command: Callable[..., object]) -> Callable[[], None]:
    def named() -> None:
        raise NotImplementedError  # it is there to be listed: `enough_for` runs none of these

    named.__name__, named.__doc__ = command.__name__, command.__doc__
    return named


def _fault(*, empty: bool) -> typer.Typer:
    app = typer.Typer(
        cls=Group,
        rich_markup_mode=None,
        help="""Break a lab on purpose, as people do by mistake, and mend it again.

        Each fault names the claims that it must break: `lvsctl verify --prove` shows that it does.
        """,
        epilog="""
        Examples:
          lvsctl fault list
          lvsctl fault inject arp-ignore-unset --lab dr
          lvsctl fault restore --lab dr
        """,
    )
    if not empty:
        fault.add_to(app)
    return app


def _machine(*, empty: bool) -> typer.Typer:
    app = typer.Typer(
        cls=Group,
        rich_markup_mode=None,
        help="""Start, stop and use the throwaway kernel (User-Mode Linux or QEMU).

        It runs labs where this host's kernel has no IPVS, or without root. It is a process of
        yours that sees the host's files read-only; its labs live as long as it does.
        LVSCTL_MACHINE=NAME tells several machines apart.
        """,
    )
    if not empty:
        machine.add_to(app)
    return app


@functools.cache
def command() -> Group:
    """The whole tree, built once."""
    return _built("")


def _built(only: str, *, listed: bool = False) -> Group:
    built = typer.main.get_command(_app(only, listed=listed))
    assert isinstance(built, Group)  # noqa: S101
    return built


def enough_for(words: Sequence[str]) -> Group:
    """As much of the tree as reading ``words`` takes: the whole of it costs 30 ms more."""
    if command.cache_info().currsize:  # the machine has it all ready
        return command()
    if not words or list(words) in (["--help"], ["-h"], ["?"]):
        return _built("", listed=True)
    return _built(words[0]) if words[0] in _NAMES else command()


def run(words: Sequence[str]) -> int:
    """Carry out one command line; its exit status. Raises whatever the command raises."""
    group = enough_for(words)
    if not gc.isenabled():  # whatever takes its time makes garbage
        gc.freeze()
        gc.enable()
    try:
        with group.make_context(NAME, list(words), obj=list(words)) as ctx:
            return int(group.invoke(ctx) or 0)
    except typer.Exit as done:
        return done.exit_code
    except SystemExit as done:  # so end Typer's own options, --show-completion and the like
        return int(done.code or 0)
    except typer.TyperException as mistake:
        message, hint = complaint(mistake)
        failure.say(message)
        failure.hint(hint)
        return ExitStatus.USAGE
