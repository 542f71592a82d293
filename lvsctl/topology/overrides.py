"""What the command line changes about a topology: ``--name``, ``--servers``, ``--scheduler``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvsctl.model.service import Scheduler


@dataclass(frozen=True, slots=True)
class Overrides:
    """Settings that go before the file's. ``servers`` is the lab's number of real servers."""

    name: str | None = None
    servers: int | None = None
    scheduler: Scheduler | None = None
