"""`lvsctl up` and `down`, the whole command, on a kernel that may have no IPVS.

    python -c 'from benchmarks.competitors.lvsctl_up import main; main()' up|down N LAB

The operations on the IPVS table are left out, as by the competitors; everything else is done:
what they do, and besides that all settings that claims rest on, offloads, the registry, waiting
until every link carries frames, and the responder that answers for the real servers.
Prints {"ms", "cpu_ms"} of the building part: from the first operation to the last, without
the responder and the waiting. Namespaces that another CPU had made before, while Python was still
reading, count for both with the CPU time that they took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

YAML = """\
version: 1
name: {lab}
networks:
  lan: {{ipv4: 10.0.0.0/16}}
nodes:
  client:   {{role: client,      networks: {{lan: 10.0.0.2}}, routes: [{route}]}}
  director: {{role: director,    networks: {{lan: 10.0.0.3}}, routes: [{route}]}}
  rs:       {{role: real-server, networks: [lan], count: {servers}, routes: [{route}]}}
services:
  - {{name: web, vip: 10.0.255.1, port: 80, forward: dr, scheduler: rr, real_servers: [rs]}}
"""
ROUTE = "{to: default, via: 10.0.0.1}"


def as_json(lab: str, servers: int) -> str:
    """The same topology as a program would write it."""
    routes = [{"to": "default", "via": "10.0.0.1"}]

    def node(role: str, **more: object) -> dict[str, object]:
        return {"role": role, "routes": routes, **more}

    nodes = {
        "client": node("client", networks={"lan": "10.0.0.2"}),
        "director": node("director", networks={"lan": "10.0.0.3"}),
        "rs": node("real-server", networks=["lan"], count=servers),
    }
    web = {"name": "web", "vip": "10.0.255.1", "port": 80, "forward": "dr", "scheduler": "rr",
           "real_servers": ["rs"]}  # fmt: skip
    networks = {"lan": {"ipv4": "10.0.0.0/16"}}
    return json.dumps(
        {"version": 1, "name": lab, "networks": networks, "nodes": nodes, "services": [web]}
    )


def leave_ipvs_out() -> None:
    from lvsctl import planner
    from lvsctl.kernel import probe
    from lvsctl.ops import AddRealServer, AddService

    planned = planner._virtual_services
    planner._virtual_services = lambda lab: (
        op for op in planned(lab) if not isinstance(op, (AddService, AddRealServer))
    )
    probe.load_ipvs = lambda: None


def watch_stages(seen: list[tuple[str, float, float]]) -> None:
    from lvsctl.cli import progress
    from lvsctl.model.event import StageBegun

    class Watching(progress.Progress):
        def __call__(self, event: object) -> None:
            if isinstance(event, StageBegun):
                seen.append((event.title, time.perf_counter(), time.process_time()))
            super().__call__(event)

    progress.Progress = Watching


def count_ahead(spent: list[float]) -> None:
    from lvsctl.kernel import netns
    from lvsctl.kernel.ahead import Ahead

    made, make = netns.create_nameless, Ahead._make

    def counted() -> int:
        begun = time.thread_time()
        try:
            return made()
        finally:
            spent.append(time.thread_time() - begun)

    def all_counted(ahead: Ahead) -> None:
        netns.create_nameless = counted
        try:
            make(ahead)
        finally:
            netns.create_nameless = made

    Ahead._make = all_counted


def told(
    seen: list[tuple[str, float, float]], ahead: list[float], file: str, stdout: TextIO
) -> None:
    """Have the building part's time printed when the command has done its work."""
    from lvsctl.cli import main

    command = main.main

    def watched(argv: Sequence[str]) -> int:
        status = command(argv)
        os.unlink(file)  # noqa: PTH108 (as below)
        (_, begun, cpu), (title, done, cpu_done) = seen[0], seen[-1]
        assert title == "servers", title
        before = sum(ahead)
        figures = {"ms": (done - begun + before) * 1e3, "cpu_ms": (cpu_done - cpu + before) * 1e3,
                   "ahead": len(ahead)}  # fmt: skip
        print(json.dumps(figures), file=stdout, flush=True)
        return status

    main.main = watched


def main(kind: str = "json") -> None:
    """The command line's words; ``kind`` is how the topology is written: json or yaml."""
    what, servers, lab = sys.argv[1:]
    lab = lab.rstrip("-")
    from lvsctl.cli.main import entry

    if what == "down":
        sys.argv[1:] = ["down", lab, "--where", "host"]
        entry()
    leave_ipvs_out()
    seen: list[tuple[str, float, float]] = []
    watch_stages(seen)
    text = as_json(lab, int(servers))
    if kind == "yaml":
        text = YAML.format(lab=lab, servers=servers, route=ROUTE)
    file = f"/run/{lab}.{kind}"  # the benchmark's own /run
    with open(file, "w") as topology:  # noqa: PTH123 (imports no more than lvsctl does)
        topology.write(text)
    ahead: list[float] = []
    count_ahead(ahead)
    told(seen, ahead, file, sys.stdout)
    sys.stdout = open("/dev/null", "w")  # noqa: SIM115, PTH123 (until the end; as above)
    sys.argv[1:] = ["up", file, "--where", "host"]
    entry()
