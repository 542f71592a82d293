"""The initial namespace as independent tools see it, to hold `before` against `after`."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lvsctl.kernel.probe import which
from tests.companions import INSIDE
from tests.kernel.by_hand import eventually, run

LOOKS = (
    "link",
    "addr",
    "route show table all",
    "rule",
    "neigh show proxy",
)
"""What ip(8) is asked, by one process: in the throwaway kernel each costs a tenth of a second."""

FIREWALLS = (
    "nft list ruleset",
    "xtables-legacy-multi iptables-save",
    "xtables-legacy-multi ip6tables-save",
)

LACKING = ("not supported", "Table does not exist", "Protocol not available", "No such file")
"""How they say that this kernel has none of theirs."""

COUNTING = re.compile(
    r"\b\w+_timer +[0-9.]+|\[[0-9]+:[0-9]+\]|\b(?:valid_lft|preferred_lft|expires) +[0-9]+sec"
)
"""A bridge's timers, a firewall's counters and a lease's seconds go on by themselves."""

VOLATILE = (
    "net.netfilter.nf_conntrack_count",
    "net.core.bpf_jit_limit",
    "net.ipv4.tcp_fastopen_key",
    "net.unix.max_dgram_qlen",
)
"""Settings that count something, or that reading alone changes."""


def ip_batch(lines: Sequence[str], options: str = "-d -o") -> str:
    """What ip(8) prints for these commands, each of which must succeed; not so with -force."""
    words = [which("ip") or "ip", *options.split(), "-batch", "-"]
    asked = "\n".join(lines) + "\n"
    done = subprocess.run(words, input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "-force" in options, f"{asked}{done.stdout}{done.stderr}"
    return done.stdout


def neighbours() -> str:
    """Where the host has neighbours, and those that somebody configured.

    What it learns by itself on its own devices comes and goes meanwhile; a lab's would be
    on another device, or permanent.
    """
    lines = run("ip neigh").splitlines()
    devices = {line.split(" dev ")[1].split()[0] for line in lines}
    return "\n".join(sorted(devices) + sorted(x for x in lines if "PERMANENT" in x))


def settings() -> str:
    """All of the network's, as sysctl(8) prints them.

    Its exit status tells nothing: procps 4.0.7's is 1 wherever a setting has no value yet
    (stable_secret), 4.0.2's is 0.
    """
    words = [which("sysctl") or "sysctl", "-a", "-r", "^net"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "\nnet.ipv4.ip_forward = " in done.stdout, done.stderr
    return done.stdout


@functools.cache
def firewalls() -> tuple[str, ...]:
    """Those of FIREWALLS that are installed and that this kernel has, asked once.

    Whatever goes wrong with one of them from then on is a failure.
    """
    found = []
    for look in FIREWALLS:
        program, *words = look.split()
        if path := which(program):
            asked = subprocess.run([path, *words], capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                found.append(look)
            else:
                assert any(text in asked.stderr for text in LACKING), f"{look}: {asked.stderr}"
    return tuple(found)


def has_ipv6() -> bool:
    """Whether this kernel has it, and has it switched on."""
    return Path("/proc/thread-self/net/if_inet6").exists()


def initial_namespace() -> dict[str, str]:
    """Everything of it that a lab could spoil, by the command that shows it."""
    seen = {look: run(look) for look in ("tc qdisc", *["ip -6 rule"] * has_ipv6())}
    seen["ip"] = COUNTING.sub("", ip_batch(LOOKS))
    for look in firewalls():
        lines = COUNTING.sub("", run(look)).splitlines()
        seen[look] = "\n".join(line for line in lines if not line.startswith("#"))
    seen["neighbours"] = neighbours()
    seen["sysctl"] = "\n".join(
        line for line in settings().splitlines() if not line.startswith(VOLATILE)
    )
    seen["mounts"] = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    seen["/run/netns"] = "\n".join(sorted(p.name for p in Path("/run/netns").glob("*")))
    seen["/run/lvsctl"] = "\n".join(sorted(str(p) for p in Path("/run").glob("lvsctl/**/*")))
    for table in ("ip_vs", "ip_vs_conn"):
        path = Path("/proc/net") / table
        seen[table] = path.read_text(encoding="ascii") if path.exists() else ""
    return seen


def glance() -> dict[str, object]:
    """What can be seen of the initial namespace, and of processes, without starting any.

    For the moments of a long table; ``initial_namespace`` stands before and after it.
    """
    tables = Path("/proc/thread-self/net")
    seen: dict[str, object] = {
        name: (tables / name).read_text(encoding="ascii")
        for name in ("route", "if_inet6", "ip_vs", "ip_vs_conn")
        if (tables / name).exists()
    }
    lines = (tables / "dev").read_text(encoding="ascii").splitlines()[2:]
    seen["dev"] = sorted(line.split(":")[0].strip() for line in lines)
    seen["mounts"] = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    for place in ("/run/netns", "/run/lvsctl"):
        seen[place] = sorted(str(p) for p in Path(place).glob("**/*"))
    if INSIDE in os.environ:  # on a host, machines and others' labs come and go meanwhile
        places = map(Path, ("/tmp", "/var/tmp", "/dev/shm"))
        seen["temporary"] = sorted(str(p) for place in places for p in place.glob("lvs*"))
    seen["processes"] = processes()
    seen["files"] = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 (its own is one, always)
    return seen


def processes() -> list[int]:
    """Those that this one has forked off; where nobody else is, those in other namespaces too."""
    own = Path("/proc/self/cmdline").read_bytes(), Path("/proc/self/ns/net").stat().st_ino
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
                other = (entry / "ns/net").stat().st_ino != own[1]
                other = other and INSIDE in os.environ
                if state not in "ZX" and (other or (entry / "cmdline").read_bytes() == own[0]):
                    found.append(int(entry.name))
    return sorted(found)


def differences(before: dict[str, object], *, seconds: float = 5) -> dict[str, object]:
    """What is otherwise than ``before`` once it has come to rest. Empty: nothing."""

    def now() -> dict[str, object]:
        return {key: value for key, value in glance().items() if value != before[key]}

    with contextlib.suppress(AssertionError):
        eventually(lambda: not now(), seconds=seconds)
    return now()
