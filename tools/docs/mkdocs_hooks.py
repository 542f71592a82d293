"""Hooks of MkDocs. It loads this file by its path, so the file imports no other of this package."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<to>[^)#\s:]+)(?P<anchor>#[^)]*)?\)")


def on_config(config: Any) -> Any:
    """Remove pages from the navigation whose files do not exist."""
    docs, extra = Path(config["docs_dir"]), config["extra"]
    missing = {
        name for name, of in extra["from_checkout"].items() if not (docs.parent / of).exists()
    }
    config["nav"] = _without(missing, config["nav"])
    return config


def _without(missing: set[str], nav: list[Any]) -> list[Any]:
    kept = []
    for entry in nav:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            kept.append({title: _without(missing, target)})
        elif target not in missing:
            kept.append(entry)
    return kept


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are files elsewhere in the checkout."""
    for name, of in config["extra"]["from_checkout"].items():
        path = Path(config["docs_dir"]).parent / of
        if path.exists():
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Convert links that are valid in the checkout to links that are valid in the site.

    A link to a file that is not part of the site becomes the file's name. MkDocs reports links to
    files that do not exist.
    """
    docs = Path(config["docs_dir"])
    source = Path(page.file.abs_src_path)

    def held(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / found["to"]))
        if source.is_relative_to(docs) and target.is_relative_to(docs):
            return found[0]
        if target.is_relative_to(docs):
            place = os.path.relpath(target, (docs / page.file.src_uri).parent)
            return f"[{found['text']}]({place}{found['anchor'] or ''})"
        if not target.exists():
            return found[0]
        name = str(target.relative_to(docs.parent))
        text = found["text"].strip("`")
        return f"`{name}`" if text in {name, target.name} else f"{found['text']} (`{name}`)"

    return _LINK.sub(held, markdown)
