"""The relay's wiring: what a library raises ends neither it nor its answers to others."""

import zmq
from patience import wait_until

from feedhandler.data import retransmission, wire
from feedhandler.relay.process import RelayProcess
from feedhandler.runtime import config
from feedhandler.transport.files import Lock


def relay_of(directory, lock):
    path = directory / "test.toml"
    path.write_text(
        f'run_dir = "{directory}/run"\n[exchanges.binance]\n'
        f'[merger]\nticks = ["ipc://{directory}/run/ticks.ipc"]\nfeeds = "ipc://{directory}/run/feeds.ipc"\n'
        f'[relay]\nrecover = ["ipc://{directory}/run/recover.ipc"]\n',
        encoding="utf-8",
    )
    return RelayProcess(config.load(str(path)), lock)


def test_a_turn_that_fails_is_counted_and_the_next_one_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("feedhandler.relay.process.FAILED_TURN_S", 0.0)
    (tmp_path / "run").mkdir(mode=0o700)
    with Lock(str(tmp_path / "run"), "relay") as lock:
        relay = relay_of(tmp_path, lock)
        turns = []

        def failing():
            turns.append(len(turns))
            if len(turns) == 3:
                relay.stop()
            raise RuntimeError("a library's own")

        monkeypatch.setattr(relay, "_run_once", failing)
        relay.run()
        monkeypatch.undo()
        relay.close()
    assert turns == [0, 1, 2]
    assert relay._failures.counts == {"a turn of the relay: RuntimeError": 3}


def test_a_request_whose_answer_fails_is_not_answered(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir(mode=0o700)
    with Lock(str(tmp_path / "run"), "relay") as lock:
        relay = relay_of(tmp_path, lock)
        monkeypatch.setattr(retransmission, "answer", lambda *_: {}["x"])
        assert relay._answer(b"{}") == ([], 1)
        relay.close()


def test_it_is_sent_several_messages_at_once_and_answers_meanwhile(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    with Lock(str(tmp_path / "run"), "relay") as lock, zmq.Context() as context:
        context.setsockopt(zmq.LINGER, 0)
        merger, asker = context.socket(zmq.XPUB), context.socket(zmq.DEALER)
        merger.bind(f"ipc://{tmp_path}/run/ticks.ipc")
        relay = relay_of(tmp_path, lock)

        def turn_until(condition, what):
            wait_until(lambda: relay._run_once() or condition(), what, every_s=0)

        turn_until(lambda: merger.poll(0), "it subscribes")
        assert merger.recv() == b"\x01@within=50", "before anything comes"
        turn_until(lambda: merger.poll(0) and merger.recv() == b"\x01status.", "to what it keeps")
        merger.send(wire.pack_document(wire.Document("status.binance", kind=wire.STATUS, body=b"{}")))
        turn_until(lambda: relay._documents, "which it takes")
        asker.connect(f"ipc://{tmp_path}/run/recover.ipc")
        asker.send(b"no request")
        turn_until(lambda: asker.poll(0), "whoever asks is answered without waiting for more")
        assert b"error" in asker.recv()
        relay.close()
