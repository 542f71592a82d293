"""Why does it not work? Rules on evidence: pure functions, like the claims' checks.

They compare what a forwarding method needs with the nodes' state and the captured frames.
"""

from lvsctl.diagnosis.engine import Conclusion, conclusion
from lvsctl.model.claim import Cause

__all__ = ["Cause", "Conclusion", "conclusion"]
