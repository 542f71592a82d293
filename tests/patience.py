"""How long tests wait for what must happen: deadlines against hanging, never measurements."""

from __future__ import annotations

import os

FACTOR = float(os.environ.get("LVSCTL_TEST_PATIENCE", "1"))
"""More than 1 where the machine under test is emulated."""

PATIENCE = 60.0 * FACTOR
