"""The frames between client, broker and agent, without any of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.machine import frames

some_frames = st.lists(
    st.tuples(st.integers(1, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300)), max_size=8
)


@given(some_frames, st.data())
def test_frames_survive_any_chopping(
    sent: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(frames.frame(*one) for one in sent)
    decoder = frames.Decoder()
    received = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += decoder.feed(stream[:size])
        stream = stream[size:]
    assert received == sent


def test_an_impossible_length_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(frames.FrameError, match="4294967295 bytes"):
        frames.Decoder().feed(b"\x01" + b"\x00" * 4 + b"\xff" * 4)


@pytest.mark.parametrize("payload", [b"", b"123", b"12345"])
def test_a_bad_number_is_a_frame_error(payload: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.number_of(payload)
    with pytest.raises(frames.FrameError):
        frames.pair_of(payload)


def test_numbers_and_pairs() -> None:
    assert frames.number_of(frames.number(143)) == 143
    assert frames.pair_of(frames.pair(24, 80)) == (24, 80)


@given(st.lists(st.integers(1, 5000), max_size=50))
def test_credit_never_lets_more_through_than_was_granted(wishes: list[int]) -> None:
    credit = frames.Credit(2048)
    spent = sum(credit.spend(wish) for wish in wishes)
    assert spent == min(sum(wishes), 2048)
    credit.grant(spent)
    assert credit.available == 2048


@given(st.lists(st.integers(1, frames.MAX_CHUNK), max_size=200))
def test_credit_comes_back_in_time(amounts: list[int]) -> None:
    """A sender with STREAM_CREDIT is never left without any while all it sent is consumed."""
    credit = frames.Credit(frames.STREAM_CREDIT)
    returns = frames.Returns(frames.STREAM_CREDIT // 2)
    for amount in amounts:
        assert credit.spend(amount) == amount
        credit.grant(returns.consumed(amount))
        assert credit.available > frames.STREAM_CREDIT // 2
