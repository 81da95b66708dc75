"""Accounts kept known, against the simulated exchanges over real sockets: on good days, and on each kind of bad."""

import asyncio
import contextlib
import functools
import logging
import time

import aiohttp
import pytest
import uvloop
from patience import PATIENCE_S, until

from feedhandler.accounts import ACCOUNTS, balances, keeper
from feedhandler.accounts.adapter import Credentials, CredentialsError
from feedhandler.data.connecting import Policy
from feedhandler.data.errors import ConfigError
from feedhandler.data.rest import RestAnswer
from feedhandler.data.units import NS_PER_S
from feedhandler.gateway.kept_accounts import Accounts, credentials_of
from feedhandler.runtime import config
from feedhandler.sim import credentials as sim
from feedhandler.sim import frames
from feedhandler.sim.server import SimServer, SimSettings
from feedhandler.sim.simulated import ACCOUNTS as CREDENTIALS


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(keeper, "PAUSE_MIN_S", 0.02)
    monkeypatch.setattr(keeper, "HURRY_MIN_S", 0.02)
    monkeypatch.setattr(keeper, "Policy", functools.partial(Policy, backoff_min_s=0.02))
    monkeypatch.setattr("feedhandler.transport.tasks.PAUSE_S", (0.02, 0.1))
    monkeypatch.setattr("feedhandler.transport.timekeeper.SAMPLE_EVERY_S", 0.01)


@pytest.fixture
def settles_soon(monkeypatch):
    """What stream and REST state differently is taken for a contradiction after this long."""
    for module in (keeper, balances):
        monkeypatch.setattr(module, "SETTLE_NS", NS_PER_S // 10)


def ours(theirs, **changes):
    values = {"key": theirs.key, "secret": theirs.secret, "passphrase": theirs.passphrase, **changes}
    return Credentials(**values)


class World:
    """Simulated exchanges, and the accounts that are kept of them."""

    def __init__(self, servers, accounts, session):
        self.servers, self.accounts, self._session = servers, accounts, session

    async def put(self, exchange, **changes):
        await self.accounts.put(exchange, ours(CREDENTIALS[exchange], **changes))

    async def fault(self, exchange, fault, **settings):
        url = f"{self.servers[exchange].rest_url}/_sim/faults"
        async with self._session.post(url, json={"fault": fault, **settings}) as answer:
            assert answer.status == 200, await answer.text()

    async def violations(self, exchange):
        async with self._session.get(f"{self.servers[exchange].rest_url}/_sim/state") as answer:
            return (await answer.json())["violations"]

    async def until(self, exchange, condition):
        """Return the status of which it holds."""

        def found():
            return status if condition(status := self.accounts.status(exchange)) else None

        return await until(found, lambda: f"last: {self.accounts.status(exchange)}")

    async def live(self, exchange):
        await self.put(exchange)
        return await self.until(exchange, lambda s: s.state == "live" and s.stream == "live" and s.syncs >= 2)


def totals(status):
    return {row.asset: row.total for row in status.balances}


def play(tmp_path, scene, *exchanges, on_change=lambda exchange: None):
    """Run a scene in a world."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            text = f'run_dir = "{tmp_path}"\n[gateway]\nbalances_every_s = 3600\n'
            servers = {}
            for exchange in exchanges:
                server = SimServer(
                    exchange,
                    SimSettings(messages_per_s=1, instruments=60),
                    ws_url="ws://127.0.0.1:0",
                    rest_url="http://127.0.0.1:0",
                )
                await server.start()
                stack.push_async_callback(server.close)
                servers[exchange] = server
                text += f'[exchanges.{exchange}]\nsimulated = true\nrest_url = "{server.rest_url}"\n'
                text += f'ws_url = "{server.ws_url}"\n'
            accounts = Accounts(config.parse(text, "test.toml"), on_change)
            stack.push_async_callback(accounts.close)
            session = await stack.enter_async_context(aiohttp.ClientSession())
            await scene(World(servers, accounts, session))

    uvloop.run(main())


@pytest.mark.parametrize("exchange", CREDENTIALS)
def test_balances_are_known_and_a_deposit_is_told_at_once(tmp_path, exchange):
    async def scene(world):
        status = await world.live(exchange)
        assert totals(status) == {"BTC": "1.3", "ETH": "12.5", "USDT": "10250.5"}
        assert [row.locked for row in status.balances] == ["0.05", "0", "250"]
        syncs = status.syncs
        await world.fault(exchange, "deposit", asset="DOGE", amount="100.25")
        status = await world.until(exchange, lambda s: "DOGE" in totals(s))
        assert totals(status)["DOGE"] == "100.25"
        await world.fault(exchange, "deposit", asset="DOGE", amount="-100.25")
        await world.until(exchange, lambda s: "DOGE" not in totals(s))
        assert status.syncs - syncs <= 3, "the stream has told it: REST is asked for what it leaves open only"
        assert await world.violations(exchange) == []

    play(tmp_path, scene, exchange)


def test_an_ed25519_key_signs_for_binance_rest_and_stream(tmp_path):
    async def scene(world):
        pem = sim.ed25519_pem().replace("\n", "\\n")  # as an environment variable has it
        await world.accounts.put("binance", Credentials(sim.BINANCE_ED25519_KEY, pem))
        await world.until("binance", lambda s: s.state == "live" and s.stream == "live")
        assert await world.violations("binance") == []

    play(tmp_path, scene, "binance")


def test_kucoin_keeps_an_asset_in_two_accounts_and_what_is_held_is_their_sum(tmp_path):
    async def scene(world):
        await world.live("kucoin")
        await world.fault("kucoin", "deposit", wallet="trade_hf", asset="BTC", amount="2", silent=True)
        await world.accounts.sync("kucoin")
        await world.until("kucoin", lambda s: totals(s)["BTC"] == "3.3")
        await world.fault("kucoin", "deposit", wallet="trade_hf", asset="BTC", amount="1")
        await world.until("kucoin", lambda s: totals(s)["BTC"] == "4.3")
        await world.fault("kucoin", "deposit", asset="BTC", amount="-1")
        await world.until("kucoin", lambda s: totals(s)["BTC"] == "3.3")
        await world.fault("kucoin", "deposit", wallet="main", asset="BTC", amount="9")
        await world.accounts.sync("kucoin")
        assert totals(world.accounts.status("kucoin"))["BTC"] == "3.3"

    play(tmp_path, scene, "kucoin")


def test_a_country_that_is_not_served_stays_the_reason_while_nothing_is_asked(tmp_path, monkeypatch):
    async def scene(world):
        page = b"<html>The distribution is configured to block access from your country.</html>"
        refused = ACCOUNTS["bybit"].decode_balances
        monkeypatch.setattr(
            ACCOUNTS["bybit"], "decode_balances", lambda self, answer: refused(self, RestAnswer(403, page))
        )
        await world.fault("bybit", "http_status", status=403, retry_after=600, seconds=3600)
        await world.put("bybit")
        status = await world.until("bybit", lambda s: s.state == "failed" and s.error.kind == "region")
        await world.accounts.sync("bybit")
        status = await world.until("bybit", lambda s: s.failures.get("region", 0) >= 2)
        assert status.error.kind == "region"
        assert "address to the key" not in status.error.remedy

    play(tmp_path, scene, "bybit")


def test_a_unified_kucoin_account_is_a_problem_with_its_remedy_and_no_holding_of_nothing(tmp_path):
    async def scene(world):
        await world.fault("kucoin", "refuse_key", kind="unified")
        await world.put("kucoin")
        status = await world.until("kucoin", lambda s: s.state == "failed")
        assert (status.error.kind, status.as_of_ns) == ("account", 0)
        assert "unified account" in status.error.message
        assert "classic account" in status.error.remedy

    play(tmp_path, scene, "kucoin")


def test_what_cannot_be_read_of_an_answer_is_shown_and_stays_what_it_was(tmp_path, monkeypatch):
    async def scene(world):
        await world.live("bybit")
        read = ACCOUNTS["bybit"].decode_balances

        def odd(self, answer):
            return read(self, RestAnswer(200, answer.body.replace(b'"coin":"BTC"', b'"coin":null')))

        monkeypatch.setattr(ACCOUNTS["bybit"], "decode_balances", odd)
        await world.accounts.sync("bybit")
        status = await world.until("bybit", lambda s: s.incomplete is not None)
        assert status.state == "live"
        assert "1 of 3 rows cannot be read" in status.incomplete.message
        assert totals(status) == {"BTC": "1.3", "ETH": "12.5", "USDT": "10250.5"}
        monkeypatch.setattr(ACCOUNTS["bybit"], "decode_balances", read)
        await world.accounts.sync("bybit")
        await world.until("bybit", lambda s: s.incomplete is None)

    play(tmp_path, scene, "bybit")


def test_a_change_that_the_stream_kept_silent_about_is_found_and_is_drift(tmp_path, settles_soon):
    async def scene(world):
        await world.live("kucoin")
        # the third is of a copy that is younger than the stream
        await world.until("kucoin", lambda s: s.syncs >= 3)
        await world.fault("kucoin", "deposit", asset="LTC", amount="3", silent=True)
        await world.accounts.sync("kucoin")
        status = await world.until("kucoin", lambda s: s.drifts)
        assert totals(status)["LTC"] == "3"
        assert [(d.asset, d.stream, d.rest) for d in status.drifted] == [("LTC", "0", "3")]

    play(tmp_path, scene, "kucoin")


@pytest.mark.parametrize("exchange", CREDENTIALS)
@pytest.mark.parametrize("changes", [{"secret": "x" * 32}, {"key": "y" * 24}], ids=["secret", "key"])
def test_wrong_credentials_are_told_with_their_remedy_and_right_ones_heal(
    tmp_path, exchange, changes, caplog
):
    caplog.set_level(logging.DEBUG)

    async def scene(world):
        await world.put(exchange, **changes)
        status = await world.until(exchange, lambda s: s.state == "failed")
        assert status.error.kind == "key"
        assert "check key, secret and passphrase" in status.error.remedy
        assert status.failures == {"key": 1}
        assert status.balances == []
        text = f"{status} {caplog.text}"
        for planted in (*changes.values(), CREDENTIALS[exchange].secret):
            assert planted not in text
        await world.put(exchange)
        assert (await world.until(exchange, lambda s: s.state == "live")).error is None

    play(tmp_path, scene, exchange)


def test_a_wrong_passphrase_is_told(tmp_path):
    async def scene(world):
        await world.put("kucoin", passphrase="nonsense")
        assert (await world.until("kucoin", lambda s: s.state == "failed")).error.kind == "key"

    play(tmp_path, scene, "kucoin")


@pytest.mark.parametrize("exchange", CREDENTIALS)
@pytest.mark.parametrize("kind", ["permission", "address", "maintenance", "expired"])
def test_each_refusal_has_its_name_and_a_sync_on_demand_finds_that_it_is_over(tmp_path, exchange, kind):
    async def scene(world):
        await world.fault(exchange, "refuse_key", kind=kind)
        await world.put(exchange)
        status = await world.until(exchange, lambda s: s.state == "failed")
        # Binance has one code for a key, its permission and its address.
        told = "key" if kind == "expired" or (exchange == "binance" and kind != "maintenance") else kind
        assert status.error.kind == told
        assert exchange in status.error.message
        await world.fault(exchange, "none")
        assert (await world.accounts.sync(exchange)).state == "live"

    play(tmp_path, scene, exchange)


@pytest.mark.parametrize("exchange", CREDENTIALS)
def test_an_exchange_whose_clock_is_off_is_asked_for_its_time_and_signed_for_in_it(
    tmp_path, exchange, monkeypatch
):
    monkeypatch.setattr("feedhandler.transport.timekeeper.SAMPLE_EVERY_S", 0.01)

    async def scene(world):
        await world.live(exchange)
        await world.fault(exchange, "clock", offset_s=-300, seconds=3600)
        status = await world.accounts.sync(exchange)
        assert status.state == "live"
        assert status.failures == {}

    play(tmp_path, scene, exchange)


def test_what_the_exchange_asks_for_is_obeyed_and_then_it_is_asked_again(tmp_path):
    async def scene(world):
        await world.fault("bybit", "http_status", status=429, retry_after=1, seconds=3600)
        asked = time.monotonic()
        await world.put("bybit")
        status = await world.until("bybit", lambda s: s.state == "failed")
        assert status.error.kind == "rate_limit"
        await world.fault("bybit", "none")
        refused = await world.accounts.sync("bybit")
        assert refused.state == "failed", "nobody is asked meanwhile, whoever wishes"
        await world.until("bybit", lambda s: s.state == "live")
        assert time.monotonic() - asked > 0.9

    play(tmp_path, scene, "bybit")


def test_one_exchange_that_is_away_delays_no_other_and_what_it_held_is_kept(tmp_path):
    async def scene(world):
        for exchange in CREDENTIALS:
            await world.live(exchange)
        await world.fault("kucoin", "refuse", seconds=3600)
        await world.fault("kucoin", "rst")
        assert (await world.accounts.sync("kucoin")).error.kind == "network"
        assert totals(world.accounts.status("kucoin"))["BTC"] == "1.3"
        for exchange in ("binance", "bybit"):
            assert (await world.accounts.sync(exchange)).state == "live"
        await world.fault("kucoin", "none")
        await world.until("kucoin", lambda s: s.state == "live" and s.stream == "live")

    play(tmp_path, scene, *CREDENTIALS)


@pytest.mark.parametrize("exchange", CREDENTIALS)
def test_a_stream_that_breaks_is_made_anew_and_what_it_missed_is_asked_for(tmp_path, exchange):
    async def scene(world):
        before = await world.live(exchange)
        connects = before.stream_connects
        await world.fault(exchange, "close", code=1012, private=True)
        await world.fault(exchange, "deposit", asset="LTC", amount="3", silent=True)
        status = await world.until(exchange, lambda s: s.stream_connects > connects and s.stream == "live")
        await world.until(exchange, lambda s: totals(s).get("LTC") == "3")
        assert status.drifts == 0, "it was not there to tell"

    play(tmp_path, scene, exchange)


@pytest.mark.long
def test_what_keeps_failing_keeps_its_pause_whatever_the_stream_tells_and_a_healed_account_is_looked_at_again(
    tmp_path,
):
    async def scene(world):
        await world.live("binance")
        await world.fault("binance", "refuse_key", kind="permission")
        await world.accounts.sync("binance")
        until, count = time.monotonic() + 1.0, 0
        while time.monotonic() < until:  # each a change of which the stream does not tell all
            await world.fault("binance", "deposit", asset="DOGE", amount="1")
            count += 1
            await world.until("binance", lambda s, n=count: totals(s).get("DOGE") == str(n))
        status = world.accounts.status("binance")
        assert status.failures == {"key": 1}
        assert status.next_sync_ns > time.time_ns() + keeper.OPERATOR_S / 2 * 1e9
        await world.fault("binance", "none")
        syncs = (await world.accounts.sync("binance")).syncs
        await world.fault("binance", "deposit", asset="DOGE", amount="1")
        await world.until("binance", lambda s: s.syncs > syncs)

    play(tmp_path, scene, "binance")


def test_a_stream_that_tells_half_of_each_change_costs_a_look_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "HURRY_MIN_S", 3600.0)

    async def scene(world):
        await world.put("binance")
        status = await world.until("binance", lambda s: s.state == "live" and s.stream == "live")
        looks = status.syncs
        for number in range(20):
            await world.fault("binance", "deposit", asset="DOGE", amount="1")
            await world.until("binance", lambda s, n=number: totals(s).get("DOGE") == str(n + 1))
        assert status.syncs == looks
        assert (await world.accounts.sync("binance")).syncs == looks + 1, (
            "whoever asks does not wait for that"
        )

    play(tmp_path, scene, "binance")


def test_when_the_next_look_is_is_told_with_the_one_before(tmp_path):
    told, worlds = [], []

    def on_change(exchange):
        status = worlds[0].accounts.status(exchange)
        if status.state == "live":
            told.append(status.next_sync_ns)

    async def scene(world):
        worlds.append(world)
        await world.live("bybit")
        assert told[0] > 0

    play(tmp_path, scene, "bybit", on_change=on_change)


def test_who_waits_for_a_look_is_answered_when_the_account_is_removed_meanwhile(tmp_path, monkeypatch):
    async def scene(world):
        await world.live("bybit")
        monkeypatch.setattr(keeper, "PAUSE_MIN_S", 3600.0)
        caller = asyncio.create_task(world.accounts.sync("bybit"))
        await asyncio.sleep(0)  # it waits for its turn now
        await world.accounts.remove("bybit")
        async with asyncio.timeout(PATIENCE_S):
            assert (await caller).state == "off"

    play(tmp_path, scene, "bybit")


def test_an_assertion_of_ours_that_fails_is_raised_to_who_runs_the_accounts(tmp_path, monkeypatch):
    names = {"__name__": "feedhandler.accounts.balances"}
    exec(compile("def on_stream(*_):\n    assert False, 'ours'", "balances.py", "exec"), names)

    async def scene(world):
        await world.live("bybit")
        monkeypatch.setattr("feedhandler.accounts.balances.Ledger.on_stream", names["on_stream"])
        await world.fault("bybit", "deposit", asset="DOGE", amount="1")
        with pytest.raises(AssertionError, match="ours"):
            async with asyncio.timeout(PATIENCE_S):
                await world.accounts.run()

    play(tmp_path, scene, "bybit")


UNFORESEEN = [
    RuntimeError("File descriptor 27 is used by transport"),
    AssertionError("a library's own"),
    AttributeError("'NoneType' object has no attribute 'write'"),
    asyncio.InvalidStateError("secret-of-somebody"),
]


@pytest.mark.parametrize("exc", UNFORESEEN, ids=lambda exc: type(exc).__name__)
def test_whatever_a_request_raises_the_account_is_shown_as_failed_and_asked_again(
    tmp_path, monkeypatch, caplog, exc
):
    """Raised where the library is called, which is below `HttpClient`."""
    request, left = aiohttp.ClientSession.request, [exc, exc]

    def failing(session, method, url, **settings):
        if left and "wallet-balance" in str(url):
            raise left.pop()
        return request(session, method, url, **settings)

    async def scene(world):
        monkeypatch.setattr(aiohttp.ClientSession, "request", failing)
        await world.put("bybit")
        status = await world.until("bybit", lambda s: s.state == "failed")
        assert status.error.kind == "network"
        assert type(exc).__name__ in status.error.message
        await world.until("bybit", lambda s: s.state == "live")
        assert caplog.text.count("Traceback") + caplog.text.count("unforeseen, 1 times") == 1
        assert "secret-of-somebody" not in caplog.text

    play(tmp_path, scene, "bybit")


@pytest.mark.parametrize("exc", UNFORESEEN, ids=lambda exc: type(exc).__name__)
def test_whatever_its_socket_raises_the_stream_is_shown_as_failed_and_made_again(tmp_path, monkeypatch, exc):
    receive, left = aiohttp.ClientWebSocketResponse.receive, [exc]

    async def failing(socket, *arguments):
        if left:
            raise left.pop()
        return await receive(socket, *arguments)

    async def scene(world):
        errors = []
        monkeypatch.setattr(aiohttp.ClientWebSocketResponse, "receive", failing)
        await world.put("bybit")
        status = await world.until("bybit", lambda s: errors.append(s.stream_error) or s.stream == "live")
        assert status.stream_connects >= 2
        assert any(error is not None and type(exc).__name__ in error.message for error in errors)

    play(tmp_path, scene, "bybit")


def test_of_bytes_in_place_of_text_nothing_is_quoted(tmp_path, caplog):
    async def scene(world):
        connects = (await world.live("binance")).stream_connects
        for connection in world.servers["binance"]._chosen(None, is_private=True):
            connection.write(frames.frame(frames.BINARY, b'{"B":[{"a":"BTC","f":"42.4242"}]}'))
        status = await world.until("binance", lambda s: s.stream_connects > connects)
        assert "in place of text" in caplog.text
        assert "42.4242" not in f"{caplog.text} {status}"

    play(tmp_path, scene, "binance")


def test_callers_share_the_look_that_is_under_way(tmp_path):
    async def scene(world):
        before = (await world.live("binance")).syncs
        statuses = await asyncio.gather(*(world.accounts.sync("binance") for _ in range(20)))
        assert {status.syncs for status in statuses} == {before + 1}

    play(tmp_path, scene, "binance")


def test_without_credentials_there_is_nothing_and_removed_ones_are_forgotten(tmp_path):
    changed = []

    async def scene(world):
        assert world.accounts.status("binance").state == "off"
        assert (await world.accounts.sync("binance")).state == "off"
        await world.live("binance")
        assert await world.accounts.remove("binance")
        assert world.accounts.status("binance").state == "off"
        assert world.accounts.status("binance").balances == []
        assert not await world.accounts.remove("binance")
        changed.clear()
        await world.fault("binance", "deposit", asset="DOGE", amount="1")
        assert changed == []

    play(tmp_path, scene, "binance", on_change=changed.append)


def test_what_is_no_credential_is_refused_and_what_was_there_stays(tmp_path):
    async def scene(world):
        await world.live("kucoin")
        with pytest.raises(CredentialsError, match="passphrase: is missing"):
            await world.accounts.put("kucoin", Credentials("k", "s"))
        assert (await world.accounts.sync("kucoin")).state == "live"

    play(tmp_path, scene, "kucoin")


def test_the_end_is_quick_even_of_an_exchange_that_says_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(keeper, "CLOSE_S", 0.3)

    async def scene(world):
        await world.live("bybit")
        await world.fault("bybit", "stall", seconds=60)
        await world.accounts.close()
        assert "failed" not in caplog.text

    play(tmp_path, scene, "bybit")


# --- from the environment


def test_credentials_come_from_the_environment_and_half_of_them_name_what_is_missing():
    environ = {"KUCOIN_API_KEY": "k", "KUCOIN_API_SECRET": "hidden", "KUCOIN_PASSPHRASE": "p"}
    credentials = credentials_of(environ, "kucoin")
    assert (credentials.key, credentials.secret, credentials.passphrase) == ("k", "hidden", "p")
    assert repr(credentials) == "Credentials(…)"
    assert credentials_of(environ, "binance") is None
    del environ["KUCOIN_PASSPHRASE"]
    with pytest.raises(
        ConfigError, match=r"^KUCOIN_PASSPHRASE: not set, and KUCOIN_API_KEY and KUCOIN_API_S"
    ) as e:
        credentials_of(environ, "kucoin")
    assert "hidden" not in str(e.value)
    with pytest.raises(ConfigError, match="BINANCE_API_SECRET: secret: is no private key in PEM"):
        credentials_of({"BINANCE_API_KEY": "k", "BINANCE_API_SECRET": "-----BEGIN hidden"}, "binance")


def test_an_account_is_removed_while_the_socket_of_a_refused_key_is_being_closed(tmp_path, monkeypatch):
    """Its end must not be taken for that of the close: it would go on for ever, and hold up all other accounts."""
    closing, real_close = asyncio.Event(), aiohttp.ClientWebSocketResponse.close

    async def close(socket, **settings):
        closing.set()
        await asyncio.sleep(0.1)
        return await real_close(socket, **settings)

    async def scene(world):
        monkeypatch.setattr(aiohttp.ClientWebSocketResponse, "close", close)
        for name in ("binance", "bybit"):
            closing.clear()
            await world.put(name, secret="another-secret")
            async with asyncio.timeout(PATIENCE_S):
                await closing.wait()
                assert await world.accounts.remove(name)

    play(tmp_path, scene, "binance", "bybit")
