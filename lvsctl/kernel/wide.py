"""Everything in a namespace that can change what happens to a packet and no plan sets.

Read where a running lab is compared with its topology, and as evidence of a diagnosis; not
where a lab is created or watched.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from lvsctl.kernel import fresh, netns, packet_filters, paths, processes
from lvsctl.model.state import (
    MAIN_TABLE,
    ChangedSysctls,
    LinkState,
    NodeState,
    ProcessState,
    RouteState,
)
from lvsctl.netlink import (
    ethtool,
    ipvs_config,
    nexthops,
    queueing,
    rules,
    sockets,
    switching,
    tcp_metrics,
    xfrm,
)
from lvsctl.netlink.links import dump_links
from lvsctl.netlink.neighbours import dump_proxies
from lvsctl.netlink.routes import TABLE_LOCAL
from lvsctl.resources.keepalived import PROCESS


def read(
    sock: socket.socket, state: NodeState, routes: tuple[RouteState, ...], *, director: bool
) -> NodeState:
    """Add what ``NodeState.whole`` promises to the state of the calling thread's namespace.

    ``sock`` is a rtnetlink socket that was opened there. ``routes`` are those of all its tables.
    """
    names = {link.index: link.name for link in state.links}
    bridged = any(link.kind == "bridge" for link in state.links)
    qdiscs, impairments = queueing.dump_qdiscs(sock, names)
    state = replace(
        state,
        whole=True,
        links=tuple(
            replace(
                link,
                impairment=impairments.get(link.index, link.impairment),
                offloads=_offloads(sock, link),
            )
            for link in state.links
        ),
        other_routes=tuple(one for one in routes if _is_other(one)),
        local_addresses=tuple(_local_addresses(routes)),
        rules=rules.dump_rules(sock),
        proxies=dump_proxies(sock, names),
        nexthops=nexthops.dump_nexthops(sock, names),
        tcp_metrics=tcp_metrics.dump_tcp_metrics(),
        qdiscs=qdiscs,
        filters=queueing.dump_filters(sock, names, qdiscs),
    )
    if bridged:
        own = {link.name: link.mac for link in state.links}
        state = replace(
            state,
            fdb=switching.dump_fdb(sock, names, own),
            vlans=switching.dump_vlans(sock, names),
        )
    if director:
        state = replace(with_ipvs_config(state), nftables=packet_filters.has_nftables())
    return replace(state, xfrm=xfrm.dump_xfrm(), packet_filters=packet_filters.current_filters())


def with_ipvs_config(state: NodeState) -> NodeState:
    """Add IPVS's timeouts and sync daemons. Raises HostError without IPVS."""
    with sockets.open_reader(sockets.GENERIC) as sock:
        return replace(
            state,
            ipvs_timeouts=ipvs_config.timeouts(sock),
            sync_daemons=ipvs_config.sync_daemons(sock),
        )


def _offloads(sock: socket.socket, link: LinkState) -> tuple[str, ...]:
    """Return the offloads of a node's veth: of a switch's port they change no frame."""
    if link.kind != "veth" or link.master:
        return ()
    with contextlib.suppress(OSError):  # it went this very moment
        return ethtool.active_offloads(sock, link.name)
    return ()


def _is_other(route: RouteState) -> bool:
    if route.table == MAIN_TABLE:
        return False
    return route.table != TABLE_LOCAL or not route.kernel


def _local_addresses(routes: tuple[RouteState, ...]) -> Iterator[str]:
    for one in routes:
        if one.kernel and one.table == TABLE_LOCAL and one.type == "local" and one.to:
            yield str(one.to)


def read_changed(
    namespaces: Iterable[str],
    planned: Mapping[str, Mapping[str, str]],
    directors: Collection[str],
) -> ChangedSysctls:
    """Find the changed sysctls of ``namespaces``, apart from those ``planned``.

    Those of IPVS in the namespaces of ``directors`` only.

    Reads thousands of files: no other part of a state takes as long, and none changes as rarely.
    Raises LabError if a namespace does not exist, HostError without root.
    """

    def dump() -> dict[str, tuple[LinkState, ...]]:
        found = {}
        for name in netns.each(namespaces):
            with sockets.open_reader() as sock:
                found[name] = dump_links(sock)
        return found

    return _changed(netns.in_thread(dump), planned, directors)


def _changed(
    links: Mapping[str, tuple[LinkState, ...]],
    planned: Mapping[str, Mapping[str, str]],
    directors: Collection[str],
) -> ChangedSysctls:
    kinds = {link.kind for several in links.values() for link in several if not link.master}
    usual = fresh.fresh_sysctls(kinds, ipv6=any(map(_has_ipv6, links.values())))

    def visits() -> ChangedSysctls:
        found = {}
        for name in netns.each(links):
            found[name] = fresh.changed_sysctls(
                usual, planned.get(name, {}), links[name], director=name in directors
            )
        return found

    return netns.in_thread(visits)


def compared(
    states: Mapping[str, NodeState],
    planned: Mapping[str, Mapping[str, str]],
    directors: Collection[str],
) -> dict[str, NodeState]:
    """Add the settings that differ from a fresh namespace's to the states of a lab."""
    changed = _changed({name: state.links for name, state in states.items()}, planned, directors)
    return {name: replace(state, changed_sysctls=changed[name]) for name, state in states.items()}


def _has_ipv6(links: Iterable[LinkState]) -> bool:
    """Return whether a device but lo has an IPv6 address, as each gets that has IPv6."""
    others = (link for link in links if link.name != "lo")
    return any(one.version == 6 for link in others for one in link.addresses)


def with_processes(states: Mapping[str, NodeState]) -> dict[str, NodeState]:
    """Add the processes of each namespace to the states of a lab."""
    by_name: dict[str, set[int]] = {
        name: {one.pid for one in state.listeners if one.pid} for name, state in states.items()
    }
    own = processes.ancestors()
    files = {paths.NETNS / name: name for name in states}
    for pid, file in processes.namespaces_of_pids(files).items():
        if pid not in own:
            by_name[files[file]].add(pid)
    # One process, the responder, has sockets in hundreds of namespaces.
    read = {
        pid: ProcessState(pid, *processes.name_and_state(pid))
        for pid in set().union(*by_name.values())
    }
    found = {name: tuple(read[pid] for pid in sorted(pids)) for name, pids in by_name.items()}
    return {
        name: replace(state, processes=found[name], keepalived_file=_keepalived_file(found[name]))
        for name, state in states.items()
    }


def _keepalived_file(found: Iterable[ProcessState]) -> str:
    """Return the text of the file that a keepalived was started with, if lvsctl wrote it.

    Not of a user's own file, which may contain what does not belong into a report.
    """
    for pid in (one.pid for one in found if one.process == PROCESS):
        with contextlib.suppress(OSError, ValueError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            file = Path(os.fsdecode(words[words.index(b"--use-file") + 1]))
            if paths.RUN in file.parents:
                return file.read_text(encoding="utf-8", errors="replace")
    return ""
