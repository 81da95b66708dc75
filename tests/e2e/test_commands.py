"""The command line as a user meets it."""

import itertools
import json
import os
import socket
import subprocess

import pytest
from harness import MAJORS, PATIENCE_S, free_ports, wait_until

HEADER = {"topic", "kind", "flags", "session", "sequence", "exchange_ns", "recv_ns", "publish_ns"}
QUOTE = {"exchange_sequence", "last", "bid", "bid_size", "ask", "ask_size"}
STATISTICS = {"open_24h", "high_24h", "low_24h", "base_volume_24h", "quote_volume_24h"}


def test_tail_and_status_show_the_stream(stack):
    s = stack(exchanges=("binance", "bybit"))
    s.start()
    s.wait_live()
    tail = s.run(
        "tail", "--endpoint", s.endpoint, "--topic", "ticker.binance.BTC/USDT", "--json", "--count", "5"
    )
    records = [json.loads(line) for line in tail.stdout.splitlines()]
    assert tail.returncode == 0
    assert [set(record) for record in records] == [HEADER | QUOTE | STATISTICS] * 5
    assert {record["topic"] for record in records} == {"ticker.binance.BTC/USDT"}
    assert all("SIMULATED" in record["flags"] for record in records)

    other = s.run("tail", "--endpoint", s.endpoint, "--kind", "status", "--json", "--count", "2")
    assert {json.loads(line)["kind"] for line in other.stdout.splitlines()} == {"status"}
    exact = s.run("tail", "--endpoint", s.endpoint, "--topic", "ticker.bybit.XRP/USDT\\0", "--count", "3")
    assert exact.returncode == 0
    assert all(" ticker.bybit.XRP/USDT #" in line for line in exact.stdout.splitlines())

    table = s.run("status", "-c", str(s.config))
    assert table.returncode == 0
    simulated, head, *exchanges = table.stdout.partition("\n\nprocess ")[0].splitlines()
    assert simulated == "SIMULATED data, of no real exchange: binance, bybit"
    assert head.split()[0] == "exchange"
    assert [line.split()[:2] for line in exchanges] == [["binance", "live"], ["bybit", "live"]]
    rows = [line.split() for line in table.stdout.partition("\nprocess ")[2].splitlines()[1:]]
    running = {"sim", "merger", "feed-binance", "feed-bybit", "relay"}
    assert {row[0] for row in rows if row[1] == "up"} == running
    assert {int(row[2]) for row in rows if row[1] == "up"} == {each.pid for each in s.processes.values()}
    assert [row[:3] for row in rows if row[1] == "down"] == [["gateway", "down", "-"]]
    check = s.run("status", "-c", str(s.config), "--check")
    assert (check.returncode, check.stdout) == (1, "degraded: gateway: does not run\n")
    check = s.run("status", "--endpoint", s.endpoint, "--check")
    assert (check.returncode, check.stdout) == (0, "ok: 2 exchanges\n"), "whose processes are not known"
    s.kill("bybit")
    down = wait_until(
        lambda: (c := s.run("status", "-c", str(s.config), "--check")).returncode == 2 and c, "the feed's end"
    )
    assert down.stdout.startswith("down: bybit: down: ")
    s.start("bybit")
    s.wait_live()
    status = s.status()
    assert status["exchanges"]["binance"]["topics"] == len(MAJORS)
    assert status["exchanges"]["binance"]["hop_lost"] == 0
    assert status["text"]["bybit"] == "live"


def test_commands_end_quietly_when_their_output_is_closed(stack):
    s = stack(exchanges=("bybit",))
    s.start()
    s.wait_live()
    for unbuffered, (arguments, lines, status) in itertools.product(
        ("", "1"),
        (
            (["tail", "-c", str(s.config)], 1, 0),
            (["tail", "-c", str(s.config), "--json"], 1, 0),
            (["status", "-c", str(s.config)], 0, 0),
            (["status", "-c", str(s.config), "--check"], 0, 1),
        ),
    ):
        with subprocess.Popen(
            [*s.command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        ) as process:
            try:
                assert [process.stdout.readline() for _ in range(lines)] != [b""]
                process.stdout.close()
                ended = process.wait(PATIENCE_S)
            finally:
                process.kill()
            assert (ended, process.stderr.read()) == (status, b""), arguments


def test_a_fault_is_ordered_by_command(stack):
    s = stack(exchanges=("bybit",))
    s.start()
    s.wait_live()
    listing = s.run("fault", "bybit", "-c", str(s.config))
    assert "stall" in listing.stdout
    assert s.run("fault", "bybit", "mute", "seconds=1", "-c", str(s.config)).returncode == 0
    assert s.run("fault", "bybit", "refuse", "how=503", "seconds=0.1", "-c", str(s.config)).returncode == 0
    nobody = s.run("fault", "bybit", "mute_symbol", "symbol=BTC/USDT", "-c", str(s.config))
    assert nobody.returncode == 2
    assert "did you mean BTCUSDT" in nobody.stderr
    wrong = s.run("fault", "bybit", "mut", "seconds=1", "-c", str(s.config))
    assert wrong.returncode == 2
    assert "mute" in wrong.stderr


def test_check_says_ok_and_what_is_configured(stack):
    s = stack()
    result = s.run("check", "-c", str(s.config))
    assert result.returncode == 0, result.stderr
    assert "kucoin: simulated, 5 symbols: BTC/USDT" in result.stdout


@pytest.mark.parametrize("key", ["merger.ticks", "exchanges.bybit.ws_url"])
def test_check_names_a_port_in_use(stack, key):
    s = stack(exchanges=("bybit",))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", s.ports["ticks" if key == "merger.ticks" else "bybit"]))
        holder.listen()
        result = s.run("check", "-c", str(s.config))
    assert result.returncode == 2
    assert f"test.toml: {key}: port " in result.stderr
    assert "in use" in result.stderr


def test_check_names_a_run_directory_that_cannot_be_written(stack):
    s = stack(exchanges=("bybit",))
    s.config.write_text(
        s.config.read_text().replace(f'run_dir = "{s.directory}/run"', 'run_dir = "/proc/nowhere"')
    )
    for command in ("check", "run", "merger"):
        result = s.run(command, "-c", str(s.config))
        assert result.returncode == 2
        assert "run_dir: cannot write to /proc" in result.stderr


def test_check_names_an_address_that_two_want(stack):
    s = stack(exchanges=("bybit", "binance"))
    s.config.write_text(s.config.read_text().replace(str(s.ports["binance"]), str(s.ports["bybit"])))
    result = s.run("check", "-c", str(s.config))
    assert result.returncode == 2
    assert (
        f"exchanges.binance.ws_url: port {s.ports['bybit']} is that of exchanges.bybit.ws_url"
        in result.stderr
    )


def test_a_second_configuration_cannot_take_over_the_ipc_addresses(stack):
    s = stack(exchanges=("bybit",))
    s.start("merger")
    s.reader(b"heartbeat.").read_until(lambda record: record.kind == 4, "the merger")
    other = s.directory / "other.toml"
    text = s.config.read_text().replace('/run"', '/run2"', 1)
    other.write_text(text.replace(str(s.ports["ticks"]), str(free_ports(1)[0])))
    for command in ("check", "merger"):
        result = s.run(command, "-c", str(other))
        assert result.returncode == 2
        assert "in use" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("tail", "--count", "20"),
        ("subscribe", "bybit", "XLM/TRY"),
        ("subscribe", "bybit", "XLM/TRY", "--kind", "trade"),
        ("run",),
    ],
)
def test_nobody_asks_for_what_was_missed_but_where_the_relay_is(stack, arguments):
    s = stack(exchanges=("bybit",))
    port = s.ports["ticks"] + 1  # where it is by default
    text = s.config.read_text()
    for name in [name for name, taken in s.ports.items() if taken == port]:
        (s.ports[name],) = free_ports(1)
        text = text.replace(str(port), str(s.ports[name]))
    s.config.write_text(text)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        if arguments[0] == "run":
            result = s.run("run", "-c", str(s.config), "--seconds", "1")
        else:
            s.start()
            s.wait_live()
            result = s.run(*arguments, "-c", str(s.config))
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert result.returncode == 0, result.stderr


def test_check_refuses_an_unknown_key_with_exit_2(stack):
    s = stack(extra="symbls = 1")
    for command in ("check", "merger", "run", "sim"):
        result = s.run(command, "-c", str(s.config))
        assert result.returncode == 2
        assert f'{s.config}: exchanges.binance.symbls: unknown key; did you mean "symbols"?' in result.stderr


def test_status_without_a_merger_says_so(stack):
    s = stack()
    result = s.run("status", "-c", str(s.config))
    assert result.returncode == 1
    assert "no merger answers" in result.stderr
    assert "merger" in result.stdout, "the processes, of which none runs"
    check = s.run("status", "-c", str(s.config), "--check")
    assert check.returncode == 2
    assert check.stdout.startswith("down: no merger answers; sim: does not run")
    balances = s.run("balances", "-c", str(s.config), "--check")
    assert balances.returncode == 2
    assert balances.stdout.startswith("down: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["tail", "--endpoint", "nonsense"], "is no ZeroMQ endpoint"),
        (["tail", "--count", "0"], "not a positive count"),
        (["tail", "--kind", "candle"], "invalid choice"),
        (["tail", "--kind", "trade", "--topic", "trade."], "not allowed with"),
        (["run", "-c", "x", "--seconds", "-1"], "not a positive number"),
        (["feed", "kraken", "-c", "x"], "binance"),
        (["check", "-c", "none.toml"], "no such file"),
        (["nonsense"], "invalid choice"),
        ([], "COMMAND"),
    ],
)
def test_wrong_arguments_end_with_2_and_one_clear_message(stack, arguments, text):
    result = stack().run(*arguments)
    assert result.returncode == 2
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_configuration_what_makes_one_is_named(stack, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    s = stack()
    result = s.run("feed", "binance", cwd=empty)
    assert result.returncode == 2
    assert "no conf/live.toml and no feedhandler.toml here" in result.stderr
    assert " init` writes one, -c FILE or FEEDHANDLER_CONFIG names another" in result.stderr
    assert s.run("init", cwd=empty).returncode == 0
    again = s.run("init", cwd=empty)
    assert again.returncode == 2
    assert "feedhandler.toml: is there already" in again.stderr


def test_the_file_of_the_directory_is_the_default_and_a_hint_names_another(stack):
    s = stack(exchanges=("bybit",))
    s.config.rename(s.directory / "feedhandler.toml")
    found = s.run("disconnect", "bybit", cwd=s.directory)
    assert found.returncode == 0, found.stderr
    assert " status` tells" not in found.stdout, "no feed runs"
    assert s.run("connect", "bybit", cwd=s.directory).returncode == 0
    nobody = s.run("status", "-c", "feedhandler.toml", cwd=s.directory)
    assert nobody.returncode == 1
    assert "feedhandler run -c feedhandler.toml` starts it" in nobody.stderr
    assert "feedhandler run` starts it" in s.run("status", cwd=s.directory).stderr


def test_tail_tells_why_nothing_comes_and_names_the_file_in_use(stack):
    s = stack(exchanges=("bybit",))
    s.processes["tail"] = s.popen("tail", "-c", str(s.config), log="tail")
    wait_until(lambda: "nothing has come in 3 s" in s.log("tail"), "the reason")
    assert f"feedhandler run -c {s.config}`" in s.log("tail")


def test_a_look_without_a_name_finds_what_runs_in_another_run_dir(stack):
    """As a demo does beside the configuration of production."""
    s = stack(exchanges=("bybit",))
    s.start("merger")
    other = s.config.read_text().replace(f"{s.directory}/run", "production")
    tcp, ipc = f'"{s.endpoint}"', '"ipc://production/ticks.ipc"'
    assert f"{tcp}, {ipc}" in other
    (s.directory / "feedhandler.toml").write_text(other.replace(f"{tcp}, {ipc}", f"{ipc}, {tcp}"))
    assert s.run("status", cwd=s.directory).returncode == 0
    named = s.run("status", "-c", "feedhandler.toml", cwd=s.directory)
    assert named.returncode == 1
    assert "no merger answers at ipc://production/ticks.ipc" in named.stderr


def test_a_real_exchange_is_sent_no_fault(stack, tmp_path):
    path = tmp_path / "real.toml"
    path.write_text("[exchanges.binance]\n", encoding="utf-8")
    result = stack().run("fault", "binance", "stall", "-c", str(path))
    assert result.returncode == 2
    assert "exchanges.binance: is neither simulated nor a recording" in result.stderr
