"""Topology files: YAML → Lab, with every mistake at its line and column.

The order of the rooms' work: ``tree`` (YAML with positions) → ``shapes`` and ``schema``
(which keys, which values) → ``drafts`` → ``layout``, ``places``, ``groups``,
``services``, ``real_servers`` (what concerns several keys) → ``addresses`` → Lab.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Each is imported when it is first asked for: finding a file needs none of what reads it.
if TYPE_CHECKING:
    from lvsctl.spec.loading import load
    from lvsctl.spec.overrides import Overrides
    from lvsctl.spec.schema import json_schema

__all__ = ["Overrides", "json_schema", "load"]

_PARTS = {"Overrides": "overrides", "json_schema": "schema", "load": "loading"}


if not TYPE_CHECKING:  # who checks types knows the names, and which there are not

    def __getattr__(name: str) -> Any:
        if name not in _PARTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_PARTS[name]}"), name)
        globals()[name] = found
        return found
