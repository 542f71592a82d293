"""A one-armed director tells the real servers of the shorter way to the client.

Replies come in where they go out, so the kernel sends ICMP redirects, and a real server
that obeys them replies past the director from then on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import NAT, ONE_SILENT, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """Redirects on, as kernels come. (`all` or the interface's own is enough.)"""
    setting = scene.setting("net.ipv4.conf.all.send_redirects")
    yield Change(setting, replace(setting, value="1"))


FAULT = Fault(
    id="redirects-sent",
    says="the director sends ICMP redirects to the real servers",
    modes=(NAT,),
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=(
        "a redirect to each real server after its first replies, and later replies that "
        "bypass the director"
    ),
    breaks=("nat.reply-crosses-director",),
    # It works, then breaks: who has been redirected when is a matter of milliseconds.
    may_break=(
        "nat.client-never-sees-rip",
        "nat.both-directions-load-director",
        "all.frames-agree",
        *ONE_SILENT,
    ),
)
