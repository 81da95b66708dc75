"""What is wanted follows what is held and asked for: real files, an instrument list, no feed."""

import asyncio
import os
import threading
from decimal import Decimal

import pytest
from patience import PATIENCE_S

from feedhandler.accounts.positions import UNPAIRED
from feedhandler.data.errors import ConfigError, SubscriptionRejected
from feedhandler.data.instruments import Instrument, InstrumentTable
from feedhandler.data.wanted import HOLDINGS, POSITIONS
from feedhandler.exchanges import EXCHANGES
from feedhandler.gateway import control as module
from feedhandler.gateway.control import ControlPlane, Position
from feedhandler.gateway.kept_accounts import Accounts
from feedhandler.gateway.market_data import MarketData
from feedhandler.runtime import config
from feedhandler.transport.files import change_wanted, read_wanted, wanted_path, wanted_stamp

SYMBOLS = ("BTC/USDT", "ETH/USDT", "DOGE/USDT", "LTC/USDT", "LTC/BTC", "LYXe/USDT")
LISTED = [Instrument(s.replace("/", ""), *s.split("/")) for s in SYMBOLS]
TABLE = InstrumentTable("bybit", LISTED)
CONTRACTS = InstrumentTable(
    "bybit",
    [
        *LISTED,
        *(Instrument(f"linear:{b}USDT", b, "USDT", market="linear", settle="USDT") for b in ("BTC", "ETH")),
        Instrument("linear:NEWUSDT", "NEW", "USDT", False, "PreLaunch", market="linear", settle="USDT"),
    ],
)


def play(tmp_path, scene, *, has_list=True, table=TABLE, keys=""):
    """Run a scene with a control plane of one exchange; returns what the scene does."""
    text = f'run_dir = "{tmp_path}"\n[exchanges.bybit]\nsymbols = ["BTC/USDT"]\n{keys}'

    async def main():
        settings = config.parse(text, "test.toml")
        loop = asyncio.get_running_loop()
        market_data = MarketData(
            loop, f"ipc://{tmp_path}/none.ipc", lambda _: None, lambda _: None, lambda kind, exchange: None
        )
        if has_list:
            market_data.tables["bybit"] = table
        try:
            return await scene(ControlPlane(settings, market_data, Accounts(settings, lambda exchange: None)))
        finally:
            market_data.close()

    return asyncio.run(main())


def tickers(*symbols):
    return {symbol: ["ticker"] for symbol in symbols}


def requested(tmp_path):
    return read_wanted(str(tmp_path), "bybit").requested


def of(asset, amount="1"):
    return Position("bybit", asset, Decimal(amount))


def test_each_owner_has_its_own_and_the_row_tells_of_all(tmp_path):
    async def scene(control):
        await control.subscribe("bybit", ["DOGE/USDT"], "a", is_unlisted=False)
        await control.subscribe("bybit", ["DOGE/USDT", "LTC/USDT"], "b", is_unlisted=False)
        return await control.unsubscribe("bybit", "DOGE/USDT", "a")

    row = play(tmp_path, scene)
    assert row.requested == {"b": tickers("DOGE/USDT", "LTC/USDT")} == requested(tmp_path)
    assert row.wanted == tickers("BTC/USDT", "DOGE/USDT", "LTC/USDT")
    assert (row.configured, row.kinds) == (["BTC/USDT"], ["ticker"])


@pytest.mark.parametrize(
    ("symbols", "owner", "is_unlisted", "error", "text"),
    [
        (["doge/usdt"], "a", False, ConfigError, 'did you mean "DOGE/USDT"'),
        (["DOGF/USDT", "nonsense"], "a", False, SubscriptionRejected, "did you mean DOGE/USDT"),
        (["LYXE/USDT"], "a", False, SubscriptionRejected, "did you mean LYXe/USDT"),
        (["nonsense"], "a", True, ConfigError, "is not BASE/QUOTE"),
        (["DOGE/USDT"], "holdings", False, ConfigError, "owner: 'holdings' is the gateway's own"),
        (["DOGE/USDT"], "positions", False, ConfigError, "owner: 'positions' is the gateway's own"),
        (["DOGE/USDT"], "", False, ConfigError, "owner: must have 1 to 64"),
        (["DOGE/USDT"], "a\n", False, ConfigError, "owner: must have 1 to 64"),
        (["DOGE/USDT"], "a" * 65, False, ConfigError, "owner: must have 1 to 64"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_and_nothing_is_changed(
    tmp_path, symbols, owner, is_unlisted, error, text
):
    async def scene(control):
        with pytest.raises(error, match=text.replace("(", r"\(")):
            await control.subscribe("bybit", symbols, owner, is_unlisted=is_unlisted)

    play(tmp_path, scene)
    assert not wanted_path(str(tmp_path), "bybit").exists()


def test_what_cannot_be_had_is_told_and_does_not_keep_the_others(tmp_path):
    async def scene(control):
        symbols = ["DOGF/USDT", "LYXe/USDT", "btc/usdt", "DOGE/USDT"]
        return await control.subscribe("bybit", symbols, "a", is_unlisted=False)

    row = play(tmp_path, scene)
    assert row.requested == {"a": tickers("LYXe/USDT", "DOGE/USDT")} == requested(tmp_path)
    assert list(row.refused) == ["DOGF/USDT", "btc/usdt"]
    assert "did you mean DOGE/USDT" in row.refused["DOGF/USDT"]
    assert 'did you mean "BTC/USDT"' in row.refused["btc/usdt"]


def test_what_is_not_listed_can_be_wanted_all_the_same(tmp_path):
    async def scene(control):
        await control.subscribe("bybit", ["NEW/USDT"], "a", is_unlisted=True)

    play(tmp_path, scene)
    assert requested(tmp_path) == {"a": tickers("NEW/USDT")}


def test_owners_and_their_symbols_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "OWNERS_MAX", 2)
    monkeypatch.setattr(module, "SYMBOLS_MAX", 2)

    async def scene(control):
        for owner in ("a", "b"):
            await control.subscribe("bybit", ["ETH/USDT"], owner, is_unlisted=False)
        with pytest.raises(ConfigError, match="owner: there are 2 already"):
            await control.subscribe("bybit", ["ETH/USDT"], "c", is_unlisted=False)
        with pytest.raises(ConfigError, match="symbols: a would want more than 2"):
            await control.subscribe("bybit", ["DOGE/USDT", "LTC/USDT"], "a", is_unlisted=False)

    play(tmp_path, scene)
    assert requested(tmp_path) == {"a": tickers("ETH/USDT"), "b": tickers("ETH/USDT")}


def test_positions_are_watched_remembered_and_let_go(tmp_path):
    async def first(control):
        await control.replace_positions([of("LTC"), of("NOSUCH"), of("DOGE", "0.00001")])
        return control.watched["bybit"]

    watched = play(tmp_path, first)
    assert (watched.symbols, watched.unpaired) == (["LTC/USDT"], {"NOSUCH": UNPAIRED})
    assert requested(tmp_path) == {POSITIONS: tickers("LTC/USDT")}
    assert (tmp_path / "wanted" / "positions.json").stat().st_mode & 0o777 == 0o600

    async def second(control):
        known = control.positions
        await control.replace_positions([])
        return known

    assert [position.asset for position in play(tmp_path, second)] == ["LTC", "NOSUCH", "DOGE"]
    assert requested(tmp_path) == {}


def test_contracts_are_watched_themselves_long_or_short_or_it_is_said_why_not(tmp_path):
    async def scene(control):
        stated = {
            "BTC/USDT:USDT": "-0.5",
            "ETH/USDT:USDT": "0.00001",
            "NEW/USDT:USDT": "1",
            "BTX/USDT:USDT": "1",
        }
        await control.replace_positions([of("LTC"), *(of(asset, n) for asset, n in stated.items())])
        return control.watched["bybit"]

    watched = play(tmp_path, scene, table=CONTRACTS)
    assert watched.symbols == ["BTC/USDT:USDT", "LTC/USDT"]
    assert watched.unpaired.keys() == {"BTX/USDT:USDT", "NEW/USDT:USDT"}
    assert watched.unpaired["BTX/USDT:USDT"].startswith("bybit lists no BTX/USDT:USDT; did you mean BTC/USDT")
    assert "not trading, status PreLaunch" in watched.unpaired["NEW/USDT:USDT"]
    assert requested(tmp_path) == {POSITIONS: tickers("BTC/USDT:USDT", "LTC/USDT")}


def test_a_long_and_a_short_position_of_a_contract_are_two_and_not_none(tmp_path):
    async def scene(control):
        await control.replace_positions([of("BTC/USDT:USDT", "1"), of("BTC/USDT:USDT", "-1")])

    play(tmp_path, scene, table=CONTRACTS)
    assert requested(tmp_path) == {POSITIONS: tickers("BTC/USDT:USDT")}


def test_a_contract_is_wanted_by_its_spelling_until_the_list_of_its_market_has_come(tmp_path):
    """A market with a host of its own has none before a symbol of it is wanted."""

    async def state(control):
        await control.replace_positions([of("BTC/USDT:USDT"), of("BTX/USDT:USDT")])

    play(tmp_path, state)
    assert requested(tmp_path) == {POSITIONS: tickers("BTC/USDT:USDT", "BTX/USDT:USDT")}

    async def look(control):
        assert len(control.positions) == 2, "they were kept"
        await control.replace_positions(control.positions)
        return control.watched["bybit"].unpaired

    assert play(tmp_path, look, table=CONTRACTS).keys() == {"BTX/USDT:USDT"}
    assert requested(tmp_path) == {POSITIONS: tickers("BTC/USDT:USDT")}


def test_what_has_not_changed_is_not_written(tmp_path):
    async def scene(control):
        await control.replace_positions([of("LTC")])
        stamp = wanted_stamp(str(tmp_path), "bybit")
        await control.replace_positions([of("LTC", "2")])
        return stamp

    assert play(tmp_path, scene) == wanted_stamp(str(tmp_path), "bybit")


@pytest.mark.parametrize(
    ("position", "text"),
    [
        (Position("kraken", "BTC", Decimal(1)), r"positions\[1\].exchange: 'kraken'"),
        (of("btc"), r"positions\[1\].asset"),
        (of("A" * 65), r"positions\[1\].asset"),
        (
            of("BTC/USDT"),
            r'positions\[1\].asset: must be an asset, such as "BTC", or a contract, such as "BTC/',
        ),
        (of("btc/usdt:usdt"), r"positions\[1\].asset"),
        (of("BTC:USDT"), r"positions\[1\].asset"),
        (of("BTC/USDT:"), r"positions\[1\].asset"),
        (of("BTC/USDT:USDT/X"), r"positions\[1\].asset"),
        (of("BTC/USDT:" + "U" * 64), r"positions\[1\].asset"),
        (of("BTC", "-1"), r"positions\[1\].amount: must be a number of units, 0 or more"),
        (of("BTC/USDT:USDT", "nan"), r"positions\[1\].amount: .* -1.5 if it is short"),
        (of("BTC/USDT:USDT", "-1e30"), r"positions\[1\].amount"),
        (of("BTC", "nan"), r"positions\[1\].amount"),
        (of("BTC", "1e30"), r"positions\[1\].amount"),
    ],
)
def test_positions_that_cannot_be_are_refused_all_together(tmp_path, position, text):
    async def scene(control):
        with pytest.raises(ConfigError, match=text):
            await control.replace_positions([of("LTC"), position])
        return control.positions

    assert play(tmp_path, scene) == []
    assert requested(tmp_path) == {}


def test_without_an_instrument_list_nothing_held_before_is_let_go(tmp_path):
    change_wanted(str(tmp_path), "bybit", lambda wanted: wanted.replace(HOLDINGS, ["DOGE/USDT"]))

    async def scene(control):
        await control.replace_positions([])

    play(tmp_path, scene, has_list=False)
    assert requested(tmp_path) == {HOLDINGS: tickers("DOGE/USDT")}


def test_an_account_that_cannot_be_read_keeps_what_it_held_until_its_credentials_are_taken_back(tmp_path):
    change_wanted(str(tmp_path), "bybit", lambda wanted: wanted.replace(HOLDINGS, ["DOGE/USDT"]))

    async def scene(control):
        await control.replace_positions([of("LTC")])
        kept = requested(tmp_path)
        await control.release("bybit")
        return kept

    assert play(tmp_path, scene) == {HOLDINGS: tickers("DOGE/USDT"), POSITIONS: tickers("LTC/USDT")}
    assert requested(tmp_path) == {POSITIONS: tickers("LTC/USDT")}


def test_of_two_looks_at_what_is_held_the_older_does_not_undo_the_newer(tmp_path, monkeypatch):
    """The first is held up by the disk, after it has seen what was held; meanwhile something else is."""
    calls, go_on, real = [], threading.Event(), module.read_wanted

    def slow_once(run_dir, exchange):
        found = real(run_dir, exchange)
        calls.append(exchange)
        if len(calls) == 1:
            go_on.wait(PATIENCE_S)
        return found

    async def scene(control):
        monkeypatch.setattr(module, "read_wanted", slow_once)
        older = asyncio.create_task(control.replace_positions([of("DOGE")]))
        while not calls:
            await asyncio.sleep(0.001)
        newer = asyncio.create_task(control.replace_positions([of("LTC")]))
        await asyncio.wait([newer], timeout=0.2)  # it may have to wait for the older
        go_on.set()
        await asyncio.gather(older, newer)

    play(tmp_path, scene)
    assert requested(tmp_path) == {POSITIONS: tickers("LTC/USDT")}


def test_positions_that_are_replaced_all_at_once_are_those_of_one_caller(tmp_path):
    async def scene(control):
        await asyncio.gather(
            *(control.replace_positions([of("LTC", str(n))] * (1 + n % 50)) for n in range(1, 100))
        )
        return control.positions

    last = play(tmp_path, scene)
    assert len(last) == 1 + int(last[0].amount) % 50

    async def reread(control):
        return control.positions

    assert play(tmp_path, reread) == last


@pytest.mark.parametrize(
    "text",
    [
        '[{"exchange":"bybit","asset":"LTC","amount":"NaN"}]',
        '[{"exchange":"bybit","asset":"LTC","amount":"1e-999999"}]',
        '[{"exchange":"bybit","asset":"","amount":"1"}]',
        "half of a fi",
        " " * (5 << 20),
        None,
    ],
)
def test_kept_positions_that_cannot_be_are_told_and_what_they_led_to_stays_wanted(tmp_path, caplog, text):
    async def first(control):
        await control.replace_positions([of("LTC")])

    play(tmp_path, first)
    before = requested(tmp_path)
    assert before
    path = tmp_path / "wanted" / "positions.json"
    path.unlink()
    if text is None:
        os.mkfifo(path)
    else:
        path.write_text(text, encoding="utf-8")

    async def second(control):
        work = asyncio.create_task(control.run())
        await control.subscribe("bybit", ["DOGE/USDT"], "a", is_unlisted=False)
        while "bybit" not in control.watched:
            assert not work.done(), work
            await asyncio.sleep(0.01)
        work.cancel()
        await asyncio.wait([work])
        assert work.cancelled()
        kept = requested(tmp_path)
        await control.replace_positions([of("DOGE")])
        return kept

    assert play(tmp_path, second) == {**before, "a": tickers("DOGE/USDT")}
    assert "positions are not known" in caplog.text
    assert requested(tmp_path)[POSITIONS] == tickers("DOGE/USDT")


def test_kinds_of_a_symbol_are_wanted_each_for_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(EXCHANGES["bybit"].main, "kinds", ("ticker", "trade"))

    async def scene(control):
        await control.subscribe("bybit", ["DOGE/USDT"], "a", is_unlisted=False, kinds=["trade", "ticker"])
        row = await control.unsubscribe("bybit", "DOGE/USDT", "a", "ticker")
        with pytest.raises(SubscriptionRejected, match=r"a does not want DOGE/USDT of bybit"):
            await control.unsubscribe("bybit", "DOGE/USDT", "a", "ticker")
        return row

    row = play(tmp_path, scene)
    assert row.requested == {"a": {"DOGE/USDT": ["trade"]}} == requested(tmp_path)
    assert row.wanted == {"BTC/USDT": ["ticker"], "DOGE/USDT": ["trade"]}


def test_a_kind_that_is_not_offered_is_refused_and_named(tmp_path):
    async def scene(control):
        with pytest.raises(ConfigError, match=r"kinds: bybit does not offer 'funding' \(known: ticker, "):
            await control.subscribe("bybit", ["DOGE/USDT"], "a", is_unlisted=False, kinds=["funding"])
        with pytest.raises(
            ConfigError, match=r"kind: bybit does not offer 'tiker'; did you mean \"ticker\"\?"
        ):
            await control.unsubscribe("bybit", "BTC/USDT", "operator", "tiker")

    play(tmp_path, scene)
    assert not wanted_path(str(tmp_path), "bybit").exists()


def test_what_is_held_is_wanted_in_the_configured_kinds(tmp_path, monkeypatch):
    monkeypatch.setattr(EXCHANGES["bybit"].main, "kinds", ("ticker", "trade"))

    async def scene(control):
        await control.replace_positions([of("LTC")])

    play(tmp_path, scene)
    assert requested(tmp_path) == {POSITIONS: {"LTC/USDT": ["ticker"]}}
    play(tmp_path, scene, keys='kinds = ["ticker", "trade"]\n')
    assert requested(tmp_path) == {POSITIONS: {"LTC/USDT": ["ticker", "trade"]}}
