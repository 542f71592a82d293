"""Evidence as two files: its frames as a pcapng capture, everything else as JSON.

Every verdict can be computed again from the two. The JSON is lvsctl's own and mirrors the
model (``report.json`` is what programs read), so it is converted by cattrs: structures are
checked while they are read, and a file that is not what it should be is refused in words.
cattrs takes 75 ms to import, so only what reads or writes evidence imports this module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, get_args

from cattrs import BaseValidationError, transform_error
from cattrs.preconf.json import JsonConverter, make_converter

from lvsctl import __version__
from lvsctl.capture.decode import decode_all
from lvsctl.capture.pcapng import write_recording
from lvsctl.capture.pcapng_reader import read_recording
from lvsctl.errors import DamagedFile, LvsctlError
from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.counted import Dropped
from lvsctl.model.evidence import Evidence, Run
from lvsctl.model.exchange import Endpoint
from lvsctl.model.frame import LinkType, Recording, Tap
from lvsctl.model.lab import Lab
from lvsctl.model.service import ForwardingMethod
from lvsctl.model.state import NodeState

FORMAT, VERSION = "lvsctl evidence", 1
_TUNNELS = frozenset({"ipip", "gre", "sit", "ip6tnl", "ip6gre"})
_MOST_SAID = 5
"""Mistakes of a file that are listed."""
_LARGEST = 1 << 64
"""The kernel's counters are smaller, and so are seconds. To JSON, 1e999 and NaN are numbers too."""


@dataclass(frozen=True, slots=True)
class Written:
    """Evidence but its frames. ``sha256`` is that of the capture which belongs to it."""

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


def capture_bytes(evidence: Evidence) -> bytes:
    """The frames as pcapng: the number of a frame there is its number here."""
    links = {frame.tap: frame.raw.link for frame in evidence.frames}
    taps = {tap: links.get(tap) or _link(evidence, tap) for tap in evidence.taps}
    frames = tuple(frame.raw for frame in evidence.frames)
    stream = BytesIO()
    comment = f"lvsctl verify {evidence.lab.name}"
    write_recording(stream, Recording(taps, frames, evidence.drops), comment=comment)
    return stream.getvalue()


def _link(evidence: Evidence, tap: Tap) -> LinkType:
    """How the frames of a silent tap would have begun."""
    state = evidence.states.get(tap.node)
    link = state.link(tap.device) if state is not None else None
    return LinkType.RAW if link is not None and link.kind in _TUNNELS else LinkType.ETHERNET


def evidence_bytes(evidence: Evidence, capture: bytes) -> bytes:
    """Everything but the frames, which are in ``capture``."""
    written = Written(
        FORMAT, VERSION, __version__, hashlib.sha256(capture).hexdigest(),
        evidence.lab, evidence.runs, evidence.states, evidence.counters, evidence.kernel_drops,
        evidence.kernel_log,
    )  # fmt: skip
    value = converter_of(strict=True).unstructure(written)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def evidence_from(written: bytes, capture: bytes, *, source: str = "evidence.json") -> Evidence:
    """What ``evidence_bytes`` and ``capture_bytes`` wrote. Raises DamagedFile.

    The files may be anybody's: nothing in them is believed.
    """
    found = _read(written, source)
    if hashlib.sha256(capture).hexdigest() != found.sha256:
        raise DamagedFile(
            f"the capture is not the one that {source} was written with",
            hint="both files of a report belong together and must not be changed",
        )
    try:
        recording = read_recording(BytesIO(capture))
    except LvsctlError as error:
        raise DamagedFile(f"the capture cannot be read: {error.message}") from error
    return Evidence(
        lab=found.lab,
        runs=found.runs,
        frames=decode_all(recording.frames),
        taps=tuple(sorted(recording.taps)),
        drops={node: count for node, count in recording.drops.items() if count},
        states=found.states,
        counters=found.counters,
        kernel_drops=found.kernel_drops,
        kernel_log=found.kernel_log,
    )


def _read(written: bytes, source: str) -> Written:
    try:
        value = json.loads(written.decode())  # json would let halves of surrogate pairs through
        if b"\\u" in written:  # escapes may be such halves too; lvsctl writes hardly any
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # not UTF-8 and not JSON are both ValueError
        raise DamagedFile(f"{source} is not JSON: {error}") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DamagedFile(f"{source} is not the evidence of an lvsctl report")
    if value.get("version") != VERSION:
        by = f" by lvsctl {value.get('lvsctl')}" if "lvsctl" in value else ""
        raise DamagedFile(
            f"{source} has version {value.get('version')!r}, written{by}; this is lvsctl "
            f"{__version__}, which reads version {VERSION}"
        )
    try:
        found = converter_of(strict=True).structure(value, Written)
    except BaseValidationError as error:
        said = transform_error(error, path=source)
        more = [f"and {len(said) - _MOST_SAID} more"] if len(said) > _MOST_SAID else []
        raise DamagedFile(
            "\n  ".join([f"{source} is damaged:", *said[:_MOST_SAID], *more])
        ) from error
    _check(found, source)
    return found


def _check(found: Written, source: str) -> None:
    """What the judges take for granted, and the types do not say."""
    nodes = {node.name for node in found.lab.nodes}
    named = {run.client for run in found.runs}
    named |= {server.node for run in found.runs for server in run.service.real_servers}
    named |= {server.node for service in found.lab.services for server in service.real_servers}
    unknown = sorted(named - nodes)
    if unknown:
        raise DamagedFile(f"{source} names nodes that its lab does not have: {', '.join(unknown)}")
    if not found.lab.directors:
        raise DamagedFile(f"{source}: its lab has no director")


def _strictly(kind: type, *also: type) -> Callable[[Any, Any], Any]:
    """cattrs would make a number of the text "1", and True of any text: read as written.

    The hook for str is also that of every StrEnum, so the type that is wanted makes the value.
    """

    def structure(value: Any, wanted: Any) -> Any:
        if (isinstance(value, bool) and kind is not bool) or not isinstance(value, (kind, *also)):
            raise ValueError(f"{kind.__name__} expected, found {value!r:.40}")
        if isinstance(value, (int, float)) and not abs(value) < _LARGEST:
            raise ValueError(f"{value!r:.40} cannot be: it is too large, or no number")
        return wanted(value)

    return structure


def _address(make: Callable[[str], Any], *, or_none: bool) -> Callable[[Any, Any], Any]:
    """Addresses are text only: of a number, ipaddress makes an address too."""

    def structure(value: Any, _: Any) -> Any:
        if or_none and value is None:
            return None
        if not isinstance(value, str):
            raise ValueError(f"an address expected, found {value!r:.40}")
        return make(value)

    return structure


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)


def _endpoint(value: Any, _: Any) -> Endpoint:
    match value:
        case [str(address), int(port)] if not isinstance(port, bool):
            return Endpoint(ip_address(address), port)
    raise ValueError(f"[address, port] expected, found {value!r:.40}")


_ADDRESSES: tuple[tuple[Any, Callable[[str], Any]], ...] = (
    (IPAddress, ip_address),
    (IPInterface, ip_interface),
    (IPNetwork, ip_network),
)


@cache
def converter_of(*, strict: bool) -> JsonConverter:
    """Between JSON and the model's types; ``strict``: a key that is not known is a mistake."""
    converter = make_converter(forbid_extra_keys=strict)
    for kind, make in _ADDRESSES:
        # To cattrs `IPAddress | None` is a union of three, and has nothing to do with IPAddress.
        for union, or_none in ((kind, False), (kind | None, True)):
            converter.register_structure_hook(union, _address(make, or_none=or_none))
            converter.register_unstructure_hook(union, _text_or_none)
        for one in get_args(kind):
            converter.register_unstructure_hook(one, str)
    # A NamedTuple is a tuple to cattrs, which leaves what is in it alone.
    converter.register_structure_hook(Endpoint, _endpoint)
    converter.register_unstructure_hook(Endpoint, lambda end: [str(end.address), end.port])
    converter.register_structure_hook(
        Endpoint | None, lambda value, _: None if value is None else _endpoint(value, Endpoint)
    )
    converter.register_unstructure_hook(
        Endpoint | None, lambda end: None if end is None else [str(end.address), end.port]
    )
    for plain in (int, str, bool):
        converter.register_structure_hook(plain, _strictly(plain))
    converter.register_structure_hook(float, _strictly(float, int))
    # IPVS has methods that are none of ours (local, bypass): those stay text.
    ours = frozenset(map(str, ForwardingMethod))
    converter.register_structure_hook(
        ForwardingMethod | str,
        lambda value, _: ForwardingMethod(value) if value in ours else str(value),
    )
    converter.register_unstructure_hook(ForwardingMethod | str, str)
    return converter
