"""Evidence as two files: its frames as a pcapng capture, everything else as JSON.

Every verdict can be recomputed from the two. The JSON is checked strictly while it is read,
and a damaged file is refused with its mistakes. Version 1 is upgraded before it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from cattrs import BaseValidationError, transform_error

from lvsctl import __version__
from lvsctl.capture.decode import decode_all
from lvsctl.capture.pcapng import read_recording, write_recording
from lvsctl.errors import DamagedFile, LvsctlError
from lvsctl.model.evidence import Evidence, Run, gue_ports
from lvsctl.model.frame import LinkType, Recording, Tap
from lvsctl.model.lab import Lab
from lvsctl.model.service import GUE_PORT, Encapsulation, TunnelKind
from lvsctl.model.state import Dropped, NodeState
from lvsctl.output.serialize import structure_strictly, unstructure

FORMAT, VERSION = "lvsctl evidence", 2
_TUNNELS = frozenset(TunnelKind)
MOST_FRAMES = 500_000
"""Maximum of frames: each takes up to 500 bytes of memory, even an empty one."""

_MAX_LISTED = 5
"""Mistakes of a file that are listed."""


@dataclass(frozen=True, slots=True)
class Written:
    """Evidence without its frames. ``sha256`` is that of its capture."""

    format: str
    version: int
    lvsctl: str
    sha256: str
    lab: Lab
    runs: tuple[Run, ...]
    states: Mapping[str, NodeState] = field(default_factory=dict)
    counters: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    kernel_drops: tuple[Dropped, ...] = ()
    kernel_log: tuple[str, ...] = ()
    switches: Mapping[str, NodeState] = field(default_factory=dict)
    before: Mapping[str, NodeState] = field(default_factory=dict)


def capture_bytes(evidence: Evidence) -> bytes:
    """Encode the frames as pcapng; they keep their numbers."""
    links = {frame.tap: frame.raw.link for frame in evidence.frames}
    taps = {tap: links.get(tap) or _link(evidence, tap) for tap in evidence.taps}
    frames = tuple(frame.raw for frame in evidence.frames)
    stream = BytesIO()
    comment = f"lvsctl verify {evidence.lab.name}"
    write_recording(stream, Recording(taps, frames, evidence.drops), comment=comment)
    return stream.getvalue()


def _link(evidence: Evidence, tap: Tap) -> LinkType:
    """The link type of a tap without frames."""
    state = evidence.states.get(tap.node)
    link = state.link(tap.device) if state is not None else None
    return LinkType.RAW if link is not None and link.kind in _TUNNELS else LinkType.ETHERNET


def evidence_bytes(evidence: Evidence, capture: bytes) -> bytes:
    """Encode everything but the frames, which are in ``capture``."""
    written = Written(
        FORMAT, VERSION, __version__, hashlib.sha256(capture).hexdigest(),
        evidence.lab, evidence.runs, evidence.states, evidence.counters, evidence.kernel_drops,
        evidence.kernel_log, evidence.switches, evidence.before,
    )  # fmt: skip
    value = unstructure(written)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def evidence_from(written: bytes, capture: bytes, *, source: str = "evidence.json") -> Evidence:
    """Decode what ``evidence_bytes`` and ``capture_bytes`` encoded. Raises DamagedFile.

    The files may come from anyone: everything in them is checked.
    """
    found = _read(written, source)
    if hashlib.sha256(capture).hexdigest() != found.sha256:
        raise DamagedFile(
            f"the capture is not the one that {source} was written with",
            hint="both files of a report belong together and must not be changed",
        )
    try:
        recording = read_recording(BytesIO(capture), most=MOST_FRAMES)
    except LvsctlError as error:
        raise DamagedFile(f"the capture cannot be read: {error.message}") from error
    return Evidence(
        lab=found.lab,
        runs=found.runs,
        frames=decode_all(recording.frames, gue_ports=gue_ports(found.lab, found.runs)),
        taps=tuple(sorted(recording.taps)),
        drops={node: count for node, count in recording.drops.items() if count},
        states=found.states,
        switches=found.switches,
        counters=found.counters,
        kernel_drops=found.kernel_drops,
        kernel_log=found.kernel_log,
        before=found.before,
    )


def _read(written: bytes, source: str) -> Written:
    try:
        value = json.loads(written.decode())  # json accepts halves of surrogate pairs
        if b"\\u" in written:  # escapes may be such halves too
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # not UTF-8 and not JSON are both ValueError
        raise DamagedFile(f"{source} is not JSON: {error}") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DamagedFile(f"{source} is not the evidence of an lvsctl report")
    if value.get("version") == 1 and not isinstance(value["version"], bool):
        try:
            value = {**_upgraded(value), "version": VERSION}
        except RecursionError as error:
            raise DamagedFile(f"{source} is damaged: nested too deep") from error
    if value.get("version") != VERSION:
        by = f" by lvsctl {value.get('lvsctl')}" if "lvsctl" in value else ""
        raise DamagedFile(
            f"{source} has version {value.get('version')!r}, written{by}; this is lvsctl "
            f"{__version__}, which reads versions 1 and {VERSION}"
        )
    try:
        found = structure_strictly(value, Written)
    except BaseValidationError as error:
        said = transform_error(error, path=source)
        more = [f"and {len(said) - _MAX_LISTED} more"] if len(said) > _MAX_LISTED else []
        raise DamagedFile(
            "\n  ".join([f"{source} is damaged:", *said[:_MAX_LISTED], *more])
        ) from error
    _check(found, source)
    return found


def _upgraded(value: Any) -> Any:
    """Upgrade evidence of version 1; what is damaged stays so, and is refused when it is read."""
    if isinstance(value, list):
        return [_upgraded(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _upgraded(inner) for key, inner in value.items()}
    if isinstance(found.get("key"), dict):  # of a virtual service
        found = {**found.pop("key"), **found}
        if "name" in found and isinstance(found.get("real_servers"), list):  # as configured
            _add_forwarding(found)
    if "group" in found and isinstance(found.get("sysctls"), list):  # of a node
        with suppress(TypeError, ValueError):
            found["sysctls"] = dict(found["sysctls"])
    for key in _ENDPOINTS & found.keys():
        match found[key]:
            case [str(address), int(port)]:
                found[key] = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return found


def _add_forwarding(service: dict[str, Any]) -> None:
    """Give each real server the forwarding method that version 1 has for the service alone."""
    encapsulation = service.get("encapsulation")
    more = {
        "forward": service.get("forward"),
        "encapsulation": encapsulation,
        "tunnel_port": GUE_PORT if encapsulation == Encapsulation.GUE else 0,
    }
    service["real_servers"] = [
        {**server, **more} if isinstance(server, dict) else server
        for server in service["real_servers"]
    ]


_ENDPOINTS = {"local", "local_seen", "peer_seen"}
"""Fields of an ``Exchange``."""


def _check(found: Written, source: str) -> None:
    """Check what the claims rely on beyond the types."""
    nodes = {node.name for node in found.lab.nodes}
    named = {run.client for run in found.runs}
    named |= {probe.client for run in found.runs for probe in run.others}
    named |= {server.node for run in found.runs for server in run.service.real_servers}
    named |= {server.node for service in found.lab.services for server in service.real_servers}
    unknown = sorted(named - nodes)
    if unknown:
        raise DamagedFile(f"{source} names nodes that its lab does not have: {', '.join(unknown)}")
    for service in (*found.lab.services, *(run.service for run in found.runs)):
        if not service.match.endpoints:
            raise DamagedFile(
                f"{source} does not say which requests have the {service.match}: an earlier lvsctl "
                "left it out; run `lvsctl verify --report` once more"
            )
    if not found.lab.directors:
        raise DamagedFile(f"{source}: its lab has no director")
