"""Topology files: YAML → Lab, with every mistake at its line and column.

The order of the rooms' work: ``tree`` (YAML with positions) → ``shapes`` and ``schema``
(which keys, which values) → ``drafts`` → ``layout``, ``places``, ``groups``,
``services``, ``real_servers`` (what concerns several keys) → ``addresses`` → Lab.
"""

from lvsctl.spec.load import load
from lvsctl.spec.overrides import Overrides
from lvsctl.spec.schema import json_schema

__all__ = ["Overrides", "json_schema", "load"]
