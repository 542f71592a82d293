"""Standard output and the terminal."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lvsctl.errors import HostError

if TYPE_CHECKING:
    from lvsctl.output.style import Style


class Format(StrEnum):
    """How a command reports."""

    TEXT = "text"
    JSON = "json"


def style() -> Style:
    """How text may look on this standard output."""
    from lvsctl.output.style import Style

    return Style(
        color=_color(),
        width=_columns(),
        unicode=(sys.stdout.encoding or "").lower().replace("-", "") == "utf8",
    )


def _columns() -> int:
    """The terminal's width as ``shutil.get_terminal_size`` tells it, without its compressors."""
    with contextlib.suppress(KeyError, ValueError):
        if (columns := int(os.environ["COLUMNS"])) > 0:
            return columns
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def _color() -> bool:
    # https://no-color.org and https://force-color.org
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def show(text: str) -> None:
    """Text on standard output, ended by one line feed, and really written. Raises HostError."""
    if not text:
        return
    try:
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        let_go()
        raise unwritten(error) from error


def was_refused(error: OSError) -> bool:
    """Whether it is a disk's word about text that somebody else printed.

    What we write ourselves to files is explained where it is written, with the file's name.
    """
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def unwritten(error: OSError) -> HostError:
    """What to say where standard output takes no more."""
    return HostError(f"cannot write the output: {error.strerror}")


def show_json(value: Mapping[str, Any]) -> None:
    """A value on standard output as JSON."""
    import json

    show(json.dumps(value, indent=2, ensure_ascii=False))


def let_go() -> None:
    """What could not be written must not be tried again when Python ends."""
    with contextlib.suppress(OSError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.close(devnull)
