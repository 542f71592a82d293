"""The forwarding methods at work: demo."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from lvsctl.cli import options
from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Progress, show, style
from lvsctl.cli.where import Where, activation, in_lab_kernel, inside_machine
from lvsctl.engine.inspect import send_requests, verify_lab
from lvsctl.engine.labs import remove_surely
from lvsctl.engine.up import bring_up
from lvsctl.errors import LabError
from lvsctl.kernel import registry
from lvsctl.kernel.counters import wait_for_ipvs_counters
from lvsctl.kernel.masters import active_director
from lvsctl.model.claim import Verdict
from lvsctl.model.lab import Lab
from lvsctl.model.service import ForwardingMethod
from lvsctl.model.state import NodeState, ServiceState
from lvsctl.output.text import demo as report
from lvsctl.topology import shipped
from lvsctl.topology.overrides import Overrides

_MODES = (ForwardingMethod.NAT, ForwardingMethod.TUN, ForwardingMethod.DR)

app = new_app()


@app.command(cls=Command)
@in_lab_kernel(starts=True)
def demo(
    ctx: typer.Context,
    modes: Annotated[
        list[ForwardingMethod] | None,
        typer.Argument(
            metavar="[MODE]...", help="Forwarding methods: nat, tun, dr; default: all three."
        ),
    ] = None,
    requests: Annotated[
        int,
        typer.Option(
            "--requests", "-r", metavar="N", min=1, max=1000, help="Requests to send to each VIP."
        ),
    ] = 12,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Show NAT, TUN and DR working on the kernel's real IPVS.

    For each forwarding method: brings a lab up, sends requests through its VIP, shows which
    real servers replied and what the director counted, verifies the lab, and removes it.

    Examples:
      lvsctl demo
      lvsctl demo dr --requests 100
    """
    verdicts = [_show(mode, requests) for mode in modes or _MODES]
    show(report.closing(activate=activation(), machine=inside_machine(), style=style()))
    passed = all(verdict is Verdict.PASS for verdict in verdicts)
    return ExitStatus.OK if passed else ExitStatus.CLAIM_FAILED


def _show(mode: ForwardingMethod, requests: int) -> Verdict:
    look = style()
    name = f"demo-{mode}"
    if registry.read(name) is not None:
        raise LabError(
            f"lab {name} exists already",
            hint=f"wait for the demo that uses it, or: lvsctl down {name}",
        )
    show(report.title(mode, style=look))
    with ExitStack() as stack:
        # Registered before the lab exists, so that no signal leaves it behind.
        stack.callback(remove_surely, name)
        progress = stack.enter_context(Progress())
        lab = bring_up(shipped.find(mode, sys.stdin.buffer), Overrides(name=name), progress).lab
        progress.clear()
        show(report.way(lab, style=look))
        progress.note("  sending requests, then verifying (IPVS sums its counters every 2 s)")
        exchanges = send_requests(lab, 0, requests)
        director = wait_for_ipvs_counters(lab.netns(active_director(lab).name)).state
        verification = verify_lab(lab)
        progress.clear()
        show(report.result(verification, exchanges, _counted(director, lab), style=look))
        return verification.verdict


def _counted(director: NodeState, lab: Lab) -> ServiceState | None:
    key = lab.services[0].match
    return next((service for service in director.services if service.match == key), None)
