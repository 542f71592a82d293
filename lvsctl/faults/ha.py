"""What goes wrong between several directors (VRRP)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import EVERY_MODE, FaultContext, FaultTable
from lvsctl.faults.change import Change, added, removed
from lvsctl.model.frame import VRRP
from lvsctl.model.lab import Role
from lvsctl.plan.planner import ANNOUNCEMENTS_DROPPED
from lvsctl.resources.announcement_filter import AnnouncementFilter
from lvsctl.resources.drop_filter import DropFilter
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.link_setting import LinkSetting
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.veth_link import VethLink

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
    breaks=("ha.connections-synchronized", "ha.connections-survive"),
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
    breaks=("ha.connections-synchronized", "ha.connections-survive"),
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


@FAULTS.add(
    "equal-priorities",
    "the master has the same priority as the backup",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="both advertise the same priority: the director with the higher address stays master",
    breaks=("ha.failback",),
)
def equal_priorities(context: FaultContext) -> Iterator[Change]:
    """Both files have the same priority: the one whose address is higher is master (RFC 5798).

    The backup does not give way to an equal priority, so that after a failover the master depends
    on which director was started last.

    Changes: priority in the keepalived.conf of the director that should be master.
    """
    lower = [node for node in context.lab.directors if node.ha is not None and node != context.node]
    if _is_lower(context) or context.node.ha is None or not context.node.ha.preempt or not lower:
        return
    other = max(node.ha.priority for node in lower if node.ha is not None)
    # Of equal priorities the highest address wins (section 6.4.3): it has to be another one's.
    if max((context.node, *lower), key=lambda node: node.addresses[0]) == context.node:
        return
    for one in context.planned(Keepalived):
        text = re.sub(r"(priority) \d+", rf"\1 {other}", one.text)
        yield Change(one, replace(one, text=text))


@FAULTS.add(
    "preemption-off",
    "the director with the highest priority does not take over from another (nopreempt)",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="the director with the highest priority is there and stays backup",
    breaks=("ha.failback",),
)
def preemption_off(context: FaultContext) -> Iterator[Change]:
    """nopreempt is in one director's file alone: it stays backup once another one was master.

    Changes: nopreempt, and with it state BACKUP, in the keepalived.conf of the director that
    should be master.
    """
    if _is_lower(context) or context.node.ha is None or not context.node.ha.preempt:
        return
    for one in context.planned(Keepalived):
        text = one.text.replace("state MASTER", "state BACKUP")
        text = re.sub(r"(\n *)(priority \d+)", r"\1\2\1nopreempt", text)
        yield Change(one, replace(one, text=text))


@FAULTS.add(
    "vrrp-password",
    "the backup has another password for VRRP than the master",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="two directors advertise themselves with different passwords, and answer for the VIP",
    breaks=("ha.one-master",),
    may_break=TWO_ANSWER,
)
def vrrp_password(context: FaultContext) -> Iterator[Change]:
    """The passwords differ: each director discards the other's advertisements.

    Only where the topology has a password: VRRP version 3 has none.

    Changes: auth_pass in the backup's keepalived.conf.
    """
    if not _is_lower(context):
        return
    for one in context.planned(Keepalived):
        text = re.sub(r"(auth_pass) \S+", r"\1 mistaken", one.text)
        yield Change(one, replace(one, text=text))


@FAULTS.add(
    "announcements-dropped",
    "what a director sends to announce the VIP is dropped (gratuitous ARP, unsolicited NA)",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="the new master announces no address, and neighbours send to the old one",
    breaks=("ha.vip-announced", "ha.neighbours-follow"),
    may_break=("ha.connections-survive",),
)
def announcements_dropped(context: FaultContext) -> Iterator[Change]:
    """A packet filter, or a switch that protects from forged ARP, drops gratuitous ARP.

    Nothing shows it until the backup becomes master: neighbours go on sending to the failed
    director until they ask again by themselves, after some seconds without an answer
    (delay_first_probe_time and ucast_solicit in arp(7)). Connections may survive so long.

    Changes: a filter on what the backup sends.
    """
    if not _is_lower(context):
        return
    for address in context.lab.floating:
        network = context.lab.network_of(address)
        if network is not None and network.name in context.node.networks:
            yield added(
                AnnouncementFilter(netns=context.netns, device=network.name, address=address)
            )


@FAULTS.add(
    "announcements-ignored",
    "a neighbour ignores announcements of the VIP (drop_gratuitous_arp, drop_unsolicited_na)",
    modes=EVERY_MODE,
    at=(Role.CLIENT, Role.ROUTER),
    symptom="the new master announces the VIP, and a neighbour goes on sending to the old one",
    breaks=("ha.neighbours-follow",),
    may_break=("ha.connections-survive",),
)
def announcements_ignored(context: FaultContext) -> Iterator[Change]:
    """A client or router accepts no gratuitous ARP, as hardening guides prescribe.

    After some seconds without an answer it asks again by itself, as if nothing were announced.

    Changes: net.ipv4.conf.NETWORK.drop_gratuitous_arp, or IPv6's drop_unsolicited_na.
    """
    vips = {vip for service in context.lab.services for vip in service.vips}
    networks = {found.name for vip in vips if (found := context.lab.network_of(vip)) is not None}
    for one in context.planned(Sysctl):
        *_, device, name = one.name.split(".")
        if name in ANNOUNCEMENTS_DROPPED.values() and device in networks:
            yield Change(one, replace(one, value="1"))


@FAULTS.add(
    "duplicate-mac",
    "the backup has the master's MAC address, as a copied virtual machine has",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="frames of two directors have one MAC address, and the switch learns it at two ports",
    breaks=("ha.macs-differ",),
    may_break=(
        *TWO_ANSWER,
        *("dr.real-servers-announce-rip", "dr.one-segment", "ha.one-master", "ha.backup-ready"),
        *("all.links-as-described", "nat.real-servers-need-nothing"),
    ),
)
def duplicate_mac(context: FaultContext) -> Iterator[Change]:
    """Two directors were made from one image: a switch sends frames to whoever sent last.

    Changes: the MAC address of the backup's first interface.
    """
    if not _is_lower(context):
        return
    links = {
        one.node_netns: one
        for one in context.plan.resources
        if isinstance(one, VethLink) and one.device == context.node.networks[0]
    }
    mine = links.get(context.netns)
    others = [
        links[context.lab.netns(node.name)]
        for node in context.lab.directors
        if node != context.node and context.lab.netns(node.name) in links
    ]
    if mine is None or not others:
        return
    own = LinkSetting(
        netns=context.netns, device=mine.device, name="address", value=mine.mac, usual=mine.mac
    )
    yield Change(own, replace(own, value=others[0].mac))


def _is_lower(context: FaultContext) -> bool:
    """Whether another director has a higher priority than the node."""
    own = context.node.ha
    if own is None:
        return False
    every = [node for node in context.lab.directors if node.ha is not None]
    # Of equal priorities the highest address wins (RFC 5798, section 6.4.3).
    best = max(every, key=lambda node: (node.ha.priority if node.ha else 0, node.addresses[0]))
    return best != context.node
