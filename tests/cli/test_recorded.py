"""`feedhandler captures decode`: what is printed, and the exit status."""

import json

import pytest
from captured import BINANCE, base, changes, opened, quote, received

from feedhandler.cli.main import main
from feedhandler.exchanges import EXCHANGES

RIGHT = [base(100), opened(BINANCE), received(changes(101, 101, [("10", "2")])), received({})]


def run(capsys, tmp_path, *contents, options=()):
    paths = []
    for number, lines in enumerate(contents):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(lines))
        paths.append(str(path))
    status = main(["captures", "decode", *paths, *options])
    return status, *capsys.readouterr()


def test_a_file_is_told_by_market_and_symbol(capsys, tmp_path):
    status, out, err = run(capsys, tmp_path, RIGHT)
    assert (status, err) == (0, "")
    assert "binance spot: 2 frames" in out
    assert "1 frame undecodable" in out
    assert "2026-09-21 14:13:20 binance: message of no known kind: '{}'" in out
    row = out.splitlines()[-1].split()
    assert row == ["BTCUSDT", "1", "0", "1", "0", "0", "0", "0", "valid"]


@pytest.mark.parametrize(
    "wrong",
    [changes(102, 102, [("12", "1")]), quote(101, "10", "3", "11", "1")],
    ids=["crossed", "disagrees"],
)
def test_a_book_that_is_wrong_is_status_1(capsys, tmp_path, wrong):
    status, _, _ = run(capsys, tmp_path, RIGHT, [*RIGHT, received(wrong)])
    assert status == 1


def test_what_cannot_be_read_is_status_2_and_the_other_files_are_read(capsys, tmp_path):
    status, out, err = run(capsys, tmp_path, ["no capture\n"], RIGHT)
    assert status == 2
    assert "is no recording in JSON lines" in err
    assert "binance spot" in out
    torn = [*RIGHT, received({})[:30] + "\n", received({})]
    status, out, err = run(capsys, tmp_path, torn)
    assert status == 2
    assert "line 5 cannot be read" in err


def test_an_interrupted_end_is_told_and_no_error(capsys, tmp_path):
    status, _, err = run(capsys, tmp_path, [*RIGHT, received({})[:30]])
    assert status == 0
    assert "cut short" in err


def test_an_empty_file_is_no_recording_and_a_directory_is_for_another_command(capsys, tmp_path):
    status, _, err = run(capsys, tmp_path, [])
    assert status == 2
    assert "it is empty\n" in err
    assert main(["captures", "decode", str(tmp_path)]) == 2
    assert "is a directory; `" in capsys.readouterr().err


def test_an_exchange_that_there_is_not_is_named(capsys, tmp_path):
    status, _, err = run(capsys, tmp_path, RIGHT, options=["--exchange", "kraken"])
    assert status == 2
    assert f"kraken: is none of {', '.join(EXCHANGES)}" in err


def test_other_peoples_markets_are_counted_and_no_error(capsys, tmp_path):
    lines = [opened("wss://ws.kraken.com/v2"), received({}), received({})]
    status, out, _ = run(capsys, tmp_path, lines)
    assert status == 0
    assert "ws.kraken.com, no exchange of ours: 2 frames, not decoded" in out


def test_json_has_everything(capsys, tmp_path):
    _, out, _ = run(capsys, tmp_path, RIGHT, options=["--json"])
    found = json.loads(out)
    assert found["markets"][0]["books"][0]["symbol"] == "BTCUSDT"
    assert found["is_right"] is True


def test_a_long_file_says_how_far_it_is(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("feedhandler.cli.recorded_files.PROGRESS_S", 0.0)
    status, _, err = run(capsys, tmp_path, [*RIGHT, *[received({})] * 1000])
    assert status == 0
    assert " frames" in err
    assert "%" in err
