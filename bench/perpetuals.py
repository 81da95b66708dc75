"""Hundreds of perpetuals of one exchange in all kinds: how long until all are live, and what they cost then.

    simulator ══WS══▶ feed ══▶ merger ══▶ one subscriber, which keeps the books
                                 └──▶ relay

Unlike the other sections this one has the simulator's own market in place of numbered messages: few symbols are
busy and most are quiet, each channel has its pace, and limits are the exchange's. The simulator takes part of the
same cores, which is printed beside the rest. When a message was due nothing tells, so latency is from receipt.
"""

import contextlib
import json
import math
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from bench import host
from bench.contenders import free_port
from bench.report import Perpetuals, PerpetualsStart
from bench.rig import BenchError, Child, Say, python
from feedhandler.data.book import BOOK
from feedhandler.data.contract import CONTRACT
from feedhandler.data.depth import DEPTH
from feedhandler.data.status import ExchangeStatus, FeedStatus
from feedhandler.data.ticker import TICKER
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Market
from feedhandler.runtime import config
from feedhandler.transport.http import REST_SHARE, SHARDS_SHARE, SPARE_SHARE

EXCHANGE: Final = "bybit"  # that is put under load: it has all kinds, and each has a pace of its own
MARKET: Final = "linear"
# kinds that each symbol has data of at once
BEGINNING: Final = (TICKER.name, DEPTH.name, BOOK.name, CONTRACT.name)
ROLES: Final = ("feed", "merger", "relay", "subscriber")
LISTED: Final = 3.2  # instruments a symbol: of those that are simulated, not all are such contracts
BUSY_SYMBOLS: Final = 5_000  # all of ours are among them: of a real market few symbols rest for a minute
START_PER_S: Final = 100.0  # changes of the busiest symbol; some channels are silent until there is one
START_S_MAX: Final = 600.0
LOOK_S: Final = 0.1
SETTLE_S: Final = 3.0  # after the start, before a load is looked at


def loads(symbols: int, busiest: Sequence[float], seconds: float, say: Say) -> list[Perpetuals]:
    """Have that many perpetuals live, for some activities of the market; `busiest` is changes/s of the first."""
    found = []
    for rate in busiest:
        say(f"{symbols} perpetuals of {EXCHANGE}, {rate:g}/s")
        with Stack(EXCHANGE, symbols, rate) as stack:
            stack.start()
            found.append(stack.load(seconds))
    return found


def starts(symbols: int, say: Say) -> list[PerpetualsStart]:
    """Start a feed with that many perpetuals of each exchange that has them."""
    found = []
    for name, exchange in reversed(EXCHANGES.items()):
        if any(market.name == MARKET for market in exchange.markets):
            say(f"start of {symbols} perpetuals of {name}")
            with Stack(name, symbols, START_PER_S) as stack:
                found.append(stack.start())
    return found


class Stack:
    """Simulator, merger, relay, subscriber and feed, in one directory; use it in a `with` block."""

    def __init__(self, exchange: str, symbols: int, busiest_per_s: float) -> None:
        self._name = exchange
        self._count = symbols
        self._busiest = busiest_per_s
        self._market: Market = next(m for m in EXCHANGES[exchange].markets if m.name == MARKET)()
        self._stack = contextlib.ExitStack()
        self._url = f"127.0.0.1:{free_port()}"
        self._children: dict[str, Child] = {}

    def __enter__(self) -> "Stack":
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fhb-")))
        self._write([])
        self._run("simulator", "feedhandler", "sim", "-c", str(self._config))
        self._symbols = self._listed()
        if len(self._symbols) < self._count:
            raise BenchError(f"{self._name} has {len(self._symbols)} perpetuals here, not {self._count}")
        self._write(list(self._symbols)[: self._count])
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def _config(self) -> Path:
        return self._directory / "bench.toml"

    def _write(self, symbols: Sequence[str]) -> None:
        lines = [
            f'run_dir = "{self._directory}"',
            f"[exchanges.{self._name}]",
            f'ws_url = "ws://{self._url}"',
            f'rest_url = "http://{self._url}"',
            "simulated = true",
            f"symbols = {json.dumps(symbols, ensure_ascii=False)}",
            f"kinds = {json.dumps(self._market.kinds)}",
            *("[merger]", f'ticks = ["{self._ipc("ticks")}"]'),
            *("[relay]", f'recover = ["{self._ipc("recover")}"]'),
            *("[sim]", f"instruments = {round(self._count * LISTED)}", f"busiest_per_s = {self._busiest}"),
            f"busy_symbols = {BUSY_SYMBOLS}",
        ]
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _ipc(self, name: str) -> str:
        return f"ipc://{self._directory}/{name}.ipc"

    def _run(self, role: str, module: str, *arguments: str) -> Child:
        child = self._children[role] = Child(role, python(module, *arguments), self._directory)
        self._stack.callback(child.end)
        return child

    def _get(self, url: str) -> bytes:
        """Ask the simulator, which may not be there yet."""
        deadline = time.monotonic() + START_S_MAX
        while True:
            try:
                with urllib.request.urlopen(url, timeout=START_S_MAX) as answer:
                    return bytes(answer.read())
            except OSError as exc:
                self._look()
                if time.monotonic() > deadline:
                    raise BenchError(f"the simulator does not answer: {exc}") from exc
                time.sleep(LOOK_S)

    def _look(self) -> None:
        for child in self._children.values():
            if not child.is_alive():
                raise child.failed()

    def _listed(self) -> dict[str, str]:
        """Return the perpetuals that trade, by the exchange's own list: native symbols by canonical ones."""
        found: dict[str, str] = {}
        request, rest_url = (
            self._market.instruments_request,
            config.load(str(self._config)).rest_url(self._name, MARKET),
        )
        while True:
            body = self._get(rest_url + request.path)
            for each in self._market.decode_instruments(body).items:
                # A state of its own, as before its launch, may be without a book.
                if each.is_trading and each.settle == each.quote and not each.note:
                    found[f"{each.base}/{each.quote}:{each.settle}"] = each.native
            rest = self._market.rest_of_list(request, body)
            if rest is None:
                return found
            request = rest

    # --- until all are live

    def start(self) -> PerpetualsStart:
        """Start the others, the feed last; returns once all symbols have data of the kinds that begin with some."""
        self._run("merger", "feedhandler", "merger", "-c", str(self._config))
        self._run("relay", "feedhandler", "relay", "-c", str(self._config))
        kinds = self._market.kinds
        self._run("subscriber", "bench.paths.all_kinds", self._ipc("ticks"), self._ipc("recover"), *kinds)
        self._ask("live")
        began_ns = time.monotonic_ns()
        feed = self._run("feed", "feedhandler", "feed", self._name, "-c", str(self._config))
        beginning = [kind for kind in BEGINNING if kind in kinds]
        while True:
            live = self._ask("live")
            lacking = [kind for kind in beginning if live.get(kind, (0, 0))[0] < self._count]
            is_late = time.monotonic_ns() - began_ns > START_S_MAX * 1e9
            if not lacking or is_late:
                break
            self._look()
            time.sleep(LOOK_S)
        late = [f"{live.get(k, (0, 0))[0]} of {self._count} live in {START_S_MAX:g} s: {k}" for k in lacking]
        cpu_s = host.usage(feed.pid).cpu_s
        status = self._until_all_are_subscribed()
        state = self._state()
        return PerpetualsStart(
            exchange=self._name,
            symbols=self._count,
            live_s={kind: (live[kind][1] - began_ns) / 1e9 for kind in beginning if kind not in lacking},
            cpu_s=cpu_s,
            topics=sum(each.topics for each in status.connections),
            connections=state["connections_opened"],
            bounds=self._bounds(state["connections_opened"]),
            problems=late + self._problems(status, state),
        )

    def _until_all_are_subscribed(self) -> FeedStatus:
        """Wait for the channels that are silent until something happens as well."""
        deadline = time.monotonic() + START_S_MAX
        while True:
            # One that was sent before the connections were opened tells of no topics.
            status = self._status()
            lines = status.connections if status else ()
            if status and lines and all(each.topics and not each.topics_to_go for each in lines):
                return status
            if time.monotonic() > deadline:
                raise BenchError(f"{self._name}: not all is acknowledged in {START_S_MAX:g} s")
            self._look()
            time.sleep(LOOK_S)

    def _bounds(self, connections: int) -> dict[str, float]:
        """Return how long each limit alone would hold up a start, in seconds."""
        market, natives = self._market, list(self._symbols.values())[: self._count]
        topics = dict.fromkeys(
            t for native in natives for kind in market.kinds for t in market.topics(native, kind)
        )
        requests = math.ceil(sum(1 for _ in market.batches(list(topics))) / max(1, connections))
        permitted, per_s = market.connects
        found = {
            "requests": requests * market.command_interval_s,
            "connections": max(0, connections - permitted) / permitted * per_s,
        }
        if market.base_levels:
            weight, per_s = market.rest_limit
            at_once = weight * REST_SHARE * SPARE_SHARE
            beyond = weight * (SHARDS_SHARE - REST_SHARE) if market.rest_header is not None else 0.0
            left = self._count * market.base_request(natives[0]).weight - at_once
            found["books over REST"] = max(0.0, left) / (at_once + beyond) * per_s
        return found

    # --- under load

    def load(self, seconds: float) -> Perpetuals:
        """Look for so long at what there is."""
        time.sleep(SETTLE_S)
        self._ask("begin")
        began, used, before = time.monotonic(), self._used(), self._state()
        late_ms = 0.0
        while time.monotonic() - began < seconds:
            time.sleep(min(1.0, seconds))
            late_ms = max(late_ms, self._state()["late_ms"])
            self._look()
        took, after = time.monotonic() - began, self._state()
        cores = {role: (now - used[role]).cpu_s / took for role, now in self._used().items()}
        told = self._ask("report")
        frames = after["messages_sent"] - before["messages_sent"]
        status = self._status()
        assert status is not None, "it was there before"
        pids = {role: self._children[role].pid for role in ROLES}
        symbols = told["symbols"]
        records = sum(symbols)
        return Perpetuals(
            exchange=self._name,
            symbols=self._count,
            busiest_per_s=self._busiest,
            seconds=took,
            frames_per_s=frames / took,
            records_per_s={kind: count / took for kind, count in told["records"].items()},
            busiest_ten=sum(symbols[:10]) / max(1, records),
            median_per_s=symbols[len(symbols) // 2] / took if symbols else 0.0,
            levels_mean=told["levels_mean"],
            levels_p99=told["levels_p99"],
            latency_us=told["latency_us"],
            held_us=told["held_us"],
            cores=cores,
            resident_mb={role: host.usage(pid).resident_mb for role, pid in pids.items()},
            proportional_mb={role: host.proportional_mb(pid) for role, pid in pids.items()},
            late_ms=late_ms,
            problems=self._problems(status, after)
            + self._wrong(told, after["updates_skipped"] - before["updates_skipped"]),
        )

    def _wrong(self, told: dict[str, Any], skipped: int) -> list[str]:
        found = []
        if BOOK.name in self._market.kinds and told["books_valid"] < self._count:
            found.append(f"{self._count - told['books_valid']} books are not valid at the subscriber")
        for name, text in (
            ("lost", "records lost by the subscriber"),
            ("crossed", "changes after which a book was crossed"),
        ):
            if told[name]:
                found.append(f"{told[name]} {text}")
        if skipped:
            found.append(f"the simulator was late, and gave up {skipped} changes")
        return found

    def _problems(self, status: FeedStatus, state: dict[str, Any]) -> list[str]:
        """Return what is wrong with what the feed, or the exchange, says."""
        found = [f"refused by the exchange: {each}" for each in state["violations"][:3]]
        if undecodable := sum(each.decode_errors for each in status.connections):
            found.append(f"{undecodable} frames that could not be decoded")
        rejected = [
            *status.rejected,
            *(topic for each in status.connections for topic in each.rejected_topics),
        ]
        if rejected:
            found.append(f"{len(rejected)} symbols or topics rejected")
        if status.stale:
            found.append(f"{status.stale} channels are silent, and should not be")
        return found + status.problems

    def _ask(self, word: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._children["subscriber"].ask(word))
        return found

    def _status(self) -> FeedStatus | None:
        """Return the newest status of the feed, None if there is none yet."""
        told = self._ask("status")
        return msgspec.convert(told, ExchangeStatus).feed if told else None

    def _state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._get(f"http://{self._url}/_sim/state"))
        return found

    def _used(self) -> dict[str, host.Usage]:
        return {role: host.usage(child.pid) for role, child in self._children.items()}
