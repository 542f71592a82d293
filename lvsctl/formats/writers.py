"""The formats that lvsctl exports a lab to.

To add one: a module with ``write``, and a row in ``WRITERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from lvsctl.formats import containerlab, ipvsadm, left_out
from lvsctl.formats.ansible import writer as ansible
from lvsctl.formats.keepalived import writer as keepalived
from lvsctl.model.lab import Lab
from lvsctl.resources.base import Resource

Writer = Callable[[Lab, Iterable[Resource]], dict[str, str]]
"""Returns the text of each file by its name; the resources are those of the lab's plan."""


class Target(StrEnum):
    """The formats that a lab can be exported to."""

    KEEPALIVED = "keepalived"
    IPVSADM = "ipvsadm"
    ANSIBLE = "ansible"
    CONTAINERLAB = "containerlab"
    CLABERNETES = "clabernetes"


WRITERS: Mapping[Target, Writer] = {
    Target.KEEPALIVED: keepalived.write,
    Target.IPVSADM: ipvsadm.write,
    Target.ANSIBLE: ansible.write,
    Target.CONTAINERLAB: containerlab.write,
    Target.CLABERNETES: containerlab.write_for_clabernetes,
}


def export(lab: Lab, resources: Iterable[Resource], target: Target) -> dict[str, str]:
    """Return a lab's configuration in a format: the text of each file by its name."""
    return WRITERS[target](lab, resources)


def lost(lab: Lab, resources: Iterable[Resource], target: Target) -> tuple[str, ...]:
    """Return what of a lab a format does not contain; containers have all of it."""
    if target is Target.ANSIBLE:
        return left_out.of_hosts(lab, resources)
    if target in (Target.KEEPALIVED, Target.IPVSADM):
        return left_out.of_directors(lab, resources, vrrp=target is Target.KEEPALIVED)
    return ()
