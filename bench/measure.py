"""From what a sink noted to a run of the report: checked first, then summed up.

A message is known by the number in its bid (`numbered`), or by symbol and id (`traffic`). Checked is that each came
exactly once, in order per symbol, about the right symbol, with the values that were sent; of books also their best
prices after each change, and each whole book at the end. Latency counts from when it was due.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from hdrh.histogram import HdrHistogram

from bench import numbered, traffic
from bench.contenders import Contender
from bench.report import PERCENTILES, Cost, Run, Stage
from bench.rig import Outcome

LATENCY_MAX_US: Final = 60_000_000
# The generator was on time if 99 % of its messages were, to so much; what the kernel does to 1 % on a busy
# machine it does to everybody.
LATE_P99_US_MAX: Final = 5_000.0
LATE_P50_US_MAX: Final = 500.0
HELD: Final = "received → published"

Columns = dict[str, np.ndarray[Any, Any]]


class Sample(msgspec.Struct):
    """One sink's messages of one exchange, in the order in which they came."""

    latency_us: np.ndarray[Any, Any]
    stages_us: dict[str, np.ndarray[Any, Any]]
    problems: list[str]
    arrived: float  # share of what was sent


def run_of(
    contender: Contender, outcomes: Sequence[Outcome], *, symbols: int, subscribers: int, feeds: int
) -> Run:
    """Return the report's run: of several rounds of one load, the median of each figure."""
    rounds = [_samples(contender, outcome) for outcome in outcomes]
    histogram = HdrHistogram(1, LATENCY_MAX_US, 3)
    for samples in rounds:
        for sample in samples:
            values, counts = np.unique(
                sample.latency_us.clip(1, LATENCY_MAX_US).astype(np.int64), return_counts=True
            )
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                histogram.record_value(value, count)
    load = outcomes[0].load
    late = [_late(outcome) for outcome in outcomes]
    problems = [problem for samples in rounds for sample in samples for problem in sample.problems]
    if not all(late_problem == "" for late_problem in late):
        problems += [problem for problem in late if problem]
    return Run(
        path=contender.name,
        kind=outcomes[0].kind,
        rate=load.rate,
        burst=load.burst,
        seconds=load.seconds,
        symbols=symbols,
        subscribers=subscribers,
        feeds=feeds,
        count=sum(int(sent["sent"]) for outcome in outcomes for sent in outcome.sent.values()),
        arrived=min((sample.arrived for samples in rounds for sample in samples), default=0.0),
        is_valid=not any(late),
        problems=list(dict.fromkeys(problems)),
        latency_us=_percentiles(rounds),
        histogram=histogram.encode().decode() if histogram.get_total_count() else "",
        stages=_stages(outcomes, rounds),
        held_max_us=_held_max_us(rounds),
        cost=_costs(outcomes),
        generator=_generator(outcomes),
    )


def arrived(contender: Contender, outcome: Outcome) -> float:
    """Return the share of messages that came, of the sink that got least."""
    return min((sample.arrived for sample in _samples(contender, outcome)), default=0.0)


def _samples(contender: Contender, outcome: Outcome) -> list[Sample]:
    samples = []
    for received in outcome.received:
        for exchange, sent in outcome.sent.items():
            columns = _of_exchange(received.columns, exchange, is_only_one=len(outcome.sent) == 1)
            samples.append(_sample(contender, outcome, columns, sent, outcome.natives[exchange]))
    return samples


def _of_exchange(columns: Columns, exchange: str, *, is_only_one: bool) -> Columns:
    if is_only_one:
        return columns
    mask = np.char.find(columns["symbol"], f".{exchange}.".encode()) >= 0
    return {name: column[mask] for name, column in columns.items() if len(column) == len(mask)}


def _sample(
    contender: Contender, outcome: Outcome, columns: Columns, sent: dict[str, Any], natives: Sequence[str]
) -> Sample:
    load = outcome.load
    others = Others(outcome.kind, natives, columns) if outcome.kind != "ticker" else None
    number = numbered.numbers_of(columns["bid"]) if others is None else others.numbers
    of_this_run = number >= sent["first"]  # a straggler of the last load is none of this one's
    number = number[of_this_run]
    columns = {
        name: column[of_this_run] for name, column in columns.items() if len(column) == len(of_this_run)
    }
    position = number - sent["first"]
    problems = list(_problems(contender, number, position, columns, sent, natives))
    if others is not None and not any("nobody sent" in problem for problem in problems):
        problems += others.problems(of_this_run)
    # Rounded before it is added: a float counts today's nanoseconds in steps of 256.
    due_ns = sent["start_unix_ns"] + np.rint(position // load.burst * load.burst / load.rate * 1e9).astype(
        np.int64
    )
    now_ns = columns["now_ns"]
    stages: dict[str, np.ndarray[Any, Any]] = {}
    if len(columns.get("recv_ns", ())) == len(number) > 0:
        recv_ns, publish_ns = columns["recv_ns"], columns["publish_ns"]
        stages = {
            "due → received": (recv_ns - due_ns) / 1e3,
            HELD: (publish_ns - recv_ns) / 1e3,
            "published → subscriber": (now_ns - publish_ns) / 1e3,
        }
    unique = len(np.unique(position))
    return Sample((now_ns - due_ns) / 1e3, stages, problems, unique / max(1, int(sent["sent"])))


def _problems(
    contender: Contender,
    number: numbered.Numbers,
    position: numbered.Numbers,
    columns: Columns,
    sent: dict[str, Any],
    natives: Sequence[str],
) -> "list[str]":
    """Return all that is wrong with what arrived, in words."""
    problems = []
    count = int(sent["sent"])
    if strange := int(((position < 0) | (position >= count)).sum()):
        return [f"{strange} messages that nobody sent"]
    unique = len(np.unique(position))
    if (missing := count - unique) and not contender.conflates:
        problems.append(f"{missing} of {count} lost")
    elif missing:
        problems.append(f"{missing / count:.0%} not delivered, by design")
    if repeated := len(number) - unique:
        problems.append(f"{repeated} came twice")
    index = numbered.symbol_indices(number, len(natives))
    order = np.argsort(index, kind="stable")
    steps, same = np.diff(number[order]), np.diff(index[order]) == 0
    if disordered := int((steps[same] < 0).sum()):
        problems.append(f"{disordered} out of order")
    if "bid" in columns and (wrong := _wrong_values(contender, number, columns)):
        problems.append(f"{wrong} with wrong values")
    if wrong := _wrong_symbols(index, columns["symbol"], natives):
        problems.append(f"{wrong} of the wrong symbol")
    if sent["lost_clients"]:
        problems.append("it was cut off: it left too much unread")
    return problems


def _wrong_values(contender: Contender, number: numbered.Numbers, columns: Columns) -> int:
    bid, bid_size, ask, ask_size = numbered.expected(number)
    is_right = (columns["bid"] == bid) & (columns["ask"] == ask)
    if contender.has_sizes:
        is_right &= (columns["bid_size"] == bid_size) & (columns["ask_size"] == ask_size)
    return int((~is_right).sum())


def _wrong_symbols(index: numbered.Numbers, symbols: np.ndarray[Any, Any], natives: Sequence[str]) -> int:
    return int((_indices(symbols, natives) != index).sum()) if len(index) else 0


def _indices(symbols: np.ndarray[Any, Any], natives: Sequence[str]) -> numbered.Numbers:
    """Compare letters and digits only: `BTC/USDT`, `BTC-USDT` and a topic with one of them are the same."""
    spelled, which = np.unique(symbols, return_inverse=True)
    plain = [_plain(text.decode().rpartition(".")[2]) for text in spelled.tolist()]
    expected = {_plain(native): number for number, native in enumerate(natives)}
    known = np.array([expected.get(name, -1) for name in plain], dtype=np.int64)
    return known[which] if len(symbols) else np.zeros(0, dtype=np.int64)


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text)).upper()


class Others:
    """What a sink noted of trades, depth or books, in the order in which it came."""

    def __init__(self, kind: str, natives: Sequence[str], columns: Columns) -> None:
        self._kind = kind
        self._traffic = traffic.TRAFFIC[kind]
        self._columns = columns
        self._natives = natives
        turns = traffic.Turns(len(natives))
        self._index = _indices(columns["symbol"], natives)
        self._turn = self._traffic.turns(columns["ids"])
        # A symbol that is none of ours, or an id: messages that nobody sent.
        is_known = (self._index >= 0) & (self._turn >= 0)
        self.numbers = np.where(is_known, turns.numbers(self._index, self._turn), NOBODYS)

    def problems(self, is_wanted: np.ndarray[Any, Any]) -> list[str]:
        """Return what is wrong with the values of these messages, and with the books at the end."""
        ends = np.cumsum(self._columns["said_counts"])
        starts = ends - self._columns["said_counts"]
        said = self._columns["said"]
        wrong = wrong_best = 0
        # In the order of a symbol's ids: its model only goes on.
        models = traffic.model_books(len(self._natives)) if self._kind == "book" else []
        for at in np.flatnonzero(is_wanted).tolist():
            index, turn = int(self._index[at]), int(self._turn[at])
            values = said[starts[at] : ends[at]]
            if models:
                wrong_best += not _is_best(models[index], values[:5])
                values = values[5:]
            expected = np.frombuffer(self._traffic.values(index, turn))
            wrong += not _is_same(values, expected, is_ordered=not models)
        found = []
        if wrong:
            found.append(f"{wrong} with wrong values")
        if wrong_best:
            found.append(f"{wrong_best} with wrong best prices")
        if bad := self._wrong_books(models):
            found.append(f"{bad} books wrong at the end")
        return found

    def _wrong_books(self, models: list[traffic.ModelBook]) -> int:
        """Compare whole books as they are at the end; a sink that keeps none has none."""
        columns = self._columns
        if not models or not len(columns["book_id"]):
            return 0
        ends = np.cumsum(columns["book_counts"])
        places, wrong = _indices(columns["book_symbol"], self._natives), 0
        for end, count, index, number in zip(
            ends.tolist(),
            columns["book_counts"].tolist(),
            places.tolist(),
            columns["book_id"].tolist(),
            strict=True,
        ):
            model = models[index]
            model.advance(int(self._traffic.turns(np.array([number]))[0]) + 1)
            wrong += model.last_id != number or columns["book"][end - count : end].tobytes() != model.values()
        return wrong + len(models) - len(places)


NOBODYS: Final = 1 << 40  # a number that no message has


def _is_same(values: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], *, is_ordered: bool) -> bool:
    if is_ordered:
        return bool(values.tobytes() == expected.tobytes())
    return len(values) == len(expected) and traffic.as_levels(values) == traffic.as_levels(expected)


def _is_best(model: traffic.ModelBook, values: np.ndarray[Any, Any]) -> bool:
    """Compare the best prices of a book that is at some id; NaN: the sink keeps none."""
    last_id = float(values[0])
    if math.isnan(last_id):
        return True
    turns = (round(last_id) - traffic.ID_FIRST) // traffic.IDS_PER_CHANGE
    if turns < model.turns:
        return False  # older than one that was seen
    model.advance(turns)
    return model.last_id == round(last_id) and tuple(values[1:].tolist()) == model.best()


def _late(outcome: Outcome) -> str:
    """Return in words how the generator fell behind, "" if it did not."""
    for sent in outcome.sent.values():
        late = sent["late_us"]
        if not late:
            return "nothing was sent: nobody was subscribed"
        if late["p99"] > LATE_P99_US_MAX or late["p50"] > LATE_P50_US_MAX:
            return f"the generator was late: p50 {late['p50'] / 1e3:.1f} ms, p99 {late['p99'] / 1e3:.1f} ms"
        if sent["sent"] < outcome.load.count:
            return f"the generator sent {sent['sent']} of {outcome.load.count}"
    return ""


def is_on_time(outcome: Outcome) -> bool:
    """True if the generator was: a run is repeated otherwise."""
    return not _late(outcome)


def _percentiles(rounds: Sequence[Sequence[Sample]]) -> dict[str, float]:
    """Return the median over the rounds of each percentile that has a message beyond it, and of the maximum."""
    points = [50, 90, 99, 99.9, 100]
    found = []
    for samples in rounds:
        values = np.concatenate([sample.latency_us for sample in samples])
        if len(values):
            found.append(np.percentile(values, points))
    if not found:
        return {}
    medians = dict(zip(PERCENTILES, np.median(np.array(found), axis=0).tolist(), strict=True))
    return {
        name: value
        for (name, value), point in zip(medians.items(), points, strict=True)
        if point == 100 or len(values) * (100 - point) >= 99.999
    }


def _stages(outcomes: Sequence[Outcome], rounds: Sequence[Sequence[Sample]]) -> list[Stage]:
    """Return the parts of the way, where a path states its times."""
    samples = [sample for samples in rounds for sample in samples if sample.stages_us]
    if not samples:
        return []
    stages = {
        name: np.concatenate([sample.stages_us[name] for sample in samples]) for name in samples[0].stages_us
    }
    listed = [
        Stage(name, {"p50": float(np.percentile(values, 50)), "p99": float(np.percentile(values, 99))})
        for name, values in stages.items()
    ]
    return listed[:1] + (_inner_stages(outcomes) or listed[1:2]) + listed[2:]


def _held_max_us(rounds: Sequence[Sequence[Sample]]) -> float | None:
    """Return the longest that a message was on its way through us; of several rounds the median."""
    longest = [
        max((float(sample.stages_us[HELD].max()) for sample in samples if sample.stages_us), default=None)
        for samples in rounds
    ]
    found = [value for value in longest if value is not None]
    return statistics.median(found) if found else None


def _inner_stages(outcomes: Sequence[Outcome]) -> list[Stage]:
    """Split what is between receipt and publication, as the merger's status says it of each second."""
    statuses = [
        msgspec.json.decode(body)
        for outcome in outcomes
        for received in outcome.received
        for at_ns, _, body in (text.partition(b" ") for text in received.columns["statuses"].tolist())
        # An earlier one is about the load before.
        if int(at_ns) > min(sent["start_unix_ns"] for sent in outcome.sent.values())
    ]
    stages = []
    for name, key in (("received → feed sends", "feed"), ("feed sends → published", "hop")):
        p50 = [status[f"{key}_p50_us"] for status in statuses if status.get(f"{key}_p50_us") is not None]
        p99 = [status[f"{key}_p99_us"] for status in statuses if status.get(f"{key}_p99_us") is not None]
        if not p50:
            return []
        stages.append(Stage(name, {"p50": statistics.median(p50), "p99": statistics.median(p99)}))
    return stages


def _costs(outcomes: Sequence[Outcome]) -> dict[str, Cost]:
    costs = {}
    for role in outcomes[0].used:
        counts = [max(1, sum(int(sent["sent"]) for sent in outcome.sent.values())) for outcome in outcomes]
        used = [outcome.used[role] for outcome in outcomes]
        costs[role] = Cost(
            cpu_us=statistics.median(u.cpu_s / c * 1e6 for u, c in zip(used, counts, strict=True)),
            switches=statistics.median(u.switches / c for u, c in zip(used, counts, strict=True)),
            resident_mb=max(u.resident_mb for u in used),
        )
    return costs


def _generator(outcomes: Sequence[Outcome]) -> dict[str, float]:
    sents = [sent for outcome in outcomes for sent in outcome.sent.values() if sent["late_us"]]
    if not sents:
        return {}
    return {
        "late_p50_us": max(sent["late_us"]["p50"] for sent in sents),
        "late_p99_us": max(sent["late_us"]["p99"] for sent in sents),
        "late_max_us": max(sent["late_us"]["max"] for sent in sents),
        "cpu_us": statistics.median(sent["cpu_s"] / max(1, sent["sent"]) * 1e6 for sent in sents),
        "cpu_share": max(sent["cpu_s"] / max(1e-9, sent["took_s"]) for sent in sents),
        "writes_per_s": statistics.median(sent["writes"] / max(1e-9, sent["took_s"]) for sent in sents),
        "backlog_max_bytes": float(max(sent["backlog_max"] for sent in sents)),
    }
