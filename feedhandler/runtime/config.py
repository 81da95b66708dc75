"""The configuration: one TOML file, decoded strictly.

An unknown key, a wrong type or an impossible value is a `ConfigError` whose message names the file, the
key and the remedy. What the file may hold is in `settings.py`, and what values may be in `checks.py`.
"""

import os
import shlex
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from feedhandler.data.errors import ConfigError
from feedhandler.exchanges import EXCHANGES
from feedhandler.runtime.checks import (
    check_endpoints,
    check_exchange,
    check_gateway,
    check_market,
    check_nats,
    check_number,
    check_recorder,
    check_sim,
    did_you_mean,
)
from feedhandler.runtime.settings import (
    RECOVER_TCP,
    TICKS_TCP,
    Config,
    CurveConfig,
    ExchangeConfig,
    GatewayConfig,
    MarketConfig,
    MergerConfig,
    NatsConfig,
    RecorderConfig,
    RelayConfig,
    SimConfig,
    lacking_address,
)

CONFIG_ENV: Final = "FEEDHANDLER_CONFIG"
# of a checkout; of whoever has only the package
DEFAULT_PATHS: Final = ("conf/live.toml", "feedhandler.toml")


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
    check_endpoints(config)
    check_gateway(config.gateway, f"{path}: gateway")
    if config.nats is not None:
        check_nats(config, config.nats, f"{path}: nats")
    check_recorder(config)
    check_sim(config)
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
        markets = {main.name: check_market(main, urls, path, where), **others}
        for market in EXCHANGES[name].markets:
            lacking = lacking_address(markets, market, where)
            if lacking and (symbols := [symbol for symbol in exchange.symbols if market.names(symbol)]):
                raise ConfigError(f"{path}: {lacking}; {symbols[0]} is wanted")
        exchange = msgspec.structs.replace(exchange, markets=markets)
        exchanges[name] = check_exchange(name, exchange, path, where)
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
        found[market.name] = check_market(market, urls, path, key)
        if is_here:
            below = {
                name: f"{url.rstrip('/')}/{market.name}"
                for name in ("ws_url", "rest_url")
                if (url := getattr(main_urls, name)) and not getattr(urls, name)
            }
            found[market.name] = msgspec.structs.replace(found[market.name], **below)
    return found


def _without_markets(table: Any) -> Any:
    return {key: table[key] for key in table if key != "markets"} if isinstance(table, dict) else table


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
            check_number(f"{path}: {where}.{key}", key, value)
    return msgspec.convert(document, kind)


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
