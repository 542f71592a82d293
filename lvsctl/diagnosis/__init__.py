"""Why does it not work? Rules on evidence: pure, like the claims' judges.

What a forwarding method needs is held against what the nodes' kernels hold and what the
captured frames show. How a lab was broken is never asked.
"""

from lvsctl.diagnosis.base import Cause
from lvsctl.diagnosis.engine import Conclusion, conclusion

__all__ = ["Cause", "Conclusion", "conclusion"]
