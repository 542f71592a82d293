"""What another user has put where we write: for the tests of files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ANOTHER = 12345
"""A user who is neither us nor root."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")


def given_away(path: Path) -> Path:
    """``path``, now another user's; a link itself and not where it leads."""
    os.lchown(path, ANOTHER, ANOTHER)
    return path


def shared(tmp_path: Path) -> Path:
    """A directory like /tmp."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    return tmp_path / "shared"


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    """This process is ``user`` to the kernel; for root only."""
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
