"""What a forwarding method promises; ``model.finding`` is what was found of it.

Apart from that on purpose: planning a lab needs the promises, and none of the frames
that findings rest on (15 ms of imports).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement in the words of LVS.

    ``broken_by`` are the ids of faults that must break it; ``unbroken`` says why there is
    none, in any lab or in those where none of them applies.
    """

    id: str
    says: str
    broken_by: tuple[str, ...] = ()
    unbroken: str = ""
