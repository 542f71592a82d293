"""Topologies that want to cost more than they weigh: each within limits of CPU and memory.

python -m tests.fuzz.bombs      prints what each took, in seconds of CPU
"""

from __future__ import annotations

import resource
import time

from tests.fuzz.targets import topology

CPU_SECONDS = 30
"""For each of them, on however slow a machine; a second is usual."""

MEMORY = 1 << 30

HEAD = "version: 1\nname: x\nnetworks:\n  lan: {ipv4: 10.0.0.0/8}\n"
NODES = (
    "nodes:\n  client: {role: client, networks: [lan]}\n"
    "  director: {role: director, networks: [lan]}\n"
    "  rs: {role: real-server, networks: [lan], count: 2}\n"
)
SERVICE = "  - {name: web%d, vip: 10.200.%d.%d, port: 80, forward: dr, real_servers: [rs]}\n"
MIB = 1 << 20


def _alias_bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines)


def _keys(count: int, length: int) -> str:
    return "".join(f"{'k' * length}{n}: 1\n" for n in range(count))


BOMBS = {
    "aliases": _alias_bomb(),
    "aliases of a mapping": "a: &a {" + ", ".join(f"k{n}: 1" for n in range(900)) + "}\n"
    + "".join(f"b{n}: *a\n" for n in range(60)),
    "deep list": "[" * MIB,
    "deep mapping": "{a: " * (MIB // 4),
    "deep block": "".join("  " * n + "a:\n" for n in range(1000)),
    "deep dashes": "- " * (MIB // 2),
    "question marks": "? " * (MIB // 2),
    "open quote": "a: '" + "x\n\n" * (MIB // 4),
    "folded": "a: >\n" + " x\n\n" * (MIB // 5),
    "one long word": "a" * (MIB - 10),
    "one long key": "a" * (MIB // 2) + ": 1",
    "long keys that are nearly right": "version: 1\n" + _keys(100, 1000),
    "long value of a word": HEAD + NODES + "services:\n  - {forward: " + "d" * 900_000 + "}",
    "unknown keys": "version: 1\n" + _keys(40_000, 3),
    "unknown keys that are nearly right": "".join(f"servics{n}: 1\n" for n in range(20_000)),
    "the same key": "name: x\n" * 40_000,
    "anchors": "".join(f"- &a{n} x\n" for n in range(40_000)),
    "empty lines": "\n" * (MIB - 10),
    "comments": "#\n" * (MIB // 2 - 10),
    "colons": ": " * (MIB // 2 - 1),
    "tags": "!!x " * (MIB // 4 - 1),
    "digits": "version: " + "9" * 900_000,
    "digits of a float": "version: 1." + "9" * 900_000,
    "exponent": "version: 1e999999999",
    "huge count": HEAD + NODES.replace("count: 2", "count: 999999999999"),
    "huge counts": HEAD + "nodes:\n"
    + "".join(f"  n{n}: {{role: real-server, networks: [lan], count: 1000}}\n" for n in range(900)),
    "many nodes": HEAD + "nodes:\n"
    + "".join(f"  n{n}: {{role: client, networks: [lan]}}\n" for n in range(4000)),
    "many networks": "version: 1\nname: x\nnetworks:\n"
    + "".join(f"  n{n}: {{ipv4: 10.{n // 250}.{n % 250}.0/24}}\n" for n in range(4000)),
    "networks that overlap": "version: 1\nname: x\nnetworks:\n"
    + "".join(f"  n{n}: {{ipv4: 10.0.0.0/8}}\n" for n in range(4000)),
    "one network as large as IPv6":
    HEAD.replace("10.0.0.0/8", "10.0.0.0/8, ipv6: '2000::/3'") + NODES,
    "many services": HEAD + NODES + "services:\n"
    + "".join(SERVICE % (n, n // 250, n % 250) for n in range(3000)),
    "many services without nodes": "services:\n" + "".join(
        SERVICE % (n, n // 250, n % 250) for n in range(3000)),
    "services on many real servers": HEAD + NODES.replace("count: 2", "count: 900")
    + "services:\n" + "".join(SERVICE % (n, n // 250, n % 250) for n in range(800)),
    "real servers twice": HEAD + NODES + "services:\n  - {name: w, vip: 10.9.9.9, port: 80, "
    "forward: dr, real_servers: [" + "rs, " * 30_000 + "]}\n",
    "groups": HEAD + NODES + "groups:\n"
    + "".join(f"  g{n}: [g{n + 1}, g{n + 1}, g{n + 1}]\n" for n in range(100)) + "  g100: [rs]\n"
    + "services:\n  - {name: w, vip: 10.9.9.9, port: 80, forward: dr, real_servers: [g0]}\n",
    "groups, wide": HEAD + NODES + "groups:\n"
    + "".join(f"  g{n}: [{', '.join(f'g{m}' for m in range(n + 1, 150))}]\n" for n in range(149))
    + "  g149: [rs]\n"
    + "services:\n  - {name: w, vip: 10.9.9.9, port: 80, forward: dr, real_servers: [g0]}\n",
    "routes": HEAD + NODES.replace("client, networks: [lan]", "client, networks: [lan], routes: {"
    + ", ".join(f"10.{n // 250}.{n % 250}.0/24: 10.0.0.9" for n in range(9000)) + "}"),
    "NUL": "\0" * MIB,
    "BOMs": "\ufeff" * (MIB // 3),
    "JSON, deep": '{"a": ' + "[" * (MIB - 10),
    "JSON, deep and closed": '{"a": ' * (MIB // 8) + "1" + "}" * (MIB // 8),
    "JSON, digits": '{"version": ' + "9" * 900_000 + "}",
    "JSON, one long text": '{"version": "' + "x" * 900_000 + '"}',
    "JSON, quotation marks": '{"' + '""' * (MIB // 2 - 10) + "}",
    "JSON, blanks": '{"a"' + " " * (MIB - 10),
    "JSON, many keys": "{" + ", ".join(f'"k{n}": 1' for n in range(40_000)) + "}",
    "JSON, unknown keys": "{" + ", ".join(f'"k{n}": 1' for n in range(20_000)) + "}",
    "JSON, many nodes": '{"version": 1, "name": "x", "networks": {"lan": {"ipv4": "10.0.0.0/8"}}, '
    '"nodes": {' + ", ".join(
        f'"n{n}": {{"role": "client", "networks": ["lan"]}}' for n in range(4000)) + "}}",
    "half a pair": '"\\ud800"',
    "astral": "\U0001f600" * (MIB // 4),
}  # fmt: skip


def main() -> None:
    """Each of them, in this process with its limits."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name, text in BOMBS.items():
        begun = time.process_time()
        limit = int(begun) + CPU_SECONDS + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        print(f"{name:36}", end=" ", flush=True)
        topology(text.encode(errors="surrogatepass"))
        print(f"{time.process_time() - begun:6.2f}", flush=True)


if __name__ == "__main__":
    main()
