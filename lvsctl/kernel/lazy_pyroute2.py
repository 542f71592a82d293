"""pyroute2's message classes without the rest of pyroute2.

``import pyroute2.netlink.rtnl.ifinfmsg`` first runs ``pyroute2/__init__.py``, which
imports all there is (asyncio, multiprocessing, NDB …): 150 ms, more than building
a lab of a hundred real servers. ``install`` puts a package in its place that knows
where its modules lie and runs its own code only when something of it is asked for;
the message classes then take 45 ms.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """The package pyroute2, whose own code has not run yet."""

    def __getattr__(self, name: str) -> Any:  # only for what is not there
        spec = self.__spec__
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(name)
        if importlib.util.find_spec(f"{spec.name}.{name}"):
            raise AttributeError(name)  # a module of it: the import statement does the rest
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def install() -> None:
    """Make importing pyroute2's modules quick, unless pyroute2 is imported already.

    Whatever else imports pyroute2 in this process gets the whole of it as usual.
    """
    if "pyroute2" in sys.modules:
        return
    spec = importlib.util.find_spec("pyroute2")
    if spec is None:  # then the import itself says so
        return
    package = _Package("pyroute2")
    package.__spec__ = spec
    package.__path__ = list(spec.submodule_search_locations or ())
    package.__file__ = spec.origin
    package.__loader__ = spec.loader
    sys.modules["pyroute2"] = package
