"""Standard output and the terminal."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from enum import StrEnum
from typing import Any, TextIO

from lvsctl.errors import HostError
from lvsctl.output.text.style import Style


class Format(StrEnum):
    """The output formats of most commands."""

    TEXT = "text"
    JSON = "json"


def style() -> Style:
    """Return the width, colours and characters that standard output can show."""
    return Style(
        color=_color(),
        width=shutil.get_terminal_size().columns,
        unicode=(sys.stdout.encoding or "").lower().replace("-", "") == "utf8",
    )


def _color() -> bool:
    # https://no-color.org and https://force-color.org
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def show(text: str) -> None:
    """Write text, with one line feed at its end, to standard output and flush it.

    Raises HostError if it cannot be written, BrokenPipeError if the reader has closed the pipe.
    """
    if not text:
        return
    try:
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard()
        raise cannot_write(error) from error


def show_json(result: object = None, /, **more: Any) -> None:
    """Write a result, and further keys, as JSON to standard output."""
    show(json_text(result, **more))


def json_text(result: object = None, /, *, indent: int | None = 2, **more: Any) -> str:
    """Return a result, and further keys, as JSON."""
    # cattrs is slow to import, and only JSON needs it.
    from lvsctl.output.serialize import to_json

    return json.dumps(to_json(result, **more), indent=indent, ensure_ascii=False)


def is_full_disk(error: OSError) -> bool:
    """Return whether an error is a disk's refusal of text that Typer printed.

    Errors about our own files are handled where these are written, and have the file's name.
    """
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def cannot_write(error: OSError) -> HostError:
    """Return the error for standard output that cannot be written."""
    return HostError(f"cannot write the output: {error.strerror}")


def discard(stream: TextIO | None = None) -> None:
    """Send what a stream (standard output) still holds to /dev/null.

    Otherwise Python tries to write it again at exit, and prints an error of its own.
    """
    with contextlib.suppress(OSError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2 if stream is sys.stderr else 1)
        os.close(devnull)
