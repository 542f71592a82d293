"""A lab's claims, proved from captured packets: verify.

If a claim does not pass, the capture is kept without being asked for: one file a lab, replaced
the next time, ``LAB.pcapng`` in the directory LVSCTL_CAPTURES or in ``lvsctl-captures-UID`` among
the temporary files.

A command imports what it needs of the engine when it runs: where it is only forwarded to the
throwaway kernel, that takes longer than everything else.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lvsctl.cli import options
from lvsctl.cli.failure import ExitStatus, say
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, Progress, show, show_json, style
from lvsctl.cli.where import ForwardRequest, Where, in_lab_kernel, inside_machine
from lvsctl.errors import UsageError
from lvsctl.machine import config
from lvsctl.model.claim import Verdict
from lvsctl.output import safe_files

if TYPE_CHECKING:
    from lvsctl.engine.campaign import Step, Trial
    from lvsctl.engine.findings import Verification

CAPTURES_VARIABLE = "LVSCTL_CAPTURES"

REFUSED_VARIABLE = "LVSCTL_CAPTURES_REFUSED"
"""For the command in the machine: the directory that it must not write, and why."""

NOT_YOURS = "the directory is not yours alone"

app = new_app()


def _check_report(
    words: list[str], report: Path | None, prove: bool, **_: object
) -> ForwardRequest:
    """Refuse a directory that holds something else, before any request is sent."""
    if report is not None:
        from lvsctl.output import saved_report

        saved_report.refuse_others(report)
        return ForwardRequest(words, writes=report)
    return ForwardRequest(words, writes=None if prove else directory_for_machine())


def _is_saved(from_: Path | None, **_: object) -> bool:
    return from_ is not None


@app.command(cls=Command)
@in_lab_kernel(prepare=_check_report, anywhere=_is_saved)
def verify(
    ctx: typer.Context,
    lab: options.Lab = None,
    client: options.Sender = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Show what was expected and seen for each claim."),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DIR",
            help="Write JSON, JUnit XML, HTML and the capture to this directory.",
        ),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="DIR", help="Decide again from a saved report; needs no lab."
        ),
    ] = None,
    prove: Annotated[
        bool,
        typer.Option("--prove", help="Inject every fault and check that the claims detect it."),
    ] = False,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Send requests through the VIP and prove LVS's claims.

    Meanwhile every interface of every node is captured. The frames show what the forwarding
    method does to requests and replies and whether the scheduler distributes them as it should;
    IPVS's counters and connection table must agree with what the client saw. The exit status
    is 0 only if every claim passes. Otherwise the capture is kept, and named with the frame to
    open: LAB.pcapng in /tmp/lvsctl-captures-UID, or in the directory LVSCTL_CAPTURES if set.

    Examples:
      lvsctl verify
      lvsctl verify dr -v
      lvsctl verify nat --format json > verdict.json
      lvsctl verify tun --report out       out/report.html, junit.xml, capture.pcapng, …
      lvsctl verify --from out             the same verdicts, on any machine, without root
      lvsctl verify dr --prove             each claim can fail: takes minutes (lvsctl fault list)
    """
    from lvsctl.output import saved_report
    from lvsctl.output.text.verification import format_verification

    if prove:
        if client is not None or report is not None or from_ is not None:
            raise UsageError("--prove needs a running lab: use no --client, --report or --from")
        return _prove(lab, wanted)
    result, capture = _verify(lab, client, report, from_)
    if wanted is Format.JSON:
        show_json(result, capture=capture)
    else:
        page = str(report / saved_report.HTML) if report else ""
        show(
            format_verification(
                result, verbose=verbose, capture=capture, report=page, style=style()
            )
        )
    return ExitStatus.OK if result.verdict is Verdict.PASS else ExitStatus.CLAIM_FAILED


def _prove(lab: str | None, wanted: Format) -> ExitStatus:
    """Inject each fault, with a line for each on a terminal, before and after it is tried."""
    from lvsctl.engine.faults import prove_claims
    from lvsctl.engine.labs import running_lab
    from lvsctl.output.text.faults import format_proof, format_trial

    watched = sys.stderr.isatty()

    def begin(step: Step) -> None:
        if watched:
            say(f"[{step.number}/{step.total}] requests {step.text} …")

    def report(trial: Trial) -> None:
        if watched:
            say(format_trial(trial))

    proof = prove_claims(running_lab(lab), report, begin)
    if wanted is Format.JSON:
        show_json(proof)
    else:
        show(format_proof(proof, style=style()))
    return ExitStatus.OK if proof.holds else ExitStatus.CLAIM_FAILED


def _verify(
    lab: str | None, client: str | None, report: Path | None, from_: Path | None
) -> tuple[Verification, str | None]:
    """Return the verification, live or from a saved report, and the path of its capture."""
    from lvsctl.engine.inspect import recompute, verify_lab
    from lvsctl.engine.labs import running_lab
    from lvsctl.output import saved_report

    if from_ is not None:
        if lab is not None or client is not None or report is not None:
            raise UsageError("--from reads a saved report: use no lab, --client or --report")
        return recompute(saved_report.load(from_)), str(from_ / saved_report.CAPTURE)
    found = running_lab(lab)
    if report is not None:
        saved_report.refuse_others(report)
    with Progress() as progress:
        result = verify_lab(found, client, emit=progress)
    if report is None:
        return result, keep_capture(result)
    saved_report.save(report, result)
    return result, str(report / saved_report.CAPTURE)


def directory_for_machine() -> Path | None:
    """Return the directory of kept captures that the command in the machine is to write.

    None if the machine must not write there. The command learns of it by its environment.
    """
    directory = _directory()
    refused = config.why_not_writable(os.path.realpath(directory))
    if _is_unsafe(directory) or refused is not None:
        os.environ[REFUSED_VARIABLE] = f"{directory}: {refused or NOT_YOURS}"
        return None
    os.environ[CAPTURES_VARIABLE] = str(directory)
    os.environ.pop(REFUSED_VARIABLE, None)
    return directory


def keep_capture(result: Verification) -> str | None:
    """Write the capture of a lab that does not pass; return its path, None if none was written.

    A capture that cannot be written does not fail the command: the reason is a message.
    """
    from lvsctl.output.evidence import capture_bytes

    if result.verdict is Verdict.PASS or not result.evidence.frames:
        return None
    refused = os.environ.get(REFUSED_VARIABLE, "")
    if refused and inside_machine():
        say(f"the capture is not kept in {refused}; --report DIR writes it elsewhere")
        return None
    directory = _directory()
    path = directory / f"{result.lab.name}.pcapng"
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Checked now and not before: once it is ours, no other user can replace it.
        if _is_unsafe(directory):
            _not_kept(path, NOT_YOURS)
            return None
        safe_files.replace(path, capture_bytes(result.evidence), mode=0o644)  # for sudo's user
    except OSError as error:
        _not_kept(path, error.strerror or "it cannot be written")
        return None
    return str(path)


def _not_kept(path: Path, reason: str) -> None:
    say(f"the capture is not kept in {path}: {reason}; --report DIR writes it elsewhere")


def _directory() -> Path:
    given = os.environ.get(CAPTURES_VARIABLE, "")
    if given:
        return Path(given).absolute()
    # Not the directory of the machine's sockets: a command in the machine may write here.
    return Path(tempfile.gettempdir(), f"lvsctl-captures-{os.getuid()}")


def _is_unsafe(directory: Path) -> bool:
    """Return whether another user may have prepared the directory, whose name can be foreseen.

    In a directory that the user chose, others may write as well; only another user's link is
    refused.
    """
    if os.environ.get(CAPTURES_VARIABLE):
        try:
            safe_files.nofollow(directory)
        except UsageError:
            return True
        return False
    try:
        found = directory.lstat()
    except OSError:
        return False
    mine = found.st_uid == os.getuid() and not found.st_mode & stat.S_IWOTH
    return not stat.S_ISDIR(found.st_mode) or not mine
