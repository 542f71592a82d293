"""Operations as paragraphs: a reason, and the commands that are there for it.

What stands together in a plan and has the same reason gets it once, and sysctls of one
namespace that follow each other are one command: sysctl(8) takes several.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from lvsctl.resources.base import Resource
from lvsctl.resources.sysctl import Sysctl


@dataclass(frozen=True, slots=True)
class Paragraph:
    """The commands that are there for one reason."""

    why: str
    commands: tuple[str, ...]


def paragraphs(ops: Iterable[Resource]) -> tuple[Paragraph, ...]:
    """``ops``, in order, those with one reason together."""
    return tuple(
        Paragraph(why, tuple(_commands(list(group))))
        for why, group in groupby(ops, key=attrgetter("why"))
    )


_WORD = re.compile(
    r"""(?: [^ '"\\] | '[^']*' | "(?:[^"\\]|\\.)*" | \\. )+""", re.DOTALL | re.VERBOSE
)
"""A word of a command as it stands there, whatever quotes it consists of.

So POSIX sh reads one (XCU 2.2, 2.3): ``'a'"'"'b'``, shlex.quote's way to write ``a'b``, is one
word of three quoted pieces. Operators (``||``, ``2>/dev/null``) are words here as well.
"""


def wrapped(command: str, width: int) -> list[str]:
    """``command`` in lines of at most ``width``, continued as the shell takes it.

    The shell reads the same words: it is broken where an unquoted blank stands, nowhere else,
    and nothing is quoted anew.
    """
    if len(command) <= width:
        return [command]
    lines, line = [], ""
    for word in _WORD.findall(command):
        if line and len(line) + 1 + len(word) > width - 2:
            lines.append(line + " \\")
            line = "    " + word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _commands(resources: Sequence[Resource]) -> Iterable[str]:
    for _, group in groupby(resources, key=_mergeable):
        first, *more = group
        if isinstance(first, Sysctl):
            (command,) = first.commands()
            settings = [one.setting for one in more if isinstance(one, Sysctl)]
            yield str(command._replace(argv=(*command.argv, *settings)))
        else:
            for resource in (first, *more):
                yield from resource.describe()


def _mergeable(resource: Resource) -> tuple[str, bool] | None:
    """Return what sysctls must have in common to be one command; None for everything else."""
    return (resource.netns, resource.optional) if isinstance(resource, Sysctl) else None
