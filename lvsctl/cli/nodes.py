"""Commands in a node's namespace: exec, shell."""

from __future__ import annotations

import os
import sys
from pathlib import PurePath
from typing import Annotated

import typer

from lvsctl.cli import failure, options
from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.help import ARGUMENTS_FOLLOW, Command, new_app
from lvsctl.cli.where import Where, in_lab_kernel
from lvsctl.engine.labs import find_node, running_lab
from lvsctl.errors import UsageError
from lvsctl.kernel import netns as namespaces
from lvsctl.kernel import registry

app = new_app()

_Node = Annotated[
    str,
    typer.Argument(
        metavar="[LAB/]NODE",
        autocompletion=options.complete_lab_nodes,
        show_default=False,
        help="Name of the node, such as client or rs1; or of a network, for its switch.",
    ),
]


@app.command("exec", cls=Command, context_settings=ARGUMENTS_FOLLOW)
@in_lab_kernel(stdin=True)
def exec_(
    ctx: typer.Context,
    node: _Node,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- COMMAND...", show_default=False, help="Command to run, with its arguments."
        ),
    ],
    lab: options.LabOption = None,
    where: options.Placement = Where.AUTO,
) -> int:
    """Run a command on a node.

    The command runs in the node's network namespace, under the node's host name, and sees the
    host's files. Its standard streams, terminal and exit status are passed through; 127 if the
    command does not exist. In place of a node, a network stands for its switch.

    Examples:
      lvsctl exec client -- curl -s http://10.10.0.100/
      lvsctl exec director -- ipvsadm -Ln --stats
      lvsctl exec dr/rs1 -- tcpdump -lnei lan
      lvsctl exec dr/lan -- bridge link
    """
    words = command[command[:1] == ["--"] :]
    if not words:
        raise UsageError("no command given", hint=f"lvsctl exec {node} -- ip addr")
    netns, place = _namespace(lab, node)
    environment = dict(os.environ)
    environment.pop("LVSCTL_ERRORS", None)  # meant for this lvsctl, not for the command
    return _exec(netns, words, environment, place)


@app.command(cls=Command, context_settings=ARGUMENTS_FOLLOW)
@in_lab_kernel(stdin=True)
def shell(
    ctx: typer.Context,
    node: _Node,
    lab: options.LabOption = None,
    where: options.Placement = Where.AUTO,
) -> int:
    """Open a shell on a node.

    Your own shell ($SHELL, else sh), with the lab and the node in its prompt. It runs in the
    node's network namespace and sees the host's files; exit or Ctrl-D ends it.

    Examples:
      lvsctl shell director
      lvsctl shell nat/rs2
    """
    netns, place = _namespace(lab, node)
    program, environment = shell_with_prompt(place)
    return _exec(netns, [program], environment, place)


def shell_with_prompt(place: str) -> tuple[str, dict[str, str]]:
    """Return the user's shell, and an environment that adds ``place`` to its prompt."""
    program = os.environ.get("SHELL") or "sh"
    environment = {**os.environ, "LVSCTL_PLACE": place}
    if PurePath(program).name == "bash":
        # ~/.bashrc sets PS1 after the environment; this runs after ~/.bashrc, once.
        environment["PROMPT_COMMAND"] = f"PS1='[{place}] '\"$PS1\"; unset PROMPT_COMMAND"
    else:
        environment["PS1"] = f"[{place}] $PWD # "
    return program, environment


def _namespace(lab: str | None, node: str) -> tuple[str, str]:
    """Return the namespace of a node of a running lab, and the node as LAB/NODE."""
    before, slash, after = node.partition("/")
    if slash:
        if lab not in (None, before):
            raise UsageError(f"--lab {lab} and {node} name two labs")
        lab, node = before, after
    try:
        found = running_lab(lab)
    except UsageError as error:  # several labs
        names = ", ".join(f"{entry.lab}/{node}" for entry in registry.labs()[:4])
        raise UsageError(error.message, hint=f"name it with the node: {names}") from None
    if node not in {network.name for network in found.networks}:
        find_node(found, node)
    return found.netns(node), f"{found.name}/{node}"


def _exec(netns: str, argv: list[str], environment: dict[str, str], place: str) -> int:
    """Replace this process by the command; return only if that fails."""
    sys.stdout.flush()
    sys.stderr.flush()
    failure.restore_for_exec()
    try:
        namespaces.exec_in(netns, argv, environment, hostname=place.rpartition("/")[2])
    except UsageError as error:
        failure.explain(error)
        exists = isinstance(error.__cause__, OSError)
        return ExitStatus.NOT_EXECUTABLE if exists else ExitStatus.NOT_FOUND
