"""Files that commands write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lvsctl.errors import HostError, UsageError
from lvsctl.output import safe_files


def write_text(file: Path, text: str) -> None:
    """Write the whole text or nothing: on a full disk an existing file stays as it was.

    Raises UsageError or HostError if it cannot be written.
    """
    write_bytes(file, (text.rstrip("\n") + "\n").encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Write all of it or nothing, as ``write_text``."""
    try:
        is_link = not safe_files.nofollow(file)
        if file.is_file() or not file.exists():
            mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else None
            # Resolved: through a link to the file, not in place of the link.
            safe_files.replace(file.resolve() if is_link else file, content, mode=mode)
        else:  # a device or a pipe, such as /dev/stdout
            with safe_files.opened(file) as stream:
                stream.write(content)
    except OSError as error:
        raise cannot_write(file, error) from error


def cannot_write(file: Path, error: OSError) -> UsageError | HostError:
    """Return what to raise: UsageError for a name that is wrong, HostError for a full disk."""
    mistaken = (IsADirectoryError, NotADirectoryError, FileNotFoundError)
    kind = UsageError if isinstance(error, mistaken) else HostError
    return kind(f"cannot write {file}: {error.strerror}")


def check_writable(file: Path) -> None:
    """Raise UsageError where ``write_text`` would fail, before something long begins."""
    directory = file.absolute().parent
    if not directory.is_dir():
        raise UsageError(f"the directory of {file} does not exist")
    if file.is_dir():
        raise UsageError(f"{file} is a directory, not a file")
    replaced = file.is_file() or not file.exists()
    if not os.access(directory if replaced else file, os.W_OK):
        raise UsageError(f"cannot write {file}: the permissions do not allow it")


def make_directory(directory: Path) -> None:
    """Create a directory, if it does not exist. Raises UsageError if that is impossible."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot create the directory {directory}: {error.strerror}") from error
