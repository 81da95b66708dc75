"""What nobody foresaw is taken in one place: logged once, counted, waited out; what is ours ends the process."""

import asyncio
import json
import logging
import ssl

import pytest
import uvloop

from feedhandler.data.errors import ConfigError, DecodeError, FeedError, ProtocolError
from feedhandler.transport import tasks
from feedhandler.transport.tasks import PAUSE_S, Failures, end_tasks, is_fatal


def raised(work):
    try:
        work()
    except Exception as exc:  # noqa: BLE001
        return exc
    raise AssertionError("nothing was raised")


def asserted_by_us():
    # In a module of the package, as far as its globals tell.
    exec(compile("assert False, 'ours'", "state.py", "exec"), {"__name__": "feedhandler.state"})


def asserted_by_a_library():
    exec(compile("assert False, 'its own'", "proto.py", "exec"), {"__name__": "aiohttp.proto"})


LIBRARIES = [
    RuntimeError("File descriptor 27 is used by transport\n<TCPTransport>"),
    AttributeError("'NoneType' object has no attribute 'write'"),
    ssl.SSLError("no"),
    asyncio.InvalidStateError(),
    KeyError("x"),
    raised(asserted_by_a_library),
]


@pytest.mark.parametrize("exc", LIBRARIES, ids=lambda exc: type(exc).__name__)
def test_what_a_library_raises_is_counted_and_logged_once_with_its_traceback(exc, caplog):
    failures = Failures()
    for _ in range(3):
        assert failures.take("the clock", raised(lambda: json.dumps(object()))) > 0
        failures.take("REST", exc)
    assert failures.counts == {"the clock: TypeError": 3, f"REST: {type(exc).__name__}": 3}
    mine = [record.getMessage() for record in caplog.records if record.getMessage().startswith("the clock")]
    assert len(mine) == 2, "the first and the second; then the fourth"
    assert "unforeseen, 1 times by now" in mine[0]
    assert "test_tasks.py" in mine[0], "where it was"
    assert "\n" not in mine[1]


@pytest.mark.parametrize(
    "exc", [raised(asserted_by_us), ConfigError("run_dir: cannot be"), FeedError("the board is gone")]
)
def test_what_tells_of_ourselves_goes_on(exc):
    assert is_fatal(exc)
    with pytest.raises(type(exc)):
        Failures().take("anything", exc)

    async def fail():
        raise exc

    with pytest.raises(type(exc)):
        uvloop.run(Failures().endure("anything", fail))


def test_pauses_grow_at_one_place_and_begin_anew_when_it_was_well_for_a_while(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(tasks.time, "monotonic", lambda: now[0])
    failures = Failures()
    first, last = PAUSE_S
    pauses = []
    for _ in range(8):
        pauses.append(failures.take("REST", OSError("x")))
        assert failures.take("REST", OSError("of another task")) == pauses[-1], "it met the same event"
        now[0] += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert failures.take("a stream", OSError("x")) == first, "of each place by itself"
    now[0] += last + tasks.FORGET_S
    assert failures.take("REST", OSError("x")) == first


def test_a_work_is_begun_again_until_it_is_done(monkeypatch):
    monkeypatch.setattr(tasks, "PAUSE_S", (0.0, 0.0))
    failures, left = Failures(), [*LIBRARIES, asyncio.CancelledError()]

    async def work():
        if left:
            raise left.pop()

    uvloop.run(failures.endure("work", work))
    assert not left
    assert failures.counts["work: CancelledError"] == 1, "one that nobody asked for is an error like others"


def test_a_cancelled_task_is_cancelled():
    async def main():
        task = asyncio.create_task(Failures().endure("work", asyncio.Event().wait))
        await asyncio.sleep(0)
        await end_tasks([task])
        return task.cancelled()

    assert uvloop.run(main())


def test_errors_of_ours_and_foreseen_ones_are_not_converted():
    failures = Failures()
    for exc in (DecodeError("x"), ProtocolError("x"), OSError("x"), raised(asserted_by_us)):
        with pytest.raises(type(exc)), failures.converted("REST", OSError):
            raise exc
    assert not failures.counts
    with (
        pytest.raises(ProtocolError, match=r"^REST: KeyError: 'x'$") as converted,
        failures.converted("REST"),
    ):
        raise KeyError("x")
    assert converted.value.retry_after_s == PAUSE_S[0]


def test_what_is_secret_is_quoted_nowhere(caplog):
    text = "".join(("https://x/?signature=", "abc"))
    with (
        pytest.raises(ProtocolError) as converted,
        Failures().converted("REST", is_secret=True),
    ):
        raise RuntimeError(text)
    assert "abc" not in str(converted.value) + caplog.text
    assert "RuntimeError" in caplog.text
    assert converted.value.__suppress_context__


def test_what_a_callback_raises_is_counted_by_where_it_was_and_logged_once(caplog):
    failures = Failures()

    def callback():
        raise KeyError("x")

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(failures.on_loop_exception)
        for _ in range(3):
            loop.call_soon(callback)
        await asyncio.sleep(0)
        loop.call_soon(asserted_by_us)
        await asyncio.sleep(0.01)

    uvloop.run(main())
    ((kind, count),) = failures.counts.items()
    assert count == 3
    assert kind.startswith("a callback, at test_tasks.py:")
    assert caplog.text.count("in callback\n") == 1, "one traceback"
    assert "AssertionError: ours" in caplog.text, "what is ours is told each time"


def test_a_task_that_does_not_end_is_left_behind_and_named(caplog):
    caplog.set_level(logging.ERROR)

    async def main():
        is_over = asyncio.Event()

        async def stubborn():
            while not is_over.is_set():
                try:
                    await is_over.wait()
                except asyncio.CancelledError:
                    continue

        task = asyncio.create_task(stubborn(), name="stubborn")
        await asyncio.sleep(0)
        await end_tasks([task], 0.05)
        is_over.set()
        await task

    uvloop.run(main())
    assert "left behind: stubborn" in caplog.text


def test_a_task_whose_first_cancellation_is_lost_ends_all_the_same(caplog):
    async def main():
        async def loses_one():
            try:
                await asyncio.sleep(PAUSE_S[1] * 1000)
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
            await asyncio.Event().wait()

        task = asyncio.create_task(loses_one())
        await asyncio.sleep(0)
        await end_tasks([task], 0.2)
        assert task.cancelled()

    asyncio.run(main())
    assert not caplog.messages
