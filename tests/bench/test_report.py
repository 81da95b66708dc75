"""The report file: it comes back as it was, a wrong one says so, and ratios compare like with like."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
from example import histogram, report, run
from patience import PATIENCE_S

from bench.report import COMPARED, PERCENTILES, ReportError, load, save


def test_a_saved_report_loads_as_it_was(tmp_path: Path) -> None:
    save(report(), tmp_path / "report.json")
    assert load(tmp_path / "report.json") == report()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a report"),
        ("not json", "not a report"),
        ('{"date": "2026"}', "format"),
        ('{"format": 2, "all": "new"}', "format 2; this bench reads format 1"),
        ('{"format": 1}', "missing required field `date`"),
        ('{"format": 1, "date": "", "mode": "full", "seconds": 1, "latencies": []}', "latencies"),
        ('{"format": 1, "date": "", "mode": "slow", "seconds": 1}', "slow"),
        ('{"format": 1, "date": "\udcff"}', "not a report"),
    ],
)
def test_a_file_of_another_format_gets_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ReportError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and said in message and "\n" not in message


def test_a_file_that_is_not_there_is_an_error_of_the_same_kind(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="No such file"):
        load(tmp_path / "nowhere.json")


def test_a_figure_that_is_no_number_is_found_on_saving_and_the_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(ReportError, match=r"latency_us"):
        save(report(latency=[run(latency_us={"p50": math.nan})]), path)
    assert path.exists()


def test_a_run_adds_up_its_roles() -> None:
    it = run("floor")
    assert (it.cpu_us, it.switches, it.resident_mb) == (15.0, 2.0, 70.0)


def test_what_was_not_measured_is_none_not_zero() -> None:
    nothing = run(latency_us={}, cost={})
    assert [nothing.figure(name) for name in (*PERCENTILES, "cpu")] == [None] * 6


def test_a_run_is_found_by_section_path_and_load() -> None:
    it = report()
    assert it.run("latency", "other", 5000.0) is it.latency[5]
    assert it.run("latency", "other", 1000.0, 50) is it.latency[8]
    assert it.run("symbols", "feedhandler", 1000.0, symbols=100) is it.symbols[3]
    assert it.run("latency", "other", 1234.0) is None


def test_a_ratio_is_to_the_floor_under_the_same_load() -> None:
    it = report()
    for figure in COMPARED:
        assert it.ratio("latency", it.latency[1], figure) == pytest.approx(1.2)
    assert it.floor_of("symbols", it.symbols[3]) is it.symbols[2]


@pytest.mark.parametrize("change", ["rate", "burst", "symbols", "subscribers", "feeds"])
def test_a_floor_under_another_load_is_no_floor(change: str) -> None:
    ours = run()
    it = report(latency=[run("floor", **{change: getattr(ours, change) + 1}), ours])
    assert it.ratio("latency", ours, "p50") is None


def test_there_is_no_ratio_to_a_floor_that_measured_nothing() -> None:
    ours = run()
    it = report(latency=[run("floor", latency_us={"p99": 0.0}, cost={}), ours])
    assert [it.ratio("latency", ours, figure) for figure in COMPARED] == [None] * 3


def test_a_run_with_a_late_generator_is_at_fault_even_if_nothing_was_noted() -> None:
    assert run().faults == ""
    assert run(problems=["lost 1", "disorder"]).faults == "lost 1; disorder"
    assert run(is_valid=False).faults == "not valid: the generator was late"
    assert run(is_valid=False, problems=["late"]).faults == "not valid: late"


def test_a_curve_has_the_percentiles_that_the_count_suffices_for() -> None:
    it = run(histogram=histogram(list(range(1, 1001))))
    assert it.curve([50.0, 99.0, 99.9, 99.99]) == {50.0: 500.0, 99.0: 990.0, 99.9: 999.0}
    assert run(histogram="").curve([50.0]) == {}


def test_an_unreadable_histogram_says_whose_it_is() -> None:
    with pytest.raises(ReportError, match="feedhandler at 1000/s"):
        run(histogram="bm9uc2Vuc2U=").curve([50.0])


def test_reports_can_be_read_and_compared_without_plotly_or_numpy() -> None:
    program = (
        "import sys; sys.modules['plotly'] = sys.modules['numpy'] = None; "
        "import bench.report, bench.terminal, bench.compare"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=PATIENCE_S)
