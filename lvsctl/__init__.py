"""lvsctl: Linux Virtual Server labs on the kernel's real IPVS.

``from lvsctl import Lab`` is the Python interface (see ``lvsctl.api``). It is imported when it
is asked for: the command imports this module each time it starts.
"""

TYPE_CHECKING = False  # typing's own; pytest imports this module in every run, for the plugin
if TYPE_CHECKING:
    from lvsctl.api import Lab

__version__ = "0.1.0"

__all__ = ["Lab", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Lab":
        from lvsctl.api import Lab

        return Lab
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
