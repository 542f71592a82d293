"""Run the command line by ``python -m lvsctl``."""

from lvsctl.cli.main import entry

if __name__ == "__main__":
    entry()
