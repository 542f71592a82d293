"""Commands in a node's namespace: exec, shell."""

from __future__ import annotations

import os
import sys
from pathlib import PurePath
from typing import Annotated

import typer

from lvsctl.cli import complete, failure, signals
from lvsctl.cli.exit_status import ExitStatus
from lvsctl.cli.where import in_lab_kernel
from lvsctl.errors import UsageError

_Node = Annotated[
    str,
    typer.Argument(
        metavar="[LAB/]NODE", autocompletion=complete.nodes_anywhere, show_default=False,
        help="The node, such as client or rs1.",
    ),
]  # fmt: skip
_LabOption = Annotated[
    str | None,
    typer.Option(
        "--lab", "-l", metavar="LAB", autocompletion=complete.labs, help="Needless where one runs."
    ),
]

WORDS_FOLLOW = {"allow_interspersed_args": False}
"""What follows the first argument is somebody else's, options included."""


@in_lab_kernel(stdin=True)
def exec_(
    node: _Node,
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND...", show_default=False, help="And its arguments."),
    ],
    lab: _LabOption = None,
) -> int:
    """Run a command on a node.

    The command sees the node's network and the host's files. Its standard streams, terminal
    and exit status are yours; 127 where there is no such command.

    Examples:
      lvsctl exec client -- curl -s http://10.10.0.100/
      lvsctl exec director -- ipvsadm -Ln --stats
      lvsctl exec dr/rs1 -- tcpdump -lnei lan
    """
    words = command[command[:1] == ["--"] :]
    if not words:
        raise UsageError("there is no command to run", hint=f"lvsctl exec {node} -- ip addr")
    netns, _ = _namespace(lab, node)
    environment = dict(os.environ)
    environment.pop("LVSCTL_ERRORS", None)  # meant for this lvsctl, not for what it runs
    return _become(netns, words, environment)


@in_lab_kernel(stdin=True)
def shell(node: _Node, lab: _LabOption = None) -> int:
    """Open a shell on a node.

    Your own shell ($SHELL, else sh), with the lab and the node in its prompt. It sees the
    node's network and the host's files; exit or Ctrl-D leaves it.

    Examples:
      lvsctl shell director
      lvsctl shell nat/rs2
    """
    netns, place = _namespace(lab, node)
    program, environment = shell_of(place)
    return _become(netns, [program], environment)


def shell_of(place: str) -> tuple[str, dict[str, str]]:
    """The user's shell, and an environment that makes its prompt say ``place``."""
    program = os.environ.get("SHELL") or "sh"
    environment = {**os.environ, "LVSCTL_PLACE": place}
    if PurePath(program).name == "bash":
        # ~/.bashrc sets PS1 after the environment; this runs after ~/.bashrc, once.
        environment["PROMPT_COMMAND"] = f"PS1='[{place}] '\"$PS1\"; unset PROMPT_COMMAND"
    else:
        environment["PS1"] = f"[{place}] $PWD # "
    return program, environment


def _namespace(lab: str | None, node: str) -> tuple[str, str]:
    """The namespace of a node of a running lab, and the node as LAB/NODE."""
    from lvsctl.engine.labs import find_node, running_lab

    before, slash, after = node.partition("/")
    if slash:
        if lab not in (None, before):
            raise UsageError(f"--lab {lab} and {node} name two labs")
        lab, node = before, after
    found = running_lab(lab)
    find_node(found, node)
    return found.netns(node), f"{found.name}/{node}"


def _become(netns: str, argv: list[str], environment: dict[str, str]) -> int:
    """Replace this process by the command; returns only where that cannot be."""
    from lvsctl.kernel import netns as namespaces

    sys.stdout.flush()
    sys.stderr.flush()
    signals.restore_for_exec()
    try:
        namespaces.exec_in(netns, argv, environment)
    except UsageError as error:
        failure.explain(error)
        there = isinstance(error.__cause__, OSError)
        return ExitStatus.NOT_EXECUTABLE if there else ExitStatus.NOT_FOUND
