"""The main job, shown: NAT, TUN and DR up, asked, verified and down again."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from lvsctl.cli.exit_status import ExitStatus
from lvsctl.cli.output import show, style
from lvsctl.cli.progress import Progress
from lvsctl.cli.where import in_lab_kernel
from lvsctl.errors import LabError
from lvsctl.model.service import ForwardingMethod

if TYPE_CHECKING:
    from lvsctl.model.claim import Verdict
    from lvsctl.model.lab import Lab
    from lvsctl.model.state import NodeState, ServiceState

_MODES = (ForwardingMethod.NAT, ForwardingMethod.TUN, ForwardingMethod.DR)


@in_lab_kernel(starts=True)
def demo(
    modes: Annotated[
        list[ForwardingMethod] | None,
        typer.Argument(metavar="[MODE]...", help="nat, tun, dr; all three where none is named."),
    ] = None,
    requests: Annotated[
        int, typer.Option("--requests", "-r", metavar="N", min=1, max=1000, help="To each VIP.")
    ] = 12,
) -> ExitStatus:
    """Show the three forwarding methods at work, on the kernel's real IPVS.

    For each: brings a lab up, sends requests through its VIP, says who answered and what
    the director counted, verifies the lab, and takes it down again. Nothing stays behind.

    Examples:
      lvsctl demo
      lvsctl demo dr --requests 100
    """
    from lvsctl.model.claim import Verdict
    from lvsctl.output import demo as report

    verdicts = [_show(mode, requests) for mode in modes or _MODES]
    show(report.closing(style=style()))
    passed = all(verdict is Verdict.PASS for verdict in verdicts)
    return ExitStatus.OK if passed else ExitStatus.CLAIM_FAILED


def _show(mode: ForwardingMethod, requests: int) -> Verdict:
    from lvsctl.engine.inspect import send_requests, verify_lab
    from lvsctl.engine.up import bring_up
    from lvsctl.kernel import registry, settled
    from lvsctl.output import demo as report
    from lvsctl.topology import shipped
    from lvsctl.topology.overrides import Overrides

    look = style()
    name = f"demo-{mode}"
    if registry.read(name) is not None:
        raise LabError(
            f"a lab {name} is there already", hint=f"wait for that demo, or: lvsctl down {name}"
        )
    show(report.title(mode, style=look))
    with ExitStack() as stack:
        # Before the lab is there, so that no signal finds it up and unguarded.
        stack.callback(_take_down, name)
        progress = stack.enter_context(Progress())
        lab = bring_up(shipped.find(mode, sys.stdin.buffer), Overrides(name=name), progress).lab
        progress.clear()
        show(report.way(lab, style=look))
        progress.note("  sending requests, then verifying (IPVS sums its counters every 2 s)")
        exchanges = send_requests(lab, 0, requests)
        director = settled.settled_state(lab.netns(lab.directors[0].name)).state
        verification = verify_lab(lab)
        progress.clear()
        show(report.result(verification, exchanges, _counted(director, lab), style=look))
        return verification.verdict


def _counted(director: NodeState, lab: Lab) -> ServiceState | None:
    key = lab.services[0].key
    return next((service for service in director.services if service.key == key), None)


def _take_down(lab: str) -> None:
    from lvsctl.engine.labs import tear_down
    from lvsctl.kernel import registry

    if registry.read(lab) is not None:
        tear_down(lab)
