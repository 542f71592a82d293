"""Why a lab does not work: diagnose."""

from __future__ import annotations

from lvsctl.cli import options
from lvsctl.cli.exit_status import ExitStatus
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import in_lab_kernel


@in_lab_kernel()
def diagnose(lab: options.Lab = None, wanted: options.As = Format.TEXT) -> ExitStatus:
    """Say why a lab does not work, and what to type.

    Requests are sent through the VIP and captured everywhere. What the forwarding method
    needs is then held against what every node's kernel holds and what the frames show, so it
    does not matter who broke the lab, or how. A difference that does no harm is a remark.
    The exit status is 0 only where no cause was found and everything works.

    Examples:
      lvsctl diagnose
      lvsctl diagnose dr --format json
    """
    from lvsctl.engine.inspect import diagnose_lab
    from lvsctl.engine.labs import running_lab

    result = diagnose_lab(running_lab(lab))
    if wanted is Format.JSON:
        from lvsctl.output import jsonable

        show_json(jsonable.diagnosis(result))
    else:
        from lvsctl.output.text_diagnosis import diagnosis

        show(diagnosis(result, style=style()))
    return ExitStatus.OK if result.healthy else ExitStatus.CLAIM_FAILED
