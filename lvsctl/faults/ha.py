"""What goes wrong between several directors (VRRP)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import EVERY_MODE, FaultContext, FaultTable
from lvsctl.faults.change import Change, added, removed
from lvsctl.model.frame import VRRP
from lvsctl.model.lab import Role
from lvsctl.resources.drop_filter import DropFilter
from lvsctl.resources.keepalived import Keepalived

FAULTS = FaultTable()

TWO_ANSWER = (
    *("dr.only-director-answers-arp", "dr.request-only-macs-change", "dr.same-vip"),
    *("nat.reply-crosses-director", "nat.both-directions-load-director"),
    *("nat.client-never-sees-rip", "nat.request-rewritten", "nat.port-mapping"),
    *("all.requests-answered", "all.large-requests-answered", "all.nothing-sent-again"),
    *("all.real-servers-reached", "all.distribution", "all.counters-agree"),
    *("all.reply-path-counted", "all.connection-table-agrees", "all.frames-agree"),
    *("all.neighbours-right", "tun.request-encapsulated", "dr.reply-direct", "tun.reply-direct"),
)
"""Claims that may fail while two directors answer for the VIP: whose answer comes first decides."""


@FAULTS.add(
    "vrrp-filtered",
    "a packet filter of the backup drops VRRP's advertisements",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="two directors advertise themselves and answer for the VIP (split brain)",
    breaks=("ha.one-master",),
    may_break=TWO_ANSWER,
)
def vrrp_filtered(context: FaultContext) -> Iterator[Change]:
    """The backup does not receive the master's advertisements, and becomes master too.

    So both hold the VIP: a firewall that does not know IP protocol 112 is the usual reason. Not
    at the director with the highest priority, which takes no notice of the others.

    Changes: a filter at every interface of the backup.
    """
    if not _is_lower(context):
        return
    versions = dict.fromkeys(one.version for one in context.lab.floating)
    for device in context.node.networks:
        for version in versions:
            yield added(
                DropFilter(netns=context.netns, device=device, protocol=VRRP, version=version)
            )


@FAULTS.add(
    "vrrp-router-id",
    "the backup has another virtual router id than the master",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="two directors advertise virtual routers of their own and answer for the VIP",
    breaks=("ha.one-master",),
    may_break=TWO_ANSWER,
)
def vrrp_router_id(context: FaultContext) -> Iterator[Change]:
    """The virtual router ids differ: each director takes no notice of the other's advertisements.

    Changes: virtual_router_id in the backup's keepalived.conf.
    """
    if not _is_lower(context):
        return
    for one in context.planned(Keepalived):
        other = re.sub(
            r"(virtual_router_id) (\d+)",
            lambda found: f"{found[1]} {int(found[2]) % 255 + 100 if int(found[2]) < 155 else 1}",
            one.text,
        )
        yield Change(one, replace(one, text=other))


@FAULTS.add(
    "keepalived-stopped",
    "keepalived does not run on a director",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="one director less advertises itself or is ready to",
    breaks=("ha.backup-ready",),
)
def keepalived_stopped(context: FaultContext) -> Iterator[Change]:
    """keepalived has ended on a director: another one is master, and nothing would replace that.

    Changes: keepalived ends.
    """
    yield from map(removed, context.planned(Keepalived))


@FAULTS.add(
    "sync-daemon-missing",
    "the backup does not receive the master's connections",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="the backup has no synchronization daemon: its connection table stays empty",
    breaks=("ha.connections-synchronized",),
)
def sync_daemon_missing(context: FaultContext) -> Iterator[Change]:
    """The backup is configured without lvs_sync_daemon: after a failover every connection is reset.

    Changes: lvs_sync_daemon in the backup's keepalived.conf.
    """
    if not _is_lower(context):
        return
    for one in context.planned(Keepalived):
        if one.sync:
            without = re.sub(r" *lvs_sync_daemon .*\n", "", one.text)
            yield Change(one, replace(one, text=without, sync=False))


@FAULTS.add(
    "sync-daemon-elsewhere",
    "the backup receives connections on another network than the master sends them on",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="the synchronization daemons run on different interfaces",
    breaks=("ha.connections-synchronized",),
)
def sync_daemon_elsewhere(context: FaultContext) -> Iterator[Change]:
    """The directors' lvs_sync_daemon name interfaces of different networks.

    Changes: lvs_sync_daemon in the backup's keepalived.conf.
    """
    networks = context.node.networks
    if not _is_lower(context) or len(networks) < 2:
        return
    for one in context.planned(Keepalived):
        if one.sync:
            other = re.sub(r"(lvs_sync_daemon) \S+", rf"\1 {networks[1]}", one.text)
            yield Change(one, replace(one, text=other))


def _is_lower(context: FaultContext) -> bool:
    """Whether another director has a higher priority than the node."""
    own = context.node.ha
    if own is None:
        return False
    every = [node for node in context.lab.directors if node.ha is not None]
    # Of equal priorities the highest address wins (RFC 5798, section 6.4.3).
    best = max(every, key=lambda node: (node.ha.priority if node.ha else 0, node.addresses[0]))
    return best != context.node
