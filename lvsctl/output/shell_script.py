"""A plan as a shell script that builds the same lab without lvsctl, and removes it.

The script's parts are POSIX sh: dash and busybox run them. A lab's own values are variables at its
top (``lab``, ``namespaces``, ``state``, ``family``), never inserted into commands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace

from lvsctl.model.lab import Lab, Role
from lvsctl.model.service import Protocol, TunnelKind
from lvsctl.output.phrases import url
from lvsctl.output.text.plan import networks_and_services, paragraphs, wrap_command
from lvsctl.output.text.style import Style
from lvsctl.plan import commanded
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.responder_port import ResponderPort, responder_program
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
            # Else IPVS's route to an IPv6 address of its own would keep the kernel waiting.
            ip -n "$netns" link set lo down || :
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
respond() { # NETNS NODE PORT [udp|sctp [ADDRESS...]]
    if ! command -v python3 >/dev/null 2>&1; then
        say "no python3: nothing answers on port $3 of $2, start a server of your own there"
        return
    fi
    netns=$1 node=$2 port=$3 protocol=${4-tcp}
    shift "$(($# > 4 ? 4 : $#))"
    ip netns exec "$netns" python3 "$state/respond.py" "$node" "$port" "$protocol" "$family" "$@"
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

OFFLOADS = r"""
# Hands frames over as a wire would carry them: checksums in, nothing merged. It changes what a
# capture shows, and not what arrives: where there is no ethtool, the lab does without.
offloads_off() { # NETNS DEVICE...
    netns=$1
    shift
    for device; do
        if ! command -v ethtool >/dev/null 2>&1; then
            [ -n "${told-}" ] || say 'no ethtool: offloads stay on, so captures show merged frames'
            told=yes
            return
        fi
        ip netns exec "$netns" ethtool -K "$device" tx off sg off tso off gso off gro off
    done
}
""".strip("\n")

RESPONDER = responder_program().rstrip("\n")


WIDTH = 100

PLAIN = Style(color=False, width=WIDTH - 2, unicode=False)

_PACKAGES = {
    "ip": "iproute2",
    "sysctl": "procps",
    "ethtool": "ethtool",
    "tc": "iproute2",
    "bridge": "iproute2",
    "ipvsadm": "ipvsadm",
}
"""The programs that resources' commands run, and the packages that have them."""

_OPTIONAL = "ethtool"
"""The program without which a script does (``OFFLOADS``)."""

_MODULES = ("ip_vs", *dict.fromkeys(kind.module for kind in TunnelKind), "fou")
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
        *([RUN] if _has(plan, UserCommand) or _has(plan, Keepalived) else []),
        *([OFFLOADS] if _has(plan, OffloadsOff) else []),
        _choice(),
        _checks(plan),
        _begin(plan),
        *(_stage(stage) for stage in _with_own_files(lab, plan)),
        _end(lab),
    ]
    return _escaped("\n\n".join(parts) + "\n")


def _with_own_files(lab: Lab, plan: Plan) -> Iterator[Stage]:
    """Yield the stages with keepalived's files in the script's own directory.

    Without what keepalived sets up itself.
    """
    for stage in commanded.without_owned(plan.stages):
        resources = (
            replace(one, directory=f"/run/lvs-{lab.name}.script")
            if isinstance(one, Keepalived)
            else one
            for one in stage.resources
        )
        yield Stage(stage.title, tuple(resources))


def _escaped(text: str) -> str:
    """Write characters that could control a terminal as printf's escapes.

    They are only in the words of commands, which are quoted with ' if they have any (comments
    have none).
    """

    def escaped(found: re.Match[str]) -> str:
        signs = "".join(sign for sign in found[0])
        octal = "".join(f"\\{byte:03o}" for byte in signs.encode(errors="surrogateescape"))
        return f"""'"$(printf '{octal}')"'"""

    return re.sub(
        r"[^\n -~]+",
        lambda run: re.sub(
            r"(?s).+?",
            lambda sign: sign[0] if sign[0].isprintable() or sign[0] == "\t" else escaped(sign),
            run[0],
        ),
        text,
    )


def _has(plan: Plan, kind: type[Resource]) -> bool:
    return any(isinstance(op, kind) for op in plan.resources)


def _tools(plan: Plan) -> Iterator[tuple[str, str]]:
    used = {command.argv[0] for one in plan.resources for command in one.commands()}
    for program, package in _PACKAGES.items():
        if (program in used and program != _OPTIONAL) or program == "ip":
            yield program, package
    if _has(plan, Keepalived):
        yield "keepalived", "keepalived"


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
    offloads: dict[str, list[str]] = {}
    others: list[Resource] = []
    for op in ops:
        if isinstance(op, OffloadsOff):
            offloads.setdefault(op.netns, []).append(op.device)
        else:
            others.append(op)
    for netns, devices in offloads.items():
        yield from wrap_command(shlex.join(["offloads_off", netns, *devices]), WIDTH)
    for paragraph in paragraphs(others):
        if paragraph.why:
            yield _comment(PLAIN.wrapped(paragraph.why))
        for command in paragraph.commands:
            if '"$1"' in command:
                yield "# shellcheck disable=SC2016  # the inner shell's own variables"
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
