"""The page: complete in itself, and made of the same figures as the tables."""

import re
from html.parser import HTMLParser

import msgspec
import pytest
from example import P50_US, PATHS, report, run

from bench.report import PathInfo, Report
from bench.terminal import sheets

pytest.importorskip("plotly")
from bench import page


class Outline(HTMLParser):
    """What the page has: its tags, and all that they would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    return found


def figures(text: str) -> dict:
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    return msgspec.json.decode(data[1])["figures"]


def test_the_page_fetches_nothing_and_has_the_library_once() -> None:
    found = outline(page.render(report()))
    assert all(link.startswith("#") for link in found.fetched)
    assert {link[1:] for link in found.fetched} <= set(found.ids)
    assert found.tags.count("script") == 3 and "link" not in found.tags


def test_every_table_is_in_the_page() -> None:
    text = page.render(report())
    with_rows = [sheet for sheet in sheets(report()) if sheet.rows]
    assert outline(text).tags.count("table") == len(with_rows)
    assert "NOT MET" in text and "absent is not installed" in text


def test_every_run_is_in_the_plot_of_latency() -> None:
    steady, bursts = figures(page.render(report()))["latency"]
    assert (steady["label"], bursts["label"]) == ("steady", "bursts of 50, 1,000/s")
    first = {trace["name"]: trace for trace in steady["data"] if trace["xaxis"] == "x"}
    assert {name: trace["y"] for name, trace in first.items()} == {n: [v, v] for n, v in P50_US.items()}


def test_a_run_with_problems_is_drawn_and_crossed() -> None:
    latency = [run("floor"), run("floor", 5000.0), run(), run(rate=5000.0, problems=["lost 3"])]
    (steady,) = figures(page.render(report(latency=latency)))["latency"]
    (ours,) = [each for each in steady["data"] if each["name"] == "feedhandler" and each["xaxis"] == "x"]
    assert ours["marker"]["symbol"] == ["circle", "x"] and "lost 3" in ours["customdata"][1][1]


def test_bars_against_the_floor_begin_at_one() -> None:
    p50, *_ = figures(page.render(report()))["ratios"]
    ours = p50["data"][0]
    assert ours["name"] == "feedhandler" and ours["text"] == ["1.20x"] * 3
    assert ours["y"] == pytest.approx([0.263] * 3, abs=1e-3)  # log2


def test_every_colour_name_is_in_both_themes() -> None:
    text = page.render(report())
    names = set(re.findall(r'"@(\w+)"', msgspec.json.encode(figures(text)).decode()))
    assert names and names <= page.THEMES["light"].keys() == page.THEMES["dark"].keys()


def test_text_of_the_report_cannot_become_markup() -> None:
    wicked = "</script><script>alert(1)</script>"
    it = report(
        host={"processor": wicked},
        paths=PATHS | {"absent": PathInfo(wicked, wicked, is_ours=False, note=wicked)},
        latency=[run("floor"), run("floor", 5000.0), run(problems=[wicked]), run(rate=5000.0)],
    )
    text = page.render(it)
    assert "<script>alert" not in text
    assert outline(text).tags.count("script") == 3


def test_an_empty_report_has_a_page_without_plots() -> None:
    text = page.render(Report(date="", mode="full", seconds=0.0))
    assert figures(text) == {}
