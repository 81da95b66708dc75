"""The command line: arguments in, one process or one look at the stream out."""

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from feedhandler import FORM, __version__, examples
from feedhandler.cli import view
from feedhandler.client import DEFAULT_ENDPOINT, Curve, Subscriber
from feedhandler.client.stream import declaration_of
from feedhandler.data import hints, wire
from feedhandler.data.errors import (
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_GAVE_UP,
    EXIT_OK,
    ConfigError,
    FeedError,
    one_line,
)
from feedhandler.data.processes import BRIDGE, is_of_others, verdict
from feedhandler.data.status import ExchangeStatus, Heartbeat
from feedhandler.exchanges import EXCHANGES
from feedhandler.runtime import config, lifecycle
from feedhandler.transport import files

STATUS_TIMEOUT_S: Final = 3.0
WAIT_S: Final = 15.0
FIRST_DATA_WAIT_S: Final = 60.0  # 3 s are usual, 10 s on a busy machine
EPILOG: Final = f"""\
exit status: {EXIT_OK} done; {EXIT_FAILED} it ran, and failed; {EXIT_CONFIG} wrong configuration or arguments;
{EXIT_GAVE_UP} a feed gave up after max_attempts connections in a row that came to nothing
"""
BRIDGE_EPILOG: Final = """\
Every record is published unchanged, at ticker.binance.BTC-USDT, status.binance, heartbeat.merger and so on
(docs/bridge.md). While NATS is slower than the market, or away, the newest record of each topic waits for it.
User and password, or a token, come from the environment: FEEDHANDLER_NATS_USER and FEEDHANDLER_NATS_PASSWORD,
or FEEDHANDLER_NATS_TOKEN. Needs nats-py: pip install 'feedhandler[nats]'.
"""
DEMO: Final = "demo"
CONFIG_HELP: Final = (
    f"TOML configuration (default: ${config.CONFIG_ENV},"
    f" else {' or '.join(config.DEFAULT_PATHS)}, whichever is there); {DEMO}: that of `feedhandler {DEMO}`"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        if "config" in arguments:
            hints.use(arguments.config)
            arguments.is_named = arguments.config is not None
            arguments.config = _file(arguments.config) or config.default_path()
        status = int(arguments.run(arguments))
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_output()  # else the interpreter would try once more at its end, and complain
        return status
    except FeedError as exc:
        _tell(str(exc))
        return EXIT_CONFIG if isinstance(exc, ConfigError) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_OK
    except BrokenPipeError:
        _drop_output()
        return EXIT_OK
    except OSError as exc:
        if exc.errno not in files.NO_ROOM:
            raise
        what = exc.filename or "a file"
        _tell(f"{what}: cannot be written: {exc.strerror}; make room")
        return EXIT_CONFIG


def _file(named: str | None) -> str | None:
    """Return the file that -c means: `demo` is the package's own, unless there is a file of that name."""
    if named == DEMO and not Path(named).exists():
        return hints.short(examples.DEMO)
    return named


def _drop_output() -> None:
    """The reader of our output has gone, as `head` does; nothing is left to say to it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(text: str) -> None:
    """Say in one line why a command ends, whatever library has put it into words."""
    text = hints.spelled(one_line(text))
    if os.environ.get(lifecycle.SUPERVISED_ENV):
        logging.getLogger(__name__).critical("%s", text)
    else:
        print(f"feedhandler: {text}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="feedhandler",
        description="Crypto market data, from exchange WebSockets to ZeroMQ subscribers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"feedhandler {__version__} ({FORM})")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = _command(commands, "run", _run, "everything, under supervisord, in the foreground; Ctrl-C stops it")
    text = "the same with simulated exchanges, which needs no configuration and no network"
    demo = commands.add_parser(DEMO, help=text, description=text[0].upper() + text[1:] + ".")
    demo.set_defaults(run=_run, name=DEMO, config=DEMO, verbose=False)
    for each in (run, demo):
        _add_span(each)
    text = "write a configuration with comments, to be changed"
    init = commands.add_parser("init", help=text, description=text[0].upper() + text[1:] + ".")
    init.add_argument(
        "file", nargs="?", default=config.DEFAULT_PATHS[-1], metavar="FILE", help="default: %(default)s"
    )
    init.set_defaults(run=_init, name="init")
    feed = _command(commands, "feed", _feed, "one exchange's feed process")
    _add_exchange(feed)
    feed.add_argument(
        "--shard", metavar="I/N", help="only this part of the symbols, such as 1/4; as many processes as N"
    )
    _command(commands, "merger", _merger, "the merger process")
    _command(commands, "relay", _relay, "the relay: answers subscribers that have missed something")
    _command(commands, "gateway", _gateway, "the control plane: HTTP API, balances, dashboard, metrics")
    text = "republish the stream to NATS, as the table [nats] says"
    bridge = _command(commands, "bridge", _bridge, text)
    bridge.add_argument("target", choices=("nats",), metavar="TARGET", help="nats")
    bridge.formatter_class = argparse.RawDescriptionHelpFormatter
    bridge.epilog = BRIDGE_EPILOG
    _command(commands, "sim", _sim, "the simulated exchanges")
    _command(commands, "check", _check, "validate a configuration: exit 0, or 2 with file, key and remedy")
    _add_prod(commands)
    text = "print what `prod start` tells supervisord, for a supervisord of your own"
    _command(commands, "supervisord", _supervisord, text)

    tail = _command(commands, "tail", _tail, "print the stream")
    tail.add_argument("--endpoint", metavar="E", help=f"default: of -c, else {DEFAULT_ENDPOINT}")
    tail.add_argument(
        "--mode", metavar="M", default="", help="all, latest, or a number of milliseconds (default: all)"
    )
    _add_keys(tail)
    tail.add_argument(
        "--topic",
        action="append",
        metavar="PREFIX",
        help="only topics that start so, such as ticker.binance. (repeatable);"
        r" end it with \0 for an exact topic",
    )
    tail.add_argument(
        "--recover", action="store_true", help="ask the relay for missing records, and wait for them"
    )
    tail.add_argument("--count", type=_count, metavar="N", help="stop after N records")
    tail.add_argument("--json", action="store_true", help="one JSON object per line")

    status = _command(commands, "status", _status, "what is connected, how fresh, how fast")
    status.add_argument("--endpoint", metavar="E", help=f"default: of -c, else {DEFAULT_ENDPOINT}")
    status.add_argument("--json", action="store_true", help="everything the processes say, as JSON")
    _add_check(
        status, "a part is stale, connects or does not run; 2 if no merger answers, or an exchange is down"
    )
    _add_keys(status)

    renew = _command(commands, "renew", _renew, "make a feed renew its connections, without a gap")
    _add_exchange(renew)

    subscribe = _command(
        commands, "subscribe", _subscribe, "want more symbols of an exchange, now and from now on"
    )
    unsubscribe = _command(commands, "unsubscribe", _unsubscribe, "want symbols of an exchange no more")
    for command in (subscribe, unsubscribe):
        _add_exchange(command)
        command.add_argument("symbols", nargs="+", metavar="SYMBOL", help="as BASE/QUOTE, such as DOGE/USDT")
        command.add_argument(
            "--wait",
            type=_seconds,
            default=WAIT_S,
            metavar="S",
            help="how long to wait for the feed to have done it (default: %(default)g; 0: not at all)",
        )
    subscribe.add_argument(
        "--unlisted", action="store_true", help="also what the exchange does not list, or not yet"
    )

    _add_operator_commands(commands)
    _add_keys_command(commands)

    fault = _command(
        commands, "fault", _fault, "make a simulated exchange misbehave; without KIND: list them"
    )
    _add_exchange(fault)
    fault.add_argument("kind", nargs="?", metavar="KIND", help="what to do, such as close or stall")
    fault.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="such as seconds=5 or code=1012")
    return parser


def _add_prod(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    prod = _command(commands, "prod", _prod, "everything, as a daemon: start it, look at it, stop it")
    prod.add_argument(
        "action", choices=("start", "status", "stop"), metavar="ACTION", help="start, status or stop"
    )
    prod.add_argument(
        "--foreground",
        action="store_true",
        help="with start: stay, for systemd and the like, and log here as well",
    )
    prod.set_defaults(endpoint=None, json=False, check=False, key=None, server_key=None)  # of `status`


def _add_operator_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """What is asked and told through the gateway, but for `connect` and `disconnect`."""
    for name, is_wanted, text in (
        ("connect", True, "connect to an exchange from now on; its feed follows within a second"),
        ("disconnect", False, "leave an exchange unconnected until `connect`; what is wanted stays noted"),
    ):
        command = _command(commands, name, _connect, text)
        _add_exchange(command)
        command.set_defaults(is_wanted=is_wanted)

    balances = _command(commands, "balances", _balances, "what accounts hold, as the gateway knows it")
    balances.add_argument("--sync", action="store_true", help="ask the exchanges first")
    _add_check(balances, "one is incomplete, or not followed; 2 if no gateway answers, or an account failed")

    text = "what is held and watched; with ASSET=AMOUNT: say what is held besides accounts"
    positions = _command(commands, "positions", _positions, text)
    _add_exchange(positions, nargs="?")
    positions.add_argument(
        "amounts", nargs="*", metavar="ASSET=AMOUNT", help="such as BTC=0.5; 0 ends one, others stay"
    )

    text = "give the gateway an account's credentials, or let it forget them"
    credentials = _command(commands, "credentials", _credentials, text)
    credentials.epilog = (
        "set takes them from the environment (BINANCE_API_KEY and so on), else from standard input: the key in"
        " the first line, then the secret, then, where the exchange has one, the passphrase in the last; at a"
        " terminal it asks. Never from arguments: those are seen by other users."
    )
    credentials.add_argument("action", choices=("set", "remove"), metavar="ACTION", help="set or remove")
    _add_exchange(credentials)

    subscriptions = _command(commands, "subscriptions", _subscriptions, "what is wanted, and by whom")
    for command in (balances, subscriptions):
        _add_exchange(command, nargs="?")
    instruments = _command(commands, "instruments", _instruments, "what an exchange lists")
    _add_exchange(instruments)
    instruments.add_argument(
        "search", nargs="?", default="", metavar="SEARCH", help="only symbols with this in them"
    )
    for command in (balances, positions, subscriptions, instruments):
        command.add_argument("--json", action="store_true", help="what the gateway answers, as JSON")
    _command(commands, "token", _token, "print the file that has the API's token")


def _add_keys(parser: argparse.ArgumentParser) -> None:
    """What an endpoint on another host needs."""
    parser.add_argument("--key", metavar="FILE", help="our secret key, for an endpoint on another host")
    parser.add_argument("--server-key", metavar="FILE", help="the public key of that host")


def _add_keys_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "make keys for connections that leave this host, and say who may connect"
    parser = commands.add_parser(
        "keys",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog="NAME.key is public: give it to those who are to let you in, or whom you let in. NAME.key_secret"
        " stays where it was made. Who may connect is looked at every second: nothing has to be restarted.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    make = actions.add_parser("make", help="make a key pair: NAME.key and NAME.key_secret")
    make.add_argument("name", metavar="NAME")
    make.add_argument("--dir", default="conf/keys", help="where to (default: %(default)s)")
    make.set_defaults(run=_keys_make, name="keys make")
    authorize = actions.add_parser("authorize", help="let the owner of a public key connect")
    authorize.add_argument("file", metavar="FILE", help="such as desk-3.key")
    revoke = actions.add_parser("revoke", help="let the owner of a key connect no more; ends its connections")
    revoke.add_argument("key", metavar="NAME", help="as `list` shows it")
    listing = actions.add_parser("list", help="who may connect")
    for action, run in ((authorize, _keys_authorize), (revoke, _keys_revoke), (listing, _keys_list)):
        action.add_argument("-c", "--config", metavar="FILE", help=CONFIG_HELP)
        action.set_defaults(run=run, name="keys")


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("-c", "--config", metavar="FILE", help=CONFIG_HELP)
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    parser.set_defaults(run=run, name=name)
    return parser


def _add_span(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds",
        type=_positive,
        metavar="S",
        help="stop after so long, with a summary; counted from when each exchange has had data",
    )
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=FIRST_DATA_WAIT_S,
        metavar="S",
        help="with --seconds: how long at most to wait for the first data (default: %(default)g)",
    )


def _add_exchange(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument(
        "exchange", nargs=nargs, choices=list(EXCHANGES), metavar="EXCHANGE", help=", ".join(EXCHANGES)
    )


def _add_check(parser: argparse.ArgumentParser, text: str) -> None:
    text = f"for scripts: one line, and exit 0 if all is well, 1 if {text}"
    parser.add_argument("--check", action="store_true", help=text)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds, 0 or more")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive count")
    return value


def _settings(arguments: argparse.Namespace) -> config.Config:
    """Return the configuration that is in use. Raises ConfigError."""
    if arguments.config is None:
        raise ConfigError(
            f"no configuration: no {' and no '.join(config.DEFAULT_PATHS)} here; `feedhandler init` writes one,"
            f" -c FILE or {config.CONFIG_ENV} names another, and `feedhandler demo` needs none"
        )
    return config.load(arguments.config)


# --- processes; each imports its own libraries only


def _run(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import preflight, prod, run

    settings = _settings(arguments)
    if settings.is_merger_elsewhere:
        raise ConfigError(
            f"{settings.path}: merger.feeds: is on another host, so there is nothing to show here; start the feeds"
            " by `feedhandler prod start` or one by one"
        )
    prod.refuse_second(settings)
    preflight.check(settings)
    return run.run(settings, arguments.seconds, arguments.wait)


def _feed(arguments: argparse.Namespace) -> int:
    from feedhandler.feed import process

    settings = _settings(arguments)
    shard = settings.shard(arguments.exchange, arguments.shard)
    name = files.feed_name(arguments.exchange, shard)
    lifecycle.set_up_logging(name, is_verbose=arguments.verbose)
    lifecycle.follow_supervisor()
    lifecycle.note_start(settings, name)
    return process.run(settings, arguments.exchange, shard)


def _merger(arguments: argparse.Namespace) -> int:
    from feedhandler.merger import process

    lifecycle.set_up_logging("merger", is_verbose=arguments.verbose)
    lifecycle.follow_supervisor()
    return process.run(lifecycle.note_start(_settings(arguments), "merger"))


def _relay(arguments: argparse.Namespace) -> int:
    from feedhandler.relay import process

    lifecycle.set_up_logging("relay", is_verbose=arguments.verbose)
    lifecycle.follow_supervisor()
    return process.run(lifecycle.note_start(_settings(arguments), "relay"))


def _gateway(arguments: argparse.Namespace) -> int:
    from feedhandler.gateway import process

    lifecycle.set_up_logging("gateway", is_verbose=arguments.verbose)
    lifecycle.follow_supervisor()
    return process.run(lifecycle.note_start(_settings(arguments), "gateway"))


def _bridge(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import preflight

    settings = lifecycle.note_start(_settings(arguments), BRIDGE)
    preflight.require_nats()
    from feedhandler.bridge import process

    lifecycle.set_up_logging(BRIDGE, is_verbose=arguments.verbose)
    lifecycle.follow_supervisor()
    return process.run(settings)


def _sim(arguments: argparse.Namespace) -> int:
    from feedhandler.sim import process

    lifecycle.set_up_logging("sim", is_verbose=arguments.verbose)
    lifecycle.follow_supervisor()
    return process.run(lifecycle.note_start(_settings(arguments), "sim"))


# --- looks


def _init(arguments: argparse.Namespace) -> int:
    examples.write(Path(arguments.file))
    hints.use(arguments.file)
    print(hints.spelled(f"{arguments.file}: written; change what is to differ, then `feedhandler run`"))
    return EXIT_OK


def _check(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import preflight, supervision

    settings = _settings(arguments)
    preflight.check(settings, lambda text: print(f"note: {text}"))
    supervision.here(settings)
    for name, exchange in settings.exchanges.items():
        kind = "simulated" if exchange.simulated else "not simulated"
        spread = f" over {exchange.shards} processes" if exchange.shards > 1 else ""
        print(
            f"{name}: {kind}, {len(exchange.symbols)} symbols{spread}: {', '.join(exchange.symbols[:5])}",
            end="",
        )
        print(" …" if len(exchange.symbols) > 5 else "")
    has_board = settings.board and settings.exchanges
    print(f"board: {settings.run_dir}/board/" if has_board else "board: none (`board = true` turns it on)")
    print(f"{arguments.config}: ok")
    return EXIT_OK


def _prod(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import preflight, prod

    settings = _settings(arguments)
    if arguments.action == "stop":
        return prod.stop(settings)
    if arguments.action == "status":
        return _prod_status(settings, arguments)
    prod.refuse_second(settings)
    preflight.check(settings)
    if arguments.foreground:
        return prod.become(settings)
    return prod.start(settings, Console())


def _prod_status(settings: config.Config, arguments: argparse.Namespace) -> int:
    from feedhandler.cli import prod
    from feedhandler.runtime.host import look

    if not prod.is_running(settings):
        print("not running")
        return EXIT_FAILED
    if settings.is_merger_elsewhere:  # where it is, there the status of its exchanges is
        prod.show(settings, Console())
        status = EXIT_OK
    else:
        status = _status(arguments)
    return status if all(each.state == "up" for each in look(settings)) else EXIT_FAILED


def _supervisord(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import supervision

    settings = _settings(arguments)
    print(supervision.render(settings, supervision.here(settings, has_control=True)), end="")
    return EXIT_OK


def _endpoints(arguments: argparse.Namespace) -> tuple[str, str | bool]:
    """Return where to subscribe, and where to ask for what was missed; True: beside that."""
    if arguments.endpoint or not arguments.config:
        return arguments.endpoint or DEFAULT_ENDPOINT, True
    found = config.load(arguments.config)
    ticks, recover = found.merger.ticks, found.relay.recover
    return (ticks[0], recover[0]) if arguments.is_named else (_port(ticks), _port(recover))


def _port(endpoints: Sequence[str]) -> str:
    """Return where to look if no file was named, for what runs on this host.

    A demo has ipc addresses of its own, and the usual port.
    """
    return next((endpoint for endpoint in endpoints if endpoint.startswith("tcp://")), endpoints[0])


def _tail(arguments: argparse.Namespace) -> int:
    lifecycle.set_up_messages()
    endpoint, recover = _endpoints(arguments)
    mode = int(arguments.mode) if arguments.mode.isdecimal() else arguments.mode
    topics = [topic.replace("\\0", "\0") for topic in arguments.topic or [""]]
    left = arguments.count
    recover = arguments.recover and recover
    gaps = view.Gaps() if mode in ("", "all") else None  # others have them by intent
    with _subscriber(endpoint, topics, arguments, mode, recover) as subscriber:
        for record in subscriber:
            if gaps is not None and (gap := gaps.line(record)):
                print(f"feedhandler: {gap}", file=sys.stderr, flush=True)
            if arguments.json:
                sys.stdout.write(view.record_json(record).decode() + "\n")
            else:
                sys.stdout.write(view.record_line(record) + "\n")
            sys.stdout.flush()
            if left is not None and (left := left - 1) == 0:
                break
    return EXIT_OK


def _status(arguments: argparse.Namespace) -> int:
    from feedhandler.runtime.host import look

    endpoint, _ = _endpoints(arguments)
    heartbeat, statuses = _ask_status(endpoint, arguments)
    running = look(_settings(arguments)) if arguments.config and not arguments.endpoint else []
    if is_of_others(heartbeat, running):
        running = []  # which answers where ours would, and whose processes are in another run_dir
    now_ns = time.time_ns()
    condition = verdict(heartbeat, statuses, running, now_ns)
    if arguments.json:
        texts = {name: status.text(now_ns) for name, status in statuses.items()}
        document = {"merger": heartbeat, "exchanges": statuses, "text": texts, "processes": running}
        text = msgspec.json.format(msgspec.json.encode(document | {"condition": condition})).decode()
    elif arguments.check:
        text = condition.text(
            f"{len(statuses)} exchanges" + (f", {len(running)} processes" if running else "")
        )
    else:
        text = ""
    if arguments.check:
        with contextlib.suppress(BrokenPipeError):  # the status counts, whoever reads the words
            print(hints.spelled(text))
        return condition.status
    for part in [text] if text else view.status_parts(statuses, running, now_ns):
        _print(part)
    if heartbeat is None:
        print(
            hints.spelled(
                f"feedhandler: no merger answers at {endpoint} within {STATUS_TIMEOUT_S:g} s;"
                " is it running? (`feedhandler run` starts it; -c FILE names another place)"
            ),
            file=sys.stderr,
        )
    return EXIT_OK if heartbeat is not None else EXIT_FAILED


def _print(part: str | Table) -> None:
    if sys.stdout.isatty():
        Console().print(part, highlight=False)
    else:
        print(part if isinstance(part, str) else view.plain(part))


def _ask_status(
    endpoint: str, arguments: argparse.Namespace
) -> tuple[Heartbeat | None, dict[str, ExchangeStatus]]:
    """Return what the merger says of itself and of each exchange; None if it says nothing in time."""
    heartbeat: Heartbeat | None = None
    statuses: dict[str, ExchangeStatus] = {}
    deadline = time.monotonic() + STATUS_TIMEOUT_S
    prefixes = ["status.", "heartbeat."]
    with _subscriber(endpoint, prefixes, arguments) as subscriber:
        while heartbeat is None or set(heartbeat.exchanges) - set(statuses):
            record = subscriber.receive(max(0.0, deadline - time.monotonic()))
            if record is None:
                break
            assert isinstance(record, wire.Document), "these topics have JSON bodies"
            if record.kind == wire.HEARTBEAT:
                heartbeat = msgspec.json.decode(record.body, type=Heartbeat)
            else:
                status = msgspec.json.decode(record.body, type=ExchangeStatus)
                statuses[status.exchange] = status
    return heartbeat, statuses


def _subscriber(
    endpoint: str,
    topics: Sequence[str],
    arguments: argparse.Namespace,
    mode: str | int = "",
    recover: bool | str = False,
) -> Subscriber:
    if bool(arguments.key) != bool(arguments.server_key):
        raise ConfigError("--key and --server-key go together: our own secret key, and their public one")
    curve = Curve(arguments.key, arguments.server_key) if arguments.key else None
    try:
        declaration_of(mode)
    except ValueError as exc:
        raise ConfigError(f"--mode: {exc}") from exc
    try:
        return Subscriber(endpoint, topics, mode=mode, recover=recover, curve=curve)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc


def _keys_make(arguments: argparse.Namespace) -> int:
    from feedhandler.transport import keys

    public, secret = keys.make(Path(arguments.dir), arguments.name)
    print(f"{public}: public; give it to whoever is to let you in, or whom you let in")
    print(f"{secret}: secret; stays here, readable by you alone")
    return EXIT_OK


def _clients(arguments: argparse.Namespace) -> Path:
    settings = _settings(arguments)
    if not settings.curve.clients:
        raise ConfigError(f'{settings.path}: curve.clients: is missing; for example "conf/keys/clients"')
    return Path(settings.curve.clients)


def _keys_authorize(arguments: argparse.Namespace) -> int:
    from feedhandler.transport import keys

    print(f"{keys.authorize(arguments.file, _clients(arguments))}: may connect, from within a second on")
    return EXIT_OK


def _keys_revoke(arguments: argparse.Namespace) -> int:
    from feedhandler.transport import keys

    print(f"{keys.revoke(arguments.key, _clients(arguments))}: removed; its connections end within seconds")
    return EXIT_OK


def _keys_list(arguments: argparse.Namespace) -> int:
    from zmq.utils import z85

    from feedhandler.transport import keys

    names = keys.Clients(str(_clients(arguments)), "curve.clients").names()
    for name, key in names.items():
        print(f"{name:<30} {z85.encode(key).decode()}")
    if not names:
        text = "nobody may connect; `feedhandler keys authorize FILE` lets somebody in"
        print(hints.spelled(text), file=sys.stderr)
    return EXIT_OK


def _renew(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    name = arguments.exchange
    settings.exchange(name)
    try:
        asked = files.renew_feeds(settings.run_dir, name)
    except ConfigError as exc:
        print(f"feedhandler: {exc}", file=sys.stderr)
        return EXIT_FAILED
    for shard, pid in asked.items():
        who = f"the feed of {name}{'' if shard.is_whole else f', shard {shard},'} (pid {pid})"
        print(hints.spelled(f"asked {who}; its log and `feedhandler status` tell how it goes"))
    return EXIT_OK


def _subscribe(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import subscribe

    return subscribe.subscribe(
        _settings(arguments),
        arguments.exchange,
        list(dict.fromkeys(arguments.symbols)),
        is_unlisted=arguments.unlisted,
        wait_s=arguments.wait,
    )


def _unsubscribe(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import subscribe

    settings, symbols = _settings(arguments), list(dict.fromkeys(arguments.symbols))
    return subscribe.unsubscribe(settings, arguments.exchange, symbols, wait_s=arguments.wait)


def _connect(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import operator

    return operator.connect(_settings(arguments), arguments.exchange, is_wanted=arguments.is_wanted)


def _balances(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import operator

    settings = _settings(arguments)
    name, is_sync = arguments.exchange, arguments.sync
    if arguments.check:
        return operator.check_balances(settings, name, is_sync=is_sync, is_json=arguments.json)
    return operator.balances(settings, name, is_sync=is_sync, is_json=arguments.json)


def _positions(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import operator

    settings = _settings(arguments)
    if arguments.amounts:
        return operator.set_positions(settings, arguments.exchange, arguments.amounts, is_json=arguments.json)
    return operator.positions(settings, arguments.exchange, is_json=arguments.json)


def _credentials(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import operator

    settings = _settings(arguments)
    act = operator.set_credentials if arguments.action == "set" else operator.remove_credentials
    return act(settings, arguments.exchange)


def _subscriptions(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import operator

    settings = _settings(arguments)
    return operator.subscriptions(settings, arguments.exchange, is_json=arguments.json)


def _instruments(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import operator

    settings = _settings(arguments)
    return operator.instruments(settings, arguments.exchange, arguments.search, is_json=arguments.json)


def _token(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import operator

    return operator.token(_settings(arguments))


def _fault(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import fault

    settings = _settings(arguments)
    if arguments.kind is None:
        print(fault.listing())
        return EXIT_OK
    exchange = settings.exchange(arguments.exchange)
    if not exchange.simulated:
        raise ConfigError(
            f"{settings.path}: exchanges.{arguments.exchange}: is not simulated, and real exchanges take no faults;"
            " use a configuration with simulated = true, such as that of `feedhandler demo`"
        )
    print(fault.send(exchange.rest_url, arguments.kind, arguments.settings))
    return EXIT_OK
