"""Directors whose IPVS table is set up by keepalived (``keepalived:`` in a topology)."""

from __future__ import annotations

from pathlib import Path

from lvsctl.model.lab import Role
from lvsctl.topology.layout import Layout
from lvsctl.topology.problems import ProblemCollector


def keepalived_command(file: str, lab: str, node: str) -> tuple[str, ...]:
    """Return the command that runs keepalived in the foreground, for one node of one lab.

    Its files with process ids have names of their own: all nodes share /run (keepalived(8)).
    """
    pids = f"/run/keepalived-{lab}-{node}"
    return (
        *("keepalived", "--dont-fork", "--log-console", "--use-file", file),
        *("--pid", f"{pids}.pid", "--vrrp_pid", f"{pids}-vrrp.pid"),
        *("--checkers_pid", f"{pids}-checkers.pid"),
    )


def check_keepalived(layout: Layout, directory: Path | None, problems: ProblemCollector) -> None:
    """Report nodes that cannot have a keepalived.conf."""
    for group, config in layout.configs.items():
        if not config.keepalived:
            continue
        path = ("nodes", group, "keepalived")
        if config.role not in (Role.DIRECTOR, None):
            problems.add(path, "only a director runs keepalived", "remove the key", key=True)
        elif config.run:
            problems.add(path, "run is a command of its own", "remove one of the two", key=True)
        elif directory is None and not Path(config.keepalived).is_absolute():
            hint = "write the whole path, such as /etc/keepalived/keepalived.conf"
            problems.add(path, f"{config.keepalived} is beside no file", hint)
