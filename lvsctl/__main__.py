"""The console script, and ``python -m lvsctl``."""

from __future__ import annotations

import signal

TYPE_CHECKING = False  # typing's own, whose import takes longer than all that is done before
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while the command is imported
    from lvsctl.cli.main import entry  # slow to import, hence after the line above

    entry()


if __name__ == "__main__":
    main()
