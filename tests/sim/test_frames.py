"""Frames as a server sends them, read back by a reader written for this test."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.sim import frames


def read(data: bytes) -> list[tuple[int, bool, bytes]]:
    """Take bytes apart into (opcode, is final, payload), after RFC 6455 section 5.2."""
    found = []
    while data:
        first, size, start = data[0], data[1], 2
        assert not first & 0x70, "no extension was negotiated"
        assert not size & 0x80, "a server does not mask"
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
            assert size >= 126
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
            assert size >= 65_536
        found.append((first & 0x0F, bool(first & 0x80), data[start : start + size]))
        assert len(found[-1][2]) == size
        data = data[start + size :]
    return found


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 100_000])
def test_a_text_frame_of_any_size(size):
    payload = b"x" * size
    assert read(frames.text(payload)) == [(frames.TEXT, True, payload)]
    assert frames.payload_of(frames.text(payload)) == payload
    assert frames.frame(frames.TEXT, payload) == frames.text(payload)


@given(payload=st.binary(max_size=300), seed=st.integers(0, 1000))
def test_fragments_join_to_the_message(payload, seed):
    pieces = read(frames.fragmented(frames.text(payload), random.Random(seed)))
    assert b"".join(piece for _, _, piece in pieces) == payload
    assert [opcode for opcode, _, _ in pieces] == [frames.TEXT] + [frames.CONTINUATION] * (len(pieces) - 1)
    assert [is_final for _, is_final, _ in pieces] == [False] * (len(pieces) - 1) + [True]
    assert len(pieces) >= 2


@given(data=st.binary(min_size=1, max_size=300), seed=st.integers(0, 1000))
def test_cut_bytes_join_again(data, seed):
    pieces = frames.cut_anywhere(data, random.Random(seed))
    assert b"".join(pieces) == data
    assert all(pieces)


def test_a_close_frame_holds_code_and_reason_within_a_control_frame():
    [(opcode, is_final, payload)] = read(frames.close(1008, "too much " * 40 + "é" * 40))
    assert (opcode, is_final) == (frames.CLOSE, True)
    assert payload[:2] == b"\x03\xf0"
    assert len(payload) <= 125
    payload[2:].decode()
