"""What a value of the configuration may be: each check names the file, the key, what is wrong, and the remedy.

Types are checked before (`config.py`). Pure: whether a port is free, or a file is there, is looked up in `cli/`.
"""

import difflib
import ipaddress
import itertools
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final
from urllib.parse import urlsplit

import msgspec

from feedhandler.data import board_layout, wire
from feedhandler.data.connecting import LEGS_MAX, DailyWindow
from feedhandler.data.errors import ConfigError, SubscriptionRejected
from feedhandler.data.instruments import InstrumentTable
from feedhandler.data.processes import MERGER
from feedhandler.data.shard import SHARDS_MAX
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Market
from feedhandler.runtime.settings import (
    LOOPBACK,
    RECOVER_TCP,
    REMOTE_KEYS,
    TICKS_TCP,
    Config,
    ExchangeConfig,
    GatewayConfig,
    MarketConfig,
    NatsConfig,
    SimConfig,
    check_own,
    host_port,
    is_local,
)
from feedhandler.transport.private import IPC_PATH_SIZE_MAX

HOST_SIZE_MAX: Final = 253  # RFC 1035, 2.3.4
# of a name; underscores are usual inside of networks
LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
WORD_SIZE_MAX: Final = 100  # of a word that may have been meant otherwise: the search costs its square
KNOWN_QUOTES: Final = ("USDT", "USDC", "FDUSD", "USD", "EUR", "BTC", "ETH")  # for suggestions only


# Keys of exchanges whose data are not those of the exchange: what they are called, and what is at their addresses.
ORIGINS: Final = {
    "simulated": ("simulated", "the simulator's address"),
    "replay": ("recorded", "the address of `feedhandler replay`"),
}
RHYTHM_KEYS: Final = ("busiest_per_s", "busy_symbols", "quietest_s")


def check_market(market: type[Market], config: MarketConfig, path: str, where: str) -> MarketConfig:
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


MAX_AGE_S_MIN: Final = 3.0
DUST_MAX: Final = Decimal(10**15)
SUBJECT_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
STREAM_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
UPDATES_PER_S_MAX: Final = 50  # more than a screen shows


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


def check_number(where: str, key: str, value: float) -> None:
    low, high, what = RANGES.get(key, RANGE)
    may_be_0 = key in MAY_BE_0
    if not low <= value <= high and not (may_be_0 and value == 0):
        or_0 = "0, or " if may_be_0 else ""
        raise ConfigError(f"{where}: {value} is out of range; it is {or_0}{low} to {high}{what}")


def check_exchange(name: str, exchange: ExchangeConfig, path: str, where: str) -> ExchangeConfig:
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
    check_own(exchange, exchange.shards, f"{path}: {where}")
    main = exchange.markets[EXCHANGES[name].main.name]
    return msgspec.structs.replace(
        exchange,
        ws_url=main.ws_url,
        rest_url=main.rest_url,
        leg_ws_urls=main.leg_ws_urls,
        private_rest_url=exchange.private_rest_url.rstrip("/"),
        private_ws_url=exchange.private_ws_url.rstrip("/"),
    )


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


def check_endpoints(config: Config) -> None:
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


def check_gateway(gateway: GatewayConfig, where: str) -> None:
    _, host, port = host_port(f"tcp://{gateway.http}")
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


def check_nats(config: Config, nats: NatsConfig, where: str) -> None:
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
    host, port = host_port(f"tcp://{nats.metrics}")[1:]
    if port is None or host not in LOOPBACK:
        raise ConfigError(
            f'{where}.metrics: must be host:port on loopback, such as "127.0.0.1:9464"; for other hosts put a proxy'
            " before it"
        )


def check_recorder(config: Config) -> None:
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
    scheme, host, port = host_port(endpoint)
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


def _check_elsewhere(config: Config) -> None:
    """Check what concerns a merger on another host."""
    _check_form(config.merger.feeds, f"{config.path}: merger.feeds")
    if config.is_merger_elsewhere and not (config.curve.key and config.curve.server):
        raise ConfigError(
            f"{config.path}: merger.feeds: {config.merger.feeds!r} is on another host, so it needs [curve] key"
            " and server: our own key, and the public key of the relay there"
        )


def check_sim(config: Config) -> None:
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
