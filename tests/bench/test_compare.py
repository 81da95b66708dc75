"""Two reports compared: what changed beyond noise, what may not be compared, and when the gate closes."""

from pathlib import Path

import pytest
from example import PERPETUALS, PERPETUALS_START, report, run
from msgspec import structs

from bench.compare import judge, main, pairs, sheets, warnings
from bench.report import Cost, Report, save


def slower(factor: float, path: str = "feedhandler") -> Report:
    """Return a report in which one path takes longer at every load."""
    it = report()
    for _, each in it.all_runs():
        if each.path == path:
            each.latency_us = {name: value * factor for name, value in each.latency_us.items()}
    return it


@pytest.fixture
def compare(tmp_path: Path):
    """Return a function that compares two reports as the command does."""

    def command(a: Report, b: Report, *arguments: str) -> int:
        save(a, tmp_path / "a.json")
        save(b, tmp_path / "b.json")
        return main([str(tmp_path / "a.json"), str(tmp_path / "b.json"), *arguments])

    return command


def test_runs_are_compared_under_the_same_load_only() -> None:
    a, b = report(), report(latency=[run(rate=1000.0), run(rate=7000.0)])
    there = [pair.b for pair in pairs(a, b) if pair.section == "latency"]
    assert there == [b.latency[0]]
    assert "1 run only in B, not shown" in warnings(a, b)


@pytest.mark.long
def test_a_change_beyond_noise_is_marked() -> None:
    def row(factor: float) -> list[str]:
        return list(sheets(report(), slower(factor))[0].rows[1].cells)

    assert row(1.5)[:4] == ["feedhandler", "120 us", "180 us", "▲1.50x"]
    assert row(0.5)[3] == "▼0.50x"
    assert row(1.05)[3] == "1.05x"
    assert row(1.5)[9] == "1.00x" and row(1.5)[10:] == ["▲1.50x", "▲1.50x", "1.00x"]


def test_a_machine_that_is_slower_altogether_changes_no_ratio() -> None:
    b = slower(2.0)
    for _, each in b.all_runs():
        if each.path == "floor":
            each.latency_us = {name: value * 2 for name, value in each.latency_us.items()}
    cells = list(sheets(report(), b)[0].rows[1].cells)
    assert cells[3] == "▲2.00x" and cells[10:12] == ["1.00x", "1.00x"]


def test_another_host_version_or_mode_is_warned_of() -> None:
    other = report(mode="full", host={"processor": "another CPU", "cores": "2", "picows": "3.0"})
    assert warnings(report(), other) == [
        "A is a quick bench, B a full one",
        "host differ in processor: some CPU / another CPU",
        "host differ in picows: - / 3.0",
    ]
    assert warnings(report(), report()) == []


def test_without_a_limit_nothing_fails(compare, capsys) -> None:
    assert compare(report(), slower(9.0)) == 0
    assert "▲9.00x" in capsys.readouterr().out


def test_perpetuals_are_compared_where_both_had_the_same() -> None:
    slow = structs.replace(
        PERPETUALS, latency_us={"p50": 450.0}, resident_mb={"feed": 200.0, "merger": 108.0}
    )
    late = structs.replace(PERPETUALS_START, live_s={"ticker": 2.0, "book": 6.0}, problems=["refused"])
    b = report(perpetuals=[structs.replace(PERPETUALS, busiest_per_s=1.0), slow], perpetual_starts=[late])
    loads, starts = (each for each in sheets(report(), b) if each.section == "perpetuals")
    (row,) = loads.rows
    assert list(row.cells) == [
        "bybit, 500, 300/s",
        *("300 us", "450 us", "▲1.50x"),
        *("2,000 us", "-", "-"),
        *("125.0", "125.0", "1.00x"),
        *("154", "308", "▲2.00x"),
    ]
    assert [list(each.cells) for each in starts.rows] == [
        ["bybit, 500: ticker", "2.0 s", "2.0 s", "1.00x"],
        ["bybit, 500: book", "3.0 s", "6.0 s", "▲2.00x"],
    ]
    assert starts.rows[0].tone == "bad"


@pytest.mark.long
def test_our_ratio_above_the_limit_fails(compare, capsys) -> None:
    assert compare(report(), slower(1.3), "--fail-above", "1.2") == 1
    assert "p50 ÷floor grew 1.30x" in capsys.readouterr().out
    assert compare(report(), slower(1.15), "--fail-above", "1.2") == 0


def test_others_may_become_slower(compare) -> None:
    assert compare(report(), slower(5.0, "other"), "--fail-above", "1.2") == 0


def test_dearer_in_cpu_fails_too() -> None:
    b = report()
    for each in b.latency:
        if each.path == "feedhandler":
            each.cost = {"feed": Cost(99.0, 1.0, 1.0)}
    assert any("cpu ÷floor" in line for line in judge(report(), b, 1.2).worse)


def test_a_run_that_now_loses_messages_is_worse() -> None:
    b = report(latency=[run("floor"), run(problems=["lost 3"])])
    assert [line for line in judge(report(), b, 9.0).worse if line.endswith("lost 3")]


def test_a_late_generator_says_nothing_either_way() -> None:
    b = slower(9.0)
    for _, each in b.all_runs():
        each.is_valid = False
    assert judge(report(), b, 1.2).worse == []


def test_a_gate_that_could_judge_nothing_does_not_open(compare, capsys) -> None:
    parts = {"latency": [run()], "symbols": [], "subscribers": [], "feeds": [], "kinds": []}
    assert compare(report(**parts), report(**parts), "--fail-above", "1.2") == 2
    assert "nothing of ours could be judged" in capsys.readouterr().err


def test_reports_that_share_no_load_say_so(compare, capsys) -> None:
    nothing = Report(date="", mode="quick", seconds=1.0)
    assert compare(report(), nothing) == 0
    assert "no load that both reports measured" in capsys.readouterr().out


def test_a_bad_file_is_one_message_and_status_2(tmp_path: Path, capsys) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("[]")
    assert main([str(bad), str(tmp_path / "missing.json")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and str(bad) in err


@pytest.mark.parametrize("factor", ["0.5", "nan", "inf", "much"])
def test_a_limit_that_makes_no_sense_is_refused(tmp_path: Path, factor: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["a", "b", "--fail-above", factor])
    assert caught.value.code == 2


def test_the_comparison_fits_where_it_is_piped_to(compare, capsys) -> None:
    compare(report(), slower(1.5))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 120
