"""A wrong configuration gets one message that names file, key and remedy."""

import os
import re
from pathlib import Path

import pytest

from feedhandler.data.errors import ConfigError
from feedhandler.data.instruments import Instrument, InstrumentTable
from feedhandler.data.shard import WHOLE, Shard
from feedhandler.data.wanted import Configured
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Exchange
from feedhandler.runtime import checks, config
from feedhandler.runtime.lifecycle import check_cpus, use_cpus
from feedhandler.runtime.settings import Config, ExchangeConfig, MarketConfig

ROOT = Path(__file__).parents[2]
OK = "[exchanges.binance]\n"
SIMULATED = OK + "simulated = true\n"
LOCAL = SIMULATED + 'ws_url = "ws://127.0.0.1:1"\nrest_url = "http://127.0.0.1:1"\n'

WRONG = [
    (OK + "[nats]\nserver = 1\n", 'nats.server: unknown key; did you mean "servers"?'),
    (
        OK + '[merger]\nfeeds = "tcp://central:5550"\n[curve]\nkey = "k"\nserver = "s"\n[nats]\n',
        "nats: merger.feeds is another host's, and the bridge has to be beside the merger",
    ),
    (OK + "[nats]\nservers = []\n", "nats.servers: is empty"),
    (
        OK + '[nats]\nservers = ["http://127.0.0.1:4222"]\n',
        "nats.servers: 'http://127.0.0.1:4222' must be nats",
    ),
    (OK + '[nats]\nservers = ["nats://user:secret@127.0.0.1:4222"]\n', "must end after the port"),
    (
        OK + '[nats]\nservers = ["nats://a:1", "tls://b:1"]\n',
        "nats.servers: some are nats:// and some tls://",
    ),
    (OK + '[nats]\ntls_ca = "ca.pem"\n', "nats.tls_ca: is set, and servers are nats://"),
    (OK + '[nats]\nprefix = "md."\n', "nats.prefix: 'md.' is no beginning of a subject"),
    (OK + '[nats]\nprefix = "$SYS"\n', "nats.prefix: '$SYS' is no beginning"),
    (OK + '[nats]\nprefix = "md.>"\n', "nats.prefix: 'md.>' is no beginning"),
    (OK + "[nats]\ntopics = []\n", "nats.topics: is empty"),
    (
        OK + '[nats]\ntopics = ["ticker.binance.BTC/USDT"]\n',
        "single symbols are for those who subscribe at NATS",
    ),
    (OK + '[nats]\ntopics = ["ticker.kucoin."]\n', "an exchange that is configured"),
    (OK + '[nats]\ntopics = ["trades."]\n', "nats.topics: 'trades.' is not what can be chosen"),
    (OK + '[nats]\nstream = "a.b"\n', "nats.stream: 'a.b' is no name of a stream"),
    (OK + '[nats]\nstorage = "disk"\n', "nats.storage: 'disk' is not"),
    (OK + "[nats]\nreplicas = 6\n", "nats.replicas: 6 is out of range"),
    (OK + "[nats]\nmax_bytes = 1000\n", "nats.max_bytes: 1000 is out of range"),
    (OK + "[nats]\nmax_age_s = 0.5\n", "nats.max_age_s: 0.5 is too short"),
    (OK + "[nats]\nmax_msgs_per_subject = -1\n", "nats.max_msgs_per_subject: -1 is out of range"),
    (OK + '[nats]\nmetrics = "0.0.0.0:9464"\n', "nats.metrics: must be host:port on loopback"),
    (OK + '[nats]\nmetrics = "9464"\n', "nats.metrics: must be host:port on loopback"),
    (OK + '[recorder]\ndirectory = ""\n', "recorder.directory: must be the name of a directory"),
    (OK + "[recorder]\nsegment_s = 0.5\n", "recorder.segment_s: 0.5 is out of range; it is 1 to 86400"),
    (OK + "[recorder]\nmax_size_gb = -1\n", "recorder.max_size_gb: -1 is out of range; it is 0, or 0.001 to"),
    (OK + "[recorder]\ndir = 1\n", 'recorder.dir: unknown key; did you mean "directory"?'),
    (OK + "raw = []\n[recorder]\n", "exchanges.binance.raw: is empty, and [recorder] records it from there"),
    (OK + 'raw = ["tcp://0.0.0.0:5000"]\n', "exchanges.binance.raw: 'tcp://0.0.0.0:5000' is not on loopback"),
    (
        OK + 'shards = 2\nraw = ["tcp://127.0.0.1:7000"]\n',
        "exchanges.binance.raw: 'tcp://127.0.0.1:7000' is one address, and each of 2 shards needs its own",
    ),
    ("", "exchanges: names no exchange; add a table such as [exchanges.binance]"),
    ("[exchanges]\n", "exchanges: names no exchange"),
    ("exchanges = 3\n", "exchanges: must hold tables"),
    ("[[exchanges]]\n", "exchanges: must hold tables"),
    (OK + "[sim]\n", "sim: nothing to simulate"),
    (SIMULATED + 'ws_url = "ws://127.0.0.1"\nrest_url = "http://127.0.0.1:1"\n[sim]\n', "has no port"),
    (OK + 'ws_url = "ws://*:80"\n', "exchanges.binance.ws_url: 'ws://*:80' must be ws or wss"),
    (OK + '[merger]\nfeeds = "ipc://*"\n', "is no ZeroMQ endpoint"),
    (OK + 'symbols = ["B\\u0001/USDT"]\n', "is not BASE/QUOTE"),
    (SIMULATED + 'ws_url = "wss://127.0.0.1:1"\nrest_url = "http://127.0.0.1:1"\n[sim]\n', "has no TLS"),
    (OK + "cpus = [-1]\n", "exchanges.binance.cpus: Expected int >= 0"),
    (OK + 'cpus = "1"\n', "exchanges.binance.cpus: Expected list, got str"),
    (OK + '[merger]\ncpus = ["1"]\n', "merger.cpus: Expected int, got str"),
    (
        OK + 'direct = ["ipc://run/ticks.ipc"]\n',
        "exchanges.binance.direct: ipc://run/ticks.ipc is used twice",
    ),
    (
        OK + 'direct = ["tcp://0.0.0.0:5000"]\n',
        "exchanges.binance.direct: 'tcp://0.0.0.0:5000' is not on loopback",
    ),
    (
        OK + '[merger]\nbatches = ["tcp://127.0.0.1"]\n',
        "merger.batches: 'tcp://127.0.0.1' is no ZeroMQ endpoint",
    ),
    ("x = [\n", "not valid TOML"),
    ("[exchange.binance]\n", 'exchange: unknown key; did you mean "exchanges"?'),
    ("[exchanges.binanse]\n", 'exchanges.binanse: unknown exchange; did you mean "binance"?'),
    ("[exchanges]\nbinance = 1\n", "exchanges.binance: must be a table"),
    (OK + "symbls = []\n", 'exchanges.binance.symbls: unknown key; did you mean "symbols"?'),
    (
        OK + 'symbols = "BTC/USDT"\n',
        "exchanges.binance.symbols: Expected list, got str; for example symbols = [",
    ),
    (OK + "symbols = [1]\n", "exchanges.binance.symbols: Expected str, got int"),
    (OK + 'symbols = ["BTCUSDT"]\n', "'BTCUSDT' is not BASE/QUOTE; did you mean \"BTC/USDT\"?"),
    (OK + 'symbols = ["BTC-USDT"]\n', 'did you mean "BTC/USDT"?'),
    (OK + 'symbols = ["BTC/USDT/X"]\n', "is not BASE/QUOTE"),
    (OK + 'symbols = ["BTC /USDT"]\n', "is not BASE/QUOTE"),
    (OK + 'symbols = ["/"]\n', 'is not BASE/QUOTE; write it like "BTC/USDT"'),
    (OK + 'symbols = ["btc/usdt"]\n', 'did you mean "BTC/USDT"?'),
    (OK + 'symbols = ["BTC/USDT", "BTC/USDT"]\n', "BTC/USDT is listed twice"),
    (OK + f'symbols = ["{"X" * 60}/USDT"]\n', "cannot be published"),
    (OK + "kinds = []\n", 'exchanges.binance.kinds: is empty; for example ["ticker"]'),
    (
        OK + 'kinds = "ticker"\n',
        'exchanges.binance.kinds: Expected list, got str; for example kinds = ["ticker"]',
    ),
    (
        OK + 'kinds = ["xyz"]\n',
        "exchanges.binance.kinds: binance does not offer 'xyz' (known: ticker, ",
    ),
    (OK + 'kinds = ["tickers"]\n', "does not offer 'tickers'; did you mean \"ticker\"? (known: ticker, "),
    (OK + 'kinds = ["ticker", "ticker"]\n', "exchanges.binance.kinds: ticker is listed twice"),
    (
        OK + "simulated = 1\n",
        "exchanges.binance.simulated: Expected bool, got int; for example simulated = false",
    ),
    (OK + "simulated = true\n", "ws_url or rest_url is left out"),
    (
        OK + 'ws_url = "http://127.0.0.1:1"\n',
        "exchanges.binance.ws_url: 'http://127.0.0.1:1' must be ws or wss",
    ),
    (OK + 'ws_url = "ws://127.0.0.1:1/stream"\n', "must end after the port"),
    (
        OK + 'ws_url = "ws://127.0.0.1:99999"\n',
        "exchanges.binance.ws_url: 'ws://127.0.0.1:99999' is no address",
    ),
    (
        OK + 'rest_url = "127.0.0.1:9101"\n',
        "exchanges.binance.rest_url: '127.0.0.1:9101' must be http or https",
    ),
    (
        OK + 'ws_url = "ws://bü.example:1"\n',
        "host and port: 'bü.example' has letters that the",
    ),
    (
        OK + 'rest_url = "http://-a.example:1"\n',
        "'-a.example' is no name of a host: parts between dots have 1 to 63",
    ),
    (OK + 'rest_url = "http://a..b:1"\n', "'a..b' is no name of a host"),
    (OK + 'rest_url = "http://300.1.1.1:1"\n', "'300.1.1.1' is no IP address"),
    (OK + f'rest_url = "http://{"a." * 130}b:1"\n', "has more than 253 characters"),
    (OK + '[gateway]\nhosts = ["Feeds.Example"]\n', "has capital letters; write 'feeds.example'"),
    (OK + '[gateway]\nhttp = "a_b-:8080"\n', "gateway.http: 'a_b-' is no name of a host"),
    (
        OK + '[relay]\nrecover = ["tcp://*:5555"]\n',
        "relay.recover: 'tcp://*:5555' is no ZeroMQ endpoint: '*' is no name",
    ),
    (OK + "group = 1\n", "exchanges.binance.group: unknown key"),
    ("group = 1\n" + OK, "group: must be the name of a group"),
    ("board = 1\n" + OK, "board: must be true or false"),
    (OK + "max_attempts = -1\n", "exchanges.binance.max_attempts: -1 is out of range"),
    (OK + "max_attempts = 1.5\n", "exchanges.binance.max_attempts: Expected int, got float"),
    (OK + "stale_after_s = nan\n", "exchanges.binance.stale_after_s: nan is out of range"),
    (OK + "stale_after_s = 50\n", "must be smaller than reconnect_after_s"),
    (OK + "legs = 4\n", "exchanges.binance.legs: 4 is out of range; it is 1 to 3 connections"),
    (OK + "legs = 0\n", "exchanges.binance.legs: 0 is out of range; it is 1 to 3 connections"),
    (OK + "shards = 0\n", "exchanges.binance.shards: 0 is out of range; it is 1 to 16 processes"),
    (OK + "shards = -2\n", "exchanges.binance.shards: -2 is out of range"),
    (OK + "shards = 17\n", "exchanges.binance.shards: 17 is out of range; it is 1 to 16 processes"),
    (OK + 'shards = "1/4"\n', "exchanges.binance.shards: Expected int, got str; for example shards = 1"),
    (
        OK + 'shards = 2\ndirect = ["tcp://127.0.0.1:7000"]\n',
        "exchanges.binance.direct: 'tcp://127.0.0.1:7000' is one address, and each of 2 shards needs its own",
    ),
    (
        OK + 'shards = 2\n[merger]\nfeeds = "ipc://run/binance-2of2.ipc"\n',
        "exchanges.binance.direct: ipc://run/binance-2of2.ipc is used twice, by merger.feeds too",
    ),
    (OK + "max_age_s = -1\n", "exchanges.binance.max_age_s: -1 is out of range"),
    (OK + "max_age_s = 1\n", "exchanges.binance.max_age_s: 1 is too short"),
    (OK + 'renew_window = "4 am"\n', "renew_window: '4 am' is no part of a day; write it like"),
    (
        OK + "renew_window = 4\n",
        'renew_window: Expected str, got int; for example renew_window = "04:00-04:30"',
    ),
    (OK + "backoff_min_s = 31\n", "backoff_min_s: is larger than backoff_max_s"),
    (
        OK + "source_addresses = [1]\n",
        "source_addresses: Expected str, got int, at [0]; for example source_ad",
    ),
    (OK + 'source_addresses = ["eth0"]\n', "source_addresses: 'eth0' is no IP address; write one of this"),
    (OK + 'source_addresses = ["192.0.2.1/24"]\n', "'192.0.2.1/24' is no IP address"),
    (OK + 'source_addresses = ["::"]\n', "'::' is no single machine's address; leave it out"),
    (OK + 'leg_ws_urls = ["https://a.example"]\n', "leg_ws_urls: 'https://a.example' must be ws or wss"),
    (OK + 'leg_ws_urls = ["wss://a.example/ws"]\n', "leg_ws_urls: 'wss://a.example/ws' must end after the"),
    (OK + 'leg_ws_urls = "wss://a.example"\n', "leg_ws_urls: Expected list, got str; for example leg_ws_"),
    (
        '[exchanges.kucoin]\nleg_ws_urls = ["wss://a.example"]\n',
        "exchanges.kucoin.leg_ws_urls: kucoin names the socket itself",
    ),
    (LOCAL + 'leg_ws_urls = ["wss://127.0.0.1:1"]\n[sim]\n', "has no TLS"),
    (OK + "[relay]\nrecover = []\n", "relay.recover: is empty"),
    (OK + '[relay]\nremote_ticks = ["tcp://0.0.0.0:5557"]\n', "needs [curve] key and clients"),
    (
        OK + '[relay]\nremote_ticks = ["ipc://run/x.ipc"]\n',
        "remote_ticks: 'ipc://run/x.ipc' is no TCP endpoint",
    ),
    (OK + '[relay]\nremote_ticks = ["tcp://127.0.0.1:5557"]\n', "what is there is always encrypted"),
    (OK + '[relay]\nrecover = ["tcp://192.0.2.1:5556"]\n', "relay.remote_recover (what they missed)"),
    (OK + '[relay]\nremote_recover = ["tcp://192.0.2.1:5556"]\n', "needs [curve] key and clients"),
    (OK + '[relay]\nremote_feeds = ["tcp://192.0.2.1:5550"]\n', "needs [curve] key and clients"),
    (OK + '[relay]\nrecover = ["tcp://127.0.0.1:5555"]\n', "is used twice, by merger.ticks too"),
    (OK + '[relay]\nremote_feeds = ["tcp://*:5550"]\n', "is no ZeroMQ endpoint"),
    (OK + '[merger]\nfeeds = "tcp://192.0.2.1:5550"\n', "so it needs [curve] key and server"),
    (OK + '[merger]\nbatches = ["tcp://192.0.2.1:5550"]\n', "use relay.remote_ticks (subscribers)"),
    (OK + '[curve]\nkey = "x"\nclient = "y"\n', 'curve.client: unknown key; did you mean "clients"?'),
    (OK + "[merger]\nticks = []\n", "merger.ticks: is empty"),
    (OK + "[merger]\nrecent = 1025\n", "merger.recent: 1025 is out of range; it is 0, or 1 to 1024 records"),
    (OK + "[merger]\nrecent = -1\n", "merger.recent: -1 is out of range"),
    (OK + '[merger]\nticks = ["udp://127.0.0.1:1"]\n', "is no ZeroMQ endpoint"),
    (OK + '[merger]\nticks = ["tcp://127.0.0.1:0"]\n', "is no ZeroMQ endpoint"),
    (OK + '[merger]\nticks = ["tcp://0.0.0.0:5555"]\n', "is not on loopback"),
    (OK + f'[merger]\nfeeds = "ipc://{"x" * 120}"\n', "is too long"),
    (OK + '[merger]\nfeeds = "ipc://run/ticks.ipc"\n', "ipc://run/ticks.ipc is used twice"),
    (OK + '[gateway]\nhttp = "0.0.0.0:8080"\n', "gateway.hosts: is empty, and 0.0.0.0 is no name"),
    (OK + '[gateway]\nhosts = ["a b"]\n', "gateway.hosts: 'a b' is no name of a host"),
    (
        OK + "[gateway]\nbalances_every_s = 1\n",
        "gateway.balances_every_s: 1 is out of range; it is 5 to 3600",
    ),
    (OK + "[gateway]\nupdates_per_s = 500\n", "gateway.updates_per_s: 500 is out of range; it is 0.1 to 50"),
    (OK + '[gateway]\nquotes = ["usdt"]\n', "gateway.quotes: 'usdt' is no asset"),
    (OK + '[gateway]\ndust = "a little"\n', 'for example dust = "0.0001"'),
    (OK + '[gateway]\ndust = "-1"\n', "gateway.dust: -1 is out of range"),
    (OK + '[gateway]\ndust = "nan"\n', "gateway.dust:"),
    (OK + '[gateway]\ndust_of = {SHIB = "-1"}\n', "gateway.dust_of.SHIB: -1 is out of range"),
    (OK + '[gateway]\ndust_of = {SHIB = "x"}\n', 'for example dust_of = {SHIB = "1000"}'),
    (OK + '[gateway]\nhttp = "8080"\n', "gateway.http: must be host:port"),
    (
        LOCAL + "[sim]\nmessages_per_s = 0.5\n",
        "sim.messages_per_s: 0.5 is out of range; it is 0, or 1 to 50000",
    ),
    (LOCAL + "[sim]\nbusiest_per_s = 0.5\n", "sim.busiest_per_s: 0.5 is out of range; it is 1 to 1000"),
    (LOCAL + "[sim]\nbusy_symbols = 5001\n", "sim.busy_symbols: 5001 is out of range; it is 1 to 5000"),
    (LOCAL + "[sim]\nquietest_s = 59\n", "sim.quietest_s: 59 is out of range; it is 60 to 86400"),
    (LOCAL + "[sim]\nmessages_per_s = 9\nquietest_s = 60\n", "sim.quietest_s: has no effect beside"),
    (LOCAL + "[sim]\ninstruments = 3\n", "sim.instruments: 3 is out of range; it is 50 to 5000"),
    ('run_dir = ""\n' + OK, "run_dir: must be the name of a directory"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_configuration_names_file_key_and_remedy(text, message):
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert message in str(caught.value)


def test_a_missing_file_says_what_writes_one(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file; `feedhandler init .*/none\.toml` writes one"):
        config.load(str(tmp_path / "none.toml"))


def test_without_a_name_the_environment_then_a_checkout_then_the_directory_has_the_file(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(config.CONFIG_ENV, raising=False)
    assert config.default_path() is None
    Path("feedhandler.toml").write_text(OK)
    assert config.default_path() == "feedhandler.toml"
    Path("conf").mkdir()
    Path("conf/live.toml").write_text(OK)
    assert config.default_path() == "conf/live.toml"
    Path("mine.toml").write_text(OK)
    monkeypatch.setenv(config.CONFIG_ENV, "mine.toml")
    assert config.default_path() == "mine.toml"
    monkeypatch.setenv(config.CONFIG_ENV, "none.toml")
    with pytest.raises(ConfigError, match=r"FEEDHANDLER_CONFIG: none\.toml: no such file"):
        config.default_path()


def test_a_file_that_is_no_text_says_so(tmp_path):
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(str(path))


def test_each_symbol_is_wanted_in_the_configured_kinds():
    assert config.parse(OK, "x").exchange("binance").configured.kinds == ("ticker",)
    settings = config.parse(OK + 'symbols = ["A/B"]\nkinds = ["ticker"]\n', "x").exchange("binance")
    assert settings.configured == Configured(("A/B",), ("ticker",))


def test_left_out_symbols_are_the_majors():
    settings = config.parse(OK, "x").exchange("binance")
    assert settings.symbols == ("BTC/USDT", "ETH/USDT", "SOL/USDT", "ADA/USDT", "XRP/USDT")


def test_legs_take_hosts_and_source_addresses_in_turn():
    settings = config.parse(
        OK
        + 'leg_ws_urls = ["wss://a.example/", "ws://b.example:81"]\nsource_addresses = ["192.0.2.1", "::1"]\n',
        "x.toml",
    ).exchange("binance")
    spot = settings.markets["spot"]
    assert [spot.leg_ws_url(leg) for leg in range(3)] == [
        "wss://a.example",
        "ws://b.example:81",
        "wss://a.example",
    ]
    assert [settings.leg_source_address(leg) for leg in range(3)] == ["192.0.2.1", "::1", "192.0.2.1"]


def test_legs_that_are_told_nothing_go_where_ws_url_says_from_any_address():
    settings = config.parse(LOCAL + "legs = 3\n", "x.toml").exchange("binance")
    assert {settings.markets["spot"].leg_ws_url(leg) for leg in range(3)} == {"ws://127.0.0.1:1"}
    assert {settings.leg_source_address(leg) for leg in range(3)} == {""}
    assert config.parse(OK, "x.toml").exchange("binance").markets["spot"].leg_ws_url(0) == ""


class _Linear(EXCHANGES["binance"].main):
    name = "linear"
    ws_url = "wss://linear.example.com"
    rest_url = "https://linear.example.com"


@pytest.fixture
def two_markets(monkeypatch):
    """Have binance another market."""
    monkeypatch.setitem(EXCHANGES, "binance", Exchange("binance", (EXCHANGES["binance"].main, _Linear)))


def test_each_market_has_hosts_of_its_own(two_markets):
    settings = config.parse(OK + 'ws_url = "ws://127.0.0.1:1/"\n', "x.toml")
    assert settings.exchange("binance").markets["spot"].ws_url == "ws://127.0.0.1:1"
    assert settings.exchange("binance").markets["linear"].ws_url == "", "the exchange's own"
    assert settings.rest_url("binance", "linear") == "https://linear.example.com"
    text = OK + '[exchanges.binance.markets.linear]\nrest_url = "http://127.0.0.1:2/"\n'
    settings = config.parse(text + 'leg_ws_urls = ["ws://127.0.0.1:3"]\n', "x.toml")
    assert settings.rest_url("binance", "linear") == "http://127.0.0.1:2"
    assert settings.rest_url("binance") == settings.rest_url("binance", "spot") == "https://api.binance.com"
    assert settings.exchange("binance").markets["linear"].leg_ws_url(1) == "ws://127.0.0.1:3"
    assert settings.exchange("binance").markets["spot"].leg_ws_url(1) == ""


@pytest.mark.usefixtures("two_markets")
def test_a_market_with_hosts_of_its_own_is_not_asked_in_production_where_spot_is_elsewhere():
    at = 'rest_url = "http://127.0.0.1:1"\n'
    text = OK + at
    assert config.parse(text, "x.toml").lacking_address("binance", "spot") == ""
    lacking = config.parse(text, "x.toml").lacking_address("binance", "linear")
    assert lacking.startswith(
        "exchanges.binance.markets.linear.rest_url: is missing, as exchanges.binance.rest_url"
    )
    both = '[exchanges.binance]\nsymbols = ["BTC/USDT", "BTC/USDT:USDT"]\n'
    with pytest.raises(ConfigError, match=r"x.toml: exchanges.binance.markets.linear.rest_url: is missing"):
        config.parse(both + at, "x.toml")
    own = '[exchanges.binance.markets.linear]\nrest_url = "http://127.0.0.1:2"\n'
    for there in (at + own, "", 'rest_url = "https://api.binance.com"\n'):
        config.parse(both + there, "x.toml")
    for stand_in in ("simulated = true\n", "replay = true\n"):
        found = config.parse(both + at + 'ws_url = "ws://127.0.0.1:1"\n' + stand_in, "x.toml")
        assert found.rest_url("binance", "linear") == "http://127.0.0.1:1/linear"


@pytest.mark.usefixtures("two_markets")
def test_a_symbol_of_a_market_that_is_not_listed_yet_is_judged_by_its_spelling():
    spot = Instrument("BTCUSDT", "BTC", "USDT")
    table = InstrumentTable("binance", [spot])
    assert list(checks.refusals("binance", ["BTC/USDT:USDT", "ETH/USDT", "x"], table, "w")) == [
        "ETH/USDT",
        "x",
    ]
    assert list(checks.refusals("kucoin", ["BTC/USDT:USDT"], table, "w")) == []
    contract = Instrument("linear:ETHUSDT", "ETH", "USDT", settle="USDT")
    table = InstrumentTable("binance", [spot, contract])
    assert list(checks.refusals("binance", ["BTC/USDT:USDT", "ETH/USDT:USDT"], table, "w")) == [
        "BTC/USDT:USDT"
    ]


def test_a_symbol_of_a_market_that_an_exchange_does_not_have_is_not_listed(monkeypatch):
    monkeypatch.setitem(EXCHANGES, "binance", Exchange("binance", (EXCHANGES["binance"].main,)))
    table = InstrumentTable("binance", [Instrument("BTCUSDT", "BTC", "USDT")])
    assert list(checks.refusals("binance", ["BTC/USDT:USDT"], table, "w")) == ["BTC/USDT:USDT"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[exchanges.binance.markets.liner]\n", 'liner: unknown market; did you mean "linear"?'),
        ("[exchanges.binance.markets.spot]\n", r"write its keys into [exchanges.binance]"),
        ("[exchanges.binance.markets.linear]\nws = 1\n", "markets.linear.ws: unknown key"),
        (
            '[exchanges.binance.markets.linear]\nws_url = "http://a.example"\n',
            "exchanges.binance.markets.linear.ws_url: 'http://a.example' must be ws or wss",
        ),
    ],
)
def test_what_is_wrong_with_a_market_is_named(two_markets, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        config.parse(OK + text, "x.toml")


def test_a_symbol_may_name_what_it_is_settled_in():
    settings = config.parse('[exchanges.binance]\nsymbols = ["BTC/USDT", "BTC/USDT:USDT"]\n', "x.toml")
    assert settings.exchange("binance").symbols == ("BTC/USDT", "BTC/USDT:USDT")
    for symbol in ("BTC/USDT:", "BTC:USDT", ":BTC/USDT", "BTC/USDT:A:B", "BTC/USDT:A/B"):
        with pytest.raises(ConfigError, match="is not BASE/QUOTE"):
            config.parse(f'[exchanges.binance]\nsymbols = ["{symbol}"]\n', "x.toml")


def test_the_ipc_addresses_are_in_the_run_directory_unless_set():
    settings = config.parse('run_dir = "/tmp/x"\n' + OK + '[merger]\nfeeds = "ipc://f"\n', "x")
    assert settings.merger.ticks == ("ipc:///tmp/x/ticks.ipc", "tcp://127.0.0.1:5555")
    assert settings.merger.feeds == "ipc://f"


def test_an_exchange_that_is_not_configured_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"no \[exchanges\.bybit\] table; it configures binance"):
        config.parse(OK, "x").exchange("bybit")


def test_each_shard_publishes_at_an_address_of_its_own():
    settings = config.parse(OK + 'shards = 2\ndirect = ["ipc://a/b.ipc", "ipc://@c"]\n', "x")
    direct = [endpoint for key, endpoint in settings.endpoints() if key == "exchanges.binance.direct"]
    assert direct == ["ipc://a/b-1of2.ipc", "ipc://@c-1of2", "ipc://a/b-2of2.ipc", "ipc://@c-2of2"]
    assert settings.exchange("binance").direct_of(Shard(2, 2)) == ("ipc://a/b-2of2.ipc", "ipc://@c-2of2")
    assert config.parse(OK, "x").exchange("binance").direct_of(WHOLE) == ("ipc://run/binance.ipc",)


def test_raw_traffic_is_offered_where_it_is_recorded_or_asked_for():
    assert config.parse(OK, "x").exchange("binance").raw_of(WHOLE) == ()
    recorded = config.parse('run_dir = "there"\n' + OK + "shards = 2\n[recorder]\n", "x")
    raw = [endpoint for key, endpoint in recorded.endpoints() if key == "exchanges.binance.raw"]
    assert raw == ["ipc://there/binance-raw-1of2.ipc", "ipc://there/binance-raw-2of2.ipc"]
    named = config.parse(OK + 'raw = ["ipc://a.ipc"]\n', "x")
    assert named.exchange("binance").raw_of(WHOLE) == ("ipc://a.ipc",)
    away = config.parse(OK + "raw = []\nelsewhere = true\n[recorder]\n", "x")
    assert away.exchange("binance").raw_of(WHOLE) == (), "its feed is on another host"


def test_the_command_line_says_which_shard_and_must_go_with_the_file():
    assert config.parse(OK, "x").shard("binance", None) == WHOLE
    assert config.parse(OK, "x").shard("binance", "1/4") == Shard(1, 4), "left out: the command line decides"
    sharded = config.parse(OK + "shards = 4\n", "x")
    assert sharded.shard("binance", "4/4") == Shard(4, 4)
    with pytest.raises(
        ConfigError, match=r"shards: is 4, and this is one process: start it with --shard 1/4 to"
    ):
        sharded.shard("binance", None)
    with pytest.raises(ConfigError, match="shards: is 4, and --shard is 1/2: change one of them"):
        sharded.shard("binance", "1/2")
    with pytest.raises(ConfigError, match="shards: is 4, and --shard is 1/1"):
        sharded.shard("binance", "1/1")
    with pytest.raises(ConfigError, match="--shard: '5/4': there is no shard 5 of 4"):
        sharded.shard("binance", "5/4")
    tcp = config.parse(OK + 'direct = ["tcp://127.0.0.1:7000"]\n', "x")
    with pytest.raises(ConfigError, match="is one address, and each of 2 shards needs its own"):
        tcp.shard("binance", "1/2")


def test_where_a_handshake_names_the_socket_rest_url_is_enough_to_simulate():
    settings = config.parse('[exchanges.kucoin]\nrest_url = "http://127.0.0.1:1/"\nsimulated = true\n', "x")
    assert settings.exchange("kucoin").rest_url == "http://127.0.0.1:1"


def test_the_shipped_configurations_are_valid():
    live, demo = (config.load(str(ROOT / "conf" / name)) for name in ("live.toml", "demo.toml"))
    assert set(live.exchanges) == {"binance", "kucoin", "bybit"}
    assert set(demo.exchanges) == {"binance", "kucoin", "bybit", "okx"}
    assert not live.simulated()
    assert live.sim is None
    assert set(demo.simulated()) == set(demo.exchanges)
    assert demo.sim is not None
    assert demo.sim.messages_per_s == 0, "its symbols have a rhythm of their own"


def test_every_key_is_documented():
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for kind in (Config, ExchangeConfig, MarketConfig, *config.TABLES.values()):
        for name in kind.__struct_fields__:
            assert f"`{name}`" in text or (
                kind is Config and name in ("path", "exchanges", *config.TABLES)
            ), name


def test_the_further_endpoints_are_in_the_run_directory_and_can_be_switched_off():
    settings = config.parse('run_dir = "there"\n' + OK, "x.toml")
    assert settings.exchange("binance").direct == ("ipc://there/binance.ipc",)
    assert settings.merger.batches == ("ipc://there/batches.ipc",)
    settings = config.parse(OK + "direct = []\n[merger]\nbatches = []\n", "x.toml")
    assert (settings.exchange("binance").direct, settings.merger.batches) == ((), ())


def test_processors_that_are_not_there_are_refused_with_those_that_are():
    before = os.sched_getaffinity(0)
    there = min(before)
    for cpus in ((1023,), (there, 1023)):  # of the second list the kernel would take a part
        with pytest.raises(ConfigError, match=r"x.toml: merger.cpus: \[1023\] are not there; .* us use \d"):
            use_cpus(cpus, "x.toml: merger.cpus")
    assert os.sched_getaffinity(0) == before
    check_cpus((there,), "x.toml: merger.cpus")
    assert os.sched_getaffinity(0) == before


def test_topics_of_the_bridge_are_kinds_and_exchanges():
    topics = ["", "ticker.", "ticker.binance.", "status.binance", "heartbeat.merger"]
    settings = config.parse(f"{OK}[nats]\ntopics = {topics}\n", "x.toml")
    assert settings.nats.topics == tuple(topics)
    assert config.parse(OK, "x.toml").nats is None


def test_what_is_shown_of_several_boxes_is_a_configuration():
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        config.parse(block if "[exchanges." in block else OK + block, "scaling.md")


def test_symbols_and_assets_may_have_small_letters_in_them():
    text = OK + 'symbols = ["LYXe/USDT"]\n[gateway]\nquotes = ["USDe"]\n'
    text += 'dust_of = { LYXe = "2", "BTC/USDT:USDT" = "1" }\n'
    settings = config.parse(text, "x.toml")
    assert settings.exchange("binance").symbols == ("LYXe/USDT",)


def test_an_account_has_hosts_of_its_own_wherever_market_data_come_from():
    text = OK + 'ws_url = "wss://stream.binance.com:443"\nrest_url = "https://data-api.binance.vision"\n'
    settings = config.parse(text, "x.toml")
    assert settings.rest_url("binance") == "https://data-api.binance.vision"
    assert settings.private_rest_url("binance") == "https://api.binance.com"
    assert settings.private_ws_url("binance") == "wss://ws-api.binance.com:443"
    own = 'private_rest_url = "https://api1.binance.com/"\nprivate_ws_url = "wss://ws-api.binance.com:9443"\n'
    settings = config.parse(text + own, "x.toml")
    assert settings.private_rest_url("binance") == "https://api1.binance.com"
    assert settings.private_ws_url("binance") == "wss://ws-api.binance.com:9443"


def test_a_simulated_exchange_has_its_accounts_where_its_market_data_are():
    settings = config.parse(LOCAL, "x.toml")
    assert settings.private_rest_url("binance") == "http://127.0.0.1:1"
    assert settings.private_ws_url("binance") == "ws://127.0.0.1:1"
    settings = config.parse(LOCAL + 'private_rest_url = "http://127.0.0.1:2"\n', "x.toml")
    assert settings.private_rest_url("binance") == "http://127.0.0.1:2"


def test_kucoins_private_socket_is_named_by_the_exchange():
    assert config.parse("[exchanges.kucoin]\n", "x.toml").private_ws_url("kucoin") == ""


@pytest.mark.parametrize(
    "host", ["feed_sim", "_a", "a_", "a-b.c_d.example", "1a", "127.0.0.1", "[::1]", "9.example"]
)
def test_names_of_hosts_may_have_what_networks_inside_use(host):
    text = f'{OK}ws_url = "wss://{host}:9000"\nrest_url = "https://{host}"\n[gateway]\nhttp = "{host}:80"\n'
    assert config.parse(text, "x.toml").gateway.address == (host.strip("[]"), 80)
