"""Which kernel has what a kernel lacks: doctor's remedies, as far as that can be found out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from lvsctl.kernel import probe, probe_kernel

if TYPE_CHECKING:
    from lvsctl.kernel.probe import Feature


def named(
    found: Iterable[Feature], inside: Iterable[Feature] = (), release: str = ""
) -> tuple[Feature, ...]:
    """The same features; the remedy of what is missing names a kernel that has it.

    ``inside`` is what was found in the machine that runs, whose kernel is ``release``; without,
    the lists of modules are looked up, where there are any. The throwaway kernel is recommended
    unless it lacks the same, and then another one that is ready to start and has it.
    """
    modules = probe_kernel.modules()
    tried = {feature.id: feature.present for feature in inside}
    return tuple(
        feature
        if feature.present
        else replace(feature, remedy=_remedy(feature, modules.get(feature.id, ""), tried, release))
        for feature in found
    )


def _remedy(feature: Feature, module: str, tried: dict[str, bool], release: str) -> str:
    # Apart: they import both kinds of machine.
    from lvsctl.machine import offers
    from lvsctl.machine.plan import wish_from_environment

    if feature.remedy not in (probe.MACHINE, probe.OTHER_KERNEL):
        return feature.remedy
    if feature.remedy == probe.MACHINE:
        has = tried.get(feature.id)
        if has is None and module:
            has = offers.usual_has_module(wish_from_environment(), module)
        if has is not False:
            return feature.remedy
    start = offers.start_with_module(module, without=release) if module else None
    return (
        f"a kernel that has it: lvsctl machine stop, then {start}" if start else probe.OTHER_KERNEL
    )
