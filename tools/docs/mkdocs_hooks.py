"""What MkDocs asks while it builds the site. It loads this file by its path: no imports of ours."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<to>\.\./[^)#\s]+)(?:#[^)]*)?\)")


def on_config(config: Any) -> Any:
    """Leave out of the navigation the pages that belong there and are not written yet."""
    config["nav"] = _there(config["nav"], Path(config["docs_dir"]), config["extra"]["awaited"])
    return config


def _there(nav: list[Any], docs: Path, awaited: list[str]) -> list[Any]:
    kept = []
    for entry in nav:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            kept.append({title: _there(target, docs, awaited)})
        elif target not in awaited or (docs / target).exists():
            kept.append(entry)
    return kept


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Links to files of the checkout, which the site has not: their names.

    Only where the file is there; MkDocs complains about the others.
    """
    docs = Path(config["docs_dir"])
    here = Path(page.file.abs_src_path).parent

    def named(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(here / found["to"]))
        if target.is_relative_to(docs) or not target.exists():
            return found[0]
        name = target.relative_to(docs.parent)
        text = found["text"].strip("`")
        return f"`{name}`" if text in (str(name), target.name) else f"{text} (`{name}`)"

    return _LINK.sub(named, markdown)
