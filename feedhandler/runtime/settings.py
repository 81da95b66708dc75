"""What the configuration holds: the tables of its file with their keys and defaults, and what follows from them.

Values are as `config.py` has read and checked them; docs/configuration.md says what each key does.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec

from feedhandler.accounts import ACCOUNTS
from feedhandler.data import wire
from feedhandler.data.connecting import Policy
from feedhandler.data.errors import ConfigError
from feedhandler.data.shard import WHOLE, Shard, shards
from feedhandler.data.shard import parse as parse_shard
from feedhandler.data.wanted import DEFAULT_KINDS, MAJORS, Configured
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Market

TICKS_TCP: Final = "tcp://127.0.0.1:5555"
RECOVER_TCP: Final = "tcp://127.0.0.1:5556"
REMOTE_KEYS: Final = ("relay.remote_ticks", "relay.remote_recover", "relay.remote_feeds")
LOOPBACK: Final = ("127.0.0.1", "localhost")
API_TOKEN_ENV: Final = "FEEDHANDLER_API_TOKEN"
SECRETS: Final = (  # variables of the environment that are the gateway's alone
    API_TOKEN_ENV,
    *(f"{name.upper()}_{what}" for name in EXCHANGES for what in ("API_KEY", "API_SECRET", "PASSPHRASE")),
)
# the bridge's
NATS_ENV: Final = ("FEEDHANDLER_NATS_USER", "FEEDHANDLER_NATS_PASSWORD", "FEEDHANDLER_NATS_TOKEN")


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
    # where it offers what it receives as it is; left out: in `run_dir`, for the recorder
    raw: tuple[str, ...] = ()
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
        _, host, port = host_port(f"tcp://{self.http}")
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
        _, host, port = host_port(f"tcp://{self.metrics}")
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
        return lacking_address(exchange.markets, found, f"exchanges.{name}")

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
        check_own(exchange, shard.count, f"{self.path}: exchanges.{name}")
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


def lacking_address(markets: Mapping[str, MarketConfig], market: type[Market], where: str) -> str:
    """Return what is missing, "" if nothing is: where spot is a proxy's, the others are not production's."""
    main = EXCHANGES[market.exchange].main
    if markets[market.name].rest_url or markets[main.name].rest_url in ("", main.rest_url):
        return ""
    return (
        f"{where}.markets.{market.name}.rest_url: is missing, as {where}.rest_url is {markets[main.name].rest_url}:"
        f" write where {market.name} is, which may be {market.rest_url}"
    )


def check_own(exchange: ExchangeConfig, count: int, where: str) -> None:
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


def is_local(endpoint: str) -> bool:
    """True if an endpoint does not leave this host."""
    scheme, host, _ = host_port(endpoint)
    return scheme != "tcp" or host in LOOPBACK


def host_port(endpoint: str) -> tuple[str, str, int | None]:
    scheme, _, address = endpoint.partition("://")
    if scheme == "ipc":
        return scheme, address, None
    host, _, port = address.rpartition(":")
    return scheme, host, int(port) if port.isascii() and port.isdigit() and 0 < int(port) < 65536 else None
