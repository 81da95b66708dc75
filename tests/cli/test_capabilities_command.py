"""`feedhandler capabilities`: for people, for programs, and for docs/exchanges.md."""

from pathlib import Path

import msgspec
import pytest

from feedhandler.cli import capabilities, main
from feedhandler.data.errors import EXIT_CONFIG
from feedhandler.exchanges import EXCHANGES

PAGE = Path(__file__).parents[2] / "docs" / "exchanges.md"
KINDS = [(e.name, m.name, kind) for e in EXCHANGES.values() for m in e.markets for kind in m.kinds]


def test_json_has_a_row_for_each_exchange_market_and_kind(capsys):
    assert main.main(["capabilities", "--json"]) == 0
    rows = msgspec.json.decode(capsys.readouterr().out)
    assert [(row["exchange"], row["market"], row["kind"]) for row in rows] == KINDS
    assert all(row["channels"] and row["pace"] and row["gaps"] and row["unproven"] for row in rows)


def test_people_get_tables_that_fit_a_terminal(capsys):
    assert main.main(["capabilities"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    assert len([line for line in lines if line.startswith("kind ")]) == sum(
        len(exchange.markets) for exchange in EXCHANGES.values()
    )


@pytest.mark.parametrize("name", EXCHANGES)
def test_one_exchange_may_be_named(name, capsys):
    assert main.main(["capabilities", name, "--json"]) == 0
    assert {row["exchange"] for row in msgspec.json.decode(capsys.readouterr().out)} == {name}


def test_what_liquidations_leave_out_is_said(capsys):
    rows = capabilities.rows(list(EXCHANGES.values()))
    said = [row["unproven"] for row in rows if row["kind"] == "liquidation"]
    assert said
    assert all("missing" in text or "how many" in text for text in said)
    (okx,) = (row for row in rows if (row["exchange"], row["kind"]) == ("okx", "liquidation"))
    assert okx["left_out"] == "all but one a second and contract"
    assert f"; left out: {okx['left_out']} |" in PAGE.read_text(encoding="utf-8")
    assert main.main(["capabilities", "okx"]) == 0
    assert "; left out: all" in capsys.readouterr().out


def test_the_page_is_current():
    text = PAGE.read_text(encoding="utf-8")
    assert capabilities.page(text, list(EXCHANGES.values())) == text, "run: make capabilities"


def test_a_page_without_marks_is_refused_and_left_as_it_is(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("nothing\n", encoding="utf-8")
    assert main.main(["capabilities", "--markdown", str(page)]) == EXIT_CONFIG
    error = capsys.readouterr().err
    assert str(page) in error
    assert "marks" in error
    assert page.read_text(encoding="utf-8") == "nothing\n"


@pytest.mark.parametrize(
    "make", [lambda page: None, lambda page: page.mkdir(), lambda page: page.write_bytes(b"\xff")]
)
def test_a_page_that_cannot_be_read_is_named(make, tmp_path, capsys):
    page = tmp_path / "page.md"
    make(page)
    assert main.main(["capabilities", "--markdown", str(page)]) == EXIT_CONFIG
    assert f"feedhandler: {page}: " in capsys.readouterr().err
