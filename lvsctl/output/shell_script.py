"""A plan as a shell script that builds the same lab without lvsctl, and removes it.

The script's parts are POSIX sh: dash and busybox run them. A lab's own values are variables at its
top (``lab``, ``namespaces``, ``state``, ``family``), never inserted into commands.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from lvsctl.model.lab import Lab, Role
from lvsctl.model.service import Protocol
from lvsctl.output.phrases import url
from lvsctl.output.text.plan import networks_and_services, paragraphs, wrap_command
from lvsctl.output.text.style import Style
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.user_command import UserCommand

FUNCTIONS = r"""
say() {
    printf '%s\n' "$lab: $*" >&2
}

refuse() {
    say "$*"
    say 'nothing was touched'
    exit 69
}

need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 ||
        refuse "the command $1 is missing (Debian and Ubuntu: apt-get install $2)"
}

exists() { # NETNS
    [ -e "/var/run/netns/$1" ] || [ -L "/var/run/netns/$1" ]
}

# The processes that run in the lab.
inhabitants() {
    for netns in $namespaces; do
        if exists "$netns"; then
            ip netns pids "$netns" 2>/dev/null || :
        fi
    done
}

# Removes the namespaces listed above, with whatever runs in them.
remove() {
    for signal in TERM KILL; do
        # shellcheck disable=SC2046  # several numbers
        kill -s "$signal" $(inhabitants) 2>/dev/null || :
        patience=30
        while [ "$patience" -gt 0 ] && [ -n "$(inhabitants)" ]; do
            patience=$((patience - 1))
            sleep 0.1
        done
    done
    for netns in $namespaces; do
        if exists "$netns"; then
            ip netns del "$netns" || return
        fi
    done
    rm -rf "$state"
}

down() {
    if [ -d "$state" ]; then
        remove
        say 'is down'
        return
    fi
    for netns in $namespaces; do
        if exists "$netns"; then
            say "there is a namespace $netns, which this script did not make"
            return 1
        fi
    done
    say 'is not up'
}

# A failure half-way leaves nothing behind.
undo() {
    status=$?
    [ "$complete" = no ] || return 0
    say 'failed; removing what was made'
    trap '' INT TERM HUP
    remove
    exit "$status"
}
""".strip("\n")

RESPOND = r"""
# A real server: answers with its own name and what it saw, in the background.
respond() { # NETNS NODE PORT [udp]
    if ! command -v python3 >/dev/null 2>&1; then
        say "no python3: nothing answers on port $3 of $2, start a server of your own there"
        return
    fi
    ip netns exec "$1" python3 "$state/respond.py" "$2" "$3" "${4-tcp}" "$family"
}
""".strip("\n")

RUN = r"""
# The topology's own command, in the background. One that fails within a moment fails the script;
# one that goes to the background by itself does not.
run() { # NETNS COMMAND...
    netns=$1
    shift
    (cd / && exec ip netns exec "$netns" nohup "$@" </dev/null >>"$state/$netns.log" 2>&1) &
    started=$!
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        sleep 0.1
        kill -0 "$started" 2>/dev/null || break
    done
    kill -0 "$started" 2>/dev/null || wait "$started" || {
        status=$?
        cat "$state/$netns.log" >&2
        return "$status"
    }
}
""".strip("\n")

RESPONDER = r'''
"""respond.py NODE PORT tcp|udp inet|inet6: listens, then answers in the background."""
import os
import socket
import socketserver
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

node, port, protocol, family = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
both = family == "inet6"  # IPv4 as well: an address of it then reads ::ffff:10.0.0.1


def said(local, peer):
    def written(address, number):
        address = address.removeprefix("::ffff:")
        return f"[{address}]:{number}" if ":" in address else f"{address}:{number}"

    return f"{node} answered on {written(*local[:2])}, request from {written(*peer[:2])}\n".encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self):
        body = said(self.connection.getsockname(), self.client_address)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Real-Server", node)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *words):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6 if both else socket.AF_INET
    request_queue_size = 128

    def server_bind(self):  # not HTTPServer's, which asks DNS for our name
        if both:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)


def answer_datagrams(sock):
    # An answer must come from the address that was asked, the VIP: IP_PKTINFO tells it.
    while True:
        _, controls, _, peer = sock.recvmsg(65535, 256)
        for level, kind, data in controls:
            if level == socket.IPPROTO_IPV6:
                local = socket.inet_ntop(socket.AF_INET6, data[:16])
                source = struct.pack("=16si", data[:16], 0)
            else:
                local = socket.inet_ntop(socket.AF_INET, data[8:12])
                source = struct.pack("=i4s4s", 0, data[8:12], bytes(4))
            sock.sendmsg([said((local, port), peer)], [(level, kind, source)], 0, peer)


try:
    if protocol == "udp":
        sock = socket.socket(socket.AF_INET6 if both else socket.AF_INET, socket.SOCK_DGRAM)
        if both:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, 8, 1)
        sock.bind(("", port))
    else:
        server = Server(("", port), Handler)
except OSError as error:
    sys.exit(f"{node}: cannot listen on {protocol} port {port}: {error.strerror}")
if os.fork():
    os._exit(0)  # it listens: the script goes on
os.setsid()
nothing = os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(nothing, stream)
if protocol == "udp":
    answer_datagrams(sock)
else:
    server.serve_forever()
'''.strip("\n")


WIDTH = 100

PLAIN = Style(color=False, width=WIDTH - 2, unicode=False)

_PACKAGES = {
    "ip": "iproute2",
    "sysctl": "procps",
    "ethtool": "ethtool",
    "tc": "iproute2",
    "ipvsadm": "ipvsadm",
}
"""The programs that resources' commands run, and the packages that have them."""

_MODULES = ("ip_vs", "ipip", "ip_gre", "fou")
"""The kernel's modules that resources need, in the order in which they are loaded."""


def script(lab: Lab, plan: Plan) -> str:
    """A POSIX sh script: ``sh dr.sh`` builds the lab, ``sh dr.sh down`` removes it.

    It refuses where a namespace of the lab exists, undoes everything where a command
    fails, and removes only what it made.
    """
    parts = [
        _header(lab, plan),
        _variables(lab, plan),
        FUNCTIONS,
        *([RESPOND] if _has(plan, ResponderPort) else []),
        *([RUN] if _has(plan, UserCommand) else []),
        _choice(),
        _checks(plan),
        _begin(plan),
        *(_stage(stage) for stage in plan.stages),
        _end(lab),
    ]
    return "\n\n".join(parts) + "\n"


def _has(plan: Plan, kind: type[Resource]) -> bool:
    return any(isinstance(op, kind) for op in plan.resources)


def _tools(plan: Plan) -> Iterator[tuple[str, str]]:
    used = {command.argv[0] for one in plan.resources for command in one.commands()}
    for program, package in _PACKAGES.items():
        if program in used or program == "ip":
            yield program, package


def _comment(text: str, indent: str = "") -> str:
    """Lines that the shell skips, whatever is in ``text``: nothing gets out of a comment."""
    lines = [
        "".join(sign if sign.isprintable() else " " for sign in line)
        for line in PLAIN.finished(text).splitlines()
    ]
    return "\n".join(f"# {indent}{line}".rstrip() for line in lines)


def _header(lab: Lab, plan: Plan) -> str:
    name = f"{lab.name}.sh"
    tools = ", ".join(command for command, _ in _tools(plan))
    answering = " Real servers\nanswer where there is python3." if _has(plan, ResponderPort) else ""
    about = f"lab {lab.name}: {lab.description}" if lab.description else f"lab {lab.name}"
    said = f"""\
{about}

{networks_and_services(lab, PLAIN)}

sh {name}         builds it: {len(plan.namespaces)} namespaces, nothing outside of them
sh {name} down    removes it

Needs root, a kernel with IPVS, and: {tools}.{answering}
Written by `lvsctl plan {lab.name} --format sh`; does what `lvsctl up {lab.name}` does."""
    return "#!/bin/sh\n" + _comment(said)


def _variables(lab: Lab, plan: Plan) -> str:
    names = "\n".join(plan.namespaces)
    return f"""\
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

lab={shlex.quote(lab.name)}
namespaces={shlex.quote(names)}
state={shlex.quote(f"/run/lvs-{lab.name}.script")} # says that the namespaces are this script's
family={"inet6" if lab.ipv6 else "inet"}
complete=yes"""


def _choice() -> str:
    return """\
case ${1-} in
    '' | up) ;;
    down)
        [ "$(id -u)" -eq 0 ] || refuse 'only root may do that'
        need ip iproute2
        down
        exit
        ;;
    *)
        printf 'usage: sh %s [up|down]\\n' "$0" >&2
        exit 2
        ;;
esac"""


def _checks(plan: Plan) -> str:
    lines = ["# Can it be built here? Nothing is touched before that is known."]
    lines += ["[ \"$(id -u)\" -eq 0 ] || refuse 'only root may make network namespaces'"]
    lines += [f"need {command} {package}" for command, package in _tools(plan)]
    needed = {module for one in plan.resources for module in one.modules()}
    modules = [name for name in _MODULES if name in needed]
    if modules:
        lines += [
            "# Now and not when first needed: a module loaded half-way puts devices of its own",
            "# into the namespaces that are there.",
            f"modprobe -qa {' '.join(modules)} 2>/dev/null || :",
        ]
    if _has(plan, IpvsService):
        lines += ["[ -e /proc/net/ip_vs ] || refuse 'this kernel has no IPVS (modprobe ip_vs)'"]
    lines += [
        "for netns in $namespaces; do",
        '    if exists "$netns"; then',
        '        refuse "there is a namespace $netns already (remove it: sh $0 down)"',
        "    fi",
        "done",
    ]
    return "\n".join(lines)


def _begin(plan: Plan) -> str:
    lines = [
        '[ ! -e "$state" ] ||',
        '    refuse "there is $state: it is being built, or was killed (sh $0 down)"',
        "mkdir \"$state\" || refuse 'it needs a place for its state'",
        "complete=no",
        "trap undo EXIT",
        "trap 'exit 130' INT",
        "trap 'exit 143' TERM HUP",
    ]
    if _has(plan, ResponderPort):
        lines += ["cat >\"$state/respond.py\" <<'END_OF_RESPONDER'", RESPONDER, "END_OF_RESPONDER"]
    return "\n".join(lines)


def _stage(stage: Stage) -> str:
    lines = [f"# {f' {stage.title} '.center(WIDTH - 2, '-')}"]
    # Namespace by namespace, as a stage allows: so each reads as one piece.
    pieces: dict[str, list[Resource]] = {}
    for op in stage.resources:
        pieces.setdefault(op.netns, []).append(op)
    for ops in pieces.values():
        lines += ["", *_paragraphs(ops)]
    return "\n".join(lines)


def _paragraphs(ops: Iterable[Resource]) -> Iterator[str]:
    for paragraph in paragraphs(ops):
        if paragraph.why:
            yield _comment(PLAIN.wrapped(paragraph.why))
        for command in paragraph.commands:
            yield from wrap_command(command, WIDTH)


def _end(lab: Lab) -> str:
    lines = ["complete=yes", 'say "is up; remove it: sh $0 down"']
    clients = lab.having(Role.CLIENT)
    asked = [service for service in lab.services if service.endpoint.protocol is Protocol.TCP]
    if clients and asked:
        ask = shlex.join(
            ["ip", "netns", "exec", lab.netns(clients[0].name), "curl", "-s", url(asked[0])]
        )
        lines.append(f"say {shlex.quote('try: ' + ask)}")
    return "\n".join(lines)
