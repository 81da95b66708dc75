"""`feedhandler fault`: asks a running simulator to misbehave."""

import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Final

import msgspec

from feedhandler.data.errors import ConfigError, ProtocolError
from feedhandler.sim.server import fault_kinds

TIMEOUT_S: Final = 5.0


def listing() -> str:
    """Return every kind of fault with one line of help."""
    kinds = fault_kinds()
    width = max(map(len, kinds))
    return "\n".join(f"{name:{width}}  {text}" for name, text in kinds.items())


def send(rest_url: str, kind: str, settings: Sequence[str]) -> str:
    """Order one fault and return the simulator's answer.

    Raises ConfigError for what the simulator does not understand, ProtocolError if there is none.
    """
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
