"""The initial namespace as independent tools see it, to hold `before` against `after`."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.by_hand import run

LOOKS = (
    "ip -d -o link",
    "ip -o addr",
    "ip route show table all",
    "ip -6 route show table all",
    "ip rule",
    "tc qdisc",
)

VOLATILE = (
    "net.netfilter.nf_conntrack_count",
    "net.core.bpf_jit_limit",
    "net.ipv4.tcp_fastopen_key",
    "net.unix.max_dgram_qlen",
)
"""Settings that count something, or that reading alone changes."""


def neighbours() -> str:
    """Where the host has neighbours, and those that somebody configured.

    What it learns by itself on its own devices comes and goes meanwhile; a lab's would be
    on another device, or permanent.
    """
    lines = run("ip neigh").splitlines()
    devices = {line.split(" dev ")[1].split()[0] for line in lines}
    return "\n".join(sorted(devices) + sorted(x for x in lines if "PERMANENT" in x))


def initial_namespace() -> dict[str, str]:
    """Everything of it that a lab could spoil, by the command that shows it."""
    seen = {look: run(look) for look in LOOKS}
    seen["neighbours"] = neighbours()
    seen["sysctl"] = "\n".join(
        line for line in run("sysctl -a -r ^net").splitlines() if not line.startswith(VOLATILE)
    )
    seen["mounts"] = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    seen["/run/netns"] = "\n".join(sorted(p.name for p in Path("/run/netns").iterdir()))
    seen["/run/lvsctl"] = "\n".join(sorted(str(p) for p in Path("/run").glob("lvsctl/**/*")))
    for table in ("ip_vs", "ip_vs_conn"):
        path = Path("/proc/net") / table
        seen[table] = path.read_text(encoding="ascii") if path.exists() else ""
    return seen
