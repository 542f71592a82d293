"""pcapng: what is written is read back, and no file can do harm."""

from __future__ import annotations

import contextlib
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.capture import pcapng
from lvsctl.capture.pcapng import CaptureFileError, PcapngWriter, read_recording, write_recording
from lvsctl.model.frame import Direction, LinkType, RawFrame, Recording, Tap

names = st.text("abcdefghijklmnop-0123456789", min_size=1, max_size=15)
taps = st.builds(Tap, names, names)


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    links = draw(st.dictionaries(taps, st.sampled_from(LinkType), min_size=1, max_size=5))
    contents = draw(st.lists(st.binary(max_size=80), max_size=12))
    frames = tuple(
        RawFrame(
            draw(st.integers(0, 2**63)), tap := draw(st.sampled_from(sorted(links))),
            draw(st.sampled_from(Direction)), links[tap],
            len(content) + draw(st.integers(0, 9000)), content, draw(st.booleans()),
        )
        for content in contents
    )  # fmt: skip
    nodes = sorted({tap.node for tap in links})
    drops = {node: draw(st.integers(0, 2**64 - 1)) for node in nodes}
    numbers = st.integers(1, max(1, len(frames)))
    comments = st.dictionaries(numbers, st.text(min_size=1, max_size=20).filter(encodable))
    return Recording(links, frames, drops, draw(comments) if frames else {})


def encodable(text: str) -> bool:
    return text == text.encode(errors="replace").decode()


def written(recording: Recording) -> bytes:
    stream = io.BytesIO()
    write_recording(stream, recording, comment="made by a test")
    return stream.getvalue()


def read(content: bytes) -> Recording:
    return read_recording(io.BytesIO(content))


@given(recordings())
def test_what_is_written_is_read_back(recording: Recording) -> None:
    assert read(written(recording)) == recording


ONE = Recording(
    {Tap("director", "lan"): LinkType.ETHERNET, Tap("rs1", "tunl0"): LinkType.RAW},
    (RawFrame(5, Tap("rs1", "tunl0"), Direction.IN, LinkType.RAW, 9, b"E23456789"),),
    {"director": 0, "rs1": 2},
    {1: "evidence"},
)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=6),
       st.integers(0, 600))  # fmt: skip
def test_a_damaged_file_is_an_error_or_a_recording(edits: list[tuple[int, int]], end: int) -> None:
    content = bytearray(written(ONE))
    for at, value in edits:
        if at < len(content):
            content[at] = value
    with contextlib.suppress(CaptureFileError):
        read(bytes(content[:end]))


@given(st.binary(max_size=200))
def test_garbage_is_an_error(garbage: bytes) -> None:
    for prefix in (b"", written(ONE)[:32]):
        with contextlib.suppress(CaptureFileError):
            read(prefix + garbage)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    return block(pcapng.SECTION, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(order: str = "<", link: int = 1, options: bytes = b"") -> bytes:
    return block(pcapng.INTERFACE, struct.pack(order + "HHI", link, 0, 0) + options, order)


def enhanced(order: str = "<", index: int = 0, captured: int = 4, data: bytes = b"abcd") -> bytes:
    head = struct.pack(order + "5I", index, 0, 1_000_000, captured, 60)
    return block(pcapng.ENHANCED, head + data, order)


@pytest.mark.parametrize("order", ["<", ">"])
def test_another_programs_file(order: str) -> None:
    """Either byte order, microseconds where nothing is said, no names, no directions."""
    recording = read(section(order) + interface(order) + enhanced(order))

    tap = Tap("", "if0")
    frame = RawFrame(10**9, tap, Direction.UNKNOWN, LinkType.ETHERNET, 60, b"abcd")
    assert recording == Recording({tap: LinkType.ETHERNET}, (frame,))


def test_other_clocks_and_simple_packets() -> None:
    resolution = struct.pack("<HHB3x", pcapng.IF_TSRESOL, 1, 0x80 | 10)  # 1/1024 s
    offset = struct.pack("<HHq", pcapng.IF_TSOFFSET, 8, 100)
    simple = block(pcapng.SIMPLE, struct.pack("<I", 3) + b"abc\0")

    frames = read(section() + interface(options=resolution + offset) + enhanced() + simple).frames

    assert frames[0].time == 1_000_000 * 10**9 // 1024 + 100 * 10**9
    assert frames[1].data == b"abc"


def test_unknown_blocks_and_link_types_are_left_out() -> None:
    wireless = interface(link=105)
    recording = read(section() + block(0xBAD, b"\0" * 8) + wireless + enhanced() + section())

    assert recording.frames == ()
    assert recording.taps == {}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xd4\xc3\xb2\xa1" + bytes(20), "not a pcapng file"),
        (b"\x0a\x0d", "the file is cut off at byte 0"),
        (section()[:20], "the file is cut off within the block at byte 0"),
        (section() + struct.pack("<II", 1, 8), "the block at byte 28 has length 8"),
        (section() + struct.pack("<II", 1, 0xFFFFFFF0), "the block at byte 28 has length"),
        (section()[:-4] + bytes(4), "the block at byte 0 does not end as it begins"),
        (section() + enhanced(), "interface 0 is not described"),
        (section() + interface() + section() + enhanced(), "interface 0 is not described"),
        (section() + interface() + enhanced(captured=500), "a frame of 500 bytes in a block of 24"),
        (section() + block(pcapng.INTERFACE, b"\1\0\0\0"), "an interface is cut off"),
        (section() + interface(options=b"\2\0\x40\0"), "option 2 is longer than its block"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said(content: bytes, why: str) -> None:
    with pytest.raises(CaptureFileError) as caught:
        read(content)

    assert caught.value.message.startswith(why)


def test_a_file_without_an_end_can_be_read() -> None:
    """`lvsctl capture -w` interrupted the hard way, or still running."""
    stream = io.BytesIO()
    PcapngWriter(stream).write(ONE.frames[0])

    assert read(stream.getvalue()).frames == ONE.frames


def test_each_frame_leaves_at_once_where_it_is_asked_for() -> None:
    flushed: list[int] = []

    class Pipe(io.BytesIO):
        def flush(self) -> None:
            flushed.append(self.tell())

    pipe = Pipe()
    writer = PcapngWriter(pipe, flush=True)
    writer.write(ONE.frames[0])

    assert flushed[-1] == pipe.tell()


def test_an_empty_file_is_no_capture() -> None:
    with pytest.raises(CaptureFileError):
        read(b"")
