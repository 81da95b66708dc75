"""The boards of real processes, beside the stream."""

import signal

from harness import DOWN, MAJORS, wait_until

from feedhandler.client import Board
from feedhandler.data import wire
from feedhandler.transport.boards import BoardReader, board_path
from feedhandler.transport.recent import recent_path


def test_the_feeds_board_and_the_mergers_say_what_the_stream_says(stack):
    s = stack(exchanges=("binance", "bybit"), board=True)
    s.start()
    reader = s.wait_live()
    run = s.directory / "run"
    recent = BoardReader(recent_path(run))
    topics = recent.topics()
    assert set(topics) == {f"ticker.{e}.{m}" for e in s.exchanges for m in MAJORS}
    reader.read()
    boards = {name: BoardReader(board_path(run, name)) for name in s.exchanges}
    checked = 0

    def is_kept(record):
        """Compare one with what is kept of it; True once there were enough."""
        nonlocal checked
        kept = recent.record(topics[record.topic], record.sequence) if record.kind == 1 else None
        if kept is not None:  # 16 are kept, and the reader may be behind
            kept = wire.unpack(kept)
            assert (kept.session, kept.recv_ns, kept.publish_ns) == (
                record.session,
                record.recv_ns,
                record.publish_ns,
            )
            assert (kept.last, kept.bid, kept.ask) == (record.values[0], record.values[1], record.values[3])
            checked += 1
        return checked > 20

    reader.read_until(is_kept, "more than 20 records that are kept")
    for name in s.exchanges:
        s.fault(name, "mute", seconds=60)
    reader.read(1.0)

    def is_settled():
        """What the feeds wrote last has come to the merger."""
        pairs = [
            (b.cells.ticker(i), recent.cells.ticker(topics[t]))
            for b in boards.values()
            for t, i in b.topics().items()
        ]
        return all(first.recv_ns == last.recv_ns for first, last in pairs)

    wait_until(is_settled, "the merger has all that the feeds had")
    for name, board in boards.items():
        assert board.is_alive()
        assert set(board.topics()) == {f"ticker.{name}.{m}" for m in MAJORS}
        for topic, index in board.topics().items():
            first, last = board.cells.ticker(index), recent.cells.ticker(topics[topic])
            assert (first.topic, first.recv_ns, first.bid, first.ask) == (
                last.topic,
                last.recv_ns,
                last.bid,
                last.ask,
            )
            assert first.recv_ns < first.publish_ns < last.publish_ns, "earlier than the merger"


def test_a_killed_feed_is_down_on_its_board_and_a_new_one_is_found(stack):
    s = stack(exchanges=("binance",), board=True)
    s.start()
    s.wait_live()
    run = s.directory / "run"
    board = BoardReader(board_path(run, "binance"))
    ring = BoardReader(recent_path(run))
    index = board.topics()["ticker.binance.BTC/USDT"]
    s.kill("binance", signal.SIGKILL)
    wait_until(lambda: not board.is_alive(), "the board's writer is dead")
    assert board.cells.ticker(index).flags & DOWN
    at = ring.topics()["ticker.binance.BTC/USDT"]
    wait_until(lambda: ring.cells.ticker(at).flags & DOWN, "DOWN in the ring, as in the stream")
    assert board.is_current()
    s.start("binance")
    wait_until(lambda: board.closed, "the old board is superseded")
    board = BoardReader(board_path(run, "binance"))
    index = wait_until(lambda: board.topics().get("ticker.binance.BTC/USDT", -1) + 1, "the topic") - 1
    wait_until(lambda: (t := board.cells.ticker(index)) and not t.flags & DOWN, "live again")
    assert s.kill("binance", signal.SIGTERM) == 0
    assert (board.closed, board.is_current()) == (1, True)
    s.kill("merger", signal.SIGTERM)
    assert ring.closed == 1


def test_shards_have_a_board_each_and_one_feed_that_follows_has_its_own(stack):
    s = stack(exchanges=("binance",), extra="shards = 2", board=True)
    s.start("sim", "merger", "binance-1of2", "binance-2of2")
    s.wait_live()
    run = s.directory / "run"
    topics = [f"ticker.binance.{m}" for m in MAJORS]
    with Board(run) as board:
        assert board.topics() == sorted(topics)
        assert sorted(topic.decode() for topic in board.exchange("binance")["topic"]) == sorted(topics)
        before = {topic: board[topic] for topic in topics}
        for topic in topics:
            newer = wait_until(lambda t=topic: board.wait(t, before[t].sequence, 1.0), "a newer record")
            assert newer.sequence > before[topic].sequence
            assert newer.recv_ns > before[topic].recv_ns
        s.kill("binance-1of2", signal.SIGTERM)
        s.kill("binance-2of2", signal.SIGTERM)
        assert all(board[topic].flags & DOWN for topic in topics)
        s.config.write_text(s.config.read_text(encoding="utf-8").replace("shards = 2", ""), encoding="utf-8")
        s.start("binance")
        for topic in topics:
            wait_until(lambda t=topic: (r := board.read(t)) and not r.flags & DOWN, "live again")
        assert [path.name for path in sorted((run / "board").glob("*"))] == ["binance.board"]
