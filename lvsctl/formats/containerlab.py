"""containerlab: a topology file that builds the lab of containers, on one host or by clabernetes.

Every network is a node with a bridge, and every interface of a node one point-to-point link to it,
because that is all that clabernetes carries between hosts. Nothing is mounted from the host.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace

import yaml

from lvsctl.model.lab import Lab
from lvsctl.resources.base import Command, Resource
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.responder_port import ResponderPort, responder_program
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink

IMAGE = "ghcr.io/nicolaka/netshoot"
"""An image with ip, tc, sysctl, ethtool, python3, ipvsadm, iptables and nft (its Dockerfile)."""

_ABOUT = """\
# Lab {name}, written by lvsctl export: `containerlab deploy -t FILE`.
# - The hosts' kernels need ip_vs (and the modules of tunnels): modprobe ip_vs, on each of them.
# - Another image must have what the commands of its node need, as {image} has:
#   ip, tc, sysctl, ethtool, python3; ipvsadm, iptables (snat, mss_clamp), nft or tc (marks).
{keepalived}# - Nodes have an interface eth0 more, for management, and its addresses.
# - Between hosts clabernetes carries frames in VXLAN, which costs 50 bytes: give it an MTU of 1550
#   or more, otherwise the lab's own MTU is not what its topology says.
"""
_KEEPALIVED = """\
# - Directors run keepalived, which that image does not have: give them `image: ` with it.
"""


def write(lab: Lab, resources: Iterable[Resource]) -> dict[str, str]:
    """Return the text of the topology file by its name."""
    return {f"{lab.name}.clab.yml": _definition(lab, tuple(resources))}


def write_for_clabernetes(lab: Lab, resources: Iterable[Resource]) -> dict[str, str]:
    """Return the same as a resource that clabernetes takes: ``kubectl apply -f FILE``."""
    definition = _definition(lab, tuple(resources))
    resource = {
        "apiVersion": "clabernetes.containerlab.dev/v1alpha1",
        "kind": "Topology",
        "metadata": {"name": lab.name},
        "spec": {"definition": {"containerlab": _Text(definition)}},
    }
    return {f"{lab.name}.clabernetes.yml": _yaml(resource)}


def _definition(lab: Lab, every: tuple[Resource, ...]) -> str:
    runs = any(isinstance(one, Keepalived) for one in every)
    about = _ABOUT.format(name=lab.name, image=IMAGE, keepalived=_KEEPALIVED if runs else "")
    return about + _yaml(_topology(lab, every))


class _Text(str):
    """Text that is written as a block, line by line."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes ``_Text`` as a block."""


_Dumper.add_representer(
    _Text, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def _yaml(value: object) -> str:
    return yaml.dump(value, sort_keys=False, width=1000, Dumper=_Dumper)


def _topology(lab: Lab, every: tuple[Resource, ...]) -> dict[str, object]:
    links = [one for one in every if isinstance(one, VethLink)]
    names = {lab.netns(name): name for name in _members(lab)}
    return {
        "name": lab.name,
        "topology": {
            "defaults": {"kind": "linux", "image": IMAGE},
            "nodes": {
                name: {"exec": [*_commands(lab, netns, every, links)]}
                for netns, name in names.items()
            },
            "links": [
                {
                    "endpoints": [
                        f"{names[one.node_netns]}:{one.device}",
                        f"{names[one.netns]}:{one.port}",
                    ]
                }
                for one in links
            ],
        },
    }


def _members(lab: Lab) -> Iterator[str]:
    yield from (network.name for network in lab.networks)
    yield from (node.name for node in lab.nodes)


def _commands(
    lab: Lab, netns: str, every: tuple[Resource, ...], links: list[VethLink]
) -> Iterator[str]:
    """Yield what to run in a node, in the plan's order; its links are there already."""
    devices = [one.device for one in links if one.node_netns == netns]
    for one in every:
        if isinstance(one, VethLink):
            yield from _link(one, netns)
        elif one.netns != netns or isinstance(one, Namespace):
            continue
        elif isinstance(one, Sysctl):
            links_own = (replace(found, optional=True) for found in one.of_links(devices))
            for setting in (one, *links_own):
                yield from map(_typed, setting.commands())
        elif isinstance(one, ResponderPort):
            yield _responder(lab, one)
        elif isinstance(one, UserCommand | Keepalived):
            yield shlex.join(["sh", "-c", f"{shlex.join(_alone(one).argv)} >/dev/null 2>&1 &"])
        elif isinstance(one, StaticRoute):  # eth0 may have brought a default route
            yield from map(_typed, one.edit_commands())
        else:
            yield from map(_typed, one.commands())


def _alone(one: UserCommand | Keepalived) -> UserCommand | Keepalived:
    """In a container of its own, where the lab's directory does not exist."""
    return replace(one, directory="/run") if isinstance(one, Keepalived) else one


def _link(one: VethLink, netns: str) -> Iterator[str]:
    if one.netns == netns:
        yield f"ip link set dev {one.port} master {one.bridge} up"
    if one.node_netns == netns:
        yield f"ip link set dev {one.device} address {one.mac}"
        yield f"ip link set dev {one.device} up"


def _typed(command: Command) -> str:
    """A command without a shell: containerlab splits its words and runs no shell."""
    text = command.shell(lambda argv: re.sub(r" index \d+", "", shlex.join(argv)))
    return shlex.join(["sh", "-c", text]) if command.otherwise else text


def _responder(lab: Lab, one: ResponderPort) -> str:
    family = "inet6" if lab.ipv6 else "inet"
    words = [
        "python3",
        "-c",
        responder_program(),
        one.node,
        str(one.port),
        str(one.protocol),
        family,
    ]
    return shlex.join([*words, *map(str, one.addresses)])
