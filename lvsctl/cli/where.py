"""In which kernel a command runs: the host's, or the throwaway one (the machine).

A command that is decorated with ``in_lab_kernel`` gets ``--where``. Its own function
runs where the labs are; for the machine the same words are handed on to the lvsctl inside.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lvsctl.cli.failure import say
from lvsctl.errors import HostError, LabError, UsageError

# Typer, and what it is told about parameters, is only imported where it reads the command line.
if TYPE_CHECKING:
    import inspect

    import typer

Run = Callable[..., int | None]
"""A command's own function: keywords in, an exit status out (None: fine)."""


WHERE_VARIABLE = "LVSCTL_WHERE"
"""The variable in the environment that stands for ``--where``."""


class Where(StrEnum):
    """What ``--where`` takes."""

    AUTO = "auto"
    HOST = "host"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Handover:
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
) -> Callable[[Run], Placed]:
    """A command that runs where the labs are.

    ``starts``: it starts the machine where it needs one; else, where none runs, it answers
    by ``without``, and where that is missing too, that no lab is running. ``stdin``: its
    standard input is handed on. ``prepare`` gets the command line and the command's arguments:
    it finds what is wrong with them before a machine is started, and says what to hand over.
    ``anywhere`` gets the arguments too: whether with these the command needs no lab's kernel.
    """

    def decorate(command: Run) -> Placed:
        return Placed(
            command,
            starts=starts,
            needs_root=needs_root,
            stdin=stdin,
            prepare=prepare,
            without=without,
            anywhere=anywhere,
        )

    return decorate


class Placed:
    """A command that ``in_lab_kernel`` decorates: what it does, and how Typer is told of it."""

    def __init__(
        self,
        command: Run,
        *,
        starts: bool,
        needs_root: bool,
        stdin: bool,
        prepare: Callable[..., Handover] | None,
        without: Run | None,
        anywhere: Callable[..., bool] | None,
    ) -> None:
        self.__name__, self.__doc__ = command.__name__, command.__doc__
        self.command = command
        self._starts, self._needs_root, self._stdin = starts, needs_root, stdin
        self._prepare, self._without, self._anywhere = prepare, without, anywhere

    def __call__(self, *, ctx: typer.Context, where: Where, **arguments: Any) -> int | None:
        """Run it as Typer does, for the command line in ``ctx.obj``."""
        return self.run(ctx.obj, where, arguments)

    def run(self, words: list[str], where: Where, arguments: dict[str, Any]) -> int | None:
        """Run the command line ``words``, which says ``arguments``, where the labs are."""
        if self._anywhere and self._anywhere(**arguments):
            return self.command(**arguments)
        reason = _reason_for_machine(where)
        if reason is None:
            if self._needs_root:
                require_root(words)
            return self.command(**arguments)
        handover = self._prepare(words, **arguments) if self._prepare else Handover(words)
        if not self._starts and not machine_is_running():
            return (self._without or _nothing_runs)(**arguments)
        told = self._starts and where is Where.AUTO
        with _directory_for(handover.writes) as writable:
            return forward(
                handover.words,
                stdin=self._stdin,
                given=handover.stdin,
                tell=functools.partial(_tell, reason) if told else None,
                writable=writable,
            )

    @property
    def __signature__(self) -> inspect.Signature:
        """The command's own, with the context and ``--where``, for Typer."""
        import inspect
        import typing

        import typer

        from lvsctl.cli import complete, options

        known = {
            "Annotated": typing.Annotated, "typer": typer, "complete": complete, "options": options,
        }  # fmt: skip
        signature = inspect.signature(
            self.command, eval_str=True, globals=self.command.__globals__ | known
        )
        named = inspect.Parameter.KEYWORD_ONLY
        parameters = [parameter.replace(kind=named) for parameter in signature.parameters.values()]
        ctx = inspect.Parameter("ctx", named, annotation=typer.Context)
        where = inspect.Parameter(
            "where",
            named,
            default=Where.AUTO,
            annotation=typing.Annotated[
                Where,
                typer.Option(
                    "--where",
                    envvar=WHERE_VARIABLE,
                    help="The kernel: the host's, the throwaway one, or the host's if it can.",
                ),
            ],
        )
        return signature.replace(parameters=[ctx, *parameters, where])

    @property
    def __annotations__(self) -> dict[str, Any]:  # type: ignore[override]
        """What ``typing.get_type_hints`` makes of the signature."""
        return {one.name: one.annotation for one in self.__signature__.parameters.values()}


@contextmanager
def _directory_for(directory: Path | None) -> Iterator[tuple[str, ...]]:
    """Let the command in the machine write there. What it leaves empty was not needed."""
    if directory is None:
        yield ()
        return
    from lvsctl.output import planted

    new = not directory.exists()
    try:
        directory.mkdir(mode=0o775, parents=True, exist_ok=True)
        planted.nofollow(directory)  # another's, come between the look at it and now
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


def require_root(words: Sequence[str]) -> None:
    """Raise HostError, with what to type, where this process cannot make or enter namespaces."""
    from lvsctl.kernel import probe

    if not probe.has_root():
        line = " ".join(["lvsctl", *words])
        raise HostError(
            "labs on this host's kernel need root", hint=f"sudo {line}, or --where machine"
        )


def _nothing_runs(**words: Any) -> NoReturn:
    """Answer for a kernel that is not even running."""
    named = words.get("lab")
    if named:
        from lvsctl.topology import shipped

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
