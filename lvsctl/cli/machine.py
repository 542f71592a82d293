"""The throwaway kernel: machine start, stop, status, shell, list, install, run."""

from __future__ import annotations

from typing import Annotated

import typer

from lvsctl.cli import options
from lvsctl.cli.doctor import features_inside
from lvsctl.cli.failure import say
from lvsctl.cli.help import ARGUMENTS_FOLLOW, Command, new_app
from lvsctl.cli.nodes import shell_with_prompt
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import refuse_inside
from lvsctl.errors import UsageError
from lvsctl.kernel import features
from lvsctl.machine import client
from lvsctl.machine.config import MachineRequest, request_from_environment
from lvsctl.machine.kinds import choose_kind, survey_kinds
from lvsctl.output.text.hosts import format_machine, format_machine_kinds

app = new_app(
    name="machine",
    help="""Manage the throwaway kernel (User-Mode Linux or QEMU).

    It runs labs if this host's kernel has no IPVS, or without root. It is a process of yours
    that sees the host's files read-only; its labs end with it. LVSCTL_MACHINE=NAME selects one
    of several machines.
    """,
)

_Writable = Annotated[
    list[str] | None,
    typer.Option(
        "--writable",
        "-w",
        metavar="DIR",
        help="Directory of the host that can be written from inside; can be repeated.",
    ),
]
_Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="uml|qemu",
        help="Kind of machine: uml (User-Mode Linux) or qemu; default: uml if this host can "
        "run it and --kernel is not given.",
    ),
]
_Kernel = Annotated[
    str | None,
    typer.Option(
        "--kernel",
        "-k",
        metavar="KERNEL",
        help="Kernel for QEMU: a file (/boot/vmlinuz-...), or a version, release, package or "
        "suite of Debian's.",
    ),
]


@app.command(cls=Command)
def start(
    kind: _Kind = None,
    kernel: _Kernel = None,
    memory: Annotated[
        int | None,
        typer.Option(
            "--memory",
            "-m",
            metavar="MIB",
            min=64,
            help="Memory in MiB; default: 1024, or less on a small host.",
        ),
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(
            "--cpus", metavar="N", min=1, help="Number of CPUs; default: 1 (the maximum for uml)."
        ),
    ] = None,
    writable: _Writable = None,
) -> None:
    """Start the throwaway kernel, unless it is running.

    It is an ordinary process of yours and needs no root. By default it is User-Mode Linux; with
    --kernel it is QEMU with a kernel of your distribution: a file in /boot, or a package by one
    of its names, which is unpacked into your cache. Commands that need the machine start it
    themselves, with the defaults LVSCTL_MACHINE_KIND, _KERNEL, _MEMORY and _CPUS.

    Examples:
      lvsctl machine start
      lvsctl machine start --memory 2048 --writable ~/captures
      lvsctl machine start --kernel 6.12 --cpus 2
      lvsctl machine start --kernel /boot/vmlinuz-$(uname -r)
    """
    refuse_inside("start a machine")
    started = client.start(
        MachineRequest(kind, kernel, memory, cpus), writable_directories=writable or (), emit=say
    )
    show("the machine is running" if started else "the machine was running already")


@app.command(cls=Command)
def stop() -> None:
    """Stop the throwaway kernel and all labs in it.

    Nothing of it is left behind. If it hangs, it is killed.

    Examples:
      lvsctl machine stop
    """
    refuse_inside("stop the machine")
    stopped = client.stop()
    show("the machine and its labs are stopped" if stopped else "no machine was running")


@app.command(cls=Command)
def status(wanted: options.As = Format.TEXT) -> None:
    """Show whether the throwaway kernel is running, and what it is.

    Its kind, its kernel and the features that this lacks (tested, as doctor does), memory,
    uptime, and the directories that can be written from inside.

    Examples:
      lvsctl machine status
      lvsctl machine status --format json
    """
    refuse_inside("show the machine's status")
    found = client.status()
    features = _kernel_features() if found else {}
    if wanted is Format.JSON:
        show_json(running=found is not None, machine=found, features=features)
    else:
        show(format_machine(found, features, style=style()))


def _kernel_features() -> dict[str, bool]:
    """Return which of doctor's features, by name, the machine's kernel has."""
    names = features.names()
    return {one.id: one.present for one in features_inside() if one.id in names}


@app.command(cls=Command)
def shell(writable: _Writable = None) -> int:
    """Open a shell in the throwaway kernel.

    Your own shell ($SHELL, else sh), as root. Inside, `ip netns` lists the nodes of the labs,
    and lvsctl works on these labs.

    Examples:
      lvsctl machine shell
    """
    refuse_inside("open a shell in the machine")
    program, environment = shell_with_prompt("machine")
    return client.run(
        [program], kind="exec", env=environment, writable_directories=writable or (), emit=say
    )


@app.command("list", cls=Command)
def list_(wanted: options.As = Format.TEXT) -> None:
    """List the kinds of throwaway kernel, and whether this host can run them.

    User-Mode Linux needs only its package. QEMU can run any kernel of the distribution, with
    KVM if a test shows that it works here. Kernels listed as ready start without a download.

    Examples:
      lvsctl machine list
    """
    refuse_inside("list machines")
    found = survey_kinds()
    if wanted is Format.JSON:
        show_json(kinds=found)
    else:
        show(format_machine_kinds(found, style=style()))


@app.command(cls=Command)
def install(kind: _Kind = None, kernel: _Kernel = None) -> None:
    """Download and unpack the throwaway kernel in advance.

    Fetches Debian's package user-mode-linux (41 MB) into your cache, without root, unless
    it is unpacked or installed already; with --kernel, a kernel for QEMU (about 70 MB).

    Examples:
      lvsctl machine install
      lvsctl machine install --kernel trixie
      sudo apt-get install user-mode-linux    # for all users instead
    """
    refuse_inside("install a kernel")
    request = MachineRequest(kind, kernel).or_else(request_from_environment())
    chosen = choose_kind(request)
    found = chosen.kernel(request.kernel, say)
    show(f"{chosen.title} {found.release}: {found.program}")


@app.command(cls=Command, context_settings=ARGUMENTS_FOLLOW)
def run(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- COMMAND...", show_default=False, help="Command to run, with its arguments."
        ),
    ],
    writable: _Writable = None,
) -> int:
    """Run any command in the throwaway kernel.

    It runs as root, in the kernel's initial namespace, and sees the host's files: read-only,
    except the current directory and those given with --writable. Its streams, terminal and exit
    status are passed through. The machine is started if necessary.

    Examples:
      lvsctl machine run -- ip netns list
      lvsctl machine run -- ip netns exec lvs-dr-director ipvsadm -Ln
      lvsctl machine run --writable /var/tmp/out -- sh ./measure.sh
    """
    refuse_inside("run a command in the machine")
    words = command[command[:1] == ["--"] :]
    if not words:
        raise UsageError("no command given", hint="lvsctl machine run -- ip netns list")
    return client.run(words, kind="exec", writable_directories=writable or (), emit=say)
