"""What of a stream is not ours to change."""

import pytest

pytest.importorskip("nats")

from nats.js.api import StorageType, StreamConfig

from feedhandler.bridge.jetstream import difference

WANTED = StreamConfig(name="S", subjects=["a.>", "b.>"], storage=StorageType.FILE)


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (WANTED, ""),
        (WANTED.evolve(subjects=["b.>", "a.>"], max_bytes=5), ""),
        (WANTED.evolve(subjects=["c"]), "its subjects are c, not a.>, b.>"),
        (WANTED.evolve(storage=StorageType.MEMORY), "its storage is memory, not file"),
        (WANTED.evolve(sealed=True), "it is a mirror of another, or sealed"),
    ],
)
def test_limits_of_a_stream_are_ours_and_what_it_is_is_not(there, reason):
    assert difference(there, WANTED) == reason
