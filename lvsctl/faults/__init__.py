"""The misconfigurations that lvsctl knows to inject: one file each, and the table of them."""

from __future__ import annotations

from lvsctl.errors import UsageError
from lvsctl.faults import (
    arp_announce_unset,
    arp_ignore_on_lo_only,
    arp_ignore_unset,
    behind_router,
    client_on_real_server_network,
    director_bypassed,
    encapsulation_mismatch,
    gateway_is_director,
    icmp_filtered,
    ip_forward_off,
    no_default_gateway,
    no_route_to_real_server,
    persistence_added,
    persistence_missing,
    pmtu_discovery_off,
    real_server_down,
    real_server_drained,
    real_server_removed,
    redirects_sent,
    router_not_forwarding,
    rp_filter_on_router,
    rp_filter_on_tunnel,
    scheduler_changed,
    service_missing,
    service_stopped,
    stale_neighbour,
    stale_vip_neighbour,
    threshold_missing,
    tunnel_down,
    tunnel_filtered,
    vip_as_subnet,
    vip_missing,
    vip_missing_on_director,
    vip_on_lan,
    weight_changed,
    wrong_forwarding_method,
    wrong_gateway,
    wrong_port,
)
from lvsctl.faults.base import Fault

FAULTS: dict[str, Fault] = {
    module.FAULT.id: module.FAULT
    for module in (
        vip_missing,
        vip_missing_on_director,
        vip_on_lan,
        vip_as_subnet,
        arp_ignore_unset,
        arp_ignore_on_lo_only,
        arp_announce_unset,
        stale_neighbour,
        stale_vip_neighbour,
        behind_router,
        director_bypassed,
        wrong_forwarding_method,
        wrong_port,
        wrong_gateway,
        gateway_is_director,
        no_default_gateway,
        ip_forward_off,
        redirects_sent,
        client_on_real_server_network,
        tunnel_down,
        encapsulation_mismatch,
        rp_filter_on_tunnel,
        rp_filter_on_router,
        tunnel_filtered,
        icmp_filtered,
        pmtu_discovery_off,
        no_route_to_real_server,
        router_not_forwarding,
        service_stopped,
        real_server_down,
        scheduler_changed,
        persistence_added,
        persistence_missing,
        threshold_missing,
        weight_changed,
        real_server_drained,
        real_server_removed,
        service_missing,
    )
}
"""Every fault by its id: addresses and ARP, the way there and back, the tunnel, the service."""


def fault(name: str) -> Fault:
    """The fault called ``name``. Raises UsageError with what may have been meant."""
    import difflib

    if name not in FAULTS:
        near = difflib.get_close_matches(name, FAULTS, n=1)
        hint = f"did you mean {near[0]}?" if near else "lvsctl fault list"
        raise UsageError(f"there is no fault {name!r}", hint=hint)
    return FAULTS[name]
