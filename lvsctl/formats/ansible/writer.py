"""Write playbooks, with what the lab's hosts need beyond their own addresses and routes.

The playbooks, tasks and templates in ``files`` are the same for every lab; the inventory and the
variables of groups and hosts are the lab's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from lvsctl.formats import left_out
from lvsctl.formats.keepalived import writer as keepalived
from lvsctl.model.lab import Lab, Node, Role
from lvsctl.resources.address import Address
from lvsctl.resources.base import Command, Resource
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.marks import Marks
from lvsctl.resources.masquerade import Masquerade
from lvsctl.resources.mss_clamp import MssClamp
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel

FILES = Path(__file__).with_name("files")
"""What is the same for every lab."""

_GROUPS = {Role.REAL_SERVER: "real_servers", Role.DIRECTOR: "directors"}

_NETWORK = """\
{{ ('netplan' if lvs_netplan.matched else 'networkd') \
if (lvs_networkd.status | default({})).ActiveState | default('') == 'active' else \
'ifupdown' if lvs_ifupdown.stat.exists else 'unit' }}"""

_README = """\
# {name}: real servers and directors

Written by `lvsctl export --to ansible` from lab {name}.

Before you apply it, in inventory.yml:

- `ansible_host`: the address by which Ansible reaches the host. Here: the topology's.
- `lvs_interfaces`: the host's interface on each network. Here: named after the network.

```sh
ansible-playbook -i inventory.yml apply.yml --check --diff    # what it would change
ansible-playbook -i inventory.yml apply.yml
ansible-playbook -i inventory.yml remove.yml                  # restores what was there before
```

It needs no collection besides ansible.builtin. Addresses of the hosts themselves, and their routes,
are yours: nothing here changes them. Addresses of virtual services are given to netplan (where
systemd-networkd renders it), systemd-networkd, ifupdown or a unit of systemd, whichever the host
has (`lvs_network` says which). Tunnels are made by a script, because netplan has no key for a
tunnel from any sender. `lvs_install: false` leaves packages alone.
"""


def write(lab: Lab, resources: Iterable[Resource]) -> dict[str, str]:
    """Return the text of each file by its path in the directory.

    ``resources`` are those of the lab's plan.
    """
    every = tuple(resources)
    found = {
        str(path.relative_to(FILES)): path.read_text(encoding="utf-8")
        for path in sorted(FILES.rglob("*"))
        if path.is_file()
    }
    lost = [f"- {one}" for one in left_out.of_hosts(lab, every)]
    not_in_it = ["", "Not in it:", "", *lost, ""] if lost else []
    found["README.md"] = _README.format(name=lab.name) + "\n".join(not_in_it)
    found["inventory.yml"] = _yaml(_inventory(lab), "Change the addresses and the interfaces here.")
    found["group_vars/all.yml"] = _yaml(
        {
            "lvs_name": lab.name,
            "lvs_directory": f"/etc/lvs-{lab.name}",
            "lvs_install": True,
            "lvs_network": _NETWORK,
        }
    )
    for role, group in _GROUPS.items():
        of_hosts = {node.name: _variables(lab, node, every) for node in lab.having(role)}
        first = next(iter(of_hosts.values()), None)
        if first is None:
            continue
        if all(one == first for one in of_hosts.values()):
            found[f"group_vars/{group}.yml"] = _yaml(first)
        else:
            for host, one in of_hosts.items():
                found[f"host_vars/{host}.yml"] = _yaml(one)
    for file, text in keepalived.write(lab, every, routes=False).items():
        found[f"templates/{file}.j2"] = _with_interfaces(text)
    return found


def _yaml(value: object, comment: str = "") -> str:
    said = f"# {comment}\n" if comment else ""
    return f"---\n{said}" + yaml.dump(value, sort_keys=False, width=100, Dumper=_Indented)


class _Indented(yaml.SafeDumper):
    """Items of a list further in than its key, as ansible-lint wants them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _inventory(lab: Lab) -> dict[str, object]:
    children = {}
    for role, group in _GROUPS.items():
        children[group] = {
            "hosts": {
                node.name: {
                    "ansible_host": str(node.addresses[0]),
                    "lvs_interfaces": {network: network for network in node.networks},
                }
                for node in lab.having(role)
            }
        }
    return {"all": {"children": children}}


def _variables(lab: Lab, node: Node, every: tuple[Resource, ...]) -> dict[str, object]:
    netns = lab.netns(node.name)
    mine = [one for one in every if one.netns == netns]
    vips = {vip for service in lab.services for vip in service.vips}
    settings = [
        setting
        for one in mine
        if isinstance(one, Sysctl) and not one.base
        for setting in one.of_links(node.networks) or (one,)  # a host's links exist already
    ]
    tunnels = {one.device for one in mine if isinstance(one, Tunnel)}
    late = [one for one in settings if set(one.name.split(".")) & tunnels]
    found: dict[str, object] = {
        "lvs_modules": _modules(mine),
        "lvs_settings": [_setting(one, node) for one in settings if one not in late],
        "lvs_device_settings": [_setting(one, node) for one in late],
        "lvs_commands": [
            {"up": up, "down": down} for one in mine for up, down in _commands(one, node)
        ],
        "lvs_addresses": [
            {"device": one.device, "address": str(one.address)}
            for one in mine
            if isinstance(one, Address)
            and one.address.ip in vips
            and node.role is not Role.DIRECTOR  # keepalived's
        ],
    }
    if node.role is Role.DIRECTOR:
        several = len(lab.directors) > 1
        found["lvs_keepalived"] = (
            f"keepalived-{node.name}.conf.j2" if several else ("keepalived.conf.j2")
        )
    gateways = left_out.director_gateways(lab, node, mine)
    if gateways:
        found["lvs_gateways"] = [*map(str, gateways)]
    return found


def _modules(mine: Iterable[Resource]) -> list[str]:
    needed: dict[str, None] = {}
    for one in mine:
        if isinstance(one, IpvsService):
            needed["ip_vs"] = None
        needed.update(dict.fromkeys(one.modules()))
    return list(needed)


def _setting(one: Sysctl, node: Node) -> str:
    words = one.name.split(".")  # net.ipv4.conf.LINK.NAME
    if len(words) > 3 and words[3] in node.networks:
        # sysctl(8) writes the dot of a VLAN's interface, eth0.10, as a slash.
        words[3] = _interface(words[3], " | replace('.', '/')")
    return f"{'.'.join(words)} = {_literal(' '.join(one.value.split()))}"


def _literal(text: str) -> str:
    """A topology's own text, which is no template: Ansible must not evaluate what is in it."""
    return text.replace("{", "{{ '{' }}")


def _interface(network: str, then: str = "") -> str:
    return f"{{{{ lvs_interfaces['{network}']{then} }}}}"


def _commands(one: Resource, node: Node) -> Iterator[tuple[str, str]]:
    """Yield commands and what undoes each, of what only a script can keep."""
    if not isinstance(one, Tunnel | GuePort | Marks | Masquerade | MssClamp):
        return
    undo = " && ".join(_typed(command, node) for command in one.undo_commands())
    for number, command in enumerate(one.commands()):
        yield _typed(command, node), undo if number == 0 else "true"


def _typed(command: Command, node: Node) -> str:
    """A command as it is typed on the host itself."""
    return command.shell(lambda argv: _words(argv, node))


def _words(argv: tuple[str, ...], node: Node) -> str:
    """Without the index of a link, which only a lab decides."""
    plain = re.sub(r" index \d+", "", shlex.join(argv))
    for network in node.networks:
        plain = re.sub(rf"\bdev {re.escape(network)}\b", f"dev {_interface(network)}", plain)
    return plain


def _with_interfaces(text: str) -> str:
    """Name interfaces as the inventory does. Nothing else of the text is a template."""
    lines = text.splitlines(keepends=True)
    return "".join(
        re.sub(
            r"^( +(?:interface|lvs_sync_daemon|\S+ dev) )(\S+)",
            lambda found: found[1] + _interface(found[2]),
            line,
        )
        for line in lines
        if not line.startswith("# Interfaces are named as in the lab")
    )
