"""Features of the kernels that are ready to start, according to their lists of modules."""

from __future__ import annotations

from lvsctl.errors import HostError
from lvsctl.machine import kinds
from lvsctl.machine.config import Kernel, MachineRequest
from lvsctl.machine.guest.modules import load_order, name_of


def has_module(kernel: Kernel, name: str) -> bool | None:
    """Return whether a machine with this kernel loads the module, or has it built in.

    None if that is unknown: not every kernel comes with the list of its built-in modules.
    """
    try:
        text = (kernel.modules / "modules.dep").read_text(encoding="utf-8")
        if name in map(name_of, load_order(text)):
            return True
        builtin = (kernel.modules / "modules.builtin").read_text(encoding="utf-8")
    except OSError:
        return None
    return name in map(name_of, builtin.split())


def default_kernel_has_module(request: MachineRequest, name: str) -> bool | None:
    """Return the same for the kernel that this request would start; None if none is ready."""
    try:
        kernel = kinds.choose_kind(request).find(request.kernel)
    except HostError:
        return None
    return None if kernel is None else has_module(kernel, name)


def command_to_start_with(name: str, without: str) -> str | None:
    """Return the command that starts a machine with a kernel that has the module, if any is ready.

    ``without`` is the release of a kernel in which the feature was tested and is missing.
    """
    for kind in kinds.KINDS.values():
        if kind.obstacle():
            continue
        for called, kernel in kind.ready().items():
            if kernel.release != without and has_module(kernel, name):
                which = "--kind uml" if kind.name == "uml" else f"--kernel {called}"
                return f"lvsctl machine start {which}"
    return None
