"""The configurations that come with the package."""

import re
import tomllib
from pathlib import Path

import pytest

from feedhandler import examples
from feedhandler.cli.main import main
from feedhandler.data.errors import ConfigError
from feedhandler.exchanges import EXCHANGES
from feedhandler.runtime import config

CONF = Path(__file__).parents[2] / "conf"


def test_a_checkout_has_the_same_files_in_conf():
    """Links, so that there is one of each."""
    assert {path.name for path in examples.FOLDER.glob("*.toml")} == {
        path.name for path in CONF.glob("*.toml")
    }
    for path in CONF.glob("*.toml"):
        assert path.resolve() == examples.FOLDER / path.name


def test_a_written_configuration_is_valid_and_of_the_real_exchanges(tmp_path):
    path = tmp_path / "new" / "mine.toml"
    examples.write(path)
    settings = config.load(str(path))
    assert not settings.simulated()
    assert settings == config.parse(examples.LIVE.read_text(), str(path))


def test_what_is_commented_out_is_valid_as_well():
    text = re.sub(r"^# (\[[\w.]+\]|\w+ = )", r"\1", examples.LIVE.read_text(), flags=re.MULTILINE)
    shown = tomllib.loads(text)
    assert {"run_dir", "merger", "gateway", "nats"} < set(shown)
    assert {"legs", "shards"} < set(shown["exchanges"]["binance"])
    settings = config.parse(text, "x")
    assert settings.exchange("binance").shards == 4
    assert set(settings.exchanges) == set(EXCHANGES)
    for name, exchange in EXCHANGES.items():
        offered = {kind for market in exchange.markets for kind in market.kinds}
        assert set(settings.exchange(name).kinds) <= offered, name
    assert {"BTC/USDT", "BTC/USDT:USDT"} < set(settings.exchange("okx").symbols)


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is there already, and stays as it is"):
        examples.write(path)
    assert path.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named():
    with pytest.raises(ConfigError, match=r"/proc/none/mine\.toml: cannot be written"):
        examples.write(Path("/proc/none/mine.toml"))


def test_the_demo_keeps_what_it_knows_apart():
    assert config.load(str(examples.DEMO)).run_dir != config.load(str(examples.LIVE)).run_dir


def test_the_demo_is_named_in_any_directory(tmp_path, monkeypatch, capsys):
    """Its file is somewhere in the package, and a wheel has no conf/."""
    monkeypatch.chdir(tmp_path)
    assert main(["token", "-c", "demo"]) != 0
    assert "run/demo/api-token" in capsys.readouterr().out


def test_a_file_of_that_name_is_meant_where_there_is_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text('run_dir = "mine"\n[exchanges.binance]\n')
    assert main(["token", "-c", "demo"]) != 0
    assert "mine/api-token" in capsys.readouterr().out
