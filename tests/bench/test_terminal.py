"""The tables: every run is in them, losing ones too, and they can be piped."""

import io

import msgspec
import pytest
from example import P50_US, PERPETUALS, report, run
from rich.console import Console

from bench.report import Report, Target
from bench.terminal import PIPED_WIDTH, Sheet, console_for_tables, duration, sheets, show, times, verdict


def text(it: Report, width: int = PIPED_WIDTH) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(it, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def sheet(it: Report, section: str, number: int = 0) -> Sheet:
    return [each for each in sheets(it) if each.section == section][number]


def test_every_row_has_a_cell_for_every_column() -> None:
    for each in sheets(report()):
        for row in each.rows:
            assert len(row.cells) == len(each.columns), each.section


def test_every_path_is_in_the_table_of_every_load_in_the_order_of_the_report() -> None:
    tables = [each for each in sheets(report()) if each.section == "Latency and cost"]
    assert [each.title.split(",")[:2] for each in tables] == [
        ["1", "000/s steady"],
        ["5", "000/s steady"],
        ["1", "000/s in bursts of 50"],
    ]
    for each in tables:
        assert [row.cells[0] for row in each.rows] == list(P50_US)


def test_a_row_has_percentiles_cost_and_ratios() -> None:
    row = sheet(report(), "Latency and cost").rows[1]
    assert row.cells == (
        *("feedhandler", "120 us", "240 us", "360 us", "480 us", "600 us", "1.20x", "1.20x"),
        *("18.0", "1.20x", "2.00", "70"),
    )


def test_a_run_with_problems_keeps_its_row_and_says_why() -> None:
    it = report(latency=[run("floor"), run(problems=["lost 3 of 1,000"])])
    table = sheet(it, "Latency and cost")
    assert table.rows[1].cells[:2] == ("feedhandler !", "120 us") and table.rows[1].tone == "bad"
    assert "! feedhandler: lost 3 of 1,000" in table.notes
    assert sheet(it, "Problems").notes == ["! 1 of 17 runs have problems"]


def test_a_ratio_to_a_floor_with_problems_is_marked() -> None:
    it = report(latency=[run("floor", is_valid=False), run()])
    assert sheet(it, "Latency and cost").rows[1].cells[6] == "1.20x?"


def test_a_path_without_a_run_is_shown_as_such_and_a_skipped_one_with_why() -> None:
    it = report(latency=[run("floor"), run()])
    assert sheet(it, "Latency and cost").rows[2].cells[:2] == ("other", "-")
    assert sheet(it, "What was measured", 1).rows[3].cells[2] == "not measured: absent is not installed"


@pytest.mark.parametrize(
    ("is_met", "is_stretch_met", "said"),
    [
        (True, True, "met, stretch too"),
        (True, False, "met, stretch not"),
        (True, None, "met"),
        (False, False, "NOT MET"),
        (None, None, "not judged"),
    ],
)
def test_what_came_of_a_target_is_said_plainly(
    is_met: bool | None, is_stretch_met: bool | None, said: str
) -> None:
    assert verdict(Target("", "", "", "", is_met, is_stretch_met)) == said


def test_lost_messages_and_growing_memory_are_bad_news() -> None:
    it = report()
    assert it.soak is not None
    it.soak.lost, it.soak.is_flat = 7, False
    assert sheet(it, "Soak").notes == ["! 7 messages were lost", "! memory grows"]


def test_piped_tables_have_no_escapes_and_fit(capsys: pytest.CaptureFixture[str]) -> None:
    show(report(), console_for_tables())
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= PIPED_WIDTH


@pytest.mark.long
def test_a_narrow_terminal_loses_no_figure() -> None:
    wide, narrow = text(report()), text(report(), width=60)
    for line in wide.splitlines():
        if line.startswith("feedhandler ") and " us" in line:
            assert line.rstrip() in narrow


def test_an_empty_report_can_be_shown() -> None:
    assert "none in 0 runs" in text(Report(date="", mode="full", seconds=0.0))


@pytest.mark.parametrize(
    ("us", "said"),
    [
        (None, "-"),
        (4.26, "4.3 us"),
        (9_870, "9,870 us"),
        (12_345, "12.3 ms"),
        (999_999, "1000 ms"),
        (1_234_567, "1.23 s"),
    ],
)
def test_durations_have_sensible_units(us: float | None, said: str) -> None:
    assert duration(us) == said


def test_ratios_are_multiples() -> None:
    assert [times(ratio) for ratio in (None, 0.5, 1.044, 12.3)] == ["-", "0.50x", "1.04x", "12x"]


def test_perpetuals_have_cost_traffic_memory_and_start() -> None:
    costs, traffic, memory, start = (each for each in sheets(report()) if each.section == "Perpetuals")
    assert costs.title == "500 perpetuals of bybit in all kinds"
    assert costs.rows[0].cells == (
        *("300/s", "2,000", "2,000", "300 us", "2,000 us", "5,000 us"),
        *("0.20", "0.05", "0.30", "125.0"),
    )
    assert traffic.rows[0].cells == ("300/s", "1,200", "800", "20%", "2.5", "6.0", "40", "0.4 ms")
    assert memory.rows[0].cells == ("300/s", "74 (60)", "80 (48)", "154 (108)")
    assert start.rows[0].cells == (
        *("bybit", "500", "3,000", "6", "2.0 s", "3.0 s", "1.5 s"),
        *("0.7 s", "0.0 s"),
    )


def test_what_is_wrong_with_perpetuals_is_said_below_their_table() -> None:
    them = [msgspec.structs.replace(PERPETUALS, problems=["3 books are not valid at the subscriber"])]
    notes = sheet(report(perpetuals=them), "Perpetuals").notes
    assert notes == ["! 300/s: 3 books are not valid at the subscriber"]
