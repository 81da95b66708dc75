"""The relay's wiring: what a library raises ends neither it nor its answers to others."""

from feedhandler.data import retransmission
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
