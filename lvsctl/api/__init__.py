"""Labs from Python: ``from lvsctl import Lab``.

    with Lab.up("dr", servers=3) as lab:
        assert lab.verify()
        page = lab.node("client").run(["curl", "-s", "http://10.10.0.100/"])

The process that uses it needs neither root nor IPVS. Each call runs the ``lvsctl`` command
of this installation and reads the JSON that it prints, so labs live where the command has
them: on this host's kernel or in the machine. Errors are those of ``lvsctl.errors``.
"""

from lvsctl.api.lab import Lab
from lvsctl.api.node import Node
from lvsctl.api.results import (
    Cause,
    Diagnosis,
    Finding,
    Hop,
    InjectedFault,
    Inspection,
    NodeInspection,
    SeenFrame,
    Service,
    ServiceInspection,
    Verification,
    Walk,
)

__all__ = [
    "Cause",
    "Diagnosis",
    "Finding",
    "Hop",
    "InjectedFault",
    "Inspection",
    "Lab",
    "Node",
    "NodeInspection",
    "SeenFrame",
    "Service",
    "ServiceInspection",
    "Verification",
    "Walk",
]
