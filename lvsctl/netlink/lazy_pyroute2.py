"""Import pyroute2's message classes without the rest of pyroute2.

``import pyroute2.netlink.rtnl.ifinfmsg`` first runs ``pyroute2/__init__.py``, which imports
everything that pyroute2 has (asyncio, multiprocessing, NDB …). ``install`` puts a package in its
place that knows where its modules are and runs its own code only when one of its names is used.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """The package pyroute2 before its own code has run."""

    def __getattr__(self, name: str) -> Any:  # only for names that it does not have
        spec = self.__spec__
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(name)
        if importlib.util.find_spec(f"{spec.name}.{name}"):
            raise AttributeError(name)  # one of its modules: the import statement loads it
        self.__class__ = ModuleType  # type: ignore[assignment]  # what it is from now on
        spec.loader.exec_module(self)
        return getattr(self, name)


def install() -> None:
    """Make importing pyroute2's modules cheap, unless pyroute2 is imported already.

    Other code in this process that imports pyroute2 gets all of it as usual.
    """
    if "pyroute2" in sys.modules:
        return
    spec = importlib.util.find_spec("pyroute2")
    if spec is None:  # then the import itself reports it
        return
    package = _Package("pyroute2")
    package.__spec__ = spec
    package.__path__ = list(spec.submodule_search_locations or ())
    package.__file__ = spec.origin
    package.__loader__ = spec.loader
    sys.modules["pyroute2"] = package


def ipvs_classes() -> Any:
    """Return pyroute2's module of IPVS messages, loaded without the sockets beside them.

    Its sockets inherit from classes whose module imports asyncio. They get ``object`` instead,
    in a copy of the module that nothing but lvsctl uses.
    """
    install()
    netlink = importlib.import_module("pyroute2.netlink")
    file = Path(str(netlink.__file__)).parent / "generic" / "ipvs.py"
    spec = importlib.util.spec_from_file_location("lvsctl.netlink.pyroute2_ipvs", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded", path=str(file))
    module = importlib.util.module_from_spec(spec)
    package = "pyroute2.netlink.generic"
    before = sys.modules.get(package)
    stand_in = ModuleType(package)
    vars(stand_in).update(AsyncGenericNetlinkSocket=object, GenericNetlinkSocket=object)
    sys.modules[package] = stand_in
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[package]
        if before is not None:
            sys.modules[package] = before
    return module
