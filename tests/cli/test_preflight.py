"""What a configuration needs of this machine is asked for before anything is started."""

import subprocess
import sys

import pytest
from loopback import free_ports
from patience import PATIENCE_S

from feedhandler.cli import preflight
from feedhandler.data.errors import ConfigError
from feedhandler.runtime import config

BRIDGE = '[nats]\nservers = ["tls://127.0.0.1:4222"]\n'


def text(folder, more=""):
    ticks, gateway = free_ports(2)
    return (
        f'run_dir = "{folder}/run"\n[exchanges.binance]\n[merger]\nticks = ["tcp://127.0.0.1:{ticks}"]\n'
        f'[relay]\nrecover = ["ipc://{folder}/recover.ipc"]\n[gateway]\nhttp = "127.0.0.1:{gateway}"\n{more}'
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("cpus = [1023]\n", r"x.toml: gateway.cpus: \[1023\] are not there; this machine lets us use"),
        ('[nats]\ncredentials = "gone.creds"\n', "x.toml: nats.credentials: gone.creds cannot be read"),
        (BRIDGE + 'tls_ca = "gone.pem"\n', "x.toml: nats.tls_ca: gone.pem cannot be read as certificates"),
        ('[curve]\nkey = "gone.key_secret"\n', "x.toml: curve.key: gone.key_secret: no such file"),
        ('[curve]\nserver = "gone.key"\n', "x.toml: curve.server: gone.key: no such file"),
        (
            '[recorder]\ndirectory = "/dev/null/x"\n',
            "x.toml: recorder.directory: cannot write to /dev/null/; set another directory",
        ),
        ("[recorder]\ncpus = [1023]\n", r"x.toml: recorder.cpus: \[1023\] are not there"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, more, message):
    with pytest.raises(ConfigError, match=message):
        preflight.check(config.parse(text(tmp_path, more), "x.toml"))


LOADED = """
import sys
from feedhandler.cli import preflight
from feedhandler.runtime import config
preflight.check(config.parse(sys.stdin.read(), "x.toml"))
print([name for name in sys.modules if name.partition(".")[0] == "nats"])
"""


@pytest.mark.e2e
def test_looking_at_a_bridge_does_not_load_its_library(tmp_path):
    command = [sys.executable, "-c", LOADED]
    settings = text(tmp_path, BRIDGE)
    done = subprocess.run(
        command, input=settings, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout == "[]\n"


def test_a_directory_of_keys_that_is_not_there_yet_is_an_empty_one(tmp_path):
    """As documented: it is named, and the first key that is let in makes it."""
    preflight.check(config.parse(text(tmp_path, f'[curve]\nclients = "{tmp_path}/clients"\n'), "x.toml"))


@pytest.mark.e2e
def test_the_command_ends_with_status_2_and_names_the_file(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(text(tmp_path, '[nats]\ncredentials = "gone.creds"\n'), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "feedhandler", "check", "-c", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "nats.credentials: gone.creds cannot be read" in done.stderr
