"""The dr shape as topology files for lvsctl: one in YAML, one as a program would write it."""

from __future__ import annotations

import json
from pathlib import Path

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


def format_endpoint(kind: str, lab: str, servers: int, into: Path) -> Path:
    """The file ``LAB.KIND``, ``kind`` json or yaml."""
    file = into / f"{lab}.{kind}"
    if kind == "yaml":
        file.write_text(YAML.format(lab=lab, servers=servers, route=ROUTE))
    else:
        file.write_text(as_json(lab, servers))
    return file


def as_json(lab: str, servers: int) -> str:
    """The topology in JSON."""
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
