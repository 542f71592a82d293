"""The console script, and ``python -m lvsctl``."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while the command is imported
    from lvsctl.cli.main import entry  # slow to import, hence after the line above

    entry()


if __name__ == "__main__":
    main()
