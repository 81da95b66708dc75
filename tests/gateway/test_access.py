"""Who is let in: the token and its file, the names we are asked under, the pages that may ask."""

import pytest

from feedhandler.data.errors import ConfigError
from feedhandler.gateway.access import TOKEN_SIZE_MAX, Access, read_token, token_of, token_path
from feedhandler.runtime import config
from feedhandler.transport.files import Lock

TOKEN = "0123456789abcdef0123456789abcdef"


def settings(run_dir="run", gateway=""):
    return config.parse(f'run_dir = "{run_dir}"\n[exchanges.bybit]\n[gateway]\n{gateway}', "test.toml")


def access(gateway=""):
    return Access(settings(gateway=gateway).gateway, TOKEN)


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:8080", True),
        ("localhost:8080", True),
        ("LOCALHOST", True),
        ("[::1]:8080", True),
        ("127.0.0.1:9", True),  # a proxy before us
        ("", False),
        ("rebound.example", False),
        ("rebound.example:8080", False),
        ("127.0.0.1.rebound.example", False),
        ("localhost.rebound.example", False),
        ("rebound.example@127.0.0.1", True),  # what is before the @ is no host
        ("127.0.0.1@rebound.example", False),
        ("[::1", False),
        ("[::2]", False),
        ("0.0.0.0:8080", False),
    ],
)
def test_a_host_that_others_can_take_is_not_ours(host, is_ours):
    assert access().is_our_host({"Host": host}) == is_ours


@pytest.mark.parametrize(
    ("origin", "is_ours"),
    [
        (None, True),
        ("http://127.0.0.1:8080", True),
        ("http://localhost:3000", True),
        ("http://[::1]:8080", True),
        ("null", False),
        ("", False),
        ("http://evil.example", False),
        ("https://localhost.evil.example", False),
        ("file://localhost", False),
        ("chrome-extension://localhost", False),
        ("http://[", False),
    ],
)
def test_only_our_own_pages_may_ask(origin, is_ours):
    headers = {} if origin is None else {"Origin": origin}
    assert access().is_our_origin(headers) == is_ours


def test_beyond_loopback_the_configured_names_are_ours_and_those_of_loopback_are_not():
    outside = access('http = "0.0.0.0:8080"\nhosts = ["feeds.example"]')
    assert not outside.is_open
    assert outside.is_our_host({"Host": "feeds.example:8080"})
    assert not outside.is_our_host({"Host": "localhost:8080"})


@pytest.mark.parametrize(
    ("value", "is_it"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer  {TOKEN} ", True),
        (TOKEN, False),
        (f"Basic {TOKEN}", False),
        (f"Bearer {TOKEN[:-1]}", False),
        (f"Bearer {TOKEN}0", False),
        ("Bearer ", False),
        ("Bearer \udcff\u00e4", False),
        ("", False),
    ],
)
def test_the_whole_token_is_needed_and_nothing_breaks_its_comparison(value, is_it):
    assert access().is_authorized({"Authorization": value}) == is_it


def test_a_token_is_made_once_for_this_user_alone(tmp_path):
    token = token_of(settings(tmp_path / "run"), {})
    assert len(token) == 64
    assert token_path(tmp_path / "run").stat().st_mode & 0o777 == 0o600
    assert token_of(settings(tmp_path / "run"), {}) == token == read_token(tmp_path / "run")


@pytest.mark.parametrize("spoil", ["mode", "link", "short", "long", "bytes"])
def test_a_token_that_others_may_know_or_nobody_can_use_is_not_read_but_made_anew_and_told(
    tmp_path, spoil, caplog
):
    path = token_path(tmp_path)
    path.write_text(TOKEN)
    path.chmod(0o640 if spoil == "mode" else 0o600)
    if spoil == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif spoil != "mode":
        path.write_bytes({"short": b"a", "long": b"a" * (TOKEN_SIZE_MAX + 1), "bytes": b"\xff" * 3}[spoil])
    assert read_token(tmp_path) is None
    with Lock(str(tmp_path), "gateway"):  # which closes other files that are open
        assert token_of(settings(tmp_path), {}) not in (TOKEN, "a")
    assert not path.is_symlink()
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"{path}: ")
    assert told.endswith("another token is made, and takes its place")
    assert TOKEN not in told


def test_the_environment_is_first_and_a_token_that_can_be_guessed_is_refused(tmp_path):
    assert token_of(settings(tmp_path), {"FEEDHANDLER_API_TOKEN": TOKEN}) == TOKEN
    assert list(tmp_path.iterdir()) == []
    for bad in ("short", "ä" * 20, "a" * 20 + "\n"):
        with pytest.raises(ConfigError, match="FEEDHANDLER_API_TOKEN") as caught:
            token_of(settings(tmp_path), {"FEEDHANDLER_API_TOKEN": bad})
        assert bad not in str(caught.value)


def test_beyond_loopback_no_token_is_made_up(tmp_path):
    outside = settings(tmp_path, 'http = "0.0.0.0:8080"\nhosts = ["feeds.example"]')
    with pytest.raises(ConfigError, match="FEEDHANDLER_API_TOKEN is not set"):
        token_of(outside, {})
