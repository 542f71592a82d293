"""What the kernels that a machine can be started with have: looked up in their modules' lists."""

from __future__ import annotations

from lvsctl.errors import HostError
from lvsctl.machine import kinds
from lvsctl.machine.config import Kernel, MachineRequest
from lvsctl.machine.guest.modules import load_order, name_of


def has_module(kernel: Kernel, name: str) -> bool | None:
    """Whether a machine with this kernel has loaded the module, or has it built in.

    None where that cannot be told: the list of what is built in is not kept with every kernel.
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
    """The same of the kernel that would be started for this wish; None also where none is ready."""
    try:
        kernel = kinds.choose_kind(request).find(request.kernel)
    except HostError:
        return None
    return None if kernel is None else has_module(kernel, name)


def command_to_start_with(name: str, without: str) -> str | None:
    """The command that starts a machine with that module, of the kernels that are ready here.

    ``without``: the release of a kernel that was seen to be of no use, whatever its lists say.
    """
    for kind in kinds.KINDS.values():
        if kind.obstacle():
            continue
        for called, kernel in kind.ready().items():
            if kernel.release != without and has_module(kernel, name):
                which = "--kind uml" if kind.name == "uml" else f"--kernel {called}"
                return f"lvsctl machine start {which}"
    return None
