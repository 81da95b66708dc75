"""The bridge against a real nats-server: what arrives, and what is left of it when something is away."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from loopback import free_ports
from natsworld import NATS_SERVER, nats, needs_server, play
from patience import PATIENCE_S, until

from feedhandler.bridge.metrics import BridgeStatus
from feedhandler.bridge.subjects import subject_of
from feedhandler.data import wire

pytestmark = needs_server
BTC = "ticker.binance.BTC/USDT"
KB_MAX = 150_000  # of the bridge's memory, which is some 50 MB


async def start(world):
    world.start_server()
    world.start_merger()
    world.start_bridge()
    await until(lambda: "connected to NATS" in world.log(), "connection")
    await world.consume()
    await world.until_bridged()


def test_each_record_arrives_byte_for_byte_and_in_order(tmp_path):
    async def scene(world):
        await start(world)
        names = ["BTC/USDT", "A.B/USDT", "币 *>/USDT", "ETH/USDT"]
        last = subject_of(b"status.binance")
        # Several at once, and far fewer than the bridge keeps in order while it is not given the processor.
        for burst in range(10):
            for number in range(30 * burst, 30 * (burst + 1)):
                world.send(*(world.ticker(name, last=float(number)) for name in names))
                world.send(world.document("status.binance", json.dumps({"number": number}).encode()))
            await until(lambda b=burst: len(world.got.get(last, ())) == 30 * (b + 1), "the burst")
        world.send(world.document("instruments.binance", b'{"pad": "' + b"x" * 200_000 + b'"}'))
        await until(lambda: "instruments.binance" in world.got, "the large one")
        for topic in (*(f"ticker.binance.{name}" for name in names), "status.binance", "instruments.binance"):
            assert world.got[subject_of(topic.encode())] == world.sent[topic]
        assert "ticker.binance.BTC-USDT" in world.got
        figures = await world.metrics()
        assert figures['feedhandler_bridge_published_total{kind="ticker"}'] == 1200
        assert figures['feedhandler_bridge_conflated_total{kind="ticker"}'] == 0
        assert figures["feedhandler_bridge_connected"] == 1
        assert figures["feedhandler_bridge_missed_total"] == 0
        await until(lambda: world.status().get("state") == "live", "its own status")

    play(tmp_path, scene)


def test_a_prefix_and_topics_choose_what_is_published_and_where(tmp_path):
    async def scene(world):
        world.start_server()
        world.start_merger()
        await world.consume()
        world.send(world.ticker())
        world.start_bridge()
        await until(lambda: "md.eu.ticker.binance.BTC-USDT" in world.got, "the ticker")
        world.send(world.document("status.binance", b"{}"))
        world.send(world.ticker())
        await until(lambda: len(world.got["md.eu.ticker.binance.BTC-USDT"]) >= 2, "the next")
        assert set(world.got) <= {"md.eu.ticker.binance.BTC-USDT", "md.eu.status.bridge-nats"}

    play(tmp_path, scene, table='prefix = "md.eu"\ntopics = ["ticker.binance."]')


def test_a_restarted_server_gets_the_newest_of_all_that_changed(tmp_path):
    async def scene(world):
        await start(world)
        names = [f"S{number}/USDT" for number in range(500)]
        world.send(*(world.ticker(name, last=0.0) for name in names))
        await until(lambda: world.last(f"ticker.binance.{names[-1]}"), "the first round")
        world.end_server(signal.SIGKILL)
        await until(lambda: "is gone" in world.log(), "the bridge sees it")
        for round_ in range(1, 50):
            world.send(*(world.ticker(name, last=float(round_)) for name in names))
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S):
            conflated = 'feedhandler_bridge_conflated_total{kind="ticker"}'
            while (await world.metrics())[conflated] < 48 * 500:
                await asyncio.sleep(0.05)
        world.start_server()
        for name in names:
            await until(lambda n=name: world.last(f"ticker.binance.{n}").last == 49.0, name)
        assert (await world.metrics())["feedhandler_bridge_connects_total"] == 2
        assert world.memory_kb() < KB_MAX

    play(tmp_path, scene)


def test_a_server_that_stalls_costs_conflation_and_nothing_else(tmp_path):
    async def scene(world):
        await start(world)
        names = [f"S{number}/USDT" for number in range(1000)]
        world.server.send_signal(signal.SIGSTOP)
        rounds = 0
        conflated = 0
        # About 170 kB a round, so that the window and the queue are far exceeded.
        while conflated < 20_000:
            rounds += 1
            for start_ in range(0, len(names), 200):
                world.send(*(world.ticker(name, last=float(rounds)) for name in names[start_ : start_ + 200]))
                await asyncio.sleep(0.002)
            if rounds % 10 == 0:
                figures = await world.metrics()
                conflated = figures['feedhandler_bridge_conflated_total{kind="ticker"}']
                assert figures["feedhandler_bridge_unconfirmed_bytes"] < 2 << 20
                assert figures["feedhandler_bridge_pending_bytes"] < 2 << 20
                assert world.memory_kb() < KB_MAX
        world.server.send_signal(signal.SIGCONT)

        def is_newest():
            records = [world.last(f"ticker.binance.{name}") for name in names]
            return all(record is not None and record.last == rounds for record in records)

        await until(is_newest, "the newest of each")
        if "trying another connection" not in world.log():  # to which the records of the last one may be late
            for messages in (world.got[subject_of(f"ticker.binance.{name}".encode())] for name in names):
                numbers = [wire.sequence_of(message) for message in messages]
                assert numbers == sorted(numbers)
        assert world.memory_kb() < KB_MAX
        world.send(world.ticker(names[0], last=-1.0))
        await until(lambda: world.last(f"ticker.binance.{names[0]}").last == -1.0, "it goes on")

    play(tmp_path, scene)


def test_a_killed_merger_is_flagged_down_and_the_next_one_is_followed(tmp_path):
    async def scene(world):
        await start(world)
        world.send(world.ticker(last=1.0), world.ticker("ETH/USDT", last=2.0))
        await until(lambda: world.last() and world.last("ticker.binance.ETH/USDT"), "both")
        world.end_merger()
        await until(lambda: world.last().flags & wire.DOWN, "DOWN")
        down = world.last()
        assert (down.flags, down.sequence, down.last) == (wire.DOWN | wire.SNAPSHOT, 1, 1.0)
        await until(lambda: world.status().get("is_merger_silent"), "its status")
        assert (await world.metrics())["feedhandler_bridge_merger_silent"] == 1
        world.start_merger(session=200)
        world.send(world.ticker(last=3.0))
        await until(lambda: world.last().session == 200, "the new session")
        assert not world.last().flags & wire.DOWN
        assert (world.last().sequence, world.last().last) == (1, 3.0)
        assert world.last("ticker.binance.ETH/USDT").flags & wire.DOWN  # nobody has said otherwise

    play(tmp_path, scene)


def test_a_merger_that_hangs_is_flagged_down_and_up_again_when_it_goes_on(tmp_path):
    async def scene(world):
        await start(world)
        world.send(world.ticker(last=1.0))
        await until(world.last, "the ticker")
        world.hang_merger()
        await until(lambda: world.last().flags & wire.DOWN, "DOWN")
        world.resume_merger()
        await until(lambda: not world.last().flags & wire.DOWN, "no DOWN any more")
        assert (world.last().flags, world.last().sequence) == (wire.SNAPSHOT, 1)
        assert world.log().count("the merger is silent") == 1

    play(tmp_path, scene)


def test_what_was_missed_is_asked_for_again(tmp_path):
    async def scene(world):
        await start(world)
        world.send(world.ticker(last=1.0), world.ticker("ETH/USDT", last=1.0))
        await until(lambda: world.last("ticker.binance.ETH/USDT"), "the first")
        unseen = world.ticker("ETH/USDT", last=2.0)
        world.newest[unseen[: wire.TOPIC_SIZE]] = unseen  # as if a full queue had dropped it
        world.send(world.ticker(last=3.0, sequence=9))
        await until(lambda: world.last("ticker.binance.ETH/USDT").last == 2.0, "the value that was dropped")
        assert (await world.metrics())["feedhandler_bridge_missed_total"] == 7

    play(tmp_path, scene)


def test_sigterm_flushes_says_down_and_ends_with_0(tmp_path):
    async def scene(world):
        await start(world)
        world.send(*(world.ticker(f"S{n}/USDT", last=float(n)) for n in range(300)))
        await until(lambda: world.last("ticker.binance.S299/USDT"), "the tickers")
        world.bridge.send_signal(signal.SIGTERM)
        await until(lambda: world.bridge.poll() is not None, "its end")
        assert world.bridge.returncode == 0
        await until(lambda: world.last("ticker.binance.S299/USDT").flags & wire.DOWN, "DOWN")
        assert all(world.last(f"ticker.binance.S{n}/USDT").flags & wire.DOWN for n in range(300))
        await until(lambda: world.status().get("state") == "stopping", "its last status")
        assert ", 0 left" in world.log()

    play(tmp_path, scene)


def test_it_ends_in_time_while_the_server_stalls(tmp_path):
    async def scene(world):
        await start(world)
        world.server.send_signal(signal.SIGSTOP)
        world.send(*(world.ticker(f"S{n}/USDT") for n in range(300)))
        world.bridge.send_signal(signal.SIGTERM)
        await until(lambda: world.bridge.poll() is not None, "its end")
        assert world.bridge.returncode == 0

    play(tmp_path, scene)


def test_a_merger_and_a_server_may_come_later(tmp_path):
    async def scene(world):
        world.start_bridge()
        await until(lambda: "no connection to nats://" in world.log(), "it says so")
        world.start_merger()
        world.send(world.ticker(last=1.0))
        world.start_server()
        await until(lambda: "connected to NATS" in world.log(), "connection")
        await world.consume()
        world.send(world.ticker(last=2.0))
        await until(lambda: world.last() and world.last().last == 2.0, "the ticker")
        told = [line.split('"message"')[1] for line in world.log().splitlines() if "no connection to" in line]
        reasons = [text.split('"process"')[0] for text in told]
        assert all(reason != before for before, reason in itertools.pairwise(reasons))

    play(tmp_path, scene)


def test_wrong_credentials_say_so_and_right_ones_are_let_in(tmp_path):
    async def scene(world):
        world.start_server()
        world.start_merger()
        world.start_bridge(FEEDHANDLER_NATS_USER="feeds", FEEDHANDLER_NATS_PASSWORD="guess-hunter2")
        await until(lambda: "Authorization Violation" in world.log(), "the reason")
        world.bridge.terminate()
        world.bridge.wait(PATIENCE_S)
        world.start_bridge(FEEDHANDLER_NATS_USER="feeds", FEEDHANDLER_NATS_PASSWORD="right-hunter2")
        await until(lambda: "connected to NATS" in world.log(), "connection")
        await world.consume(user="feeds", password="right-hunter2")
        await world.until_bridged()
        assert "hunter2" not in world.log()

    play(tmp_path, scene, server=("--user", "feeds", "--pass", "right-hunter2"))


SECRETS = {"FEEDHANDLER_NATS_USER": "feeds", "FEEDHANDLER_NATS_PASSWORD": "right-hunter2"}


@pytest.fixture
def certificates(tmp_path):
    """Return the file of an authority, and a server's arguments with a certificate of it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    files = ("--tlscert", str(tmp_path / "cert.pem"), "--tlskey", str(tmp_path / "key.pem"))
    return tmp_path / "ca.pem", ("--tls", *files, "--user", "feeds", "--pass", "right-hunter2")


def test_with_tls_the_server_has_to_prove_who_it_is(tmp_path, certificates):
    authority, server = certificates

    async def scene(world):
        world.start_server()
        world.start_merger()
        world.start_bridge(**SECRETS)
        await until(lambda: "connected to NATS" in world.log(), "connection")
        await world.consume(
            user="feeds", password="right-hunter2", tls=ssl.create_default_context(cafile=authority)
        )
        await world.until_bridged()

    async def stranger(world):
        world.start_server()
        world.start_bridge(**SECRETS)
        await until(lambda: "certificate verify failed" in world.log(), "the reason")

    play(tmp_path, scene, table=f'tls_ca = "{authority}"', server=server, scheme="tls")
    (tmp_path / "bridge.log").unlink()
    play(tmp_path, stranger, server=server, scheme="tls")


def test_a_server_that_offers_no_tls_is_not_told_the_password(tmp_path):
    told = []

    async def scene(world):
        async def serve(reader, writer):
            writer.write(
                b'INFO {"server_id":"x","version":"2.9.0","max_payload":1048576,"auth_required":true}\r\n'
            )
            told.append(await reader.read())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", world.port)
        world.start_bridge(**SECRETS)
        await until(lambda: "the server offers no TLS" in world.log(), "the reason")
        await until(lambda: told, "the end of the connection")
        server.close()
        assert not any(told)

    play(tmp_path, scene, scheme="tls")


JETSTREAM = 'stream = "MARKET"\nmax_bytes = 4194304\nmax_age_s = 600\nmax_msgs_per_subject = 5'


def test_a_stream_is_made_with_its_limits_and_replays(tmp_path):
    async def scene(world):
        await start(world)
        for number in range(12):  # each for itself: a bridge that is not given the processor may conflate
            world.send(world.ticker(last=float(number)), world.ticker("ETH/USDT", last=float(number)))
            for topic in ("ticker.binance.BTC/USDT", "ticker.binance.ETH/USDT"):
                await until(lambda t=topic, n=number: world.last(t) and world.last(t).last == n, topic)
        stream = (await world.client()).jetstream()

        async def stored():
            return await stream.stream_info("MARKET", subjects_filter="ticker.>")

        async with asyncio.timeout(PATIENCE_S):
            while (info := await stored()).state.subjects != {
                "ticker.binance.BTC-USDT": 5,
                "ticker.binance.ETH-USDT": 5,
            }:
                await asyncio.sleep(0.05)
        limits = info.config
        assert (limits.max_bytes, limits.max_age, limits.max_msgs_per_subject) == (4194304, 600, 5)
        assert (limits.storage, limits.discard) == ("file", "old")
        replay = await stream.subscribe("ticker.binance.BTC-USDT", ordered_consumer=True)
        records = [wire.unpack((await replay.next_msg(timeout=PATIENCE_S)).data) for _ in range(5)]
        assert [record.last for record in records] == [7.0, 8.0, 9.0, 10.0, 11.0]
        assert (await world.metrics())["feedhandler_bridge_refused_total"] == 0
        # Other limits are set, and what is kept stays.
        world.bridge.terminate()
        world.bridge.wait(PATIENCE_S)
        text = world.config.read_text(encoding="utf-8").replace("max_age_s = 600", "max_age_s = 900")
        world.config.write_text(text, encoding="utf-8")
        world.start_bridge()
        await until(lambda: "set the limits of the stream MARKET" in world.log(), "the change")
        assert (await stored()).config.max_age == 900

    play(tmp_path, scene, table=JETSTREAM, server=("-js", "-sd", str(tmp_path / "js")))


def test_another_stream_of_the_name_or_of_the_subjects_is_one_clear_message(tmp_path):
    async def scene(world):
        world.start_server()
        stream = (await world.client()).jetstream()
        await stream.add_stream(name="MARKET", subjects=["orders.>"])
        world.start_bridge()
        await until(lambda: world.bridge.poll() is not None, "its end")
        assert world.bridge.returncode == 2
        assert (
            "nats.stream: the server has a stream MARKET already, and its subjects are orders.>"
            in world.log()
        )
        assert "Traceback" not in world.log()
        await stream.delete_stream("MARKET")
        await stream.add_stream(name="OTHER", subjects=["ticker.binance.>"])
        world.start_bridge()
        await until(lambda: world.bridge.poll() is not None, "its end")
        assert "the server refuses the stream MARKET: subjects overlap" in world.log()

    play(tmp_path, scene, table=JETSTREAM, server=("-js", "-sd", str(tmp_path / "js")))


def test_without_jetstream_it_says_what_to_start(tmp_path):
    async def scene(world):
        world.start_server()
        world.start_bridge()
        await until(lambda: "start nats-server with -js" in world.log(), "the remedy")
        assert world.bridge.poll() is None

    play(tmp_path, scene, table=JETSTREAM)


def test_records_that_a_stream_refuses_are_counted_and_a_stream_that_was_removed_is_made_again(tmp_path):
    async def scene(world):
        world.start_server()
        world.start_merger()
        world.start_bridge()
        await until(lambda: "connected to NATS" in world.log(), "connection")
        stream = (await world.client()).jetstream()
        await stream.delete_stream("MARKET")
        world.send(world.ticker(last=1.0))
        await until(lambda: "the stream MARKET refuses records" in world.log(), "refusal")
        assert (await world.metrics())["feedhandler_bridge_refused_total"] > 0
        assert world.log().count("refuses records") == 1
        await until(lambda: world.log().count("created the stream MARKET") == 2, "the stream")
        world.send(world.ticker(last=2.0))
        await until_stored(stream, 2.0)

    play(tmp_path, scene, table=JETSTREAM, server=("-js", "-sd", str(tmp_path / "js")))


async def until_stored(stream, last):
    """Wait until this is the last that the stream has; it may not be there yet."""
    found = None
    async with asyncio.timeout(PATIENCE_S):
        while found != last:
            await asyncio.sleep(0.05)
            with contextlib.suppress(nats.errors.Error):
                message = await stream.get_last_msg("MARKET", "ticker.binance.BTC-USDT")
                found = wire.unpack(message.data).last


def test_a_stream_goes_on_after_its_server_was_restarted(tmp_path):
    async def scene(world):
        await start(world)
        world.send(world.ticker(last=1.0))
        await until(lambda: world.last(), "the first")
        world.end_server(signal.SIGKILL)
        world.send(world.ticker(last=2.0))
        world.start_server()
        # By the stream alone: a plain subscriber may return after the bridge, and has missed it.
        await until_stored((await world.client()).jetstream(), 2.0)

    table = f'{JETSTREAM}\nstorage = "memory"'
    play(tmp_path, scene, table=table, server=("-js", "-sd", str(tmp_path / "js")))


EXAMPLE = Path(__file__).parents[2] / "languages" / "examples" / "nats_consumer.py"


def test_the_example_prints_records_losses_and_what_is_not_live(tmp_path):
    async def scene(world):
        await start(world)
        command = [sys.executable, str(EXAMPLE), world.url, "ticker.>"]
        consumer = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        lines = []

        async def until_line(text):
            while not lines or text not in lines[-1]:
                line = await asyncio.wait_for(consumer.stdout.readline(), PATIENCE_S)
                assert line, "it ended"
                lines.append(line.decode())

        try:
            # It says nothing when it has subscribed: what is sent until then is not for it.
            first = asyncio.create_task(until_line("ETH/USDT"))
            while not first.done():
                world.send(world.ticker("ETH/USDT"))
                await asyncio.sleep(0.02)
            await first
            world.send(world.ticker(last=1.5, bid=1.0, ask=2.0))
            await until_line("BTC/USDT #1 last 1.5 bid 1.0 ask 2.0 lost 0")
            world.send(world.ticker(last=1.5, sequence=4))
            await until_line("BTC/USDT #4 last 1.5 bid nan ask nan lost 2")
            world.end_merger()
            await until_line("BTC/USDT #4 last 1.5 bid nan ask nan NOT LIVE lost 2")
        finally:
            consumer.kill()
            await consumer.wait()

    play(tmp_path, scene)


def test_the_example_ends_quietly_when_its_output_is_closed(tmp_path):
    async def scene(world):
        await start(world)
        command = [sys.executable, str(EXAMPLE), world.url, "ticker.>"]
        here, there = os.pipe()
        consumer = await asyncio.create_subprocess_exec(
            *command, stdout=there, stderr=asyncio.subprocess.PIPE
        )
        os.close(there)
        os.close(here)  # before it says anything
        ended = asyncio.create_task(consumer.communicate())
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not ended.done():
                    world.send(world.ticker())
                    await asyncio.sleep(0.02)
        finally:
            if consumer.returncode is None:
                consumer.kill()
        assert (await ended)[1] == b""
        assert consumer.returncode == 0

    play(tmp_path, scene)


def test_the_whole_pipeline_ends_at_nats_with_what_its_own_subscribers_see(tmp_path, stack):
    (port,) = free_ports(1)
    s = stack(
        exchanges=("binance", "bybit"), rate=200, gateway=f'[nats]\nservers = ["nats://127.0.0.1:{port}"]'
    )
    server = subprocess.Popen([NATS_SERVER, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        s.start()
        s.processes["bridge"] = s.popen("bridge", "nats", "-c", str(s.config), log="bridge")
        reader = s.reader(b"ticker.")
        s.wait_live(reader)

        async def scene():
            got = {}
            client = await nats.connect(f"nats://127.0.0.1:{port}")

            async def take(message):
                record = wire.unpack(message.data)
                got.setdefault(record.topic, []).append(record)

            await client.subscribe("ticker.>", cb=take)
            await until(lambda: len(got) >= 10, "ten tickers")
            await until(lambda: all(len(records) > 3 for records in got.values()), "some of each")
            s.kill("merger")
            await until(lambda: all(r[-1].flags & wire.DOWN for r in got.values()), "DOWN of all")
            session = got["ticker.binance.BTC/USDT"][-1].session
            s.start("merger")
            await until(
                lambda: all(r[-1].session > session and not r[-1].flags & wire.DOWN for r in got.values()),
                "the next merger",
            )
            await client.close()
            for records in got.values():
                numbers = [(r.session, r.sequence) for r in records]
                assert numbers == sorted(numbers)

        asyncio.run(scene())
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def test_every_metric_of_the_bridge_is_documented(tmp_path):
    operations = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")

    async def scene(world):
        world.start_bridge()
        await until(lambda: "metrics are at" in world.log(), "metrics")
        for name in await world.metrics():
            name = name.partition("{")[0]
            if not name.startswith("feedhandler_bridge_process"):
                assert f"`{name}`" in operations, name

    play(tmp_path, scene)


def test_the_status_and_the_consumer_of_the_bridge_are_documented():
    text = (Path(__file__).parents[2] / "docs" / "bridge.md").read_text(encoding="utf-8")
    shown = text.partition("```python\n")[2].partition("```")[0]
    assert shown and shown in EXAMPLE.read_text(encoding="utf-8")
    for name in BridgeStatus.__struct_fields__:
        assert f"`{name}`" in text, name
