"""The report file: what a bench found out, typed, as JSON.

Knows nothing of how it was measured or how it is shown; `terminal`, `page` and `compare` read it. Times are
in microseconds, CPU and context switches are per message. A field that is added later needs a default, so
that older files still load; anything else is a new FORMAT.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
from hdrh.histogram import HdrHistogram

FORMAT: Final = 1
SIMULATOR: Final = "simulator"  # the role of what sends, where it is measured, too
FLOOR: Final = "floor"  # the path that others are compared with
PERCENTILES: Final = ("p50", "p90", "p99", "p99.9", "max")
COMPARED: Final = ("p50", "p99", "cpu")  # the figures that are also shown as a ratio to the floor's
SECTIONS: Final = ("latency", "symbols", "subscribers", "feeds", "kinds", "recorder")

Section = Literal["latency", "symbols", "subscribers", "feeds", "kinds", "recorder"]
Load = tuple[int, float, int, int, int]  # burst, rate, symbols, subscribers, feeds: sorts as it is shown


class ReportError(Exception):
    """A file that is no report, or not one of this format; the message names it and says why."""


class PathInfo(msgspec.Struct, forbid_unknown_fields=True):
    """One path that was to be measured. skipped says why it was not, or is empty."""

    title: str
    path: str  # drawn in a line
    is_ours: bool
    skipped: str = ""
    note: str = ""


class Stage(msgspec.Struct, forbid_unknown_fields=True):
    """A part of the way, named by where it begins and ends: "due → received"."""

    name: str
    latency_us: dict[str, float]  # p50, p99


class Cost(msgspec.Struct, forbid_unknown_fields=True):
    """What one role's processes used, per message that was sent."""

    cpu_us: float
    switches: float
    resident_mb: float


class Run(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One load on one path."""

    path: str
    rate: float  # messages per second
    burst: int  # so many are due at once; 1 is steady
    seconds: float
    symbols: int
    subscribers: int
    feeds: int
    kind: str = "ticker"  # of messages
    count: int  # of messages
    arrived: float = 0.0  # share of them that the sink got which got least
    is_valid: bool  # the generator was on time
    problems: list[str] = []  # loss, disorder, wrong values, a late generator; empty if all is fine
    latency_us: dict[str, float] = {}  # by PERCENTILES; empty if nothing arrived
    histogram: str = ""  # as hdrhistogram's encode() writes it, microseconds; may be empty
    stages: list[Stage] = []
    held_max_us: float | None = None  # the longest from receipt to publication, where records say it
    cost: dict[str, Cost] = {}  # by role
    generator: dict[str, float] = {}

    @property
    def load(self) -> Load:
        """What was asked of the path: runs of equal load may be compared."""
        return (self.burst, self.rate, self.symbols, self.subscribers, self.feeds)

    @property
    def cpu_us(self) -> float:
        """CPU per message, of all roles."""
        return sum(cost.cpu_us for cost in self.cost.values())

    @property
    def switches(self) -> float:
        """Context switches per message, of all roles."""
        return sum(cost.switches for cost in self.cost.values())

    @property
    def resident_mb(self) -> float:
        """Resident memory, of all roles."""
        return sum(cost.resident_mb for cost in self.cost.values())

    @property
    def faults(self) -> str:
        """Why this run is not to be trusted, or not to be proud of; empty if all is fine."""
        reasons = "; ".join(self.problems)
        if self.is_valid:
            return reasons
        return f"not valid: {reasons or 'the generator was late'}"

    def figure(self, name: str) -> float | None:
        """Return a percentile by its name, "cpu", or that of one role by its name; None if it was not measured."""
        if name == "cpu":
            return self.cpu_us if self.cost else None
        if name in self.cost:
            return self.cost[name].cpu_us
        return self.latency_us.get(name)

    def curve(self, percentiles: Sequence[float]) -> dict[float, float]:
        """Return the latency at percentiles (0 to 100), of those that count suffices for.

        A percentile with less than one message beyond it would only repeat the maximum. Empty if the run has
        no histogram. Raises ReportError if it has one that cannot be read.
        """
        if not self.histogram:
            return {}
        try:
            histogram = HdrHistogram.decode(self.histogram.encode())
        except Exception as exc:  # whatever zlib, base64 and ctypes raise
            raise ReportError(f"{self.path} at {self.rate:g}/s: its histogram is unreadable: {exc}") from exc
        count = histogram.get_total_count()
        # The tolerance is for 100 - 99.99, which is not quite 0.01.
        there = [p for p in percentiles if count * (100 - p) / 100 >= 1 - 1e-6]
        return (
            {p: float(v) for p, v in histogram.get_percentile_to_value_dict(there).items()} if there else {}
        )


class Ceiling(msgspec.Struct, forbid_unknown_fields=True):
    """The highest rate that a path carried without loss, and what limited it. Rates of 0: not found."""

    rate: float
    limited_by: str
    burst_rate: float = 0.0
    runs: list[Run] = []  # all that were tried


class Soak(msgspec.Struct, forbid_unknown_fields=True):
    """A long run: was anything lost, did memory grow?"""

    messages: int
    lost: int
    seconds: float
    rate: float
    symbols: int
    memory_mb: dict[str, list[float]]  # by role, sampled evenly over the time
    is_flat: bool


class Memory(msgspec.Struct, forbid_unknown_fields=True):
    """What books take, once each has its base and has changed: resident memory by role."""

    path: str
    books: int
    levels: int  # of a side
    memory_mb: dict[str, float]
    problems: list[str] = []

    @property
    def resident_mb(self) -> float:
        """Resident memory, of all roles."""
        return sum(self.memory_mb.values())


class StoredKind(msgspec.Struct, forbid_unknown_fields=True):
    """What messages of one kind and exchange take on disk, in bytes a message."""

    exchange: str
    kind: str
    messages: int
    received: float
    segments: float
    parquet: float  # 0: not exported
    gzip: float  # as JSON lines


class Recorded(msgspec.Struct, forbid_unknown_fields=True):
    """What a recorder takes, and what becomes of what it has written. Rates: by a second of one core, but one."""

    frames: int = 0  # that were sent to it, as fast as it takes them
    lost: int = 0  # of those
    frames_per_s: float = 0.0
    frame_cpu_us: float = 0.0
    mb_per_s: float = 0.0  # of what was received, with its times and numbers, at that rate
    messages: int = 0  # that were recorded of all kinds, for what follows
    export_messages_per_s: float = 0.0
    export_rows_per_s: float = 0.0
    pandas_messages_per_s: float = 0.0  # that only reads the same messages, as JSON lines
    replay_records: int = 0
    replay_messages_per_s: float = 0.0  # as bytes
    replay_records_per_s: float = 0.0
    replay_records_by_clock_per_s: float = 0.0  # on all cores
    replay_first_s: float = 0.0  # of that, until the first record
    kinds: list[StoredKind] = []
    problems: list[str] = []


class PerpetualsStart(msgspec.Struct, forbid_unknown_fields=True):
    """How long it took until many perpetuals of an exchange had data, from the start of the feed's process."""

    exchange: str
    symbols: int
    live_s: dict[str, float]  # by kind: until the last symbol had some
    cpu_s: float  # of the feed
    topics: int
    connections: int
    bounds: dict[str, float]  # by limit: how long that alone would have taken
    problems: list[str] = []


class Perpetuals(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Many perpetuals of one exchange in all kinds, under one load of the simulator's market."""

    exchange: str
    symbols: int
    busiest_per_s: float  # changes of the busiest symbol
    seconds: float
    frames_per_s: float
    records_per_s: dict[str, float]  # by kind
    busiest_ten: float  # their share of all records
    median_per_s: float  # records of the symbol in the middle
    levels_mean: float  # of a change of a book
    levels_p99: float
    latency_us: dict[str, float]  # from receipt to the subscriber, by PERCENTILES
    held_us: dict[str, float]  # of that, until published
    cores: dict[str, float]  # by role, the simulator among them
    resident_mb: dict[str, float]
    proportional_mb: dict[str, float]  # with what is shared divided by those who share it
    late_ms: float  # of the simulator, at worst
    problems: list[str] = []

    @property
    def cpu_us(self) -> float:
        """CPU of a frame, of all roles but the simulator."""
        ours = sum(cores for role, cores in self.cores.items() if role != SIMULATOR)
        return ours / self.frames_per_s * 1e6 if self.frames_per_s else 0.0


class Target(msgspec.Struct, forbid_unknown_fields=True):
    """What was wanted of a figure, and what it is. None: could not be judged."""

    figure: str
    target: str
    stretch: str
    value: str
    is_met: bool | None
    is_stretch_met: bool | None = None


class Report(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """All that one bench found out."""

    format: int = FORMAT
    date: str  # ISO 8601, UTC
    mode: Literal["full", "quick"]
    seconds: float  # that the bench took
    host: dict[str, str] = {}
    settings: dict[str, str] = {}
    paths: dict[str, PathInfo] = {}  # in the order in which they are shown
    latency: list[Run] = []
    symbols: list[Run] = []
    subscribers: list[Run] = []
    feeds: list[Run] = []
    kinds: list[Run] = []  # trades, depth, books; tickers beside them
    kind_ceilings: dict[str, dict[str, Ceiling]] = {}  # by kind, then by path
    books: list[Memory] = []
    recorder: list[Run] = []  # with a recorder, and without
    recorded: Recorded | None = None
    perpetuals: list[Perpetuals] = []
    perpetual_starts: list[PerpetualsStart] = []
    whole_exchange: Run | None = None  # one feed, as many symbols as a large exchange has
    ceilings: dict[str, Ceiling] = {}  # by path
    soak: Soak | None = None
    targets: list[Target] = []

    def section(self, name: Section | str) -> list[Run]:
        """Return the runs of a section, by its name."""
        assert name in SECTIONS, f"no section {name!r}"
        runs: list[Run] = getattr(self, name)
        return runs

    def all_runs(self) -> Iterator[tuple[str, Run]]:
        """Yield every run with the name of its section; what ceilings tried is not among them."""
        for name in SECTIONS:
            for run in self.section(name):
                yield name, run

    def run(
        self,
        section: Section | str,
        path: str,
        rate: float,
        burst: int = 1,
        *,
        symbols: int | None = None,
        subscribers: int | None = None,
        feeds: int | None = None,
        kind: str | None = None,
    ) -> Run | None:
        """Return the first run of a section that fits, or None; what is not stated fits anything."""
        stated = {"symbols": symbols, "subscribers": subscribers, "feeds": feeds, "kind": kind}
        for run in self.section(section):
            if (run.path, run.rate, run.burst) == (path, rate, burst) and all(
                value is None or getattr(run, name) == value for name, value in stated.items()
            ):
                return run
        return None

    def floor_of(self, section: Section | str, run: Run) -> Run | None:
        """Return the floor's run under the same load in the same section, or None.

        Only in the same section, since its runs follow each other closely: what else the machine does
        meanwhile then tells least.
        """
        for other in self.section(section):
            if (other.path, other.load, other.kind) == (FLOOR, run.load, run.kind):
                return other
        return None

    def ratio(self, section: Section | str, run: Run, figure: str) -> float | None:
        """Return a figure of a run as a multiple of the floor's; None if either is missing, or that is 0."""
        floor = self.floor_of(section, run)
        value = run.figure(figure)
        beneath = floor.figure(figure) if floor is not None else None
        return value / beneath if value is not None and beneath else None

    def is_ours(self, path: str) -> bool:
        """Return whether a path is one of our own; one that is not described is not."""
        return path in self.paths and self.paths[path].is_ours


class _Head(msgspec.Struct):
    """What must be known of a file before the rest of it can be believed."""

    format: int


def load(path: Path) -> Report:
    """Read a report. Raises ReportError, whatever is wrong with the file."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ReportError(f"{path}: {exc.strerror or exc}") from exc
    return _decode(data, path)


def save(report: Report, path: Path) -> None:
    """Write a report, readably.

    Raises ReportError if it could not be loaded again (a NaN, which JSON does not have). The file is there
    all the same: what was measured is not thrown away for one figure.
    """
    data = msgspec.json.format(msgspec.json.encode(report), indent=1)
    path.write_bytes(data + b"\n")
    _decode(data, path)


def _decode(data: bytes, path: Path) -> Report:
    try:
        head = msgspec.json.decode(data, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ReportError(f"{path}: not a report of this bench: {exc}") from exc
    if head.format != FORMAT:
        raise ReportError(f"{path}: a report of format {head.format}; this bench reads format {FORMAT}")
    try:
        return msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ReportError(f"{path}: not a report of this bench: {exc}") from exc
