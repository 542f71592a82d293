"""The command line of the package."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tools.docs import DOCS, ROOT, reference, run
from tools.docs.page import read


def _pages(names: list[Path], *, check: bool) -> int:
    wrong = 0
    for page in map(read, names or run.pages(DOCS)):
        began = time.monotonic()
        try:
            now = run.rerun(page)
        except run.RunError as error:
            print(f"{error}\n", flush=True)
            wrong += 1
            continue
        changed = run.differences(page, now)
        seconds = time.monotonic() - began
        print(f"{page.path}: {'differs' if changed else 'the same'} ({seconds:.0f} s)", flush=True)
        if changed and check:
            print(changed, flush=True)
            wrong += 1
        if not check:
            page.path.write_text(now.text(), encoding="utf-8")
    return 1 if wrong else 0


def _reference(*, check: bool) -> int:
    stale = reference.stale(DOCS / "reference")
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'stale' if check else 'written'}")
    if not check:
        reference.write(DOCS / "reference")
    return 1 if check and stale else 0


def main() -> int:
    """Run one command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "reference"):
        command = commands.add_parser(name)
        command.add_argument("--check", action="store_true", help="only print what would change")
        if name == "run":
            command.add_argument("pages", nargs="*", type=Path, help="default: all")
    words = parser.parse_args()
    if words.command == "run":
        return _pages(words.pages, check=words.check)
    return _reference(check=words.check)


if __name__ == "__main__":
    raise SystemExit(main())
