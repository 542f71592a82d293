"""Whatever a topology, a capture, a report or a registry says: an error in words, and soon.

The targets and the coverage-guided fuzzer are in tests/fuzz; what it has found is in FOUND.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lvsctl.errors import DamagedFile, TopologyError, UsageError
from lvsctl.formats import readers
from lvsctl.kernel import paths
from lvsctl.output import evidence, saved_report
from lvsctl.topology import shipped
from lvsctl.topology.loading import parse_topology
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology
from tests.formats import corpus_files as corpus
from tests.fuzz.bombs import BOMBS
from tests.fuzz.targets import HOSTILE, TARGETS
from tests.unit.recorded.reports import files_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The registry, elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("run")
        patch.setattr(paths, "RUN", place / "lvsctl")
        patch.setattr(paths, "NETNS", place / "netns")
        yield


FOUND: list[tuple[str, bytes]] = [
    ("topology", b"E0"),
    ("topology", b"version: .e1"),
    ("registered", (b'{"format": 1, "boot": "%s", "lab": "dr", "topology": "", "source": "",'
     b'"overrides": {"serverss": 3}, "namespaces": [], "started": 1, "state": "up"}')),
    ("registered", (b'{"format": 1, "boot": "%s", "lab": "dr", "topology": "\\ud800", "source": "",'
     b'"overrides": {"servers": "3"}, "namespaces": [], "started": 1e300, "state": "up"}')),
    ("registered", (b'{"format": 1, "boot": "%s", "lab": "dr", "topology": "", "source": "",'
     b'"overrides": [], "namespaces": 7, "started": NaN, "state": "up"}')),
    ("registered", b"[" * 100_000),
    ("evidence", b"[" * 100_000),
    ("changed-evidence", b"\033\370\370\370"),
    ("changed-evidence", b"!\004\002\220\030)\002\373"),
]  # fmt: skip
"""What was a traceback once. ``%s`` is this boot."""


@pytest.mark.parametrize(("target", "data"), FOUND)
def test_what_was_found_once(target: str, data: bytes) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    TARGETS[target](data.replace(b"%s", boot))


def test_no_topology_costs_more_than_it_weighs() -> None:
    """Each in bounds of CPU time and memory, which the process sets itself."""
    command = [sys.executable, "-m", "tests.fuzz.bombs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(BOMBS)


often = settings(max_examples=200)
seldom = settings(max_examples=40)

hostile = st.sampled_from(HOSTILE) | st.text(max_size=20) | st.integers() | st.floats() | st.dates()
steps = st.lists(st.integers(0, 1 << 16), min_size=1, max_size=8)


def changed(tree: Any, way: list[int], value: object) -> Any:
    """A copy of ``tree`` in which one value, or one key, is another."""
    tree = deepcopy(tree)
    inner = tree
    for number, step in enumerate(way):
        places = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        place = places[step % len(places)]
        last = number == len(way) - 1 or not isinstance(inner[place], dict | list)
        if last or not inner[place]:
            if isinstance(inner, dict) and step % 5 == 0 and isinstance(value, str | int):
                inner[value] = inner.pop(place)
            else:
                inner[place] = value
            return tree
        inner = inner[place]
    return tree


@often
@given(st.binary(max_size=400) | st.text(max_size=400).map(lambda s: s.encode(errors="replace")))
@example(b"\xff\xfe")
@example(b"%YAML 9.9\n---\n")
def test_any_bytes_as_a_topology(data: bytes) -> None:
    TARGETS["topology"](data)
    TARGETS["topology"](b"{" + data)


@often
@given(
    st.sampled_from(shipped.names()), st.lists(st.tuples(steps, hostile), min_size=1, max_size=4)
)
def test_a_topology_with_anything_anywhere(
    name: str, changes: list[tuple[list[int], object]]
) -> None:
    tree = yaml.safe_load(shipped.text_of(name))
    for way, value in changes:
        if tree and isinstance(tree, dict | list):
            tree = changed(tree, way, value)
    TARGETS["topology"](yaml.dump(tree, allow_unicode=True).encode(errors="surrogatepass"))
    for ascii_only in (False, True):
        text = json.dumps(tree, ensure_ascii=ascii_only, default=str)
        TARGETS["topology"](text.encode(errors="surrogatepass"))


WORDS = (
    *("{", "}", '"', "\\", "$A", "${A}", "$A=$A", "$A= \\", "~SEQ(N, 1, 9)", "~LST(A, x, y)", "#"),
    *("@a", "@^a", "include *", "include /dev/zero", "group", "fwmark", "0", "-1", "4294967296"),
    *("10.0.0.1-300", "10.0.0.0/8", "fd00::/64", "::", "255.255.255.255", "real_server", "\0"),
    *("-a", "-t", "--tun-type", "=", "->", "virtual", "\x85", "\r"),
)
"""What a hostile configuration has where something else should be."""


@often
@given(
    st.sampled_from(corpus.FILES),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(WORDS)), min_size=1, max_size=6),
    st.integers(0, 2),
)
def test_a_configuration_with_anything_anywhere(
    file: Path, changes: list[tuple[int, str]], source: int
) -> None:
    words = re.split(r"(\s+)", file.read_text())
    for place, word in changes:
        words[place % len(words)] = word
    TARGETS["configuration"](bytes([source]) + "".join(words).encode())


@often
@given(st.binary(max_size=300))
def test_any_bytes_as_a_configuration(data: bytes) -> None:
    TARGETS["configuration"](data)


LARGE = {
    "sequences in sequences": "~SEQ(A, 1, 9999) ~SEQ(B, 1, 9999) ~SEQ(C, 1, 9999) x $A $B $C\n",
    "a definition of definitions": "".join(
        f"${chr(98 + n)}=${chr(97 + n)},${chr(97 + n)}\n" for n in range(20)
    )
    + "$u\n",
    "ranges": "virtual_server_group G {\n" + "10.0.0.0/22 80\n" * 5000 + "}\n"
    "virtual_server group G {\n~SEQ(N, 1, 250) real_server 10.1.0.$N 80 { }\n}\n" * 50,
    "blocks": "a {\n" * 20_000,
    "words": "x " * 400_000,
    "quotation marks": '" ' * 400_000,
    "real servers": "virtual_server 10.0.0.1 80 {\n"
    "~SEQ(A, 0, 250) ~SEQ(B, 1, 250) real_server 10.1.$A.$B 80 { }\n}\n",
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE.keys())
def test_no_configuration_grows_without_bounds(text: str) -> None:
    """Its time is bounded by the test suite's own limit; its lines by the readers'."""
    found = Topology("large.conf", text.encode(), "/nonexistent/large.conf")
    with pytest.raises(TopologyError):
        readers.import_file(found, readers.Source.KEEPALIVED)


@often
@given(st.binary(max_size=300))
def test_any_bytes_as_a_frame_and_as_a_capture(data: bytes) -> None:
    TARGETS["frames"](data)
    TARGETS["capture"](data)


@seldom
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_capture_with_other_bytes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(files_of("dr")["capture.pcapng"][:5000])
    for place, byte in changes:
        data[place % len(data)] = byte
    TARGETS["capture"](bytes(data))


@seldom
@given(st.binary(min_size=2, max_size=24))
def test_a_report_with_anything_anywhere(data: bytes) -> None:
    TARGETS["changed-evidence"](data)


@seldom
@given(st.binary(min_size=3, max_size=24))
def test_a_host_that_says_anything_anywhere(data: bytes) -> None:
    TARGETS["changed-host"](data)


@often
@given(st.binary(max_size=200) | st.text("ab[:]1-9.= \n{}!*&'\"", max_size=80).map(str.encode))
def test_any_inventory(data: bytes) -> None:
    TARGETS["inventory"](data)


@seldom
@given(st.binary(max_size=200))
def test_any_bytes_in_the_registry(data: bytes) -> None:
    TARGETS["registered"](data)


def test_a_report_of_pipes_and_devices_is_none(tmp_path: Path) -> None:
    """Whoever gives a directory away decides what its files are: nothing waits or fills memory."""
    (tmp_path / saved_report.CAPTURE).write_bytes(b"")
    planted: dict[str, Callable[[Path], object]] = {
        "pipe": os.mkfifo,
        "endless": lambda place: place.symlink_to("/dev/zero"),
        "device": lambda place: place.symlink_to("/dev/null"),
        "directory": Path.mkdir,
    }
    for make in planted.values():
        place = tmp_path / saved_report.EVIDENCE
        make(place)
        with pytest.raises(
            (UsageError, DamagedFile), match=r"evidence\.json is not a regular file"
        ):
            saved_report.load(tmp_path)
        place.rmdir() if place.is_dir() else place.unlink()


@pytest.mark.parametrize("name", [saved_report.EVIDENCE, saved_report.CAPTURE])
def test_a_report_that_is_too_large_is_not_read(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, content in files_of("dr").items():
        (tmp_path / part).write_bytes(content)
    with (tmp_path / name).open("r+b") as file:
        file.truncate(saved_report.LARGEST[name] + 1)  # sparse: it takes no room
    with pytest.raises(DamagedFile, match="larger than any lvsctl report"):
        saved_report.load(tmp_path)


def test_a_capture_of_too_many_frames_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of("dr")
    monkeypatch.setattr(evidence, "MOST_FRAMES", 5)
    with pytest.raises(DamagedFile, match="more than 5 frames"):
        evidence.evidence_from(files[saved_report.EVIDENCE], files[saved_report.CAPTURE])


NAMES = ("..", ".", "../x", "/etc", "a/b", "a\nb", "-rf", "$(id)", "a b", "ä", "a\0", "x" * 64, "")


@pytest.mark.parametrize("name", NAMES)
def test_a_lab_cannot_be_called_by_a_path_or_a_command(name: str) -> None:
    """Neither on the command line nor in a file; and what is called so is no lab."""
    with pytest.raises(UsageError):
        paths.of(name)
    text = shipped.text_of("dr")
    with pytest.raises(UsageError, match="--name"):
        parse_topology(text, "dr", overrides=Overrides(name=name))
    with pytest.raises(TopologyError, match="name"):
        parse_topology(text.replace("name: dr", f"name: {json.dumps(name)}"), "dr")
    with pytest.raises(TopologyError):
        parse_topology(text.replace("client:", f"{json.dumps(name)}:"), "dr")
