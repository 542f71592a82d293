"""Nodes of a lab as hosts for Ansible: each with its own /etc and /run, and a System V init.

They are what a host has before it is part of LVS: addresses, routes, a server.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from lvsctl.formats import writers
from lvsctl.kernel.probe import which
from lvsctl.model.lab import Lab, Role
from lvsctl.plan import planner
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.marks import Marks
from lvsctl.resources.masquerade import Masquerade
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel
from tests.kernel.by_hand import end_keepalived, install_iptables, run
from tests.witness import witness

_CONNECTION = '''
DOCUMENTATION = """
    name: node
    short_description: a node of a lab
    options:
        node:
            description: the name of the node
            vars: [{name: inventory_hostname}]
    extends_documentation_fragment: [connection_pipelining]
"""
import shlex
from ansible.plugins.connection import local

class Connection(local.Connection):
    transport = "node"

    def exec_command(self, cmd, in_data=None, sudoable=True):
        node = self.get_option("node")
        return super().exec_command(f"ENTER {node} {shlex.quote(cmd)}", in_data, sudoable)
'''

_CONFIG = """
[defaults]
# 1 ms by default: with one CPU, and system calls as dear as the throwaway kernel's, the controller
# would take most of the time from the modules that it waits for.
internal_poll_interval = 0.05
"""

_PYTHON = """#!/bin/sh
# What all modules import is compiled already. Otherwise each of them compiles the copy that it has,
# which takes longer than all else that it does.
[ $# = 0 ] || exec PYTHON "$@"
exec PYTHON -c 'import sys, ansible.module_utils.basic
exec(compile(sys.stdin.buffer.read(), "<stdin>", "exec"))'
"""

_ENTER = """#!/bin/sh
# enter NODE COMMAND: in its namespace, with its own /etc and /run, and with iptables installed
exec ip netns exec "lvs-LAB-$1" sh -c '
    mount --bind HERE/sbin /usr/local/sbin &&
    mount --bind "HERE/$1/etc" /etc && mount --bind "HERE/$1/run" /run && eval "$2"' sh "$1" "$2"
"""

_INIT = """#!/bin/sh
### BEGIN INIT INFO
# Provides: keepalived
# Required-Start: $remote_fs
# Required-Stop: $remote_fs
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
PATH=PROGRAMS
export PATH
pid=$(cat /run/keepalived.pid 2>/dev/null)
running() { [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; }
wait_for() { for _ in $(seq 100); do "$@" && return; sleep 0.1; done; return 1; }
gone() { ! running; }
case $1 in
start | restart)
    if running; then kill "$pid"; wait_for gone; fi
    keepalived -f /etc/keepalived/keepalived.conf </dev/null >/dev/null 2>&1
    wait_for test -s /run/keepalived.pid
    ;;
stop) if running; then kill "$pid"; wait_for gone; fi ;;
reload) kill -HUP "$pid" ;;
status) running || exit 3 ;;
esac
"""

_MODPROBE = """#!/bin/sh
# The throwaway kernel has no modprobe(8), only what the kernel itself runs.
[ "$1" != -a ] || shift
for module; do /HELPER -q -- "$module" || :; done
"""


class Hosts:
    """The real servers and directors of a running lab, and the playbooks for them."""

    def __init__(self, lab: Lab, directory: Path, *, vrrp_only: bool = False) -> None:
        """``vrrp_only``: this kernel has no IPVS, so keepalived does without virtual servers."""
        self._lab, self._here = lab, directory
        nodes = [node for role in _ROLES for node in lab.having(role)]
        self.names = [node.name for node in nodes]
        self._links = {lab.netns(node.name): node.networks for node in nodes}
        self._write(_files(lab), directory / "site")
        programs = directory / "bin"
        tools = {Path(witness(one)).parent for one in ("keepalived", "ipvsadm", "ifup", "ifdown")}
        path = os.pathsep.join([str(programs), *map(str, tools), _SYSTEM, os.environ["PATH"]])
        self._script(programs / "enter", self._filled(_ENTER))
        (directory / "sbin").mkdir()
        install_iptables(directory / "sbin")  # ifup has its own PATH
        self._script(programs / "python", _PYTHON.replace("PYTHON", shlex.quote(sys.executable)))
        self._script(programs / "modprobe", _MODPROBE.replace("/HELPER", _module_helper()))
        if vrrp_only:
            self._script(
                programs / "keepalived", f'#!/bin/sh\nexec {witness("keepalived")} -P "$@"\n'
            )
        (directory / "ansible.cfg").write_text(_CONFIG)
        plugins = directory / "plugins"
        plugins.mkdir()
        (plugins / "node.py").write_text(_CONNECTION.replace("ENTER", str(programs / "enter")))
        for name in self.names:
            (directory / name / "run").mkdir(parents=True)
            etc = directory / name / "etc"
            hooks = [f"network/if-{when}.d" for when in ("pre-up", "up", "down", "post-down")]
            for part in (*hooks, "init.d", "network/interfaces.d", "modules-load.d", "sysctl.d"):
                (etc / part).mkdir(parents=True)
            for part in ("passwd", "group", "hosts", "nsswitch.conf", "ld.so.cache", "ld.so.conf"):
                if Path("/etc", part).exists():
                    shutil.copy(Path("/etc", part), etc / part)
            (etc / "network/interfaces").write_text("source /etc/network/interfaces.d/*\n")
            self._script(etc / "init.d/keepalived", _INIT.replace("PROGRAMS", f"'{path}'"))
        self._environment = {
            **os.environ,
            "PATH": path,
            "HOME": str(directory),
            "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
            "ANSIBLE_HOME": str(directory / "ansible"),
            "ANSIBLE_REMOTE_TEMP": str(directory / "remote"),
            "ANSIBLE_CONNECTION_PLUGINS": str(plugins),
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_NOCOLOR": "True",
            "LC_ALL": "C.UTF-8",
        }

    def _filled(self, text: str) -> str:
        return text.replace("HERE", str(self._here)).replace("LAB", self._lab.name)

    @staticmethod
    def _write(files: dict[str, str], directory: Path) -> None:
        for name, text in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)

    @staticmethod
    def _script(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def strip(self) -> None:
        """Take away what makes the nodes a part of LVS."""
        for director in self._lab.directors:
            end_keepalived(self._lab.netns(director.name))  # the lab's own, where there are two
        for one in reversed(self._lvs()):
            if isinstance(one, Sysctl):
                # Not what the plan wants, also where that is 0 and a host's own value is not.
                other = int(one.value == "0")
                for setting in (one, *one.of_links(self._links[one.netns])):
                    run(f"sysctl -qe -w {setting.name}={other}", netns=one.netns)
            elif isinstance(one, IpvsService):
                run("ipvsadm -C", netns=one.netns)
            elif isinstance(one, Tunnel):
                run(f"ip link del {one.device}", netns=one.netns)
            else:
                for command in one.undo_commands():
                    run(shlex.join(["sh", "-c", str(command)]))

    def _lvs(self) -> list[Resource]:
        vips = {vip for service in self._lab.services for vip in service.vips}
        kinds = (GuePort, IpvsService, Marks, Masquerade, Tunnel)
        return [
            one
            for one in planner.plan_for(self._lab).resources
            if one.netns in self._links
            and (
                isinstance(one, kinds)
                or (isinstance(one, Sysctl) and not one.base)
                or (isinstance(one, Address) and one.address.ip in vips)
            )
        ]

    def play(self, book: str, *options: str) -> str:
        """What ansible-playbook prints; it must succeed."""
        variables = {
            "ansible_connection": "node",
            "ansible_become": False,
            "ansible_python_interpreter": str(self._here / "bin/python"),
            "lvs_install": False,
        }
        words = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.yml"]
        words += ["-e", json.dumps(variables)]
        done = subprocess.run(
            [*words, *options, f"{book}.yml"],
            cwd=self._here / "site",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        """End what the hosts run."""
        for name in self.names:
            subprocess.run(
                [str(self._here / "bin/enter"), name, "/etc/init.d/keepalived stop"],
                env=self._environment,
                check=False,
            )


def changed(recap: str) -> list[int]:
    """How many tasks changed something on each host."""
    return [int(found) for found in re.findall(r" changed=(\d+)", recap)]


_ROLES = (Role.REAL_SERVER, Role.DIRECTOR)
_SYSTEM = "/usr/sbin:/sbin"


def _files(lab: Lab) -> dict[str, str]:
    resources: Iterable[Resource] = planner.plan_for(lab).resources
    return writers.export(lab, resources, writers.Target.ANSIBLE)


def _module_helper() -> str:
    return which("modprobe") or "/run/modprobe"
