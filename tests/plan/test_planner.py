"""Plans and routes of topologies beyond the shipped ones."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from lvsctl import modes
from lvsctl.model.lab import Lab
from lvsctl.model.packet_filter import TO_PATH_MTU, Clamp
from lvsctl.model.state import NodeState, RouteState
from lvsctl.plan import planner
from lvsctl.plan.routing import routes_of
from lvsctl.resources.address import Address
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.link_setting import LinkSetting
from lvsctl.resources.masquerade import Masquerade
from lvsctl.resources.mss_clamp import MssClamp
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.user_command import UserCommand
from lvsctl.topology.loading import parse_topology


def load(topology: str) -> Lab:
    return parse_topology(textwrap.dedent(topology).encode(), "test.yaml", rules=modes.violations)


def routes(lab: Lab, node: str) -> dict[str, str]:
    return {str(route.to or "default"): str(route.via) for route in routes_of(lab, lab.node(node))}


TWO_ROUTERS = """
    # client ─ left ─ router1 ─ middle ─ router2 ─ right ─ director, rs1
    version: 1
    name: chain
    networks:
      left: {ipv4: 10.1.0.0/24}
      middle: {ipv4: 10.2.0.0/24}
      right: {ipv4: 10.3.0.0/24}
    nodes:
      client: {role: client, networks: [left]}
      router1: {role: router, networks: [left, middle]}
      router2: {role: router, networks: [middle, right]}
      director: {role: director, networks: [right]}
      rs1: {role: real-server, networks: [right]}
    services:
      - {name: web, vip: 10.3.0.100, port: 80, forward: dr, scheduler: rr, real_servers: [rs1]}
"""


def test_two_routers_in_a_chain_know_what_lies_behind_each_other() -> None:
    lab = load(TWO_ROUTERS)
    near, far = (
        str(lab.node(name).addresses_on("middle")[0].ip) for name in ("router1", "router2")
    )
    assert routes(lab, "router1") == {"10.3.0.0/24": far}
    assert routes(lab, "router2") == {"10.1.0.0/24": near}


def test_hosts_behind_a_chain_of_routers_have_one_default_route() -> None:
    lab = load(TWO_ROUTERS)
    first = str(lab.node("router1").addresses_on("left")[0].ip)
    last = str(lab.node("router2").addresses_on("right")[0].ip)
    assert routes(lab, "client") == {"default": first}
    assert routes(lab, "director") == routes(lab, "rs1") == {"default": last}


def test_a_host_between_two_routers_has_a_route_for_each_side() -> None:
    lab = load(TWO_ROUTERS.replace("networks: [left]}", "networks: [middle]}"))
    chosen = routes(lab, "client")
    assert set(chosen) == {"default", "10.3.0.0/24"} or set(chosen) == {"default", "10.1.0.0/24"}
    assert len(set(chosen.values())) == 2


def test_without_a_router_nobody_has_a_route() -> None:
    lab = load(
        """
        version: 1
        name: flat
        networks: {lan: {ipv4: 10.1.0.0/24}}
        nodes:
          client: {role: client, networks: [lan], count: 3}
          director: {role: director, networks: [lan]}
          rs: {role: real-server, networks: [lan], count: 2}
        services:
          - {name: web, vip: 10.1.0.100, port: 80, forward: dr, scheduler: rr, real_servers: [rs]}
        """
    )
    assert [op for op in planner.plan_for(lab).resources if isinstance(op, StaticRoute)] == []


NAT = """
    # client1, client2 ─ public ─ director ─ private ─ rs1, rs2
    version: 1
    name: shop
    networks: {public: {ipv4: 10.1.0.0/24}, private: {ipv4: 10.2.0.0/24}}
    nodes:
      client: {role: client, networks: [public], count: 2}
      director: {role: director, networks: [public, private]}
      rs: {role: real-server, networks: [private], count: 2%s}
    services:
      - {name: web, vip: 10.1.0.100, port: 80, forward: nat, scheduler: rr, real_servers: [rs]}
"""


def test_behind_nat_the_default_gateway_is_the_director() -> None:
    lab = load(NAT % "")
    inside = str(lab.node("director").addresses_on("private")[0].ip)
    assert routes(lab, "rs1") == routes(lab, "rs2") == {"default": inside}
    assert routes(lab, "client1") == routes(lab, "client2") == {}


def test_the_topologys_own_route_replaces_the_derived_one() -> None:
    lab = load(NAT % ", routes: [{to: default, via: 10.2.0.200}]")
    assert routes(lab, "rs1") == {"default": "10.2.0.200"}


def test_the_topologys_own_sysctl_replaces_the_derived_one_in_its_place() -> None:
    lab = load(NAT % ", sysctls: {net.ipv4.conf.all.rp_filter: 1}")
    values = [
        op.value
        for op in planner.plan_for(lab).resources
        if isinstance(op, Sysctl)
        and op.name == "net.ipv4.conf.all.rp_filter"
        and op.netns == "lvs-shop-rs1"
    ]
    assert values == ["1"]


def test_behind_nat_a_real_server_gets_nothing_of_lvs() -> None:
    lab = load(NAT % "")
    plan = planner.plan_for(lab)
    vip = ip_address("10.1.0.100")
    assert [
        op.netns for op in plan.resources if isinstance(op, Address) and op.address.ip == vip
    ] == ["lvs-shop-director"]
    rs, client = (
        [
            (op.name, op.value)
            for op in plan.resources
            if isinstance(op, Sysctl) and op.netns == netns
        ]
        for netns in ("lvs-shop-rs1", "lvs-shop-client1")
    )
    assert rs == client


def test_run_takes_the_place_of_the_responder() -> None:
    lab = load(NAT % ", run: [nginx, -g, 'daemon off;']")
    plan = planner.plan_for(lab)
    assert [op.node for op in plan.resources if isinstance(op, UserCommand)] == ["rs1", "rs2"]
    assert [op for op in plan.resources if isinstance(op, ResponderPort)] == []


@pytest.mark.parametrize("forward", ["dr", "tun"])
def test_the_vip_is_silenced_before_it_is_there(forward: str) -> None:
    lab = load(TWO_ROUTERS.replace("forward: dr", f"forward: {forward}"))
    plan = planner.plan_for(lab)
    of_rs = [op for op in plan.resources if op.netns == "lvs-chain-rs1"]
    kinds = [
        op.name.rsplit(".", 1)[1] if isinstance(op, Sysctl) else "vip"
        for op in of_rs
        if (isinstance(op, Sysctl) and op.value != "0" and "all.arp" in op.name)
        or (isinstance(op, Address) and str(op.address.ip) == "10.3.0.100")
    ]
    assert kinds == ["arp_ignore", "arp_announce", "vip"]


def test_ip_forward_comes_before_the_settings_that_it_resets() -> None:
    plan = planner.plan_for(load(TWO_ROUTERS))
    for node in ("client", "router1", "director", "rs1"):
        keys = [
            op.name
            for op in plan.resources
            if isinstance(op, Sysctl) and op.netns == f"lvs-chain-{node}"
        ]
        assert keys[0] == "net.ipv4.ip_forward"


def test_ipv6_networks_have_routes_of_their_own() -> None:
    lab = load(
        TWO_ROUTERS.replace("{ipv4: 10.1.0.0/24}", "{ipv4: 10.1.0.0/24, ipv6: fd00:1::/64}")
        .replace("{ipv4: 10.2.0.0/24}", "{ipv4: 10.2.0.0/24, ipv6: fd00:2::/64}")
        .replace("{ipv4: 10.3.0.0/24}", "{ipv4: 10.3.0.0/24, ipv6: fd00:3::/64}")
    )
    via = {(route.to, route.via.version) for route in routes_of(lab, lab.node("router1"))}
    assert via == {(ip_network("10.3.0.0/24"), 4), (ip_network("fd00:3::/64"), 6)}
    assert {route.via.version for route in routes_of(lab, lab.node("client"))} == {4, 6}


def test_a_plan_is_the_same_every_time() -> None:
    assert planner.plan_for(load(TWO_ROUTERS)) == planner.plan_for(load(TWO_ROUTERS))


def test_the_mtu_of_a_network_is_that_of_every_end_of_its_links() -> None:
    lab = load(TWO_ROUTERS.replace("10.2.0.0/24}", "10.2.0.0/24, mtu: 9000}"))
    plan = planner.plan_for(lab)
    wanted = {
        (op.netns.removeprefix("lvs-chain-"), op.device)
        for op in plan.resources
        if isinstance(op, LinkSetting) and (op.name, op.value) == ("mtu", "9000")
    }
    assert wanted == {
        *(("middle", "router1"), ("middle", "router2"), ("middle", "bridge")),
        *(("router1", "middle"), ("router2", "middle")),
    }


def test_a_link_may_have_an_mtu_of_its_own_and_a_node_limit_segments() -> None:
    own = "links: {middle: {mtu: 1400}}, mss_clamp: pmtu, networks: [left, middle]"
    lab = load(TWO_ROUTERS.replace("networks: [left, middle]", own))
    resources = planner.plan_for(lab).resources
    settings = {
        (op.netns.removeprefix("lvs-chain-"), op.device, op.value)
        for op in resources
        if isinstance(op, LinkSetting) and op.name == "mtu"
    }
    assert settings == {
        *(("router1", "middle", "1400"), ("middle", "router1", "1400")),
        ("middle", "bridge", "1500"),
    }
    (clamp,) = (op for op in resources if isinstance(op, MssClamp))
    assert (clamp.netns, clamp.clamp) == (lab.netns("router1"), Clamp(4, TO_PATH_MTU))


@pytest.mark.parametrize(("forward", "bound"), [("dr", "10.3.0.100"), ("nat", "10.3.0.11")])
def test_an_sctp_socket_is_bound_to_where_requests_are_sent(forward: str, bound: str) -> None:
    lab = load(TWO_ROUTERS.replace("forward: dr", f"forward: {forward}, protocol: sctp"))
    (port,) = (op for op in planner.plan_for(lab).resources if isinstance(op, ResponderPort))
    assert [str(address) for address in port.addresses] == [bound]


def test_with_snat_real_servers_have_no_route_through_the_director() -> None:
    text = TWO_ROUTERS.replace("forward: dr", "forward: nat, snat: true")
    lab = load(text)
    assert routes(lab, "rs1") == {"default": routes(load(TWO_ROUTERS), "rs1")["default"]}
    (rule,) = (op for op in planner.plan_for(lab).resources if isinstance(op, Masquerade))
    assert rule.netns == lab.netns("director")
    assert str(rule.target.address) == str(lab.services[0].real_servers[0].rip)


@pytest.mark.parametrize("forward", ["dr", "tun", "nat"])
def test_a_director_that_is_a_real_server_needs_nothing_more(forward: str) -> None:
    wanted = TWO_ROUTERS.replace("forward: dr", f"forward: {forward}")
    lab = load(wanted.replace("[rs1]}\n", "[director, rs1]}\n"))
    without = {str(op) for op in planner.plan_for(load(wanted)).resources}
    more = [op for op in planner.plan_for(lab).resources if str(op) not in without]
    assert {type(op) for op in more} == {IpvsRealServer, ResponderPort}
    assert {op.netns for op in more} == {lab.netns("director")}


def test_a_route_may_limit_packets_and_segments() -> None:
    own = (
        "networks: [right], routes: [{to: default, via: 10.3.0.1, mtu: 1480, mss: 1440}]}\n    serv"
    )
    lab = load(TWO_ROUTERS.replace("networks: [right]}\n    serv", own))
    (route,) = (
        op
        for op in planner.plan_for(lab).resources
        if isinstance(op, StaticRoute) and op.netns == lab.netns("rs1")
    )
    assert str(route.commands()[0]).endswith("route add default via 10.3.0.1 mtu 1480 advmss 1440")
    assert str(route.undo_commands()[0]).endswith("route del default via 10.3.0.1")
    found = RouteState(None, ip_address("10.3.0.1"), "right", kernel=False, details=route.details)
    state = NodeState(netns=route.netns, routes=(found,))
    assert route.holds(state)
    assert not route.holds(replace(state, routes=(found._replace(details=("mtu 1480",)),)))
