"""`feedhandler tail`, `status`: looks at the stream of a merger, here or on another host."""

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from feedhandler.cli.arguments import Commands, add_check, command, count, settings_of
from feedhandler.client import DEFAULT_ENDPOINT, Curve, Subscriber
from feedhandler.client.stream import declaration_of
from feedhandler.data import hints, wire
from feedhandler.data.errors import EXIT_FAILED, EXIT_OK, ConfigError
from feedhandler.data.processes import is_of_others, verdict
from feedhandler.data.status import ExchangeStatus, Heartbeat
from feedhandler.runtime import config, lifecycle
from feedhandler.transport.files import read_recorder_status

STATUS_TIMEOUT_S: Final = 3.0


def add(commands: Commands) -> None:
    """Add the commands of this module."""
    tail = command(commands, "tail", _tail, "print the stream")
    tail.add_argument("--endpoint", metavar="E", help=f"default: of -c, else {DEFAULT_ENDPOINT}")
    tail.add_argument(
        "--mode",
        metavar="M",
        default="",
        help="all, latest, a number of milliseconds, or within=50 (default: all)",
    )
    _add_keys(tail)
    which = tail.add_mutually_exclusive_group()
    which.add_argument(
        "--kind",
        action="append",
        choices=wire.TOPIC_WORDS,
        help="only records of this kind, of all symbols (repeatable)",
    )
    which.add_argument(
        "--topic",
        action="append",
        metavar="PREFIX",
        help="only topics that start so, such as ticker.binance. (repeatable);"
        r" end it with \0 for an exact topic",
    )
    tail.add_argument(
        "--recover", action="store_true", help="request missing records of the relay, and wait for them"
    )
    tail.add_argument("--count", type=count, metavar="N", help="stop after N records")
    tail.add_argument("--json", action="store_true", help="one JSON object per line")

    status = command(commands, "status", show_status, "what is connected, how fresh, how fast")
    status.add_argument("--endpoint", metavar="E", help=f"default: of -c, else {DEFAULT_ENDPOINT}")
    status.add_argument("--json", action="store_true", help="everything the processes report, as JSON")
    add_check(
        status, "a part is stale, connects or does not run; 2 if no merger answers, or an exchange is down"
    )
    _add_keys(status)


def _add_keys(parser: argparse.ArgumentParser) -> None:
    """What an endpoint on another host needs."""
    parser.add_argument("--key", metavar="FILE", help="our secret key, for an endpoint on another host")
    parser.add_argument("--server-key", metavar="FILE", help="the public key of that host")


def _tail(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import view  # here: else each process would load what draws

    lifecycle.set_up_messages()
    endpoint, recover = _endpoints(arguments)
    mode = int(arguments.mode) if arguments.mode.isdecimal() else arguments.mode
    kinds = [f"{kind}." for kind in arguments.kind or ()]
    topics = kinds or [topic.replace("\\0", "\0") for topic in arguments.topic or [""]]
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


def show_status(arguments: argparse.Namespace) -> int:
    """Print what runs and how well; returns the exit status."""
    from feedhandler.cli import view
    from feedhandler.runtime.host import look

    endpoint, _ = _endpoints(arguments)
    heartbeat, statuses = _ask_status(endpoint, arguments)
    running = look(settings_of(arguments)) if arguments.config and not arguments.endpoint else []
    if is_of_others(heartbeat, running):
        running = []  # which answers where ours would, and whose processes are in another run_dir
    now_ns = time.time_ns()
    condition = verdict(heartbeat, statuses, running, now_ns)
    if arguments.json:
        texts = {name: status.text(now_ns) for name, status in statuses.items()}
        document: dict[str, object] = {
            "merger": heartbeat,
            "exchanges": statuses,
            "text": texts,
            "processes": running,
        }
        if running and (recorder := read_recorder_status(settings_of(arguments).run_dir)) is not None:
            document["recorder"] = recorder
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
        view.show(part)
    if heartbeat is None:
        print(
            hints.spelled(
                f"feedhandler: no merger answers at {endpoint} within {STATUS_TIMEOUT_S:g} s;"
                " is it running? (`feedhandler run` starts it; -c FILE names another place)"
            ),
            file=sys.stderr,
        )
    return EXIT_OK if heartbeat is not None else EXIT_FAILED


def _ask_status(
    endpoint: str, arguments: argparse.Namespace
) -> tuple[Heartbeat | None, dict[str, ExchangeStatus]]:
    """Return the status of the merger and of each exchange; None if none comes in time."""
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


def _endpoints(arguments: argparse.Namespace) -> tuple[str, str | bool]:
    """Return where to subscribe, and where to request what was missed; True: beside that."""
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
