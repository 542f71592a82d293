"""The dr shape as a topology file for lvsctl."""

from __future__ import annotations

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


def write_topology(lab: str, servers: int, into: Path) -> Path:
    """The file ``LAB.yaml``."""
    file = into / f"{lab}.yaml"
    file.write_text(YAML.format(lab=lab, servers=servers, route=ROUTE))
    return file
