"""The throwaway kernel itself: machine start, stop, status, run, shell, list, install."""

from __future__ import annotations

from typing import Annotated

import typer

from lvsctl.cli import options
from lvsctl.cli.failure import say
from lvsctl.cli.grammar import Command
from lvsctl.cli.nodes import WORDS_FOLLOW, shell_of
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import refuse_inside
from lvsctl.errors import UsageError

_Writable = Annotated[
    list[str] | None,
    typer.Option(
        "--writable",
        "-w",
        metavar="DIR",
        help="The host's directory DIR can be written from inside; may be repeated.",
    ),
]


_Kind = Annotated[
    str | None,
    typer.Option("--kind", metavar="uml|qemu", help="User-Mode Linux, or QEMU."),
]
_Kernel = Annotated[
    str | None,
    typer.Option(
        "--kernel",
        "-k",
        metavar="KERNEL",
        help="For QEMU: /boot/vmlinuz-..., or a version, release, package or suite of Debian's.",
    ),
]


def start(
    kind: _Kind = None,
    kernel: _Kernel = None,
    memory: Annotated[
        int | None,
        typer.Option("--memory", "-m", metavar="MIB", min=64, help="Its memory; the default fits."),
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option("--cpus", metavar="N", min=1, help="Its CPUs; User-Mode Linux has one."),
    ] = None,
    writable: _Writable = None,
) -> None:
    """Start the throwaway kernel, unless it runs.

    An ordinary process of yours, without root. Usually User-Mode Linux; with --kernel it is
    QEMU with that kernel of your distribution: a file in /boot, or what the package lists have
    by this name. Packages are unpacked into your cache. Commands that need the machine start it
    themselves, and take what LVSCTL_MACHINE_KIND, _KERNEL, _MEMORY and _CPUS say.

    Examples:
      lvsctl machine start
      lvsctl machine start --memory 2048 --writable ~/captures
      lvsctl machine start --kernel 6.12 --cpus 2
      lvsctl machine start --kernel /boot/vmlinuz-$(uname -r)
    """
    refuse_inside("start a machine")
    from lvsctl.machine import client
    from lvsctl.machine.plan import Wish

    started = client.start(
        Wish(kind, kernel, memory, cpus), writable_directories=writable or (), emit=say
    )
    show("the machine is running" if started else "the machine was running already")


def stop() -> None:
    """End the throwaway kernel, with all labs in it.

    Nothing of it stays behind. One that hangs is killed.

    Examples:
      lvsctl machine stop
    """
    refuse_inside("stop the machine")
    from lvsctl.machine import client

    show("the machine and its labs are gone" if client.stop() else "no machine was running")


def status(wanted: options.As = Format.TEXT) -> None:
    """Say whether the throwaway kernel runs, and what it is.

    Its kind, its kernel and what that lacks (tried, as doctor does), memory, age, and the
    directories that can be written from inside.

    Examples:
      lvsctl machine status
      lvsctl machine status --format json
    """
    refuse_inside("ask for the machine")
    from lvsctl.machine import client

    found = client.status()
    features = _kernel_features() if found else {}
    if wanted is Format.JSON:
        from lvsctl.output import jsonable

        show_json(jsonable.machine(found, features))
    else:
        from lvsctl.output import text

        show(text.machine(found, features, style=style()))


def _kernel_features() -> dict[str, bool]:
    """What the machine's kernel can do, by the name that doctor has for it."""
    from lvsctl.cli.host import features_inside
    from lvsctl.kernel import probe_kernel

    names = probe_kernel.names()
    return {one.id: one.present for one in features_inside() if one.id in names}


def run(
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND...", show_default=False, help="And its arguments."),
    ],
    writable: _Writable = None,
) -> int:
    """Run any command in the throwaway kernel.

    As root, in the kernel's initial namespace, with the host's files: read-only but for the
    current directory and those named with --writable. Streams, terminal and exit status are
    the command's. The machine is started if need be.

    Examples:
      lvsctl machine run -- ip netns list
      lvsctl machine run -- ip netns exec lvs-dr-director ipvsadm -Ln
      lvsctl machine run --writable /var/tmp/out -- sh ./measure.sh
    """
    refuse_inside("run a command in the machine")
    from lvsctl.machine import client

    words = command[command[:1] == ["--"] :]
    if not words:
        raise UsageError("there is no command to run", hint="lvsctl machine run -- ip netns list")
    return client.run(words, kind="exec", writable_directories=writable or (), emit=say)


def shell(writable: _Writable = None) -> int:
    """Open a shell in the throwaway kernel.

    Your own shell ($SHELL, else sh), as root. `ip netns` lists the labs' nodes there, and
    lvsctl works on the labs inside.

    Examples:
      lvsctl machine shell
    """
    refuse_inside("open a shell in the machine")
    from lvsctl.machine import client

    program, environment = shell_of("machine")
    return client.run(
        [program], kind="exec", env=environment, writable_directories=writable or (), emit=say
    )


def kinds(wanted: options.As = Format.TEXT) -> None:
    """List the kinds of throwaway kernel, and whether this host can run them.

    User-Mode Linux needs nothing but its package; QEMU can run any kernel of the distribution,
    by KVM where that works. Whether it does is tried. Kernels that are ready start at once.

    Examples:
      lvsctl machine list
    """
    refuse_inside("list machines")
    from lvsctl.machine.kinds import survey

    found = survey()
    if wanted is Format.JSON:
        from lvsctl.output import jsonable

        show_json(jsonable.machine_kinds(found))
    else:
        from lvsctl.output import text

        show(text.machine_kinds(found, style=style()))


def install(kind: _Kind = None, kernel: _Kernel = None) -> None:
    """Unpack the throwaway kernel, so that it need not be done later.

    Fetches Debian's package user-mode-linux (41 MB) into your cache, without root, unless
    it is there or installed; with --kernel a kernel for QEMU (about 70 MB).

    Examples:
      lvsctl machine install
      lvsctl machine install --kernel trixie
      sudo apt-get install user-mode-linux    # for all users instead
    """
    refuse_inside("install a kernel")
    from lvsctl.machine.kinds import chosen
    from lvsctl.machine.plan import Wish, wish_from_environment

    wish = Wish(kind, kernel).otherwise(wish_from_environment())
    taken = chosen(wish)
    found = taken.kernel(wish.kernel, say)
    show(f"{taken.title} {found.release}: {found.program}")


def add_to(app: typer.Typer) -> None:
    """The commands, in the order of their use."""
    for command in (start, stop, status, shell):
        app.command(cls=Command)(command)
    app.command("list", cls=Command)(kinds)
    app.command(cls=Command)(install)
    app.command(cls=Command, context_settings=WORDS_FOLLOW)(run)
