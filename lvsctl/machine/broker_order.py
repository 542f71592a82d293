"""What a client orders from the broker that it starts. Apart, so that clients need no asyncio."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from . import uml
from .install import Kernel


@dataclass(frozen=True, slots=True)
class Order:
    """What the client orders: a machine by this name, and the file descriptors to use."""

    name: str
    plan: uml.Plan
    life_lock: int
    report: int

    def to_json(self) -> str:
        """As an argument for the broker's command line."""
        return json.dumps(
            {
                "name": self.name,
                "program": str(self.plan.kernel.program),
                "modules": str(self.plan.kernel.modules),
                "memory": self.plan.memory,
                "writable": self.plan.writable,
                "path": self.plan.path,
                "fingerprint": self.plan.fingerprint,
                "life_lock": self.life_lock,
                "report": self.report,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Order:
        """The inverse of ``to_json``."""
        fields = json.loads(text)
        plan = uml.Plan(
            kernel=Kernel(Path(fields["program"]), Path(fields["modules"])),
            memory=fields["memory"],
            writable=tuple(fields["writable"]),
            path=tuple(fields["path"]),
            fingerprint=fields["fingerprint"],
        )
        return cls(fields["name"], plan, fields["life_lock"], fields["report"])
