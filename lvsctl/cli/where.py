"""In which kernel a command runs: the host's, or the throwaway one (the machine).

A command that is decorated with ``in_lab_kernel`` gets ``--where``. Its own function
runs where the labs are; for the machine the same words are handed on to the lvsctl inside.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

import typer

from lvsctl.cli.failure import say
from lvsctl.errors import HostError, LabError, UsageError

Run = Callable[..., int | None]
"""A command's own function: keywords in, an exit status out (None: fine)."""


class Where(StrEnum):
    """What ``--where`` takes."""

    AUTO = "auto"
    HOST = "host"
    MACHINE = "machine"


WhereOption = Annotated[
    Where,
    typer.Option(
        "--where",
        envvar="LVSCTL_WHERE",
        help="The kernel: the host's, the throwaway one, or the host's if it can.",
    ),
]


class Handover(NamedTuple):
    """What the lvsctl in the machine gets: the command line, and perhaps a standard input."""

    words: list[str]
    stdin: bytes | None = None
    writes: Path | None = None
    """A directory that the command writes; made for it, and taken away again if left empty."""


def in_lab_kernel(
    *,
    starts: bool = False,
    needs_root: bool = True,
    stdin: bool = False,
    prepare: Callable[..., Handover] | None = None,
    without: Run | None = None,
    anywhere: Callable[..., bool] | None = None,
) -> Callable[[Run], Run]:
    """A command that runs where the labs are.

    ``starts``: it starts the machine where it needs one; else, where none runs, it answers
    by ``without``, and where that is missing too, that no lab is running. ``stdin``: its
    standard input is handed on. ``prepare`` gets the command line and the command's arguments:
    it finds what is wrong with them before a machine is started, and says what to hand over.
    ``anywhere`` gets the arguments too: whether with these the command needs no lab's kernel.
    """

    def decorate(command: Run) -> Run:
        signature = inspect.signature(command, eval_str=True)

        @functools.wraps(command)
        def placed(*, ctx: typer.Context, where: Where, **words: Any) -> int | None:
            if anywhere and anywhere(**words):
                return command(**words)
            reason = _reason_for_machine(where)
            if reason is None:
                if needs_root:
                    require_root(ctx)
                return command(**words)
            handover = prepare(ctx.obj, **words) if prepare else Handover(ctx.obj)
            if not starts and not machine_is_running():
                return (without or _nothing_runs)(**words)
            tell = functools.partial(_tell, reason) if starts and where is Where.AUTO else None
            with _directory_for(handover.writes) as writable:
                return forward(
                    handover.words, stdin=stdin, given=handover.stdin, tell=tell, writable=writable
                )

        placed.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[
                inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
                *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                  for p in signature.parameters.values()),
                inspect.Parameter(
                    "where",
                    inspect.Parameter.KEYWORD_ONLY,
                    default=Where.AUTO,
                    annotation=WhereOption,
                ),
            ]
        )  # fmt: skip
        return placed

    return decorate


@contextmanager
def _directory_for(directory: Path | None) -> Iterator[tuple[str, ...]]:
    """Let the command in the machine write there. What it leaves empty was not needed."""
    if directory is None:
        yield ()
        return
    new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"{directory} is a file, not a directory") from None
    except OSError as error:
        raise HostError(f"cannot make the directory {directory}: {error.strerror}") from error
    try:
        yield (str(directory),)
    finally:
        if new:
            with suppress(OSError):
                directory.rmdir()


def inside_machine() -> bool:
    """Whether this is the machine already: then there is no other place to go."""
    return bool(os.environ.get("LVSCTL_IN_MACHINE"))


def _reason_for_machine(where: Where) -> str | None:
    """Why the command belongs into the machine; None where it runs right here."""
    if inside_machine() or where is Where.HOST:
        return None
    if where is Where.MACHINE:
        return "as you wish"
    return why_not_here()


def why_not_here() -> str | None:
    """Why labs cannot run on this host's kernel; None where they can."""
    from lvsctl.kernel import probe

    if not probe.has_ipvs() and not probe.has_module("ip_vs"):
        return f"this kernel ({os.uname().release}) has no IPVS"
    if not probe.has_root():
        return "labs on this kernel need root"
    return None if probe.has_ipvs() else "IPVS cannot be loaded into this kernel"


def require_root(ctx: typer.Context) -> None:
    """Raise HostError, with what to type, where this process cannot make or enter namespaces."""
    from lvsctl.kernel import probe

    if not probe.has_root():
        words = " ".join(["lvsctl", *ctx.obj])
        raise HostError(
            "labs on this host's kernel need root", hint=f"sudo {words}, or --where machine"
        )


def _nothing_runs(**words: Any) -> NoReturn:
    """Answer for a kernel that is not even running."""
    named = words.get("lab")
    if named:
        from lvsctl.spec import shipped

        start = named if named in shipped.names() else f"TOPOLOGY --name {named}"
        raise LabError(f"lab {named} is not running", hint=f"start it: lvsctl up {start}")
    raise LabError("no lab is running", hint="start one: lvsctl up dr")


def machine_is_running() -> bool:
    """Whether there is a machine. Never starts one."""
    from lvsctl.machine import connection, places

    found = connection.connect(places.places())
    if found is None:
        return False
    with found:
        return True


def _tell(reason: str, doing: str) -> None:
    say(f"{reason}: {doing}")


def _first(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Tell the first line that way, and the others as they are."""
    lines = iter([tell])

    def emit(text: str) -> None:
        next(lines, say)(text)

    return emit


def forward(
    words: list[str],
    *,
    stdin: bool = False,
    given: bytes | None = None,
    tell: Callable[[str], None] | None = None,
    writable: Sequence[str] = (),
) -> int:
    """Run ``lvsctl WORDS`` in the machine, which is started if need be; its exit status.

    ``given`` takes the place of standard input; without it, and without ``stdin``, there is
    none: `while read` loops around lvsctl keep what is theirs.
    """
    from lvsctl.machine import client

    if tell and machine_is_running():
        tell("using the throwaway kernel (lvsctl machine)")
        tell = None
    sys.stdout.flush()
    if given is not None or not stdin:
        replace_stdin(given or b"")
    return client.run(
        words, kind="lvsctl", emit=_first(tell) if tell else say, writable_directories=writable
    )


def replace_stdin(content: bytes) -> None:
    """From now on this process and its children read ``content`` from standard input."""
    with open(os.memfd_create("lvsctl-stdin"), "w+b") as file:  # noqa: PTH123
        file.write(content)
        file.seek(0)
        os.dup2(file.fileno(), 0)


def refuse_inside(doing: str) -> None:
    """Raise UsageError in the machine, for what only the host can do."""
    if inside_machine():
        raise UsageError(f"cannot {doing} from inside the machine", hint="leave it first: exit")
