"""A lab as it is: inspect, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lvsctl.cli import complete, options
from lvsctl.cli.exit_status import ExitStatus
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import Handover, in_lab_kernel
from lvsctl.errors import UsageError

if TYPE_CHECKING:
    from lvsctl.engine.campaign import Trial
    from lvsctl.engine.results import Verification


@in_lab_kernel()
def inspect(
    lab: options.Lab = None,
    nodes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE]...", autocompletion=complete.nodes, help="These nodes only."
        ),
    ] = None,
    wanted: options.As = Format.TEXT,
) -> None:
    """Show what the kernel holds for a lab's nodes.

    Addresses, routes, neighbours, the ARP and forwarding sysctls that matter, tunnel
    devices, listeners with their processes, and the IPVS table with its counters.

    Examples:
      lvsctl inspect
      lvsctl inspect director            where only one lab runs
      lvsctl inspect dr director rs1
      lvsctl inspect dr --format json
    """
    from lvsctl.engine.inspect import inspect_lab
    from lvsctl.engine.labs import parse_lab_and_nodes

    named, wanted_nodes = parse_lab_and_nodes([*([lab] if lab else []), *(nodes or ())])
    result = inspect_lab(named, wanted_nodes)
    if wanted is Format.JSON:
        from lvsctl.output import jsonable

        show_json(jsonable.inspection(result))
    else:
        from lvsctl.output import text

        show(text.inspection(result, style=style()))


def _reported(words: list[str], report: Path | None, prove: bool, **_: object) -> Handover:
    """Refuse a directory that holds something else before anything is sent."""
    if report is not None:
        from lvsctl.output import saved

        saved.refuse_others(report)
    elif not prove:
        from lvsctl.cli import kept_capture

        return Handover(words, writes=kept_capture.handed_over())
    return Handover(words, writes=report)


def _is_saved(saved: Path | None, **_: object) -> bool:
    return saved is not None


@in_lab_kernel(prepare=_reported, anywhere=_is_saved)
def verify(
    lab: options.Lab = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="With what was expected and seen, for each claim."),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="DIR", help="Write JSON, JUnit XML, HTML and the capture there."
        ),
    ] = None,
    saved: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Judge a saved report again; needs no lab."),
    ] = None,
    prove: Annotated[
        bool,
        typer.Option("--prove", help="Break the lab by every fault, and see that it is noticed."),
    ] = False,
    wanted: options.As = Format.TEXT,
) -> ExitStatus:
    """Send requests through the VIP and prove from captured packets what LVS promises.

    Every interface of every node is captured meanwhile. What the forwarding method does to
    requests and replies is decided on those frames; the distribution is the scheduler's;
    IPVS's counters and connection table agree with what the client saw. The exit status is
    0 only where every claim passes. Where one does not, the capture is kept, and named with
    the frame to open: LAB.pcapng in /tmp/lvsctl-captures-UID or, if set, in LVSCTL_CAPTURES.

    Examples:
      lvsctl verify
      lvsctl verify dr -v
      lvsctl verify nat --format json > verdict.json
      lvsctl verify tun --report out       out/report.html, junit.xml, capture.pcapng, …
      lvsctl verify --from out             the same verdicts, on any machine, without root
      lvsctl verify dr --prove             each claim can fail: minutes, see lvsctl fault list
    """
    from lvsctl.model.claim import Verdict

    if prove:
        if report is not None or saved is not None:
            raise UsageError("--prove needs a running lab: say neither --report nor --from")
        return _proved(lab, wanted)
    result, capture = _verified(lab, report, saved)
    if wanted is Format.JSON:
        from lvsctl.output import jsonable

        show_json(jsonable.verification(result, capture=capture))
    else:
        from lvsctl.output import text

        show(text.verification(result, verbose=verbose, capture=capture, style=style()))
    return ExitStatus.OK if result.verdict is Verdict.PASS else ExitStatus.CLAIM_FAILED


def _proved(lab: str | None, wanted: Format) -> ExitStatus:
    """Counter-experiments, told one by one to who waits at a terminal."""
    import sys

    from lvsctl.cli.failure import say
    from lvsctl.engine.faults import prove_claims
    from lvsctl.engine.labs import running_lab
    from lvsctl.output import fault_text

    def tell(trial: Trial) -> None:
        if sys.stderr.isatty():
            say(fault_text.trial(trial))

    proof = prove_claims(running_lab(lab), tell)
    if wanted is Format.JSON:
        from lvsctl.output import fault_json

        show_json(fault_json.proof(proof))
    else:
        show(fault_text.proof(proof, style=style()))
    return ExitStatus.OK if proof.holds else ExitStatus.CLAIM_FAILED


def _verified(
    lab: str | None, report: Path | None, saved: Path | None
) -> tuple[Verification, str | None]:
    """The verification, live or from a file, and where its capture is."""
    from lvsctl.engine.inspect import recompute, verify_lab
    from lvsctl.engine.labs import running_lab

    if saved is not None:
        if lab is not None or report is not None:
            raise UsageError("--from judges a saved report: name neither a lab nor --report")
        from lvsctl.output.saved import CAPTURE, load

        return recompute(load(saved)), str(saved / CAPTURE)
    if report is None:
        from lvsctl.cli import kept_capture

        result = verify_lab(running_lab(lab))
        return result, kept_capture.keep(result)
    from lvsctl.output.saved import CAPTURE, refuse_others, save

    found = running_lab(lab)
    refuse_others(report)
    result = verify_lab(found)
    save(report, result)
    return result, str(report / CAPTURE)
