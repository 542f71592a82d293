"""systemd-networkd itself gives a host the addresses of exported playbooks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jinja2
import pytest
import yaml

from lvsctl.formats import writers
from lvsctl.formats.ansible.writer import FILES
from lvsctl.plan import planner
from tests.kernel.by_hand import eventually, namespaces, run
from tests.kernel.labs import topology_of

pytestmark = [pytest.mark.ipvs, pytest.mark.exhaustive]

PLACES = ("/usr/lib/systemd/systemd-networkd", "/lib/systemd/systemd-networkd")
"""Of every distribution that has systemd."""

_START = """\
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/network /run/systemd/netif
cp HERE/*.network /run/systemd/network/
{ cat /etc/passwd; echo systemd-network:x:998:998::/:/bin/false; } >/run/passwd
{ cat /etc/group; echo systemd-network:x:998:; } >/run/group
mount --bind /run/passwd /etc/passwd
mount --bind /run/group /etc/group
chown -R systemd-network:systemd-network /run/systemd
mount -o remount,ro /sys
SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_LEVEL=info exec NETWORKD
"""
"""With a user and a /run of its own, and a /sys as in a container, where no udev is waited for."""


def files_for(name: str, directory: Path) -> tuple[dict[str, str], list[str]]:
    """Write the files that the playbook would; return the addresses by device, and commands."""
    lab = planner.load_lab(topology_of(name))
    exported = writers.export(lab, planner.plan_for(lab).resources, writers.Target.ANSIBLE)
    variables = yaml.safe_load(exported["group_vars/real_servers.yml"])
    # As Ansible renders templates (its documentation, "Templating").
    template = jinja2.Template(
        (FILES / "templates/device.network.j2").read_text(), trim_blocks=True
    )
    wanted = {one["address"]: one["device"] for one in variables["lvs_addresses"]}
    for device in dict.fromkeys(wanted.values()):
        text = template.render(lvs_name=name, item=device, **variables)
        (directory / f"10-lvs-{name}-{device}.network").write_text(text + "\n")
    return wanted, [one["up"] for one in variables["lvs_commands"]]


@pytest.mark.parametrize("name", ["dr", "tun", "tun-gue", "dr-ipv6", "tun-ipv6"])
def test_it_takes_every_line_and_adds_the_addresses(name: str, tmp_path: Path) -> None:
    networkd = next((place for place in PLACES if Path(place).exists()), "")
    assert networkd, "systemd is not installed"
    wanted, commands = files_for(name, tmp_path)
    assert wanted
    log = tmp_path / "log"
    with namespaces("host") as (netns,), log.open("wb") as out:
        for command in commands:
            run(f"sh -ec '{command}'", netns=netns)
        script = _START.replace("HERE", str(tmp_path)).replace("NETWORKD", networkd)
        words = ["ip", "netns", "exec", netns, "sh", "-ec", script]
        with subprocess.Popen(words, stdout=out, stderr=out, stdin=subprocess.DEVNULL) as child:
            try:
                for address, device in wanted.items():
                    eventually(
                        lambda a=address, d=device: a in run(f"ip -n {netns} address show dev {d}")
                    )
            finally:
                child.terminate()
    said = log.read_text(errors="replace")
    complaints = [line for line in said.split("\n") if ".network:" in line]
    assert not complaints
