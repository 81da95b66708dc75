"""The paths that are measured: what to start for each, and why it may have to be left out.

Ours and the floor are complete; the alternatives run as their users would run them, with nothing changed but
the addresses. Each ends in a sink that notes the same columns (`recorder`).
"""

import importlib.util
import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.rig import Place, Program, python

ROOT: Final = Path(__file__).resolve().parent.parent
CRYPTOFEED_VENV: Final = ROOT / ".venv-cryptofeed"  # its own: see install_cryptofeed.sh


class Contender(msgspec.Struct, frozen=True):
    """One path.

    programs is called once the load generator is up. missing says in a line why the path cannot run here, and
    the remedy; "" if it can.
    """

    name: str
    title: str
    path: str  # drawn in a line
    programs: Callable[[Place], Sequence[Program]]
    missing: Callable[[], str] = lambda: ""
    is_ours: bool = False
    conflates: bool = False  # by design: what it did not deliver is not lost
    has_sizes: bool = True  # else they are noted as NaN, and nothing is wrong
    note: str = ""  # what its user has to accept, in a sentence


def floor(place: Place) -> list[Program]:
    """The same frames through the same three hops, raw."""
    into, out = place.ipc("in"), place.ipc("out")
    address, natives = place.url["binance"], place.natives["binance"]
    return [
        Program("merger", python("bench.paths.floor_merger", into, out)),
        Program("feed", python("bench.paths.floor_feed", f"ws://{address}", into, place.kind, *natives)),
        Program("subscriber", python("bench.paths.floor_subscriber", out, place.kind), is_sink=True),
    ]


def configuration(place: Place, *, has_board: bool = False, has_recorder: bool = False) -> str:
    """Write feedhandler's configuration, nothing in it but addresses and patience; returns its path."""
    lines = [f'run_dir = "{place.directory}"', f"board = {str(has_board).lower()}"]
    for exchange, address in place.url.items():
        lines += [
            f"[exchanges.{exchange}]",
            f'ws_url = "ws://{address}"',
            f'rest_url = "http://{address}"',
            "simulated = true",
            f"symbols = {json.dumps(place.symbols[exchange])}",
            f'kinds = ["{place.kind}"]',
            "stale_after_s = 3000",  # between two loads nothing comes
            "reconnect_after_s = 3600",
        ]
    lines += ["[merger]", f'ticks = ["{place.ipc("ticks")}"]']
    lines += ["[relay]", f'recover = ["{place.ipc("recover")}"]']
    lines += ["[gateway]", f'http = "127.0.0.1:{free_port()}"']
    if has_recorder:
        lines += ["[recorder]", f'directory = "{place.directory}/recordings"', "min_free_gb = 0"]
    path = place.directory / "bench.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def processes(place: Place, *, has_board: bool = False) -> list[Program]:
    """feedhandler's merger and feeds."""
    config = configuration(place, has_board=has_board)
    merger = Program("merger", python("feedhandler", "merger", "-c", config))
    feeds = [Program("feed", python("feedhandler", "feed", name, "-c", config)) for name in place.url]
    return [merger, *feeds]


def recorded(place: Place) -> list[Program]:
    """feedhandler with a subscriber, while all that the feed receives is written to disk."""
    programs = subscribed("ticks")(place)
    config = configuration(place, has_recorder=True)
    return [*programs, Program("recorder", python("feedhandler", "recorder", "-c", config))]


def others(place: Place) -> list[Program]:
    """feedhandler with another kind than quotes, and a subscriber; the relay is there, since it may need that."""
    config = configuration(place)
    return [
        Program("merger", python("feedhandler", "merger", "-c", config)),
        Program("relay", python("feedhandler", "relay", "-c", config)),
        Program("feed", python("bench.paths.feed", "binance", "-c", config)),
        Program(
            "subscriber",
            python("bench.paths.other_subscriber", place.ipc("ticks"), place.ipc("recover"), place.kind),
            is_sink=True,
        ),
    ]


def beside_gateway(place: Place) -> list[Program]:
    """feedhandler with a subscriber, while the gateway takes everything as well."""
    gateway = Program("gateway", python("feedhandler", "gateway", "-c", str(place.directory / "bench.toml")))
    return [*subscribed("ticks")(place), gateway]


def subscribed(
    endpoint: str,
    count: int = 1,
    *,
    subscriber: str = "subscriber",
    arguments: Sequence[str] = (),
    conflates: bool = False,
) -> Callable[[Place], list[Program]]:
    """feedhandler with so many subscribers at one of its endpoints, named as in the run directory."""

    def programs(place: Place) -> list[Program]:
        argv = python(f"bench.paths.{subscriber}", place.ipc(endpoint), *arguments)
        return [
            *processes(place),
            *(Program("subscriber", argv, is_sink=True, conflates=conflates) for _ in range(count)),
        ]

    return programs


def beside_asker(place: Place) -> list[Program]:
    """feedhandler with a subscriber, while somebody asks the relay for everything, again and again."""
    config = str(place.directory / "bench.toml")
    relay = Program("relay", python("feedhandler", "relay", "-c", config))
    return [
        *subscribed("ticks")(place),
        relay,
        Program("asker", python("bench.paths.asker", place.ipc("recover"))),
    ]


def beside_silent(count: int) -> Callable[[Place], list[Program]]:
    """feedhandler with so many subscribers, and one more that takes everything and does not read."""

    def programs(place: Place) -> list[Program]:
        silent = Program("silent", python("bench.paths.silent_subscriber", place.ipc("ticks")))
        return [*subscribed("ticks", count)(place), silent]

    return programs


def board(place: Place) -> list[Program]:
    """feedhandler with a program that looks at the feed's board."""
    topics = [f"ticker.{name}.{symbol}" for name, symbols in place.symbols.items() for symbol in symbols]
    argv = python("bench.paths.board", str(place.directory), *topics)
    return [*processes(place, has_board=True), Program("subscriber", argv, is_sink=True, conflates=True)]


def websockets_json(place: Place) -> list[Program]:
    """`websockets` and json, in the program that wants the quotes."""
    argv = python("bench.paths.websockets_json", f"ws://{place.url['binance']}", *place.natives["binance"])
    return [Program("subscriber", argv, is_sink=True)]


def ccxt_pro(place: Place) -> list[Program]:
    """ccxt.pro, in the program that wants the quotes."""
    argv = python("bench.paths.ccxt_pro", place.url["binance"], *place.symbols["binance"])
    return [Program("subscriber", argv, is_sink=True, conflates=True)]


def cryptofeed_callback(place: Place) -> list[Program]:
    """cryptofeed, in the program that wants the quotes."""
    argv = _cryptofeed_python(
        "bench.paths.cryptofeed_callback", place.url["binance"], place.kind, *place.symbols["binance"]
    )
    return [Program("subscriber", argv, is_sink=True)]


def cryptofeed_zmq(place: Place) -> list[Program]:
    """cryptofeed that publishes, and a program that wants the quotes. Its backend knows TCP only."""
    port = str(free_port())
    feed = _cryptofeed_python(
        "bench.paths.cryptofeed_zmq", place.url["binance"], port, *place.symbols["binance"]
    )
    receiver = _cryptofeed_python("bench.paths.cryptofeed_receiver", port)
    return [Program("subscriber", receiver, is_sink=True), Program("feed", feed)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])  # free now, and bound at once


def _cryptofeed_python(module: str, *arguments: str) -> list[str]:
    """Return the command line of a program in cryptofeed's environment; `env` becomes that program."""
    return ["env", f"PYTHONPATH={ROOT}", f"{CRYPTOFEED_VENV}/bin/python", "-m", module, *arguments]


def cryptofeed_version() -> str:
    """Return what was installed: versions, and how its Python is linked; "" if nothing was."""
    stamp = CRYPTOFEED_VENV / ".ok"
    return stamp.read_text(encoding="utf-8").strip() if stamp.exists() else ""


def _without_cryptofeed() -> str:
    if cryptofeed_version():
        return ""
    return "cryptofeed is not installed: make .venv-cryptofeed/.ok (CRYPTOFEED_PYTHON names another Python)"


def _without(package: str) -> Callable[[], str]:
    """Return what says how to get a package of the extra `bench` if it is not installed."""

    def missing() -> str:
        if importlib.util.find_spec(package) is not None:
            return ""
        return f"{package} is not installed: pip install -e '.[bench]'"

    return missing


FLOOR = Contender("floor", "floor: raw frames, three hops", "picows → PUB → SUB/PUB → SUB", floor)
OURS = Contender(
    "feedhandler", "feedhandler", "feed → merger → Subscriber", subscribed("ticks"), is_ours=True
)
SPINNING = Contender(
    "feedhandler-spin",
    "feedhandler, subscriber awake",
    "feed → merger → Subscriber(spin_s=0.01)",
    subscribed("ticks", arguments=["0.01"]),
    is_ours=True,
    note="The subscriber looks instead of sleeping: a processor of its own for less latency.",
)
LIBZMQ = Contender(
    "feedhandler-libzmq",
    "feedhandler, libzmq subscriber",
    "feed → merger → libzmq's SUB and a struct",
    subscribed("ticks", subscriber="libzmq_subscriber"),
    is_ours=True,
)
BATCHES = Contender(
    "feedhandler-batches",
    "feedhandler, batch endpoint",
    "feed → merger ═ several records a message ═▶ Subscriber",
    subscribed("batches"),
    is_ours=True,
)
DIRECT = Contender(
    "feedhandler-direct",
    "feedhandler, feed's own endpoint",
    "feed → Subscriber (the merger runs beside)",
    subscribed("binance"),
    is_ours=True,
)
LATEST = Contender(
    "feedhandler-latest",
    "feedhandler, newest only",
    'feed → merger → Subscriber(mode="latest")',
    subscribed("ticks", arguments=["0", "latest"], conflates=True),
    is_ours=True,
    conflates=True,
    note="What a newer one of its topic follows before the subscriber reads is passed over.",
)
ASKED = Contender(
    "feedhandler-asked",
    "feedhandler, relay under load",
    "feed → merger → Subscriber (beside it, one asks the relay for everything without a pause)",
    beside_asker,
    is_ours=True,
)
INTERVAL = Contender(
    "feedhandler-interval",
    "feedhandler, every 100 ms",
    "feed → merger → Subscriber(mode=100)",
    subscribed("ticks", arguments=["0", "100"], conflates=True),
    is_ours=True,
    conflates=True,
    note="Ten times a second, and then what is each symbol's newest: what is passed over is not in its latency.",
)
RECORDED = Contender(
    "feedhandler-recorded",
    "feedhandler, recorded",
    "feed → merger → Subscriber (the recorder writes what the feed receives)",
    recorded,
    is_ours=True,
)
AGAIN = Contender(
    "feedhandler-again",
    "feedhandler, once more",
    "feed → merger → Subscriber (the same processes a second time)",
    subscribed("ticks"),
    is_ours=True,
    note="What it differs by from the first is what a figure of one run leaves open.",
)
SILENT = Contender(
    "feedhandler-silent",
    "feedhandler, and one that does not read",
    "feed → merger → Subscribers (one more has stopped reading)",
    beside_silent(9),
    is_ours=True,
)
BOARD = Contender(
    "feedhandler-board",
    "feedhandler, the feed's board",
    "feed ┄ memory ┄▶ Board.read, awake (the merger runs beside)",
    board,
    is_ours=True,
    conflates=True,
    note="Whoever looks takes a processor of its own, and sees the newest, not all of them.",
)
GATEWAY = Contender(
    "feedhandler-gateway",
    "feedhandler, gateway running",
    "feed → merger → Subscriber (the gateway subscribes to everything beside)",
    beside_gateway,
    is_ours=True,
)

CRYPTOFEED = Contender(
    "cryptofeed",
    "cryptofeed, callback",
    "cryptofeed → callback",
    cryptofeed_callback,
    _without_cryptofeed,
    note="In one process with its user.",
)
CRYPTOFEED_ZMQ = Contender(
    "cryptofeed-zmq",
    "cryptofeed, ZeroMQ backend",
    "cryptofeed → PUB → SUB, JSON",
    cryptofeed_zmq,
    _without_cryptofeed,
    has_sizes=False,
    note="Its messages have no sizes. batch_interval is 0, not 0.5 s; what exceeds its queues is lost.",
)
CCXT_PRO = Contender(
    "ccxt.pro",
    "ccxt.pro (not every message)",
    "ccxt.pro → watch_bids_asks",
    ccxt_pro,
    _without("ccxt"),
    conflates=True,
    note="In one process with its user. What arrives between two calls of watch_bids_asks is not delivered.",
)
WEBSOCKETS_JSON = Contender(
    "websockets+json",
    "websockets and json",
    "websockets → json.loads → float",
    websockets_json,
    _without("websockets"),
    note="In one process with its user.",
)

# Of other kinds than quotes. cryptofeed has no channel of depth.
OTHERS = msgspec.structs.replace(OURS, programs=others)
OF_OTHERS: Final = {
    "ticker": (FLOOR, OURS, CRYPTOFEED),
    "trade": (FLOOR, OTHERS, CRYPTOFEED),
    "depth": (FLOOR, OTHERS),
    "book": (FLOOR, OTHERS, CRYPTOFEED),
}

CONTENDERS: tuple[Contender, ...] = (
    FLOOR,
    OURS,
    SPINNING,
    LIBZMQ,
    BATCHES,
    DIRECT,
    LATEST,
    INTERVAL,
    BOARD,
    GATEWAY,
    ASKED,
    CRYPTOFEED,
    CRYPTOFEED_ZMQ,
    CCXT_PRO,
    WEBSOCKETS_JSON,
)
