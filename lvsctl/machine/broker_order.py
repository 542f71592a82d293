"""What a client orders from the broker that it starts. Apart, so that clients need no asyncio."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .plan import Kernel, Plan


@dataclass(frozen=True, slots=True)
class Order:
    """What the client orders: a machine by this name, and the file descriptors to use."""

    name: str
    plan: Plan
    life_lock: int
    report: int

    def to_json(self) -> str:
        """As an argument for the broker's command line."""
        return json.dumps(
            {
                "name": self.name,
                "program": str(self.plan.kernel.program),
                "modules": str(self.plan.kernel.modules),
                "kind": self.plan.kind,
                "memory": self.plan.memory,
                "cpus": self.plan.cpus,
                "accelerator": self.plan.accelerator,
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
        plan = Plan(
            kind=fields["kind"],
            kernel=Kernel(Path(fields["program"]), Path(fields["modules"])),
            memory=fields["memory"],
            cpus=fields["cpus"],
            accelerator=fields["accelerator"],
            writable=tuple(fields["writable"]),
            path=tuple(fields["path"]),
            fingerprint=fields["fingerprint"],
        )
        return cls(fields["name"], plan, fields["life_lock"], fields["report"])
