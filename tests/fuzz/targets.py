"""What is fed to lvsctl that may be anybody's, and what may come of it.

Each target takes bytes and either returns or raises what a user is told; anything else, an
endless loop and memory out of proportion included, is a bug. The property-based tests
(``tests/unit/test_hostile.py``) and the coverage-guided fuzzer (``fuzz.py``) share them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from io import BytesIO
from pathlib import Path

from lvsctl import modes
from lvsctl.capture.decode import decode_all
from lvsctl.capture.pcapng import CaptureFileError, read_recording
from lvsctl.engine import ask_hosts
from lvsctl.engine.ask_hosts import Asked
from lvsctl.engine.check import check
from lvsctl.engine.clocks import clock_offsets
from lvsctl.engine.findings import Verification
from lvsctl.engine.inspect import recompute
from lvsctl.engine.labs import list_labs, running_lab
from lvsctl.errors import DamagedFile, LvsctlError, TopologyError
from lvsctl.formats import readers
from lvsctl.formats.hosts import reader
from lvsctl.formats.hosts.frames import read_frames
from lvsctl.formats.hosts.inventory import read_inventory
from lvsctl.kernel import paths, registry
from lvsctl.kernel.state import parse_connections
from lvsctl.model.frame import Direction, LinkType, RawFrame, Tap
from lvsctl.output import saved_report, shell_script
from lvsctl.output.evidence import evidence_bytes, evidence_from
from lvsctl.output.serialize import to_json
from lvsctl.output.text.check import format_check
from lvsctl.output.text.labs import format_labs
from lvsctl.output.text.plan import format_plan
from lvsctl.output.text.style import Style
from lvsctl.plan import planner
from lvsctl.topology import shipped
from lvsctl.topology.loading import parse_topology
from lvsctl.topology.shipped import Topology
from tests.unit.recorded import reports
from tests.unit.recorded.reports import evidence_of, files_of

PLAIN = Style(color=False, width=80)

HOSTILE: tuple[object, ...] = (
    None, True, -1, 0, 1 << 64, 10**300, 0.5, float("nan"), float("inf"), -1e300, "", "x" * 5000,
    "<script>alert(1)</script>", "$(touch /tmp/owned)", "../../etc/passwd", "\x1b[31m", "\0",
    "\ud800",
    "rs1", "director", "client", "10.10.0.100", "::1", "fe80::1%lan", "255.255.255.255", "::",
    "1970-01-01", [], {}, [[]], ["rs1"], {"node": "rs1"}, [0] * 1000,
)  # fmt: skip
"""What stands in a hostile file where something else should."""


def topology(data: bytes) -> None:
    """A topology file: a lab, with a plan and its texts, or TopologyError."""
    try:
        lab = parse_topology(data, "fuzz.yaml", rules=modes.violations)
    except TopologyError as error:
        error.message.encode()
        return
    if len(lab.nodes) <= 30:  # what comes next is in proportion
        plan = planner.plan_for(lab)
        shell_script.script(lab, plan)
        format_plan(plan, style=PLAIN)
        json.dumps(to_json(lab))


def configuration(data: bytes) -> None:
    """A file in another program's format: a topology that can be read, or TopologyError.

    The first byte chooses the format; one that includes files may do so from an empty directory.
    """
    sources = tuple(readers.Source)
    source = sources[data[0] % len(sources)] if data else sources[0]
    found = Topology("fuzz.conf", data[1:], "/nonexistent/fuzz.conf")
    readers.detect(found.text.decode(errors="replace"))
    try:
        imported = readers.import_file(found, source, "fuzz")
    except TopologyError as error:
        error.message.encode()
        return
    if len(imported.text) < 50_000:
        topology(imported.text.encode())


def capture(data: bytes) -> None:
    """A pcapng file: frames, decoded and described, or CaptureFileError."""
    with contextlib.suppress(CaptureFileError):
        recording = read_recording(BytesIO(data))
        for frame in decode_all(recording.frames):
            frame.summary().encode()


def frames(data: bytes) -> None:
    """Frames of each link type: decoded as far as they go, and described."""
    taps = {LinkType.ETHERNET: Tap("a", "lan"), LinkType.RAW: Tap("a", "tunl0")}
    for number, (link, tap) in enumerate(taps.items()):
        raw = RawFrame(number, tap, Direction.IN, link, len(data), data, checksum_pending=False)
        for frame in decode_all([raw]):
            frame.summary().encode()


def evidence(data: bytes) -> None:
    """The evidence.json of a report: judged, and reported in every format, or DamagedFile."""
    files = files_of("dr")
    try:
        found = evidence_from(data, files["capture.pcapng"])
    except DamagedFile as error:
        error.message.encode(errors="replace")
        return
    judged(recompute(found))


def changed_evidence(data: bytes) -> None:
    """The same with some values of a real report's exchanged: ``data`` says which, by what."""
    files = files_of("dr")
    written = files["evidence.json"]  # of version 1
    if data[:1] > b"\x7f":
        written = evidence_bytes(evidence_of("dr"), files["capture.pcapng"])
    found = json.loads(written)
    choices = iter(data[:64])
    for start in choices:
        _change(found, start, choices)
    evidence(json.dumps(found).encode())


def _change(found: object, choice: int, choices: Iterator[int]) -> None:
    """Go down into ``found``, a byte for each step, and exchange what is there."""
    while True:
        steps = list(found) if isinstance(found, dict) else list(range(len(found)))  # type: ignore[arg-type]
        if not steps:
            return
        step = steps[choice % len(steps)]
        inner = found[step]  # type: ignore[index]
        choice = next(choices, 0)
        if not isinstance(inner, (dict, list)) or not inner or choice > 250:
            found[step] = deepcopy(HOSTILE[choice % len(HOSTILE)])  # type: ignore[index]
            return
        found = inner


def judged(verification: Verification) -> None:
    """Every report of it."""
    saved_report.report_files(verification)


def registered(data: bytes) -> None:
    """The registry's entry of a lab: listed, whatever it says."""
    directory = paths.of("dr").directory
    directory.mkdir(parents=True, exist_ok=True)
    paths.of("dr").registry.write_bytes(data)
    paths.of("dr").faults.write_bytes(data)
    listed = list_labs()
    assert len(listed) == 1
    format_labs(listed, style=PLAIN)
    json.dumps(to_json(labs=listed))
    paths.read_faults("dr")
    with contextlib.suppress(LvsctlError):
        running_lab("dr")
    assert registry.read("dr") is not None


def host(data: bytes) -> None:
    """What a host printed: a state that can be judged, or DamagedFile."""
    try:
        found = reader.read_host(data, "rs1")
    except DamagedFile as error:
        error.message.encode()
        return
    hosts = [Asked(name, reader.read_host(HOSTS[name], name)) for name in ("lb", "web2")]
    lab = planner.load_lab(Topology("dr.yaml", shipped.path_of("dr").read_bytes(), "dr"))
    result = check(lab, [*hosts, Asked("rs1", found)])
    shown = format_check(result, style=PLAIN)
    shown.encode()
    assert not [sign for sign in shown if not (sign.isprintable() or sign == "\n")]
    json.dumps(to_json(result))


def changed_host(data: bytes) -> None:
    """The same of a real host, with values exchanged: ``data`` says which, by what."""
    lines = HOSTS["web1"].decode().split("\n")
    choices = iter(data[:64])
    for start in choices:
        number = (start << 8 | next(choices, 0)) % len(lines)
        choice = next(choices, 0)
        if lines[number].startswith("|[{"):
            value = json.loads(lines[number][1:])
            _change(value, choice, choices)
            lines[number] = f"|{json.dumps(value)}"
        else:
            words = lines[number].split(" ")
            words[choice % len(words)] = str(HOSTILE[choice % len(HOSTILE)])
            lines[number] = " ".join(words)
    host("\n".join(lines).encode(errors="replace"))


def host_frames(data: bytes) -> None:
    """What a host captured: frames that can be decoded and put in order, or DamagedFile."""
    try:
        found = read_frames(data, "rs1", "rs1", ["eth1"])
    except DamagedFile as error:
        error.message.encode()
        return
    clock_offsets(decode_all(found.frames), "client")
    assert all(one.tap.node == "rs1" for one in found.frames)
    with contextlib.suppress(ValueError):  # which is reported
        parse_connections(found.connections)


def inventory(data: bytes) -> None:
    """An inventory: hosts that ssh can be given, or TopologyError."""
    try:
        found = read_inventory(data, "hosts")
    except TopologyError as error:
        error.message.encode()
        return
    for one in found[:50]:
        words = ask_hosts.command(one, 5, sudo=False)
        assert not words[words.index("--") + 1].startswith("-")
        assert all(word.isprintable() for word in words)


HOSTS = {
    path.stem: path.read_bytes() for path in sorted(Path(reports.__file__).parent.glob("hosts/*"))
}
"""What was collected on real hosts, by their names."""

TARGETS: dict[str, Callable[[bytes], None]] = {
    "topology": topology,
    "configuration": configuration,
    "capture": capture,
    "frames": frames,
    "evidence": evidence,
    "changed-evidence": changed_evidence,
    "registered": registered,
    "host": host,
    "changed-host": changed_host,
    "host-frames": host_frames,
    "inventory": inventory,
}
