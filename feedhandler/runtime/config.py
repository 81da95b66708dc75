"""The configuration: one TOML file, decoded strictly.

An unknown key, a wrong type or an impossible value is a `ConfigError` whose message names the file, the
key and the remedy. Pure but for finding and reading that file; whether a port is free is looked up in `cli/`.
"""

import difflib
import ipaddress
import itertools
import os
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

from feedhandler.accounts import ACCOUNTS
from feedhandler.data import board_layout, wire
from feedhandler.data.connecting import LEGS_MAX, DailyWindow, Policy
from feedhandler.data.errors import ConfigError, SubscriptionRejected
from feedhandler.data.instruments import InstrumentTable
from feedhandler.data.processes import MERGER
from feedhandler.data.shard import SHARDS_MAX, WHOLE, Shard, shards
from feedhandler.data.shard import parse as parse_shard
from feedhandler.data.wanted import DEFAULT_KINDS, MAJORS, Configured
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Market
from feedhandler.transport.private import IPC_PATH_SIZE_MAX

CONFIG_ENV: Final = "FEEDHANDLER_CONFIG"
DEFAULT_PATHS: Final = (
    "conf/live.toml",
    "feedhandler.toml",
)  # of a checkout; of whoever has only the package
TICKS_TCP: Final = "tcp://127.0.0.1:5555"
RECOVER_TCP: Final = "tcp://127.0.0.1:5556"
REMOTE_KEYS: Final = ("relay.remote_ticks", "relay.remote_recover", "relay.remote_feeds")
LOOPBACK: Final = ("127.0.0.1", "localhost")
HOST_SIZE_MAX: Final = 253  # RFC 1035, 2.3.4
LABEL: Final = re.compile(
    r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
)  # of a name; underscores are usual inside of networks
API_TOKEN_ENV: Final = "FEEDHANDLER_API_TOKEN"
SECRETS: Final = (  # variables of the environment that are the gateway's alone
    API_TOKEN_ENV,
    *(f"{name.upper()}_{what}" for name in EXCHANGES for what in ("API_KEY", "API_SECRET", "PASSPHRASE")),
)
NATS_ENV: Final = (
    "FEEDHANDLER_NATS_USER",
    "FEEDHANDLER_NATS_PASSWORD",
    "FEEDHANDLER_NATS_TOKEN",
)  # the bridge's
WORD_SIZE_MAX: Final = 100  # of a word that may have been meant otherwise: the search costs its square
KNOWN_QUOTES: Final = ("USDT", "USDC", "FDUSD", "USD", "EUR", "BTC", "ETH")  # for suggestions only


Cpu = Annotated[int, msgspec.Meta(ge=0, lt=1024)]  # as the kernel numbers processors


class MarketConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a market is; scheme, host and port only. "": the exchange's production address."""

    ws_url: str = ""
    rest_url: str = ""
    leg_ws_urls: tuple[str, ...] = ()  # of the legs in turn; none: ws_url for all

    def leg_ws_url(self, leg: int) -> str:
        """Return the address that one leg connects to, "" for the exchange's own."""
        return self.leg_ws_urls[leg % len(self.leg_ws_urls)] if self.leg_ws_urls else self.ws_url


class ExchangeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[exchanges.NAME]` table; ws_url, rest_url and leg_ws_urls are those of the exchange's main market."""

    symbols: tuple[str, ...] = MAJORS  # (): what is held, and the majors while nothing is
    kinds: tuple[str, ...] = DEFAULT_KINDS  # of records, of each of them
    connect: bool = True  # False: not until it is ordered while running
    ws_url: str = ""  # "": the exchange's production address
    rest_url: str = ""
    private_rest_url: str = (
        ""  # of the account's requests, and of its stream; "": production, whatever hosts market
    )
    private_ws_url: str = ""  # data have; a simulated exchange's are those of its market data
    simulated: bool = False
    replay: bool = False  # what comes from these addresses is a recording
    backoff_min_s: float = 1.0
    backoff_max_s: float = 30.0
    max_attempts: int = 10
    connect_timeout_s: float = 10.0
    stale_after_s: float = 5.0
    reconnect_after_s: float = 30.0
    max_age_s: float = 0.0  # 0: the exchange's own
    legs: int = 1  # connections that carry the same symbols
    leg_ws_urls: tuple[str, ...] = ()
    markets: Mapping[str, MarketConfig] = {}  # once it is read, all of them
    source_addresses: tuple[str, ...] = ()  # that the legs in turn connect from; none: any
    refresh_s: float = 3600.0  # between two looks at the instrument list; it changes a few times a day
    shards: int = 1  # feed processes over which the symbols are spread
    renew_window: str = ""  # of the day, UTC: `04:00-04:30`; "": connections are renewed for their age alone
    direct: tuple[str, ...] = ()  # where the feed publishes by itself; left out: in `run_dir`
    raw: tuple[
        str, ...
    ] = ()  # where it offers what it receives as it is; left out: in `run_dir`, for the recorder
    elsewhere: bool = False  # its feeds run on another host: `run` and the supervisor start none here
    cpus: tuple[Cpu, ...] = ()  # processors for the feed; none: any

    @property
    def origin(self) -> int:
        """Flags of all records: where they come from, if not from the exchange."""
        return (wire.SIMULATED if self.simulated else 0) | (wire.REPLAY if self.replay else 0)

    @property
    def configured(self) -> Configured:
        """Return what is wanted of it, as far as this file says."""
        return Configured(self.symbols, self.kinds)

    def leg_source_address(self, leg: int) -> str:
        """Return the address that one leg connects from, "" for any."""
        return self.source_addresses[leg % len(self.source_addresses)] if self.source_addresses else ""

    def policy(self) -> Policy:
        """Return the part that concerns a connection's life."""
        return Policy(**{name: getattr(self, name) for name in Policy.__struct_fields__})

    def direct_of(self, shard: Shard) -> tuple[str, ...]:
        """Return where one of several feed processes publishes by itself: `ipc://run/binance-1of4.ipc`."""
        return tuple(_sharded(endpoint, shard) for endpoint in self.direct)

    def raw_of(self, shard: Shard) -> tuple[str, ...]:
        """Return where it offers its raw traffic, (): nowhere."""
        return tuple(_sharded(endpoint, shard) for endpoint in self.raw)


class MergerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[merger]` table: where it binds. The ipc defaults are in `run_dir`."""

    ticks: tuple[str, ...] = ("ipc://run/ticks.ipc", TICKS_TCP)
    batches: tuple[str, ...] = ("ipc://run/batches.ipc",)  # the same records, several in a message
    feeds: str = "ipc://run/feeds.ipc"
    recent: int = 64  # records of each topic that are kept for who missed some; 0: none
    queues_mb: int = 0  # for all queues together; 0: an eighth of this host's memory
    cpus: tuple[Cpu, ...] = ()  # processors for the merger; none: any


class RelayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[relay]` table: subscribers that missed something, and all that concerns other hosts.

    The ipc default is in `run_dir`. What is remote is under CURVE, whatever its address.
    """

    recover: tuple[str, ...] = ("ipc://run/recover.ipc", RECOVER_TCP)
    remote_ticks: tuple[str, ...] = ()  # where subscribers of other hosts connect
    remote_recover: tuple[str, ...] = ()  # where they request what they missed
    remote_feeds: tuple[str, ...] = ()  # where feeds of other hosts connect
    queues_mb: int = 0  # for all queues together; 0: an eighth of this host's memory
    cpus: tuple[Cpu, ...] = ()  # processors for the relay; none: any


class CurveConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[curve]` table: keys for connections that leave this host, as names of files."""

    key: str = ""  # our secret key
    clients: str = ""  # directory of the public keys that may connect to us
    server: str = ""  # public key of the relay on another host that our feeds connect to


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[gateway]` table: control plane, balances, browsers."""

    http: str = "127.0.0.1:8080"
    hosts: tuple[str, ...] = ()  # names besides its own under which browsers may reach it
    balances_every_s: float = 60.0
    quotes: tuple[str, ...] = ("USDT",)  # what is held is watched against these
    dust: Decimal = Decimal("0.0001")  # holdings up to this much are none
    dust_of: Mapping[str, Decimal] = {}  # the same, of single assets
    updates_per_s: float = 10.0  # to a browser, per symbol, unless it chooses
    cpus: tuple[Cpu, ...] = ()  # processors for the gateway; none: any

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port to listen at."""
        _, host, port = _host_port(f"tcp://{self.http}")
        assert port is not None, "checked when it was read"
        return host.strip("[]"), port

    @property
    def url(self) -> str:
        """Return where a browser on this machine finds it."""
        host, port = self.address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    @property
    def is_local(self) -> bool:
        """True if only this machine can reach it."""
        return self.address[0] in LOOPBACK


class NatsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[nats]` table: where the bridge republishes the merger's stream. Left out: there is no bridge.

    stream "" is plain NATS; with a name, JetStream keeps the records within the limits that follow.
    """

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    prefix: str = ""  # words of a subject, before ours
    topics: tuple[str, ...] = ("",)  # what is republished: kinds, or a kind of an exchange
    credentials: str = ""  # file of a JWT and an NKEY seed; "": none, or by user, password or token
    tls_ca: str = ""  # file of certificates; "": those of the system
    stream: str = ""
    storage: str = "file"
    replicas: int = 1
    max_bytes: int = 1 << 30
    max_age_s: float = 3600.0
    max_msgs_per_subject: int = 0  # 0: as many as the other limits let
    metrics: str = ""  # host:port to listen at for Prometheus; "": nowhere
    cpus: tuple[Cpu, ...] = ()  # processors for the bridge; none: any

    @property
    def metrics_address(self) -> tuple[str, int]:
        """Return host and port for Prometheus; there has to be one."""
        _, host, port = _host_port(f"tcp://{self.metrics}")
        assert port is not None, "checked when it was read"
        return host, port

    @property
    def uses_tls(self) -> bool:
        """True if connections are to be encrypted: all are, or none."""
        return self.servers[0].startswith("tls://")

    def clear_servers(self) -> list[str]:
        """Return the servers beyond this machine that are connected to without encryption."""
        if self.uses_tls:
            return []
        return [server for server in self.servers if urlsplit(server).hostname not in (*LOOPBACK, "::1")]


class RecorderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[recorder]` table: raw traffic of all feeds of this host, to disk. Left out: nothing is recorded."""

    directory: str = "recordings"
    segment_s: float = 900.0  # after which a new file begins
    segment_mb: int = 1024  # the same, by size
    max_age_days: float = 0.0  # recordings older than this are removed; 0: none are
    max_size_gb: float = 0.0  # the oldest are removed beyond this; 0: none are
    min_free_gb: float = 5.0  # of the file system: with less, nothing is recorded until there is room again
    cpus: tuple[Cpu, ...] = ()  # processors for the recorder; none: any


class SimConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[sim]` table: how the simulated exchanges behave. They listen where ws_url and rest_url point.

    Without this table `feedhandler run` starts no simulator: the addresses are somebody else's.
    """

    busiest_per_s: float = 100.0  # changes of the symbol that is traded most
    busy_symbols: int = 60  # so many change more often than once a minute
    quietest_s: float = 600.0  # between two changes of the one that is traded least
    messages_per_s: float = 0.0  # per exchange, shared out over what is subscribed; 0: the three above hold
    instruments: int = 300  # per exchange
    seed: int = 1


# Keys of exchanges whose data are not those of the exchange: what they are called, and what is at their addresses.
ORIGINS: Final = {
    "simulated": ("simulated", "the simulator's address"),
    "replay": ("recorded", "the address of `feedhandler replay`"),
}
RHYTHM_KEYS: Final = ("busiest_per_s", "busy_symbols", "quietest_s")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. path is where it came from; run_dir holds sockets, locks, logs and caches."""

    exchanges: Mapping[str, ExchangeConfig] = {}
    merger: MergerConfig = MergerConfig()
    relay: RelayConfig = RelayConfig()
    curve: CurveConfig = CurveConfig()
    gateway: GatewayConfig = GatewayConfig()
    nats: NatsConfig | None = None
    recorder: RecorderConfig | None = None
    sim: SimConfig | None = None
    run_dir: str = "run"
    group: str = ""  # whose members may subscribe, by ipc and boards; "": only this user
    board: bool = False  # whether feeds write the newest records to files that readers map
    path: str = ""

    def exchange(self, name: str) -> ExchangeConfig:
        """Return one exchange's table. Raises ConfigError with the names there are."""
        if name not in self.exchanges:
            known = ", ".join(self.exchanges)
            raise ConfigError(f"{self.path}: no [exchanges.{name}] table; it configures {known}")
        return self.exchanges[name]

    def rest_url(self, name: str, market: str = "") -> str:
        """Return where the REST host of a market, or of the main one, is. Raises ConfigError as `exchange` does."""
        found = EXCHANGES[name].market(market) if market else EXCHANGES[name].main
        return self.exchange(name).markets[found.name].rest_url or found.rest_url

    def lacking_address(self, name: str, market: str) -> str:
        """Return why a market may not be connected to, "" if it may: the exchange is not where production is."""
        exchange, found = self.exchange(name), EXCHANGES[name].market(market)
        return _lacking_address(exchange.markets, found, f"exchanges.{name}")

    def private_rest_url(self, name: str) -> str:
        """Return where an account's requests go. Raises ConfigError for an exchange that is not configured."""
        exchange = self.exchange(name)
        shared = exchange.rest_url if exchange.origin else ""
        return exchange.private_rest_url or shared or EXCHANGES[name].main.rest_url

    def private_ws_url(self, name: str) -> str:
        """Return where an account's stream is, "" where the exchange names it, or has no accounts.

        Raises ConfigError as above.
        """
        exchange = self.exchange(name)
        shared = exchange.ws_url if exchange.origin else ""
        usual = ACCOUNTS[name].private_ws_url if name in ACCOUNTS else ""
        return exchange.private_ws_url or shared or usual

    def shard(self, name: str, text: str | None) -> Shard:
        """Return what part of an exchange a feed process has that was started with `--shard text`, or without.

        Raises ConfigError if it does not go with the file.
        """
        exchange = self.exchange(name)
        where = f"{self.path}: exchanges.{name}.shards"
        if text is None:
            if exchange.shards > 1:
                first, *_, last = shards(exchange.shards)
                raise ConfigError(
                    f"{where}: is {exchange.shards}, and this is one process: start it with --shard {first}"
                    f" to --shard {last}, or leave the key out"
                )
            return WHOLE
        try:
            shard = parse_shard(text)
        except ValueError as exc:
            raise ConfigError(f"--shard: {exc}") from exc
        if exchange.shards not in (1, shard.count):
            raise ConfigError(
                f"{where}: is {exchange.shards}, and --shard is {shard}: change one of them, for the merger and"
                " the other feeds go by the file"
            )
        _check_own(exchange, shard.count, f"{self.path}: exchanges.{name}")
        return shard

    def endpoints(self) -> Iterator[tuple[str, str]]:
        """Yield every ZeroMQ endpoint that a process of ours binds, after the key that sets it."""
        if not self.is_merger_elsewhere:  # else feeds are all there is here
            yield "merger.feeds", self.merger.feeds
            for table in ("merger.ticks", "merger.batches", "relay.recover", *REMOTE_KEYS):
                section, _, key = table.partition(".")
                for endpoint in getattr(getattr(self, section), key):
                    yield table, endpoint
        for name, exchange in self.exchanges.items():
            for shard in shards(exchange.shards):
                for endpoint in exchange.direct_of(shard):
                    yield f"exchanges.{name}.direct", endpoint
                for endpoint in exchange.raw_of(shard):
                    yield f"exchanges.{name}.raw", endpoint

    @property
    def is_merger_elsewhere(self) -> bool:
        """True if our feeds connect to the merger of another host."""
        return not is_local(self.merger.feeds)

    def simulated(self) -> dict[str, ExchangeConfig]:
        """Return the exchanges that the simulator plays."""
        return {name: e for name, e in self.exchanges.items() if e.simulated and not e.replay}


TABLES: Final[dict[str, type[msgspec.Struct]]] = {
    "merger": MergerConfig,
    "relay": RelayConfig,
    "curve": CurveConfig,
    "gateway": GatewayConfig,
    "nats": NatsConfig,
    "recorder": RecorderConfig,
    "sim": SimConfig,
}


def default_path() -> str | None:
    """Return the file that is meant where none is named; None if there is none. Raises ConfigError."""
    if path := os.environ.get(CONFIG_ENV):
        if not Path(path).exists():
            raise ConfigError(f"{CONFIG_ENV}: {path}: no such file; unset it, or name another")
        return path
    return next((path for path in DEFAULT_PATHS if Path(path).exists()), None)


def load(path: str) -> Config:
    """Read and validate a configuration file. Raises ConfigError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigError(f"{path}: no such file; `feedhandler init {shlex.quote(path)}` writes one") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}") from exc
    return parse(text, path)


def parse(text: str, path: str) -> Config:
    """Validate the text of a configuration file; path is for messages. Raises ConfigError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: not valid TOML: {exc}") from exc
    top = ("exchanges", "run_dir", "group", "board", *TABLES)
    for key in document:
        if key not in top:
            raise ConfigError(f"{path}: {key}: unknown key{did_you_mean(key, top)}")
    exchanges = _exchanges(document.get("exchanges", {}), path)
    tables = {
        name: _table(document[name], kind, path, name) for name, kind in TABLES.items() if name in document
    }
    run_dir = document.get("run_dir", "run")
    if not isinstance(run_dir, str) or not run_dir.isprintable() or not run_dir:
        raise ConfigError(f'{path}: run_dir: must be the name of a directory, such as "run"')
    group = document.get("group", "")
    if not isinstance(group, str) or not group.isprintable():
        raise ConfigError(f'{path}: group: must be the name of a group of this host, such as "market-data"')
    board = document.get("board", False)
    if not isinstance(board, bool):
        raise ConfigError(f"{path}: board: must be true or false")
    merger = MergerConfig(
        ticks=(f"ipc://{run_dir}/ticks.ipc", TICKS_TCP),
        batches=(f"ipc://{run_dir}/batches.ipc",),
        feeds=f"ipc://{run_dir}/feeds.ipc",
    )
    for name, table in document.get("exchanges", {}).items():
        if "direct" not in table:
            direct = (f"ipc://{run_dir}/{name}.ipc",)
            exchanges[name] = msgspec.structs.replace(exchanges[name], direct=direct)
        if "raw" not in table and "recorder" in document:
            raw = (f"ipc://{run_dir}/{name}-raw.ipc",)
            exchanges[name] = msgspec.structs.replace(exchanges[name], raw=raw)
    relay = RelayConfig(recover=(f"ipc://{run_dir}/recover.ipc", RECOVER_TCP))
    for name in document.get("merger", ()):
        merger = msgspec.structs.replace(merger, **{name: getattr(tables["merger"], name)})
    for name in document.get("relay", ()):
        relay = msgspec.structs.replace(relay, **{name: getattr(tables["relay"], name)})
    config = Config(
        run_dir=run_dir,
        group=group,
        board=board,
        path=path,
        exchanges=exchanges,
        **{**tables, "merger": merger, "relay": relay},
    )
    _check_endpoints(config)
    _check_gateway(config.gateway, f"{path}: gateway")
    if config.nats is not None:
        _check_nats(config, config.nats, f"{path}: nats")
    _check_recorder(config)
    _check_sim(config)
    return config


def _exchanges(document: Any, path: str) -> dict[str, ExchangeConfig]:
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: exchanges: must hold tables, such as [exchanges.binance]")
    if not document:
        raise ConfigError(
            f"{path}: exchanges: names no exchange; add a table such as [exchanges.binance]"
            f" (known: {', '.join(EXCHANGES)})"
        )
    exchanges = {}
    for name, table in document.items():
        if name not in EXCHANGES:
            raise ConfigError(
                f"{path}: exchanges.{name}: unknown exchange{did_you_mean(name, tuple(EXCHANGES))}"
            )
        where = f"exchanges.{name}"
        exchange = _table(_without_markets(table), ExchangeConfig, path, where)
        assert isinstance(exchange, ExchangeConfig)
        urls = MarketConfig(
            ws_url=exchange.ws_url, rest_url=exchange.rest_url, leg_ws_urls=exchange.leg_ws_urls
        )
        others = _other_markets(name, table, urls, path, where, is_here=exchange.simulated or exchange.replay)
        main = EXCHANGES[name].main
        markets = {main.name: _check_market(main, urls, path, where), **others}
        for market in EXCHANGES[name].markets:
            lacking = _lacking_address(markets, market, where)
            if lacking and (symbols := [symbol for symbol in exchange.symbols if market.names(symbol)]):
                raise ConfigError(f"{path}: {lacking}; {symbols[0]} is wanted")
        exchange = msgspec.structs.replace(exchange, markets=markets)
        exchanges[name] = _check_exchange(name, exchange, path, where)
    return exchanges


def _other_markets(
    name: str, table: Any, main_urls: MarketConfig, path: str, where: str, *, is_here: bool
) -> dict[str, MarketConfig]:
    """Return where an exchange's markets beside the main one are: there, too, where they share its hosts.

    is_here: whoever stands for the exchange has one address; a market that has hosts of its own is below it.
    """
    main, *others = EXCHANGES[name].markets
    known = tuple(market.name for market in others)
    document = table.get("markets", {}) if isinstance(table, dict) else {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: {where}.markets: must hold tables, such as [{where}.markets.linear]")
    for market in document:
        if market == main.name:
            raise ConfigError(
                f"{path}: {where}.markets.{market}: has no table of its own; write its keys into [{where}]"
            )
        if market not in known:
            raise ConfigError(
                f"{path}: {where}.markets.{market}: unknown market{did_you_mean(market, known)}"
            )
    found = {}
    for market in others:
        key = f"{where}.markets.{market.name}"
        own = document.get(market.name, {})
        urls = _table(own, MarketConfig, path, key)
        shared: dict[str, Any] = {"rest_url": main_urls.rest_url} if market.rest_url == main.rest_url else {}
        if market.ws_url == main.ws_url:
            shared |= {"ws_url": main_urls.ws_url, "leg_ws_urls": main_urls.leg_ws_urls}
        left_out = {name: url for name, url in shared.items() if name not in own}
        urls = msgspec.structs.replace(urls, **left_out)
        found[market.name] = _check_market(market, urls, path, key)
        if is_here:
            below = {
                name: f"{url.rstrip('/')}/{market.name}"
                for name in ("ws_url", "rest_url")
                if (url := getattr(main_urls, name)) and not getattr(urls, name)
            }
            found[market.name] = msgspec.structs.replace(found[market.name], **below)
    return found


def _lacking_address(markets: Mapping[str, MarketConfig], market: type[Market], where: str) -> str:
    """Return what is missing, "" if nothing is: where spot is a proxy's, the others are not production's."""
    main = EXCHANGES[market.exchange].main
    if markets[market.name].rest_url or markets[main.name].rest_url in ("", main.rest_url):
        return ""
    return (
        f"{where}.markets.{market.name}.rest_url: is missing, as {where}.rest_url is {markets[main.name].rest_url}:"
        f" write where {market.name} is, which may be {market.rest_url}"
    )


def _without_markets(table: Any) -> Any:
    return {key: table[key] for key in table if key != "markets"} if isinstance(table, dict) else table


def _check_market(market: type[Market], config: MarketConfig, path: str, where: str) -> MarketConfig:
    for key, schemes in (("ws_url", ("ws", "wss")), ("rest_url", ("http", "https"))):
        if url := getattr(config, key):
            _check_url(url, schemes, f"{path}: {where}.{key}")
    for url in config.leg_ws_urls:
        _check_url(url, ("ws", "wss"), f"{path}: {where}.leg_ws_urls")
    if config.leg_ws_urls and market.handshake_request:
        raise ConfigError(
            f"{path}: {where}.leg_ws_urls: {market.exchange} names the socket itself, whenever a connection is"
            " made; leave it out"
        )
    return MarketConfig(
        ws_url=config.ws_url.rstrip("/"),
        rest_url=config.rest_url.rstrip("/"),
        leg_ws_urls=tuple(url.rstrip("/") for url in config.leg_ws_urls),
    )


def _table(document: Any, kind: type[msgspec.Struct], path: str, where: str) -> Any:
    """Convert one table, with messages that name its keys in full."""
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: {where}: must be a table, [{where}]")
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key, value in document.items():
        if key not in fields:
            raise ConfigError(f"{path}: {where}.{key}: unknown key{did_you_mean(key, tuple(fields))}")
        try:
            msgspec.convert(value, fields[key].type)
        except msgspec.ValidationError as exc:
            message = str(exc).replace("`", "").replace(" - at $", ", at ").replace("array", "list")
            example = _toml(EXAMPLES.get(key, fields[key].default))
            raise ConfigError(f"{path}: {where}.{key}: {message}; for example {key} = {example}") from exc
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(f"{path}: {where}.{key}", key, value)
    return msgspec.convert(document, kind)


MAX_AGE_S_MIN: Final = 3.0
DUST_MAX: Final = Decimal(10**15)
SUBJECT_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
STREAM_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
UPDATES_PER_S_MAX: Final = 50  # more than a screen shows
EXAMPLES: Final = {  # of keys whose default is none
    "renew_window": "04:00-04:30",
    "leg_ws_urls": ("wss://a.example:443", "wss://b.example:443"),
    "source_addresses": ("192.0.2.1", "192.0.2.2"),
    "hosts": ("feeds.example",),
    "key": "conf/keys/merger.key_secret",
    "clients": "conf/keys/clients",
    "server": "conf/keys/central.key",
    "dust": "0.0001",
    "dust_of": {"SHIB": "1000"},
    "prefix": "md",
    "credentials": "/etc/feedhandler/nats.creds",
    "tls_ca": "/etc/feedhandler/ca.pem",
    "stream": "MARKET",
    "metrics": "127.0.0.1:9464",
}


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value or "ws://127.0.0.1:9101"}"' if isinstance(value, str) else f"{value}"


# Of numbers, whatever table they are in: lowest, highest, and of what; 0 besides, where it has a meaning.
RANGES: Final[dict[str, tuple[float, float, str]]] = {
    "segment_s": (1, 86_400, ""),
    "segment_mb": (1, 1 << 20, ""),
    "max_age_days": (0.001, 36_500, ""),
    "max_size_gb": (0.001, 1 << 20, ""),
    "min_free_gb": (0, 1 << 20, ""),
    "legs": (1, LEGS_MAX, " connections"),
    "shards": (1, SHARDS_MAX, " processes"),
    "recent": (1, board_layout.DEPTH_MAX - 1, " records of each topic"),
    "balances_every_s": (5, 3600, ""),
    "updates_per_s": (0.1, UPDATES_PER_S_MAX, ""),
    "replicas": (1, 5, " servers of a cluster"),
    "max_bytes": (1 << 20, 1 << 50, ""),
    "busiest_per_s": (1, 1000, ""),
    "busy_symbols": (1, 5000, ""),
    "quietest_s": (60, 86_400, ""),
    "messages_per_s": (1, 50_000, ""),
    "instruments": (50, 5000, ""),
}
RANGE: Final = (0.001, 999_999_999, "")  # of the others
MAY_BE_0: Final = (
    "max_attempts",
    "seed",
    "messages_per_s",
    "max_age_s",
    "recent",
    "queues_mb",
    "max_msgs_per_subject",
    "max_age_days",
    "max_size_gb",
)


def _check_number(where: str, key: str, value: float) -> None:
    low, high, what = RANGES.get(key, RANGE)
    may_be_0 = key in MAY_BE_0
    if not low <= value <= high and not (may_be_0 and value == 0):
        or_0 = "0, or " if may_be_0 else ""
        raise ConfigError(f"{where}: {value} is out of range; it is {or_0}{low} to {high}{what}")


def _check_exchange(name: str, exchange: ExchangeConfig, path: str, where: str) -> ExchangeConfig:
    for key, schemes in (
        ("private_ws_url", ("ws", "wss")),
        ("private_rest_url", ("http", "https")),
    ):
        if url := getattr(exchange, key):
            _check_url(url, schemes, f"{path}: {where}.{key}")
    for address in exchange.source_addresses:
        _check_source_address(address, f"{path}: {where}.source_addresses")
    for market in EXCHANGES[name].markets:
        urls = exchange.markets[market.name]
        # Where a handshake names the socket, rest_url alone decides.
        is_redirected = urls.rest_url and (urls.ws_url or market.handshake_request)
        for key, (what, address) in ORIGINS.items():
            if getattr(exchange, key) and not is_redirected:
                whose = "" if market is EXCHANGES[name].main else f" of [{where}.markets.{market.name}]"
                raise ConfigError(
                    f"{path}: {where}.{key}: is true, but ws_url or rest_url{whose} is left out,"
                    f" so real data would be flagged as {what}; set both to {address}"
                )
    for symbol in exchange.symbols:
        check_symbol(name, symbol, f"{path}: {where}.symbols")
    if doubles := {s for s in exchange.symbols if exchange.symbols.count(s) > 1}:
        raise ConfigError(f"{path}: {where}.symbols: {', '.join(sorted(doubles))} is listed twice")
    check_kinds(name, exchange.kinds, f"{path}: {where}.kinds")
    if exchange.backoff_min_s > exchange.backoff_max_s:
        raise ConfigError(f"{path}: {where}.backoff_min_s: is larger than backoff_max_s; lower it")
    if exchange.stale_after_s >= exchange.reconnect_after_s:
        raise ConfigError(
            f"{path}: {where}.stale_after_s: must be smaller than reconnect_after_s"
            f" ({exchange.reconnect_after_s:g}); a connection is first stale, then replaced"
        )
    try:
        if exchange.renew_window:
            DailyWindow(exchange.renew_window)
    except ValueError as exc:
        raise ConfigError(
            f"{path}: {where}.renew_window: {exchange.renew_window!r} is no part of a day;"
            ' write it like "04:00-04:30", in UTC'
        ) from exc
    if 0 < exchange.max_age_s < MAX_AGE_S_MIN:
        raise ConfigError(
            f"{path}: {where}.max_age_s: {exchange.max_age_s:g} is too short to make a new connection in;"
            f" it is 0 (the exchange's own), or at least {MAX_AGE_S_MIN:g}"
        )
    _check_own(exchange, exchange.shards, f"{path}: {where}")
    main = exchange.markets[EXCHANGES[name].main.name]
    return msgspec.structs.replace(
        exchange,
        ws_url=main.ws_url,
        rest_url=main.rest_url,
        leg_ws_urls=main.leg_ws_urls,
        private_rest_url=exchange.private_rest_url.rstrip("/"),
        private_ws_url=exchange.private_ws_url.rstrip("/"),
    )


def _check_own(exchange: ExchangeConfig, count: int, where: str) -> None:
    """Check the endpoints that a feed has for itself."""
    for key, endpoints in (("direct", exchange.direct), ("raw", exchange.raw)):
        for endpoint in endpoints:
            if count > 1 and not endpoint.startswith("ipc://"):
                raise ConfigError(
                    f"{where}.{key}: {endpoint!r} is one address, and each of {count} shards needs its own;"
                    ' use ipc, such as "ipc://run/name.ipc", whose name gets the shard'
                )


def _sharded(endpoint: str, shard: Shard) -> str:
    return endpoint.removesuffix(".ipc") + shard.suffix + (".ipc" if endpoint.endswith(".ipc") else "")


def _check_url(url: str, schemes: tuple[str, ...], where: str) -> None:
    example = f"{schemes[0]}://127.0.0.1:9101"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"{where}: {url!r} is no address: {exc}; write it like {example}") from exc
    if parts.scheme not in schemes or port == 0 or not parts.hostname:
        raise ConfigError(f"{where}: {url!r} must be {' or '.join(schemes)}, host and port, like {example}")
    if reason := host_problem(parts.hostname):
        raise ConfigError(f"{where}: {url!r} must be {' or '.join(schemes)}, host and port: {reason}")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"{where}: {url!r} must end after the port, like {example}; paths are built in")


def host_problem(host: str) -> str:
    """Return why this cannot be the name or the address of a host, with the remedy; "" if it can."""
    if ":" in host or host.replace(".", "").isdecimal():
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return f"{host!r} is no IP address"
        return ""
    if not host.isascii():
        return f"{host!r} has letters that the network does not know; write it as DNS does, with xn--"
    if host != host.lower():
        return f"{host!r} has capital letters; write {host.lower()!r}"
    for label in host.split("."):
        if not LABEL.fullmatch(label):
            return (
                f"{host!r} is no name of a host: parts between dots have 1 to 63 letters, digits, - and _,"
                " and neither begin nor end with -"
            )
    return f"{host!r} has more than {HOST_SIZE_MAX} characters" if len(host) > HOST_SIZE_MAX else ""


def _check_source_address(text: str, where: str) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as exc:
        raise ConfigError(
            f"{where}: {text!r} is no IP address; write one of this machine's (`ip address` lists them),"
            " like 192.0.2.1"
        ) from exc
    if address.is_unspecified or address.is_multicast:
        raise ConfigError(
            f"{where}: {text!r} is no single machine's address; leave it out to connect from any"
        )


def check_symbol(exchange: str, symbol: str, where: str) -> None:
    """Check the spelling of a canonical symbol; where is for the message. Raises ConfigError."""
    if not _has_form(symbol):
        raise ConfigError(f"{where}: {symbol!r} is not BASE/QUOTE{_symbol_hint(symbol)}")
    if is_lower_case(symbol):
        raise ConfigError(f'{where}: {symbol!r} is in lower case; did you mean "{symbol.upper()}"?')
    try:
        wire.topic(wire.TICKER, exchange, symbol)
    except ValueError as exc:
        raise ConfigError(f"{where}: {symbol!r} cannot be published: {exc}; leave it out") from exc


def _has_form(symbol: str) -> bool:
    """Return whether this is BASE/QUOTE or BASE/QUOTE:SETTLE, in whatever letters."""
    pair, colon, settle = symbol.partition(":")
    base, slash, quote = pair.partition("/")
    is_named = bool(slash and base and quote) and "/" not in quote and bool(colon) == bool(settle)
    return is_named and not ("/" in settle or ":" in settle or " " in symbol) and symbol.isprintable()


def check_kinds(exchange: str, kinds: Sequence[str], where: str) -> None:
    """Check that an exchange offers some kinds of records; where is for the message. Raises ConfigError."""
    offered = EXCHANGES[exchange].kinds
    if not kinds:
        raise ConfigError(f'{where}: is empty; for example ["{offered[0]}"]')
    for kind in kinds:
        if kind not in offered:
            raise ConfigError(f"{where}: {exchange} does not offer {kind!r}{did_you_mean(kind, offered)}")
    if doubles := {kind for kind in kinds if kinds.count(kind) > 1}:
        raise ConfigError(f"{where}: {', '.join(sorted(doubles))} is listed twice")


def refusals(
    exchange: str, symbols: Iterable[str], table: InstrumentTable | None, where: str
) -> dict[str, ConfigError | SubscriptionRejected]:
    """Return which of some symbols cannot be had, and why; table None: judged by their spelling alone.

    So are those of a market whose list nobody has asked for yet. where is for messages.
    """
    refused: dict[str, ConfigError | SubscriptionRejected] = {}
    for symbol in symbols:
        try:
            check_symbol(exchange, symbol, where)
            if table is not None and is_listed_here(exchange, symbol, table):
                table.resolve(symbol)
        except (ConfigError, SubscriptionRejected) as exc:
            refused[symbol] = exc
    return refused


def is_listed_here(exchange: str, symbol: str, table: InstrumentTable) -> bool:
    """Return whether a table is what tells of a symbol: the list of its market may never have been asked for."""
    return table.covers(symbol) or not any(market.names(symbol) for market in EXCHANGES[exchange].markets)


def is_lower_case(name: str) -> bool:
    """Return whether a symbol or asset is surely mistyped: some have small letters in them, none has no others."""
    return name == name.lower() and name != name.upper()


def _symbol_hint(symbol: str) -> str:
    plain = re.sub(r"[^\w]", "", symbol).upper()
    for quote in KNOWN_QUOTES:
        if plain.endswith(quote) and plain != quote:
            return f'; did you mean "{plain.removesuffix(quote)}/{quote}"?'
    return '; write it like "BTC/USDT"'


def _check_endpoints(config: Config) -> None:
    for key, endpoints, example in (
        ("merger.ticks", config.merger.ticks, TICKS_TCP),
        ("relay.recover", config.relay.recover, RECOVER_TCP),
    ):
        if not endpoints:
            raise ConfigError(f'{config.path}: {key}: is empty; for example ["{example}"]')
    everything = list(config.endpoints())
    for key, endpoint in everything:
        _check_endpoint(endpoint, key, config)
    _check_elsewhere(config)
    for (key, endpoint), (other_key, other) in itertools.combinations(everything, 2):
        if endpoint == other:
            raise ConfigError(
                f"{config.path}: {other_key}: {endpoint} is used twice, by {key} too; change one"
            )


def _check_gateway(gateway: GatewayConfig, where: str) -> None:
    _, host, port = _host_port(f"tcp://{gateway.http}")
    if port is None or not host or (":" in host) != host.startswith("["):
        raise ConfigError(f'{where}.http: must be host:port, such as "127.0.0.1:8080"')
    if reason := host_problem(host.strip("[]")):
        raise ConfigError(f"{where}.http: {reason}")
    if host in ("0.0.0.0", "[::]") and not gateway.hosts:
        raise ConfigError(
            f"{where}.hosts: is empty, and {host} is no name to be reached under; add those that browsers use"
        )
    for name in gateway.hosts:
        if reason := host_problem(name):
            raise ConfigError(f"{where}.hosts: {reason}")
    for key, amount in (("dust", gateway.dust), *((f"dust_of.{k}", v) for k, v in gateway.dust_of.items())):
        if not amount.is_finite() or not 0 <= amount < DUST_MAX:
            raise ConfigError(f"{where}.{key}: {amount} is out of range; it is an amount of the asset, or 0")
    for key, assets in (("quotes", gateway.quotes), ("dust_of", tuple(gateway.dust_of))):
        for asset in assets:
            is_contract = key == "dust_of" and ":" in asset and _has_form(asset)
            is_sound = asset and asset.isprintable() and " " not in asset and not is_lower_case(asset)
            if not is_sound or ("/" in asset and not is_contract):
                raise ConfigError(f'{where}.{key}: {asset!r} is no asset; write it like "USDT"')


def _check_nats(config: Config, nats: NatsConfig, where: str) -> None:
    if config.is_merger_elsewhere:
        raise ConfigError(
            f"{where}: merger.feeds is another host's, and the bridge has to be beside the merger; put this table"
            " into that host's file"
        )
    if not nats.servers:
        raise ConfigError(f'{where}.servers: is empty; for example ["nats://127.0.0.1:4222"]')
    for server in nats.servers:
        _check_url(server, ("nats", "tls"), f"{where}.servers")
    if len({urlsplit(server).scheme for server in nats.servers}) > 1:
        raise ConfigError(f"{where}.servers: some are nats:// and some tls://; use one of them for all")
    if nats.tls_ca and not nats.uses_tls:
        raise ConfigError(f"{where}.tls_ca: is set, and servers are nats://; use tls://, or leave it out")
    if nats.prefix and not SUBJECT_PREFIX.fullmatch(nats.prefix):
        raise ConfigError(
            f"{where}.prefix: {nats.prefix!r} is no beginning of a subject; write words of letters, digits, _ and -"
            ' with dots between them, like "md.eu"'
        )
    if not nats.topics:
        raise ConfigError(f'{where}.topics: is empty, and nothing would be published; [""] is everything')
    for topic in nats.topics:
        _check_bridged_topic(config, topic, f"{where}.topics")
    if nats.stream and not STREAM_NAME.fullmatch(nats.stream):
        raise ConfigError(
            f"{where}.stream: {nats.stream!r} is no name of a stream; use letters, digits, _ and -, up to 32"
        )
    if nats.storage not in ("file", "memory"):
        raise ConfigError(f'{where}.storage: {nats.storage!r} is not "file" or "memory"')
    if 0 < nats.max_age_s < 1:
        raise ConfigError(
            f"{where}.max_age_s: {nats.max_age_s:g} is too short; it is 0 (any age), or at least 1"
        )
    if not nats.metrics:
        return
    host, port = _host_port(f"tcp://{nats.metrics}")[1:]
    if port is None or host not in LOOPBACK:
        raise ConfigError(
            f'{where}.metrics: must be host:port on loopback, such as "127.0.0.1:9464"; for other hosts put a proxy'
            " before it"
        )


def _check_recorder(config: Config) -> None:
    recorder = config.recorder
    if recorder is None:
        return
    where = f"{config.path}: recorder"
    if not recorder.directory or not recorder.directory.isprintable():
        raise ConfigError(f'{where}.directory: must be the name of a directory, such as "recordings"')
    for name, exchange in config.exchanges.items():
        if not exchange.raw and not exchange.elsewhere:
            raise ConfigError(
                f"{config.path}: exchanges.{name}.raw: is empty, and [recorder] records it from there; leave it out"
            )


def _check_bridged_topic(config: Config, topic: str, where: str) -> None:
    """The merger has whole exchanges at its batch endpoint, so that is the least that can be chosen."""
    kind, dot, rest = topic.partition(".")
    if not topic or (kind in wire.TOPIC_WORDS and dot and not rest):
        return
    exchange, end, more = rest.partition(".")
    is_ticker = kind == wire.KIND_NAMES[wire.TICKER]
    if (
        kind in wire.TOPIC_WORDS
        and not more
        and exchange in (*config.exchanges, MERGER)  # whose heartbeat is a topic too
        and bool(end) == is_ticker
    ):
        return
    name = next(iter(config.exchanges))
    raise ConfigError(
        f'{where}: {topic!r} is not what can be chosen: "" (everything), a kind ("ticker."), or a kind of'
        f' an exchange that is configured ("ticker.{name}.", "status.{name}"); single symbols are for those who'
        " subscribe at NATS"
    )


def _check_endpoint(endpoint: str, key: str, config: Config) -> None:
    where = f"{config.path}: {key}"
    _check_form(endpoint, where)
    if key not in REMOTE_KEYS:
        if not is_local(endpoint):
            raise ConfigError(
                f"{where}: {endpoint!r} is not on loopback; the relay serves other hosts, under CURVE: use"
                f" {REMOTE_KEYS[0]} (subscribers), {REMOTE_KEYS[1]} (what they missed) or {REMOTE_KEYS[2]} (feeds)"
            )
        return
    if not endpoint.startswith("tcp://"):
        raise ConfigError(f"{where}: {endpoint!r} is no TCP endpoint; write it like {TICKS_TCP}")
    if not config.curve.key or not config.curve.clients:
        raise ConfigError(
            f"{where}: needs [curve] key and clients, since what is there is always encrypted;"
            " `feedhandler keys make NAME` makes a key"
        )


def _check_form(endpoint: str, where: str) -> None:
    scheme, host, port = _host_port(endpoint)
    if scheme == "ipc" and host.isprintable() and host.strip("*@"):
        if len(host.encode()) > IPC_PATH_SIZE_MAX:
            raise ConfigError(f"{where}: {endpoint!r} is too long; a socket's path has 107 bytes at most")
        return
    if scheme != "tcp" or port is None or not host or ":" in host:
        raise ConfigError(
            f'{where}: {endpoint!r} is no ZeroMQ endpoint; write "ipc://run/name.ipc" or "{TICKS_TCP}"'
        )
    if reason := host_problem(host):
        raise ConfigError(f"{where}: {endpoint!r} is no ZeroMQ endpoint: {reason}")


def is_local(endpoint: str) -> bool:
    """True if an endpoint does not leave this host."""
    scheme, host, _ = _host_port(endpoint)
    return scheme != "tcp" or host in LOOPBACK


def _check_elsewhere(config: Config) -> None:
    """Check what concerns a merger on another host."""
    _check_form(config.merger.feeds, f"{config.path}: merger.feeds")
    if config.is_merger_elsewhere and not (config.curve.key and config.curve.server):
        raise ConfigError(
            f"{config.path}: merger.feeds: {config.merger.feeds!r} is on another host, so it needs [curve] key"
            " and server: our own key, and the public key of the relay there"
        )


def _host_port(endpoint: str) -> tuple[str, str, int | None]:
    scheme, _, address = endpoint.partition("://")
    if scheme == "ipc":
        return scheme, address, None
    host, _, port = address.rpartition(":")
    return scheme, host, int(port) if port.isascii() and port.isdigit() and 0 < int(port) < 65536 else None


def _check_sim(config: Config) -> None:
    if config.sim is not None and not config.simulated():
        raise ConfigError(
            f"{config.path}: sim: nothing to simulate: no exchange has simulated = true; leave the table out"
        )
    for name, exchange in config.simulated().items() if config.sim is not None else ():
        ws_urls = (exchange.ws_url, *exchange.leg_ws_urls)
        if any(url.startswith("wss") for url in ws_urls) or exchange.rest_url.startswith("https"):
            raise ConfigError(
                f"{config.path}: exchanges.{name}: the simulator has no TLS; use ws:// and http://"
            )
        for key in ("ws_url", "rest_url"):
            url = getattr(exchange, key)
            if url and urlsplit(url).port is None:
                raise ConfigError(
                    f"{config.path}: exchanges.{name}.{key}: {url!r} has no port to listen on;"
                    f" add one, like {url}:9101"
                )
    sim = config.sim or SimConfig()
    for key in RHYTHM_KEYS if sim.messages_per_s else ():
        if getattr(sim, key) != getattr(SimConfig(), key):
            raise ConfigError(
                f"{config.path}: sim.{key}: has no effect beside messages_per_s, which makes every symbol busy;"
                " leave one of them out"
            )


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """Return what may have been meant by an unknown word, and what is known, to be appended to a message."""
    close = difflib.get_close_matches(word[:WORD_SIZE_MAX], known, n=1, cutoff=0.5)
    hint = f'; did you mean "{close[0]}"?' if close else ""
    return f"{hint} (known: {', '.join(known) or 'none'})"
