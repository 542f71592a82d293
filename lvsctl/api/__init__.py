"""Labs from Python: ``from lvsctl import Lab``.

    with Lab.up("dr", servers=3) as lab:
        assert lab.verify()
        page = lab.node("client").run(["curl", "-s", "http://10.10.0.100/"])

The process that uses it needs neither root nor IPVS. Each call runs the ``lvsctl`` command
of this installation and reads the JSON that it prints, so labs run where the command runs
them: on this host's kernel or in the machine. Results are the types of ``lvsctl.model`` and
``lvsctl.engine.findings``, errors those of ``lvsctl.errors``.
"""

from lvsctl.api.lab import Lab, Node, save_report
from lvsctl.engine.findings import (
    Diagnosis,
    FaultShown,
    Inspection,
    NodeInspection,
    Verification,
)
from lvsctl.model.claim import Cause, Claim, Finding, Verdict
from lvsctl.model.frame import Frame
from lvsctl.model.played import Played
from lvsctl.model.service import RealServer, VirtualService
from lvsctl.model.walk import Hop, Walk
from lvsctl.resources.base import Deviation

__all__ = [
    "Cause",
    "Claim",
    "Deviation",
    "Diagnosis",
    "FaultShown",
    "Finding",
    "Frame",
    "Hop",
    "Inspection",
    "Lab",
    "Node",
    "NodeInspection",
    "Played",
    "RealServer",
    "Verdict",
    "Verification",
    "VirtualService",
    "Walk",
    "save_report",
]
