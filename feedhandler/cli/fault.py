"""`feedhandler fault`: has a running simulator misbehave."""

import argparse
from collections.abc import Sequence
from typing import Final

import msgspec

from feedhandler.cli.arguments import Commands, add_exchange, command, settings_of
from feedhandler.data.errors import EXIT_OK, ConfigError, ProtocolError

TIMEOUT_S: Final = 5.0


def add(commands: Commands) -> None:
    """Add the command of this module."""
    text = "make a simulated exchange misbehave; without KIND: list them"
    fault = command(commands, "fault", _fault, text)
    add_exchange(fault)
    fault.add_argument("kind", nargs="?", metavar="KIND", help="what to do, such as close or stall")
    fault.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="such as seconds=5 or code=1012")


def _fault(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    if arguments.kind is None:
        print(listing())
        return EXIT_OK
    exchange = settings.exchange(arguments.exchange)
    if not exchange.origin:
        raise ConfigError(
            f"{settings.path}: exchanges.{arguments.exchange}: is neither simulated nor a recording, and real"
            " exchanges take no faults; one with simulated = true is that of `feedhandler demo`"
        )
    print(send(exchange.rest_url, arguments.kind, arguments.settings))
    return EXIT_OK


def listing() -> str:
    """Return every kind of fault with one line of help."""
    from feedhandler.sim.server import fault_kinds

    kinds = fault_kinds()
    width = max(map(len, kinds))
    return "\n".join(f"{name:{width}}  {text}" for name, text in kinds.items())


def send(rest_url: str, kind: str, settings: Sequence[str]) -> str:
    """Order one fault and return the simulator's answer.

    Raises ConfigError for what the simulator does not understand, ProtocolError if there is none.
    """
    import urllib.error
    import urllib.request

    body = {"fault": kind}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise ConfigError(f"fault {kind}: {setting!r} is not KEY=VALUE, such as seconds=5")
        body[key] = value
    request = urllib.request.Request(f"{rest_url}/_sim/faults", msgspec.json.encode(body), method="POST")
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on loopback
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as exc:
        raise ConfigError(f"fault {kind}: {exc.read().decode(errors='replace')}") from exc
    except OSError as exc:
        raise ProtocolError(f"no simulator answers at {rest_url}: {exc}") from exc
