"""Python's garbage collector, which has nothing to collect while values are only added."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Stop collecting garbage: plans, states and frames are thousands of values that stay in use.

    They refer to each other in no circle, so that what goes out of use is freed all the same.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
