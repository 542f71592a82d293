"""Writes lvsctl/topology/trees.json, the shipped topologies as PyYAML reads them: ``make trees``.

Kept in the repository, so that no command needs PyYAML for them; a test says when the file
is out of date, which costs time and nothing else: a text that is not in it is read anew.
"""

from __future__ import annotations

import json
from pathlib import Path

from lvsctl.topology import reading, shipped, trees


def text() -> str:
    """The file, as it should be."""
    texts = [shipped.text_of(name) for name in shipped.names()]
    kept = [f"{_json(text)}: {_json(trees.written(reading.parsed(text)[0]))}" for text in texts]
    return "{\n" + ",\n".join(kept) + "\n}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    Path(trees.FILE).write_text(text(), encoding="utf-8")
