"""What we want of the figures, and whether a report reaches it. Pure: a report in, a verdict a row out."""

from collections.abc import Sequence

from bench.report import FLOOR, Memory, Report, Run, Target

OURS, BATCHES, DIRECT = "feedhandler", "feedhandler-batches", "feedhandler-direct"
GATEWAY = "feedhandler-gateway"
SILENT = "feedhandler-silent"
ASKED = "feedhandler-asked"
RECORDED = "feedhandler-recorded"
AGAIN = "feedhandler-again"
CALLBACK, BACKEND = "cryptofeed", "cryptofeed-zmq"
MEMORY_MB_MAX = 80.0
HELD_MS_MAX = 50.0
BOOKS_MB_MAX, BOOKS_MAX = 400.0, 500
RECORDED_MAX = 1.05
FRAMES_MIN, RECORDS_MIN = 40_000, 200_000
BOOKS_TEXT = f"≤ {BOOKS_MB_MAX:g} MB for {BOOKS_MAX}"
SAMPLES_MIN = 6  # of memory, to speak of a trend


def judge(report: Report) -> list[Target]:
    """Return one verdict for each target, in the order of importance to a user."""
    targets = []
    for rate in (1_000.0, 10_000.0):
        for figure in ("p50", "p99"):
            targets.append(_ratio(report, f"{figure} at {rate:,.0f}/s", OURS, FLOOR, rate, figure, 1.1, 0.7))
    for rate in (10_000.0, 40_000.0):
        for path in (OURS, BATCHES):
            name = f"CPU at {rate:,.0f}/s" + (", batch endpoint" if path == BATCHES else "")
            targets.append(_ratio(report, name, path, FLOOR, rate, "cpu", 1.0, 0.7))
    for path in (OURS, BATCHES):
        name = ", batch endpoint" if path == BATCHES else ""
        targets.append(_ratio(report, f"CPU at 10,000/s{name}", path, CALLBACK, 10_000.0, "cpu", 1.2))
        targets.append(_ratio(report, f"CPU at 40,000/s{name}", path, CALLBACK, 40_000.0, "cpu", 0.8, 0.5))
    for rate in (10_000.0, 40_000.0):
        targets.append(_ratio(report, f"CPU at {rate:,.0f}/s", OURS, BACKEND, rate, "cpu", 0.4))
    targets += [
        _ceiling(report, path, other, minimum) for path in (OURS, BATCHES) for other, minimum in OTHERS
    ]
    targets += [_symbols(report), _memory(report), _flat(report), *_whole_exchange(report)]
    targets.append(
        _ratio(report, "p50 at 1,000/s, the feed's own endpoint", DIRECT, OURS, 1_000.0, "p50", 0.6)
    )
    # One subscriber more, in a process of its own: on two processors it takes its share.
    for rate in (1_000.0, 10_000.0):
        name = f"p50 at {rate:,.0f}/s beside the gateway"
        targets.append(_ratio(report, name, GATEWAY, OURS, rate, "p50", 1.2))
    for rate in (1_000.0, 10_000.0):
        name = f"p50 at {rate:,.0f}/s beside one who asks the relay without a pause"
        targets.append(_ratio(report, name, ASKED, OURS, rate, "p50", 1.2))
    targets.append(_silent(report))
    return targets + _kinds(report) + _recorder(report)


def _kinds(report: Report) -> list[Target]:
    """Books beside cryptofeed's callback in process; medians beside the ticker's; nothing lost."""
    targets = []
    rates = (1_000.0, 10_000.0, 40_000.0)
    for rate in rates:
        one, two = (report.run("kinds", path, rate, kind="book") for path in (OURS, CALLBACK))
        targets.append(_of_kinds(f"CPU of books at {rate:,.0f}/s, against {CALLBACK}", 1.0, "cpu", one, two))
    for kind in ("trade", "depth", "book"):
        for rate in rates:
            one, two = (report.run("kinds", OURS, rate, kind=each) for each in (kind, "ticker"))
            name = f"p50 of {kind} at {rate:,.0f}/s, against the ticker's"
            targets.append(_of_kinds(name, 1.3, "p50", one, two))
        name, run = f"{kind} at 40,000/s", report.run("kinds", OURS, 40_000.0, kind=kind)
        if run is None or not run.is_valid:
            targets.append(_unknown(name, "none lost or wrong"))
        else:
            said = "; ".join(run.problems) or f"{run.count:,} right"
            targets.append(_target(name, "none lost or wrong", said, not run.problems))
    ours = [each for each in report.books if each.path == OURS]
    return targets + ([_books(each) for each in ours] or [_unknown("memory of books", BOOKS_TEXT)])


def _recorder(report: Report) -> list[Target]:
    """To be recorded costs a feed next to nothing; recorder and replay keep up."""
    targets = []
    for rate in (1_000.0, 10_000.0):
        one, two, again = (report.run("recorder", path, rate) for path in (RECORDED, OURS, AGAIN))
        for figure in ("feed", "p50", "p99"):
            name = f"{'CPU of a feed' if figure == 'feed' else figure} at {rate:,.0f}/s that is recorded"
            target = _of_kinds(f"{name}, against one that is not", RECORDED_MAX, figure, one, two)
            targets.append(_beside_noise(target, figure, one, two, again))
    it = report.recorded
    frames, records = f"≥ {FRAMES_MIN:,}, none lost", f"≥ {RECORDS_MIN:,}"
    if it is None:
        return [
            *targets,
            _unknown("frames/s that a recorder takes", frames),
            _unknown("records/s played again", records),
        ]
    said = f"{it.frames_per_s:,.0f}, {it.lost} lost" + "".join(f"; {each}" for each in it.problems)
    return [
        *targets,
        _target(
            "frames/s that a recorder takes",
            frames,
            said,
            it.frames_per_s >= FRAMES_MIN and not it.lost and not it.problems,
        ),
        _target(
            "records/s played again",
            records,
            f"{it.replay_records_by_clock_per_s:,.0f} on all cores, the first of {it.replay_records:,} after"
            f" {it.replay_first_s:.2f} s; of one {it.replay_records_per_s:,.0f},"
            f" as bytes {it.replay_messages_per_s:,.0f}",
            it.replay_records_by_clock_per_s >= RECORDS_MIN,
        ),
    ]


def _of_kinds(name: str, maximum: float, figure: str, one: Run | None, two: Run | None) -> Target:
    text = f"≤ {maximum:g}x"
    value, beneath = (run.figure(figure) if run is not None else None for run in (one, two))
    if not value or not beneath:
        return _unknown(name, text)
    assert one is not None, "it has a figure"
    assert two is not None, "it has a figure"
    # What an alternative loses is its own affair, but a late generator, or a fault of ours, proves nothing.
    if faults := one.faults or (two.faults if two.path == OURS or not two.is_valid else ""):
        return _target(name, text, f"not valid: {faults}", None)
    said = f"{value / beneath:.2f}x ({value:,.4g} / {beneath:,.4g} us)" + (
        f"; not all right there: {two.faults}" if two.faults else ""
    )
    return _target(name, text, said, value <= maximum * beneath)


def _beside_noise(target: Target, figure: str, one: Run | None, two: Run | None, again: Run | None) -> Target:
    """Say by how much two of the same differ; what is missed by no more than that can be neither met nor missed."""
    values = [run.figure(figure) if run is not None else None for run in (one, two, again)]
    value, beneath, same = (each or 0.0 for each in values)
    if target.is_met is None or not same:
        return target
    target.value += f"; two that are not, {same / beneath:.2f}x"
    if not target.is_met and value / beneath <= max(same, beneath) / min(same, beneath):
        target.is_met = None
    return target


def _books(memory: Memory) -> Target:
    text = BOOKS_TEXT
    name = f"memory of {memory.books} books of {memory.levels:,} levels a side"
    said = f"{memory.resident_mb:.0f} MB, all processes: " + ", ".join(
        f"{role} {mb:.0f}" for role, mb in memory.memory_mb.items()
    )
    if memory.problems:
        return _target(name, text, f"not valid: {'; '.join(memory.problems)}", None)
    is_met = memory.resident_mb <= BOOKS_MB_MAX if memory.books >= BOOKS_MAX else None
    return _target(name, text, said, is_met)


def _silent(report: Report) -> Target:
    """What one subscriber that does not read costs nine others: nothing but noise."""
    runs = [run for run in report.subscribers if run.path == SILENT]
    name, text = "p99 of nine subscribers beside one that does not read", "≤ 1.25x"
    if not runs:
        return _unknown(name, text)
    (with_it,) = runs
    without = report.run("subscribers", OURS, with_it.rate, subscribers=with_it.subscribers)
    assert without is not None, "they are measured together"
    if faults := with_it.faults or without.faults:
        return _target(name, text, f"not valid: {faults}", None)
    one, two = with_it.latency_us["p99"], without.latency_us["p99"]
    memory = with_it.cost["merger"].resident_mb - without.cost["merger"].resident_mb
    said = f"{one / two:.2f}x ({one:,.0f} / {two:,.0f} us); merger {memory:+.0f} MB"
    return _target(name, text, said, one <= 1.25 * two)


OTHERS = ((CALLBACK, 1.5), (BACKEND, 4.0))


def _target(figure: str, target: str, value: str, is_met: bool | None, stretch: str = "") -> Target:
    return Target(figure=figure, target=target, stretch=stretch, value=value, is_met=is_met)


def _unknown(figure: str, target: str, stretch: str = "") -> Target:
    return _target(figure, target, "not measured", None, stretch)


def _ratio(
    report: Report,
    name: str,
    path: str,
    other: str,
    rate: float,
    figure: str,
    maximum: float,
    stretch: float | None = None,
) -> Target:
    """A figure of one path as a multiple of another's, under the same load."""
    name = f"{name}, against {other}"
    texts = f"≤ {maximum:g}x", "" if stretch is None else f"≤ {stretch:g}x"
    one, two = (report.run("latency", each, rate) for each in (path, other))
    value, beneath = (run.figure(figure) if run is not None else None for run in (one, two))
    if not value or not beneath:
        return _unknown(name, *texts)
    assert one is not None, "it has a figure"
    assert two is not None, "it has a figure"
    # What an alternative loses is its own affair; a faulty run of ours or of the floor proves nothing.
    if faults := one.faults or (two.faults if other == FLOOR else ""):
        return _target(name, texts[0], f"not valid: {faults}", None, texts[1])
    ratio = value / beneath
    said = f"{ratio:.2f}x ({value:,.4g} / {beneath:,.4g} us)" + ("; it lost some" if two.problems else "")
    target = _target(name, texts[0], said, ratio <= maximum, texts[1])
    target.is_stretch_met = None if stretch is None else ratio <= stretch
    return target


def _ceiling(report: Report, path: str, other: str, minimum: float) -> Target:
    name = f"ceiling{', batch endpoint' if path == BATCHES else ''}, against {other}; bursts in brackets"
    one, two = report.ceilings.get(path), report.ceilings.get(other)
    if one is None or two is None or not two.rate:
        return _unknown(name, f"≥ {minimum:g}x")
    ratios = [one.rate / two.rate] + ([one.burst_rate / two.burst_rate] if two.burst_rate else [])
    said = f"{ratios[0]:.2f}x" + (f" ({ratios[1]:.2f}x)" if len(ratios) > 1 else "")
    said += f": {one.rate:,.0f} / {two.rate:,.0f} a second"
    return _target(name, f"≥ {minimum:g}x", said, min(ratios) >= minimum)


def _ends(report: Report) -> tuple[Run, Run] | None:
    runs = [run for run in report.symbols if run.path == OURS]
    return (runs[0], runs[-1]) if len(runs) > 1 else None


def _symbols(report: Report) -> Target:
    ends = _ends(report)
    if ends is None:
        return _unknown("CPU with many symbols against few", "≤ 1.15x")
    few, many = ends
    name = f"CPU with {many.symbols:,} symbols against {few.symbols}"
    ratio = many.cpu_us / few.cpu_us
    return _target(name, "≤ 1.15x", f"{ratio:.2f}x ({many.cpu_us:.1f} / {few.cpu_us:.1f} us)", ratio <= 1.15)


def _memory(report: Report) -> Target:
    ends = _ends(report)
    if ends is None:
        return _unknown("memory of a process", f"< {MEMORY_MB_MAX:g} MB")
    run = ends[1]
    said = ", ".join(
        f"{role} {cost.resident_mb:.0f} MB" for role, cost in run.cost.items() if role != "subscriber"
    )
    is_met = all(cost.resident_mb < MEMORY_MB_MAX for role, cost in run.cost.items() if role != "subscriber")
    return _target(
        f"memory of a process with {run.symbols:,} symbols", f"< {MEMORY_MB_MAX:g} MB", said, is_met
    )


def _flat(report: Report) -> Target:
    soak = report.soak
    if soak is None:
        return _unknown("memory over a long run", "flat, nothing lost")
    if min(map(len, soak.memory_mb.values()), default=0) < SAMPLES_MIN:
        return _unknown(f"memory over {soak.messages:,} messages", "flat, nothing lost")
    growth = {role: (values[len(values) // 2], values[-1]) for role, values in soak.memory_mb.items()}
    said = ", ".join(
        f"{role} {a:.1f} → {b:.1f} MB" for role, (a, b) in growth.items() if role != "subscriber"
    )
    return _target(
        f"memory over {soak.messages:,} messages",
        "flat, nothing lost",
        f"{said}; {soak.lost} lost",
        soak.is_flat and not soak.lost,
    )


def _whole_exchange(report: Report) -> Sequence[Target]:
    run = report.whole_exchange
    if run is None:
        return [_unknown("feed with all symbols of an exchange", "< 1 core")]
    share = run.cost["feed"].cpu_us * run.rate / 1e6
    name = f"feed with {run.symbols:,} symbols at {run.rate:,.0f}/s"
    held_ms = (run.held_max_us or 0.0) / 1e3
    return [
        _target(f"CPU of a {name}", "< 1 core", f"{share:.2f} cores", share < 1 and not run.problems),
        _target(
            f"longest wait in a {name}",
            f"< {HELD_MS_MAX:g} ms",
            f"{held_ms:.1f} ms from receipt to publication",
            held_ms < HELD_MS_MAX and not run.problems,
        ),
    ]
