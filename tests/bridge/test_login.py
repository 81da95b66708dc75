"""What is refused before a connection to NATS is tried."""

import subprocess
import sys

import pytest
from patience import PATIENCE_S

from feedhandler.bridge.login import check_credentials, check_secrets
from feedhandler.data.errors import ConfigError
from feedhandler.runtime.settings import NATS_ENV, NatsConfig

USER, PASSWORD, TOKEN = NATS_ENV
FAR, FAR_TLS = ("nats://nats.example:4222",), ("tls://nats.example:4222",)


@pytest.mark.parametrize(
    ("settings", "secrets", "message"),
    [
        ({}, {USER: "u"}, f"{USER} and {PASSWORD} go together"),
        ({}, {USER: "u", PASSWORD: "p", TOKEN: "t"}, "two ways to log in"),
        ({"credentials": "x.creds"}, {TOKEN: "t"}, f"x: nats.credentials: is set, and so is {TOKEN}"),
        ({"servers": FAR}, {TOKEN: "hunter2"}, "nats://nats.example:4222 would get .* in the clear"),
        ({"servers": (*NatsConfig().servers, *FAR)}, {TOKEN: "hunter2"}, "in the clear"),
    ],
)
def test_secrets_that_do_not_go_together_or_would_be_read_by_others_are_refused(settings, secrets, message):
    with pytest.raises(ConfigError, match=message) as refused:
        check_secrets(NatsConfig(**settings), secrets, "x: nats")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("servers", "secrets"),
    [(FAR_TLS, {TOKEN: "t"}), (FAR, {}), (("nats://localhost:4222", "nats://[::1]:4222"), {TOKEN: "t"})],
)
def test_other_secrets_are_taken(servers, secrets):
    check_secrets(NatsConfig(servers=servers), secrets, "x: nats")


def test_a_file_that_has_no_credentials_is_refused(tmp_path):
    path = tmp_path / "x.creds"
    with pytest.raises(ConfigError, match=r"nats.credentials: .*x.creds cannot be read"):
        check_credentials(NatsConfig(credentials=str(path)), "nats")
    path.write_text("secret", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no credentials file as `nsc` writes it"):
        check_credentials(NatsConfig(credentials=str(path)), "nats")


WITHOUT_NATS = (
    "import sys; sys.modules['nats'] = None; from feedhandler.cli.main import main; sys.exit(main())"
)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("table", "command", "message"),
    [
        ("", ["-m", "feedhandler"], "nats: there is no such table; add [nats]"),
        ("[nats]\n", ["-c", WITHOUT_NATS], "-m pip install 'feedhandler[nats]'` installs it"),
    ],
)
def test_the_command_says_what_to_configure_and_what_to_install(tmp_path, table, command, message):
    path = tmp_path / "x.toml"
    path.write_text(f'run_dir = "{tmp_path}/run"\n[exchanges.binance]\n{table}', encoding="utf-8")
    arguments = [sys.executable, *command, "bridge", "nats", "-c", str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
